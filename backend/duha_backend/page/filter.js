// Which lamps are shown: by district, by what they do, and by how old their readings are.
import * as api from './api.js';
import {now} from './clock.js';
import {$, choice, field} from './dom.js';
import {t} from './l10n.js';
import {HIDDEN} from './points.js';
import {isProblem} from './states.js';

const STATES = ['all', 'problems', 'lit', 'off'], AGES = ['any', '600', '3600', '86400'], AGE_EVERY_MS = 10_000;
const wanted = {district: '', state: 'all', age: 'any'};
/** @type {import('./types.js').City} */
let city;
let changed = () => {};
/** @type {number[]} */
let times = [];
let asked = -Infinity;

/** @param {import('./types.js').City} theCity @param {() => void} onChange */
export function begin(theCity, onChange) {
  [city, changed] = [theCity, onChange];
  label();
}

function told() {
  $('#filters').toggleAttribute('data-active', active());
  changed();
}

export const active = () => wanted.district !== '' || wanted.state !== 'all' || wanted.age !== 'any';

/** Whether a lamp is shown. @param {number} i @param {number} byte */
export function shows(i, byte) {
  if (wanted.district && city.luminaires.district[i] !== wanted.district) return false;
  if (wanted.age !== 'any' && now() - (times[i] ?? 0) < 1000 * Number(wanted.age)) return false;
  if (wanted.state === 'problems') return isProblem(byte);
  if (wanted.state === 'lit') return byte > 0 && byte <= 100;
  return wanted.state !== 'off' || byte === 0;
}

/** The bytes that are drawn, of those that are. @param {Uint8Array} state @param {Uint8Array} drawn */
export function apply(state, drawn) {
  drawn.set(state);
  if (!active()) return;
  for (let i = 0; i < state.length; i++) if (!shows(i, state[i] ?? 0)) drawn[i] = HIDDEN;
}

/** Ask for the ages, when they count. */
export async function refresh() {
  if (wanted.age === 'any' || performance.now() - asked < AGE_EVERY_MS) return;
  asked = performance.now();
  times = (await api.get('/latest/luminaire?columns=power_w')).columns.ts;
  changed();
}

/** The choices, in the language of now. */
export function label() {
  const districts = [...new Set(city.luminaires.district)].filter(Boolean).sort();
  const pick = async (/** @type {'district' | 'state' | 'age'} */ what, /** @type {string} */ value) => {
    wanted[what] = value;
    asked = -Infinity;
    await refresh();
    told();
  };
  $('#filter').replaceChildren(
    field(t('district'), choice(['', ...districts], wanted.district, name => name || t('district-all'), value => pick('district', value))),
    field(t('show'), choice(STATES, wanted.state, name => t(`show-${name}`), value => pick('state', value))),
    field(t('data-age'), choice(AGES, wanted.age, name => t(`age-${name}`), value => pick('age', value))));
}
