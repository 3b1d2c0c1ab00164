// The list of what is wrong: the map's twin for keyboards and screen readers.
import {$, make} from './dom.js';
import {number, span, t} from './l10n.js';
import {isProblem, nameOf} from './states.js';

const SHOWN = 200;

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
  const rows = away.slice(0, SHOWN).map(c => row('stale', t('cabinet-stale', {id: c.id, age: span(c.age_s)})));
  for (let i = 0; i < state.length && rows.length < SHOWN; i++) {
    const byte = state[i] ?? 0;
    if (!isProblem(byte) || stale.has(lamps.cabinet[i] ?? '') || !shows(i, byte)) continue;
    const lamp = make('button', {type: 'button'}, lamps.id[i]);
    lamp.addEventListener('click', () => pick(i));
    rows.push(row(nameOf(byte), t(`state-${nameOf(byte)}`), lamp, lamps.street[i]));
  }
  if (!rows.length) rows.push(row('', t('all-well')));
  $('#problems tbody').replaceChildren(...rows);
  say(count(state));
}

/** @param {number} found */
function say(found) {
  const badge = $('#count'), said = $('#said'), words = t('problems-said', {count: found});
  badge.textContent = number(found);
  badge.classList.toggle('bad', found > 0);
  if (said.textContent !== words) said.textContent = words;
}

/** @param {string} kind @param {string} what @param {HTMLElement} [who] @param {string} [where] */
function row(kind, what, who, where) {
  const first = make('td', {className: kind && `what-${kind}`, colSpan: who ? 1 : 3}, kind ? `◆ ${what}` : what);
  return make('tr', {}, first, who && make('td', {}, who), who && make('td', {}, where));
}
