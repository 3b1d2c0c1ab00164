// The list of what is wrong, and since when: the map's twin for keyboards and screen readers.
import * as api from './api.js';
import {paced} from './clock.js';
import {words} from './details.js';
import {$, make} from './dom.js';
import {clock, number, span, t} from './l10n.js';
import {isProblem, nameOf} from './states.js';
import {kindOf, place} from './things.js';

/** @typedef {import('./types.js').Alarm} Alarm */

const SHOWN = 200, EVERY_MS = 5000;
/** @type {Alarm[]} those that stand and nobody has put aside */
let alarms = [];
/** When what is wrong with a thing began. @type {Map<string, string>} */
let since = new Map();
let drawn = '';

/** Ask for the alarms that stand. */
export const refresh = paced(EVERY_MS, async () => {
  const page = await api.get('/alarms?limit=500');
  // In a night with more than that the grave ones must not be among those left out.
  const grave = page.cursor === null ? [] : (await api.get('/alarms?severity=high&limit=500')).items;
  /** @type {Alarm[]} */
  const found = [...new Map([...grave, ...page.items].map((/** @type {Alarm} */ alarm) => [alarm.id, alarm])).values()];
  alarms = found.filter(alarm => alarm.cleared === null && alarm.state !== 'shelved');
  since = new Map(alarms.map(alarm => [alarm.object, alarm.raised]));
});

/** How many lamps have a problem: a plain loop, of a million lamps several times a second. @param {Uint8Array} state */
export function count(state) {
  let found = 0;
  for (let i = 0; i < state.length; i++) if (isProblem(state[i] ?? 0)) found++;
  return found;
}

/**
 * @param {import('./types.js').City} city @param {Uint8Array} state @param {import('./types.js').Controller[]} controllers
 * @param {(i: number, byte: number) => boolean} shows @param {(i: number) => void} pick
 */
export function show(city, state, controllers, shows, pick) {
  const away = controllers.filter(c => c.stale), stale = new Set(away.map(c => c.id)), lamps = city.luminaires;
  // What is not a lamp's comes first: floods, supply, breakers; a cabinet that is away has its own line.
  const others = alarms.filter(alarm => kindOf(alarm) !== 'luminaire' && alarm.code !== 'communicationFailure');
  const broken = [];
  for (let i = 0; i < state.length && broken.length < SHOWN; i++) {
    const byte = state[i] ?? 0;
    if (isProblem(byte) && !stale.has(lamps.cabinet[i] ?? '') && shows(i, byte)) broken.push(i);
  }
  say(count(state) + others.length);
  const key = JSON.stringify([t('problems'), others, away.map(c => [c.id, span(c.age_s)]), broken.map(i => [i, state[i], since.get(lamps.id[i] ?? '')])]);
  if (key === drawn) return;  // who walks through the list is not disturbed
  drawn = key;
  const rows = [...others.slice(0, SHOWN).map(alarmRow), ...away.slice(0, SHOWN).map(awayRow), ...broken.map(i => lampRow(lamps, i, state[i] ?? 0, pick))];
  const focused = document.activeElement?.getAttribute('data-lamp'), body = $('#problems tbody');
  body.replaceChildren(...rows.length ? rows : [make('tr', {}, make('td', {colSpan: 3}, t('all-well')))]);
  if (focused) /** @type {HTMLElement | null} */ (body.querySelector(`[data-lamp="${focused}"]`))?.focus();
}

/** @param {number} found */
function say(found) {
  const badge = $('#count'), said = $('#said'), text = t('problems-said', {count: found});
  badge.textContent = number(found);
  badge.classList.toggle('bad', found > 0);
  if (said.textContent !== text) said.textContent = text;
}

/** Since when, under what it belongs to. @param {string | undefined} at */
const began = at => at ? make('small', {}, t('since-when', {time: clock(Date.parse(at))})) : null;

/** @param {Alarm} alarm */
function alarmRow(alarm) {
  const what = make('td', {className: `severity-${alarm.severity}`}, `${alarm.severity === 'high' ? '▲' : '◆'} ${t(`alarm-${alarm.code}`)}`, alarm.detail ? words(alarm.detail) : null);
  return make('tr', {}, what, make('td', {}, place(alarm)), make('td', {}, alarm.cabinet || '–', began(alarm.raised)));
}

/** @param {import('./types.js').Controller} away */
const awayRow = away => make('tr', {}, make('td', {className: 'what-stale', colSpan: 2}, `◆ ${t('cabinet-stale', {id: away.id, age: span(away.age_s)})}`),
  make('td', {}, began(since.get(away.id))));

/** @param {import('./types.js').Lamps} lamps @param {number} i @param {number} byte @param {(i: number) => void} pick */
function lampRow(lamps, i, byte, pick) {
  const id = lamps.id[i] ?? '', name = nameOf(byte), lamp = make('button', {type: 'button', 'data-lamp': id}, id);
  lamp.addEventListener('click', () => pick(i));
  return make('tr', {}, make('td', {className: `what-${name}`}, `◆ ${t(`state-${name}`)}`), make('td', {}, lamp), make('td', {}, lamps.street[i], began(since.get(id))));
}
