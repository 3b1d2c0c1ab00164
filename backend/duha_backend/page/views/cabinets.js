// Cabinets: all of them in a list; one with its meter, contacts, lamps, week and commands.
import * as api from '../api.js';
import {now} from '../clock.js';
import {figure, make, table, to} from '../dom.js';
import {clock, date, moment, number, percent, quantity, span, t} from '../l10n.js';

/**
 * @typedef {import('../types.js').Controller} Controller
 * @typedef {{id: string, feeder: string, at: string | null, quality: string | null, values: Record<string, number | null>}} Reading
 */

const PHASES = [1, 2, 3], DAYS = 7, DAY_MS = 86_400_000, EVERY_MS = 5000, DEAD_BRANCH_W = 50;
/** Contacts of a cabinet: which value is the abnormal one. @type {Record<string, number>} */
const CONTACTS = {door_open: 1, breaker_tripped: 1, local_override: 1, supply_ok: 0};
let about = '', box = make('div'), asked = 0;
/** @type {import('../types.js').City} */
let city;

/** @type {import('../types.js').View['show']} */
export async function show(body, theOne, theCity) {
  [about, city, box] = [theOne, theCity, make('div')];
  if (about && !city.cabinets.some(cabinet => cabinet.id === about)) throw new Error(t('no-cabinet', {id: about}));
  body.append(make('h2', {}, about ? t('target-cabinet', {id: about}) : t('view-cabinets')), box);
  await draw();
}

export async function refresh() {
  // Who walks through the list by keyboard is not thrown out of it.
  if (performance.now() - asked > EVERY_MS && !box.contains(document.activeElement)) await draw();
}

async function draw() {
  asked = performance.now();
  box.replaceChildren(...await (about ? one() : all()));
}

// -- all of them ---------------------------------------------------------------------------

async function all() {
  /** @type {[Controller[], {id: string, street: string, luminaires: number, power_w: number | null}[]]} */
  const [controllers, cabinets] = await Promise.all([api.get('/controllers'), api.get('/cabinets')]);
  const known = new Map(controllers.map(controller => [controller.id, controller]));
  const rows = cabinets.map(({id, street, luminaires, power_w: watts}) => [
    to('cabinets', id), street || '–', link(known.get(id)), figure(span(known.get(id)?.age_s)),
    figure(watts === null ? '–' : quantity(watts / 1000, 'kW', 2)), figure(number(luminaires)), rollout(known.get(id))]);
  return [table(t('view-cabinets'), ['cabinet', 'col-where', 'connection', 'data-age', 'power', 'luminaires', 'programme-state'].map(word => t(word)), rows)];
}

/** @param {Controller | undefined} known */
const link = known => known && !known.stale && known.status?.online ? `● ${t('connected')}`
  : make('span', {className: 'what-stale'}, `◆ ${t('disconnected')}`);

/** Whether what is wanted of a cabinet has come there: pending, applied or diverged. @param {Controller | undefined} known */
export function rollout(known) {
  const state = !known ? 'pending' : known.diverged.length ? 'diverged'
    : known.reported_revision === known.desired_revision ? 'applied' : 'pending';
  return make('b', {className: `state-${state}`}, t(`rollout-${state}`, {count: known?.diverged.length ?? 0}));
}

// -- one -----------------------------------------------------------------------------------

async function one() {
  const id = encodeURIComponent(about);
  const [controllers, found, lamps, alarms, week, overrides] = await Promise.all([
    api.get('/controllers'), api.get(`/cabinets/${id}`),
    api.latest('luminaire', `cabinet=${id}&columns=level_commanded_pct,level_actual_pct,power_w,burning_h,lamp_failure`),
    api.get(`/alarms?cabinet=${id}`), api.get(`/alarms?cabinet=${id}&everything=true&limit=1000`), api.get('/overrides')]);
  const known = controllers.find((/** @type {Controller} */ controller) => controller.id === about);
  return [
    make('p', {}, link(known), ` · ${t('data-age')}: ${span(known?.age_s)} · ${t('programme-state')}: `, rollout(known)),
    balance(found), ...contacts(found.contacts), strip(lamps),
    make('p', {}, make('a', {href: '#/alarms'}, t('alarms-of', {count: alarms.items.length}))),
    ...found.meters.map(phases), ...timeline(week.items), ...commands(overrides),
    make('h3', {}, t('luminaires')),
    table(t('luminaires'), [t('luminaire'), t('commanded'), t('actual'), t('power'), t('burning'), t('at-time')], lamps.map(lampLine)),
  ];
}

/** Power that is measured beside what the lamps should take: a dead branch is what lacks. @param {any} found */
function balance({power_w: measured, expected_w: expected}) {
  const off = measured === null || expected === null ? 0 : measured - expected, bad = Math.abs(off) > Math.max(DEAD_BRANCH_W, .1 * expected);
  const words = t('balance', {measured: quantity(measured, 'W'), expected: quantity(expected, 'W')});
  return make('p', {className: bad ? 'what-diverged' : ''}, bad ? `◆ ${words} ${t('balance-off', {off: quantity(off, 'W')})}` : words);
}

