// Energy: what was used, what it would have been, what meters show, and how that is reckoned.
import * as api from '../api.js';
import {bars, chart, line, numbers, TIMES} from '../chart.js';
import {now} from '../clock.js';
import {choice, field, figure, make, table, to} from '../dom.js';
import {language, number, percent, quantity, t} from '../l10n.js';

/**
 * @typedef {{period: string, part: string, nights: number, lamps: number, kwh: number, measured_kwh: number, baseline_kwh: number,
 *   saved_kwh: number, saved_uncertainty_kwh: number | null, unknown_high_kwh: number | null, unknown_baseline_kwh: number | null,
 *   covered: number | null, partial: boolean, excluded_lamps: number | null, excluded_kwh: number | null,
 *   co2_kg: number | null, saved_co2_kg: number | null, meter_kwh: number | null, gap_kwh: number | null, uncertainty_kwh: number | null}} Line
 * @typedef {{cabinet: string, meter_kwh: number, lamps_kwh: number, own_kwh: number, gap_kwh: number, gap_pct: number,
 *   uncertainty_pct: number, stands_out: boolean, covered: number | null}} Gap
 */

const EVERY = ['night', 'month', 'year'], PARTS = ['city', 'district', 'cabinet'], NIGHTS = 31, DAY_MS = 86_400_000, ENOUGH = 0.9;
const HEADS = ['period', 'part', 'luminaires', 'energy-used', 'energy-baseline', 'energy-saved', 'energy-unknown', 'energy-covered', 'energy-meter', 'co2', 'co2-saved'];
const GAP_HEADS = ['cabinet', 'energy-meter', 'energy-lamps', 'energy-own', 'energy-gap', 'uncertainty', 'judgement'];
let every = 'month', part = 'cabinet', box = make('div'), papers = make('span');

/** @type {import('../types.js').View['show']} */
export async function show(body) {
  [box, papers] = [make('div'), make('span', {className: 'papers'})];
  const pick = (/** @type {string} */ name) => `energy-${name}`;
  body.append(make('h2', {}, t('view-energy')), make('div', {className: 'bar-of-tools'},
    field(t('period'), choice(EVERY, every, name => t(pick(name)), name => { every = name; return draw(); })),
    field(t('part'), choice(PARTS, part, name => t(pick(name)), name => { part = name; return draw(); })), papers), box);
  await draw();
}

async function draw() {
  const since = new Date(now() - NIGHTS * DAY_MS).toISOString().slice(0, 10), asked = `every=${every}&part=${part}&language=${language}`;
  papers.replaceChildren(make('a', {href: `/api/v1/energy.pdf?${asked}`}, t('report-pdf')), ' · ', make('a', {href: `/api/v1/energy.csv?every=${every}&part=${part}`}, 'CSV'));
  const [found, nights, gaps] = await Promise.all([
    api.get(`/energy?${asked}`), api.get(`/energy?every=night&part=city&since=${since}`), api.get('/energy/gaps')]);
  if (!found.lines.length) return box.replaceChildren(make('p', {className: 'hint'}, t('no-energy')));
  const place = make('div');
  box.replaceChildren(
    make('h3', {}, t('energy-nights')), place, table(t('view-energy'), HEADS.map(word => t(word)), found.lines.map(row)),
    ...left(found.lines), ...against(gaps), make('h3', {}, t('method')), make('p', {className: 'hint'}, found.method));
  queueMicrotask(() => curve(place, nights.lines));
}

