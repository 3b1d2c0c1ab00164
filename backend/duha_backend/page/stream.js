// The stream of ticks. It is opened again after whatever ended it: a proxy's 502, sleep, a lost network.
import * as api from './api.js';

const FIRST_PAUSE_MS = 1000, LONGEST_PAUSE_MS = 15_000;
/** A stream without a tick for this long is dead, whatever its state says [ms]. */
export const SILENCE_MS = 15_000;

/**
 * @typedef {{onTick: (tick: any, fresh: boolean) => void, onChange: () => void}} Listener
 */

/** @type {EventSource | null} */
let source = null;
/** @type {Listener} */
let listener = {onTick: () => {}, onChange: () => {}};
let pause = FIRST_PAUSE_MS, attempted = -Infinity, heard = -Infinity, fresh = false;

/** Start listening. `fresh` of a tick says that a new connection began with it. @param {Listener} theListener */
export function begin(theListener) {
  listener = theListener;
  open();
}

function open() {
  source?.close();
  attempted = performance.now();
  const mine = source = api.events();
  fresh = heard > 0;  // the first connection continues the state that was fetched before it
  mine.addEventListener('tick', event => {
    if (mine !== source) return;
    [heard, pause] = [performance.now(), FIRST_PAUSE_MS];
    listener.onTick(JSON.parse(event.data), fresh);
  });
  mine.onopen = () => { fresh = heard > 0; };  // the browser reconnected by itself
  mine.onerror = () => listener.onChange();
}

/** The state that `fresh` asked for has been fetched. */
export function resumed() { fresh = false; }

/** Whether ticks come. @returns {'live' | 'lost'} */
export function state() {
  return source?.readyState === EventSource.OPEN && performance.now() - heard <= SILENCE_MS ? 'live' : 'lost';
}

/** Open the stream again if it is closed or silent. Called every two seconds and when the network or the page comes back. @param {boolean} atOnce without waiting for the back-off */
export function watch(atOnce = false) {
  if (document.hidden || !dead()) return;
  if (!atOnce && performance.now() - attempted < pause) return;
  pause = Math.min(LONGEST_PAUSE_MS, 2 * pause);
  open();
}

function dead() {
  if (source === null || source.readyState === EventSource.CLOSED) return true;
  return performance.now() - Math.max(heard, attempted) > SILENCE_MS;
}

/** Close the stream: a hidden page lets go of it, since browsers allow few of them. */
export function close() {
  source?.close();
  source = null;
}
