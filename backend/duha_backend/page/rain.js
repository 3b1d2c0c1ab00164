// Hyetographs: rain falls from the top in bars, its sum rises from the bottom.
import * as api from './api.js';
import {paced} from './clock.js';
import {bars, line, numbers, TIMES, uPlot} from './chart.js';
import {$, make} from './dom.js';
import {number, t} from './l10n.js';

const HOURS = 2, BIN_MINUTES = 5, EVERY_MS = 10_000;

/**
 * @typedef {import('./types.js').Place} Place
 * @typedef {{start: number, end: number, bin_ms: number, gauges: Record<string, [number, number][]>, age_ms: Record<string, number | null>}} Latest
 * @typedef {{chart: uPlot, limits: {highest: number, most: number}, caption: HTMLElement}} Known
 */

/** @type {Map<string, Known>} */
const charts = new Map();
/** @type {Latest | null} */
let latest = null;
const look = paced(EVERY_MS, async () => { latest = await api.get(`/rain?hours=${HOURS}&bin_minutes=${BIN_MINUTES}`); });

/** @param {Place[]} gauges */
export async function refresh(gauges) {
  await look();
  draw(gauges);
}

/** Rain of each gauge in the span shown [mm]. */
export function totals() {
  /** @type {Map<string, number>} */
  const found = new Map();
  for (const [gauge, bins] of Object.entries(latest?.gauges ?? {})) found.set(gauge, bins.reduce((sum, [, mm]) => sum + mm, 0));
  return found;
}

/** @param {Place[]} gauges */
function draw(gauges) {
  if (!latest) return;
  const {start, end, bin_ms: width} = latest, times = [];
  for (let at = start; at <= end; at += width) times.push(at / 1000);
  const highest = Math.max(1, ...Object.values(latest.gauges).flat().map(([, mm]) => mm));
  const most = Math.max(2, ...totals().values());
  for (const {id} of gauges) {
    const depth = new Array(times.length).fill(0), known = chartOf(id, highest, most), age = latest.age_ms[id] ?? null;
    for (const [at, mm] of latest.gauges[id] ?? []) depth[Math.round((at - start) / width)] = mm;
    let running = 0;
    const sums = depth.map(mm => running += mm);
    known.chart.setData([times, depth, sums]);
    const text = age === null || age > 15 * 60_000 ? t('gauge-silent') : t('gauge-total', {total: `${number(running, 1)} mm`});
    known.caption.replaceChildren(make('b', {}, id), make('span', {}, text));
  }
}

/** @param {string} id @param {number} highest @param {number} most @returns {Known} */
function chartOf(id, highest, most) {
  const known = charts.get(id);
  if (known) {
    Object.assign(known.limits, {highest, most});
    return known;
  }
  const caption = make('figcaption'), box = make('div'), figure = make('figure', {'data-gauge': id}, caption, box);
  $('#gauges').append(figure);
  const limits = {highest, most}, chart = new uPlot({
    ...size(figure), legend: {show: false}, cursor: {sync: {key: 'rain'}, drag: {x: false, y: false}},
    scales: {
      x: {time: true},
      y: {dir: -1, range: () => [0, limits.highest * 2]},
      sum: {range: () => [0, limits.most * 1.9]},
    },
    axes: [TIMES, numbers({size: 34}), numbers({scale: 'sum', side: 1, size: 38, grid: {show: false}, stroke: '#7ee0c5'})],
    series: [{}, bars('', '#5aa9ff'), line('', '#7ee0c5', {scale: 'sum'})],
  }, [[], [], []], box);
  new ResizeObserver(() => chart.setSize(size(figure))).observe(figure);
  const made = {chart, limits, caption};
  charts.set(id, made);
  return made;
}

/** @param {HTMLElement} figure */
const size = figure => ({width: Math.max(120, figure.clientWidth), height: Math.max(90, figure.clientHeight - 20)});
