// One luminaire: commanded, in effect, actual, the chain of reasons, its last day, its failures.
import * as api from './api.js';
import {ago} from './clock.js';
import {chart, line, numbers, TIMES} from './chart.js';
import {$, failed, make, to} from './dom.js';
import {clock, moment, number, percent, quantity, span, t} from './l10n.js';

const box = $('#detail'), EVERY_MS = 2000, HISTORY_MS = 15_000;
/** What drivers count and tell, with unit and digits. @type {[string, string, number][]} */
const COUNTERS = [
  ['energy_wh', 'Wh', 0], ['burning_h', 'h', 1], ['switch_ons', '', 0], ['driver_temperature_c', '°C', 1], ['voltage_v', 'V', 1], ['current_a', 'A', 3],
  ['power_factor', '', 2], ['power_on_level_pct', '%', 0], ['system_failure_level_pct', '%', 0]];
const current = make('div'), counted = make('details', {}, make('summary'), make('dl', {className: 'counters'}));
const day = make('details', {}, make('summary'), make('div', {className: 'small-chart'}));
let shown = '', asked = -Infinity, asking = 0;
/** @type {any} */
let history = null;

/** @param {string} id */
export async function show(id) {
  history = null;  // who looks again sees what is new
  shown = id;
  try {
    await refresh(true);
  } catch (error) {
    put(make('h2', {}, id), failed(error));
  }
}

/** What is shown above the parts that open; who is there by keyboard stays there. @param {...HTMLElement} parts */
function put(...parts) {
  const link = current.contains(document.activeElement);
  current.replaceChildren(...parts);
  if (!current.isConnected) box.replaceChildren(current, day, counted);
  if (link) current.querySelector('a')?.focus();
}

export async function refresh(now = false) {
  if (!now && performance.now() - asked < EVERY_MS) return;
  asked = performance.now();
  const mine = ++asking, found = await api.get(`/luminaires/${encodeURIComponent(shown)}`);
  if (!history || performance.now() - history.asked > HISTORY_MS) {
    history = {asked: performance.now(), alarms: (await api.get(`/alarms?everything=true&limit=5&object=${encodeURIComponent(shown)}`)).items};
    if (day.open) await showDay();
  }
  if (mine === asking) render(found);
}

/** A reason in words. @param {any} cause */
export function words(cause) {
  return t(`reason-${cause.code}`, {
    name: cause.code === 'override' && cause.name ? ` (${cause.name})` : cause.name ?? '',
    level: percent(cause.level), step: cause.step ?? '', until: cause.until ? clock(cause.until) : '–',
  });
}

/** @param {any} found */
function render(found) {
  const title = make('h2', {}, found.id, ' ', make('small', {}, `${found.street}, `, to('cabinets', found.cabinet), ` · ${t(`state-${found.state}`)}`));
  const levels = make('dl', {className: 'levels'});
  for (const [label, value] of [['commanded', found.commanded], ['in-effect', found.in_effect], ['actual', found.actual]]) {
    const fill = make('i');
    fill.style.width = `${value ?? 0}%`;
    levels.append(make('dt', {}, t(label)), make('div', {className: 'bar', 'aria-hidden': true}, fill), make('dd', {}, percent(value)));
  }
  const why = make('ol', {className: 'why', 'aria-label': t('why')}, ...found.reason.map((/** @type {any} */ cause) => make('li', {}, words(cause))));
  const {values} = found;
  const facts = make('p', {className: 'facts'}, t('facts', {
    power: quantity(values.power_w, 'W', 1), temperature: quantity(values.driver_temperature_c, '°C', 1),
    hours: quantity(values.burning_h, 'h'), age: span(found.age_s)}), ' · ', t('books', {pole: found.pole || '–', number: found.asset_id || '–'}));
  $('summary', day).textContent = t('last-day');
  $('summary', counted).textContent = t('counters');
  $('dl', counted).replaceChildren(...COUNTERS.filter(([name]) => values[name] !== null && values[name] !== undefined)
    .flatMap(([name, unit, digits]) => [make('dt', {}, t(`counter-${name}`)), make('dd', {}, quantity(values[name], unit, digits))]));
  put(title, levels, why, facts, failures());
}

function failures() {
  if (!history.alarms.length) return make('p', {className: 'facts'}, t('no-failures'));
  return make('ul', {className: 'facts', 'aria-label': t('failures')}, ...history.alarms.map((/** @type {import('./types.js').Alarm} */ alarm) =>
    make('li', {}, `${moment(alarm.raised)} ${t(`alarm-${alarm.code}`)}: ${t(`alarm-${alarm.state}`)}`)));
}

async function showDay() {
  const asked = shown, page = await api.get(`/readings/luminaire/${encodeURIComponent(asked)}?step=15m&limit=500&since=${ago(24)}`);
  if (asked !== shown) return;
  const rows = page.items, place = $('div', day);
  place.replaceChildren();
  if (!rows.length) return place.append(t('no-readings'));
  const at = rows.map((/** @type {any} */ row) => Date.parse(row.ts) / 1000);
  const column = (/** @type {string} */ name) => rows.map((/** @type {any} */ row) => row[name] ?? null);
  chart(place, {height: 130, legend: {show: false}, scales: {x: {time: true}, y: {range: [0, 105]}},
    axes: [TIMES, numbers({size: 40, values: (_, splits) => splits.map(s => `${number(s)} %`)})],
    series: [{}, line(t('commanded'), '#93a4b5', {dash: [5, 4]}), line(t('actual'), '#f0cf82', {width: 2})],
  }, [at, column('level_commanded_pct'), column('level_actual_pct')]);
}

day.addEventListener('toggle', () => { if (day.open) showDay().catch(() => $('div', day).replaceChildren(t('no-readings'))); });