/** Door, breaker, mains: only what is known. @param {Reading[]} devices */
function contacts(devices) {
  const said = devices.flatMap(({values}) => Object.entries(CONTACTS)
    .filter(([name]) => values[name] !== null && values[name] !== undefined)
    .map(([name, bad]) => make('li', {className: values[name] === bad ? 'what-diverged' : ''}, `${values[name] === bad ? '◆ ' : ''}${t(`contact-${name}-${values[name] ? 1 : 0}`)}`)));
  return said.length ? [make('ul', {className: 'contacts', 'aria-label': t('contacts')}, ...said)] : [];
}

/** @param {any} lamp whether it answered when it was last asked */
const answers = lamp => lamp.ts > 0 && lamp.quality === 0;

/** All lamps at a glance, one mark each. @param {any[]} lamps */
function strip(lamps) {
  const word = (/** @type {any} */ lamp) => !answers(lamp) ? 'lost' : lamp.lamp_failure > 0 ? 'failure' : lamp.level_actual_pct > 60 ? 'full' : lamp.level_actual_pct > 0 ? 'low' : 'off';
  const states = lamps.map(word), bad = states.filter(state => state === 'lost' || state === 'failure').length;
  const marks = states.map((state, k) => make('i', {className: `mark-${state}`, title: lamps[k].device}));
  return make('p', {className: 'strip', role: 'img', 'aria-label': t('strip-said', {count: lamps.length, bad})}, ...marks);
}

/** @param {any} lamp */
function lampLine(lamp) {
  const good = answers(lamp);  // what did not answer has no figures, only old ones
  const value = (/** @type {string} */ text) => figure(good ? text : '–');
  return [
    to('luminaire', lamp.device), value(percent(lamp.level_commanded_pct)), value(percent(lamp.level_actual_pct)),
    value(quantity(lamp.power_w, 'W', 1)), value(quantity(lamp.burning_h, 'h')),
    good ? clock(lamp.ts) : make('span', {className: 'what-no_answer'}, `◆ ${t(lamp.ts ? 'state-no_answer' : 'state-unknown')}`)];
}

/** @param {Reading} meter */
function phases({id, values}) {
  const value = (/** @type {string} */ name, /** @type {string} */ unit, /** @type {number} */ digits) => figure(quantity(values[name], unit, digits));
  const rows = PHASES.map(p => [`L${p}`, value(`voltage_l${p}_v`, 'V', 1), value(`current_l${p}_a`, 'A', 2), value(`power_l${p}_w`, 'W', 0)]);
  return table(t('meter', {id}), [id, t('voltage'), t('current'), t('power')], rows);
}

/** What was wrong in the last seven days, kind by kind. @param {import('../types.js').Alarm[]} alarms */
function timeline(alarms) {
  const end = now(), start = end - DAYS * DAY_MS, kinds = new Map();
  for (const alarm of alarms) {
    const raised = Math.max(start, Date.parse(alarm.raised)), cleared = alarm.cleared ? Date.parse(alarm.cleared) : end;
    if (cleared < start) continue;
    kinds.set(alarm.code, [...kinds.get(alarm.code) ?? [], {raised, cleared, alarm}]);
  }
  const share = (/** @type {number} */ ms) => `${100 * ms / (end - start)}%`;
  const lines = [...kinds].map(([code, spans]) => {
    const bar = make('div', {className: 'bar'});
    for (const {raised, cleared, alarm} of spans) {
      const mark = make('i', {className: `weight-${alarm.severity}`, title: `${alarm.object} ${moment(alarm.raised)} – ${alarm.cleared ? moment(alarm.cleared) : ''}`});
      [mark.style.left, mark.style.width] = [share(raised - start), share(cleared - raised)];
      bar.append(mark);
    }
    return make('li', {}, make('span', {}, `${t(`alarm-${code}`)} (${spans.length})`), bar);
  });
  const days = make('li', {className: 'days', 'aria-hidden': 'true'}, make('span'), make('div', {}, ...Array.from({length: DAYS}, (_, k) => make('span', {}, date(start + (k + .5) * DAY_MS)))));
  return [make('h3', {}, t('week')), lines.length ? make('ul', {className: 'timeline', 'aria-label': t('week')}, ...lines, days) : make('p', {className: 'hint'}, t('week-calm'))];
}

/** Levels by hand of the last day that reach the cabinet. @param {any[]} overrides */
function commands(overrides) {
  const rows = overrides.filter(one => one.cabinets.includes(about)).slice(0, 10).map(one => [moment(one.start), t(`target-${one.target.kind}`, {id: one.target.id, name: one.target.id}),
    figure(percent(one.level)), moment(one.end), one.who, one.reason || '–',
    make('b', {className: `state-${one.state}`}, t(`override-${one.state}`, {count: one.diverged.length}))]);
  if (!rows.length) return [];
  return [make('h3', {}, t('commands')), table(t('commands'), ['since', 'dim-target', 'dim-level', 'dim-until', 'who', 'dim-reason', 'alarm-state'].map(word => t(word)), rows)];
}

