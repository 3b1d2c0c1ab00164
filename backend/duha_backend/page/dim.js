// Dim or light by hand: whom, how much, until when, why; and what became of it.
import * as api from './api.js';
import {now} from './clock.js';
import {$, button, make} from './dom.js';
import {tell} from './errors.js';
import {clock, percent, t} from './l10n.js';

/**
 * @typedef {import('./types.js').Target} Target
 * @typedef {{id: string, target: Target, level: number, end: string, state: string, diverged: string[]}} Override
 */

const form = /** @type {HTMLFormElement} */ ($('#dim form')), list = $('#overrides');
const target = /** @type {HTMLSelectElement} */ ($('[name=target]', form));
const input = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ ($(`[name=${name}]`, form));
const level = input('level'), until = input('until'), reason = input('reason');
/** @type {{id: string, street: string} | null} */
let chosen = null;
/** @type {{id: string, name: string}[]} */
let groups = [];
/** @type {import('./types.js').City} */
let city;
let drawn = '';
/** How far overrides have got: as the stream says, and as they were last fetched. */
let current = -1, fetched = -2;

/** The stream says how far overrides have got; they are fetched again only when that changes. @param {number} number */
export function follow(number) { current = number; }

/** @param {import('./types.js').City} theCity */
export async function begin(theCity) {
  city = theCity;
  groups = await api.get('/groups');
  fillTargets();
  until.value = clock(now() + 2 * 3_600_000);
  level.addEventListener('input', showLevel);
  form.addEventListener('submit', send);
}

/** @param {{id: string, street: string}} luminaire */
export function choose(luminaire) {
  chosen = luminaire;
  fillTargets();
  target.value = JSON.stringify({kind: 'luminaire', id: luminaire.id});
}

export function relabel() {
  [drawn, fetched] = ['', -2];
  fillTargets();
  showLevel();
}

function showLevel() { $('output', form).textContent = percent(Number(level.value)); }

function targets() {
  /** @type {Target[]} */
  const found = [];
  if (chosen) found.push({kind: 'luminaire', id: chosen.id}, {kind: 'street', id: chosen.street});
  found.push(...city.cabinets.map(c => ({kind: 'cabinet', id: c.id})));
  found.push(...groups.map(g => ({kind: 'group', id: g.id})));
  found.push({kind: 'city', id: ''});
  return found;
}

/** @param {Target} target */
function name({kind, id}) {
  return t(`target-${kind}`, {id, name: groups.find(g => g.id === id)?.name ?? id});
}

function fillTargets() {
  const before = target.value;
  target.replaceChildren(...targets().map(one => new Option(name(one), JSON.stringify(one))));
  if ([...target.options].some(option => option.value === before)) target.value = before;
}

/** When the city's clock next shows HH:MM [ms]: to the minute, over a change of the clock, too. @param {string} time */
function next(time) {
  const minutes = (/** @type {string} */ text) => { const [h = 0, m = 0] = text.split(':').map(Number); return 60 * h + m; };
  const whole = Math.floor(now() / 60_000) * 60_000, wait = minutes(time) - minutes(clock(whole));
  const found = whole + 60_000 * (wait > 0 ? wait : wait + 24 * 60), off = minutes(time) - minutes(clock(found));
  return found + 60_000 * (Math.abs(off) > 720 ? off - Math.sign(off) * 1440 : off);
}

/** @param {SubmitEvent} event */
async function send(event) {
  event.preventDefault();
  const error = $('.error', form);
  error.hidden = true;
  try {
    await api.post('/overrides', {
      target: JSON.parse(target.value), level: Number(level.value), until: new Date(next(until.value)).toISOString(), reason: reason.value});
    await fetchAll();
  } catch (problem) {
    tell(error, problem).hidden = false;
  }
}

/** Fetch the overrides where they have changed. */
export async function refresh() { if (current !== fetched) await fetchAll(); }

async function fetchAll() {
  const number = current;
  /** @type {Override[]} */
  const found = await api.get('/overrides'), key = JSON.stringify(found);
  fetched = number;
  if (key === drawn) return;  // who is about to press a button is not disturbed
  drawn = key;
  list.replaceChildren(...found.slice(0, 20).map(line));
}

/** @param {Override} override */
function line(override) {
  const words = t('override-line', {target: name(override.target), level: percent(override.level), until: clock(Date.parse(override.end))});
  const item = make('li', {}, make('span', {}, words),
    make('b', {className: `state-${override.state}`}, t(`override-${override.state}`, {count: override.diverged.length})));
  if (['pending', 'applied', 'diverged'].includes(override.state)) {
    item.append(button(t('cancel'), async () => { await api.remove(`/overrides/${override.id}`); await fetchAll(); }));
  }
  return item;
}