/** Nights of the city in bars, the baseline above them, what is unknown behind them. @param {HTMLElement} place @param {Line[]} lines */
function curve(place, lines) {
  const at = lines.map(one => Date.parse(`${one.period}T12:00:00Z`) / 1000), baseline = lines.map(one => one.baseline_kwh + (one.unknown_baseline_kwh ?? 0));
  const used = lines.map(one => one.kwh), perhaps = lines.map(one => one.unknown_high_kwh ? one.kwh + one.unknown_high_kwh : null);
  const most = Math.max(1, ...baseline, ...used), [first = 0, last = 0] = [at[0], at.at(-1)];
  chart(place, {
    height: 200, scales: {x: {time: true, range: [Math.min(first, last - 7 * 86_400), last + 86_400]}, y: {range: [0, 1.1 * most]}},
    axes: [{...TIMES, space: 90, incrs: [86_400, 7 * 86_400]}, numbers({label: 'kWh'})],
    series: [{label: t('energy-night'), value: (_, s) => s === null ? '–' : new Date(1000 * s).toISOString().slice(0, 10)},
      bars(t('energy-at-most'), '#55606c'), bars(t('energy-used'), '#f0cf82'), line(t('energy-baseline'), '#93a4b5', {dash: [5, 4], points: {show: true, size: 5}})],
  }, [at, perhaps, used, baseline]);
}

/** @param {number | null} value */
const kwh = value => figure(quantity(value, 'kWh', 1));

/** What was saved of what was read, and how surely; a sign where that does not stand for the whole. @param {Line} one */
function savings(one) {
  if (!one.baseline_kwh) return t('energy-not-known');
  const u = one.saved_uncertainty_kwh === null ? '' : ` ± ${number(one.saved_uncertainty_kwh, 1)}`;
  return `${one.partial ? '◐ ' : ''}${number(one.saved_kwh, 1)}${u} kWh (${percent(100 * one.saved_kwh / one.baseline_kwh)})`;
}

/** @param {Line} one */
const unknown = one => one.unknown_high_kwh === null ? t('energy-not-known') : one.unknown_high_kwh < 0.05 ? '0' : `0–${number(one.unknown_high_kwh, 1)} kWh`;

/** Coverage is never rounded up to whole. @param {Line} one */
const covered = one => one.covered === null ? t('energy-not-known') : percent(Math.floor(100 * one.covered));

/** @param {Line} one */
function row(one) {
  const whose = part === 'cabinet' ? to('cabinets', one.part) : one.part || t('energy-city');
  const doubt = (/** @type {string} */ text) => make('td', {className: 'figure'}, make('span', {className: one.partial ? 'what-diverged' : ''}, text));
  const read = (/** @type {number | null} */ value) => one.covered === 0 ? null : value;
  return [one.period, whose, figure(number(one.lamps)), kwh(read(one.kwh)), kwh(read(one.baseline_kwh)), doubt(savings(one)), figure(unknown(one)), doubt(covered(one)),
    kwh(one.meter_kwh), figure(quantity(read(one.co2_kg), 'kg', 1)), figure(quantity(read(one.saved_co2_kg), 'kg', 1))];
}

/** What the sums leave out, and what the sign means. @param {Line[]} lines */
function left(lines) {
  /** @type {Map<string, Line>} */
  const last = new Map(lines.map(one => [one.part, one])), all = [...last.values()];
  const [lamps, used] = [all.reduce((sum, one) => sum + (one.excluded_lamps ?? 0), 0), all.reduce((sum, one) => sum + (one.excluded_kwh ?? 0), 0)];
  return [
    ...lines.some(one => one.partial) ? [make('p', {className: 'hint'}, t('energy-partial'))] : [],
    ...lamps ? [make('p', {className: 'hint'}, t('energy-excluded', {lamps: number(lamps), kwh: quantity(used, 'kWh', 1)}))] : []];
}

/** What meters showed beyond lamps and cabinets in the last night. @param {Gap[]} gaps */
function against(gaps) {
  if (!gaps.length) return [];
  const rows = gaps.map(one => [to('cabinets', one.cabinet), kwh(one.meter_kwh), kwh(one.lamps_kwh), kwh(one.own_kwh),
    figure(`${number(one.gap_kwh, 1)} kWh (${percent(one.gap_pct, 1)})`), figure(`± ${percent(one.uncertainty_pct, 1)}`),
    make('td', {className: one.stands_out ? 'what-diverged' : ''}, one.stands_out ? `◆ ${t('look-at-it')}` : t(one.covered === null || one.covered < ENOUGH ? 'energy-not-known' : 'fine'))]);
  return [make('h3', {}, t('gaps')), table(t('gaps'), GAP_HEADS.map(word => t(word)), rows)];
}
