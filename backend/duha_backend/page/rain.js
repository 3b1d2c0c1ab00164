// Hyetographs: rain falls from the top in bars, its sum rises from the bottom.
import uPlot from './vendor/uPlot.esm.js';
import * as api from './api.js';
import {clock, number, t} from './l10n.js';

const HOURS = 2, BIN_MINUTES = 5;
const GREY = {stroke: '#93a4b5', grid: {stroke: '#1f2a36'}, ticks: {stroke: '#1f2a36'}, font: '10px system-ui'};
const charts = new Map();
let latest = null;

export async function refresh(gauges) {
  latest = await api.get(`/rain?hours=${HOURS}&bin_minutes=${BIN_MINUTES}`);
  draw(gauges);
}

/** Rain of each gauge in the span shown [mm]. */
export function totals() {
  const found = new Map();
  for (const [gauge, bins] of Object.entries(latest?.gauges ?? {})) found.set(gauge, bins.reduce((sum, [, mm]) => sum + mm, 0));
  return found;
}

export function draw(gauges) {
  if (!latest) return;
  const {start, end, bin_ms: width} = latest;
  const times = [];
  for (let at = start; at <= end; at += width) times.push(at / 1000);
  const highest = Math.max(1, ...Object.values(latest.gauges).flat().map(([, mm]) => mm));
  const most = Math.max(2, ...totals().values());
  for (const {id} of gauges) {
    const depth = new Array(times.length).fill(0);
    for (const [at, mm] of latest.gauges[id] ?? []) depth[Math.round((at - start) / width)] = mm;
    let running = 0;
    const sums = depth.map(mm => running += mm);
    chartOf(id, highest, most).setData([times, depth, sums]);
    caption(id, running, latest.age_ms[id]);
  }
}

function caption(id, total, age) {
  const silent = age === null || age > 15 * 60_000;
  const element = document.querySelector(`#gauges [data-gauge="${CSS.escape(id)}"] figcaption`);
  const text = silent ? t('gauge-silent') : t('gauge-total', {total: `${number(total, 1)} mm`});
  element.innerHTML = '<b></b><span></span>';
  element.firstChild.textContent = id;
  element.lastChild.textContent = text;
}

function chartOf(id, highest, most) {
  const known = charts.get(id);
  if (known) {
    Object.assign(known.limits, {highest, most});
    return known.chart;
  }
  const figure = document.createElement('figure');
  figure.dataset.gauge = id;
  figure.append(document.createElement('figcaption'), document.createElement('div'));
  document.querySelector('#gauges').append(figure);
  const box = figure.lastChild, limits = {highest, most};
  const chart = new uPlot({
    ...size(figure), legend: {show: false}, cursor: {sync: {key: 'rain'}, drag: {x: false, y: false}},
    scales: {
      x: {time: true},
      y: {dir: -1, range: () => [0, limits.highest * 2]},
      sum: {range: () => [0, limits.most * 1.9]},
    },
    axes: [
      {...GREY, size: 28, values: (_, splits) => splits.map(s => clock(s * 1000)), space: 60},
      {...GREY, size: 34, values: (_, splits) => splits.map(s => number(s, s % 1 ? 1 : 0))},
      {...GREY, scale: 'sum', side: 1, size: 30, grid: {show: false}, stroke: '#7ee0c5', values: (_, splits) => splits.map(s => number(s, s % 1 ? 1 : 0))},
    ],
    series: [
      {},
      {stroke: '#5aa9ff', fill: '#5aa9ffb0', paths: uPlot.paths.bars({size: [.9], align: 1}), points: {show: false}},
      {scale: 'sum', stroke: '#7ee0c5', width: 1.5, points: {show: false}},
    ],
  }, [[], [], []], box);
  new ResizeObserver(() => chart.setSize(size(figure))).observe(figure);
  charts.set(id, {chart, limits});
  return chart;
}

const size = figure => ({width: Math.max(120, figure.clientWidth), height: Math.max(90, figure.clientHeight - 20)});
