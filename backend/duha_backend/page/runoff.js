// What is watched in the sewers: how high it stands now, and what forecasts say.
import uPlot from './vendor/uPlot.esm.js';
import * as api from './api.js';
import {clock, number, t} from './l10n.js';

const GREY = {stroke: '#93a4b5', grid: {stroke: '#1f2a36'}, ticks: {stroke: '#1f2a36'}, font: '10px system-ui'};
const STAGES = ['I', 'II', 'III'], COLOURS = ['#ffd166', '#ffb224', '#ff5c5c'];
const charts = new Map(), forecasts = new Map();
let models = [];

export async function refresh() {
  models = await api.get('/models');
  await Promise.all(models.filter(looksAhead).map(async model => {
    if (forecasts.get(model.id)?.asked === model.run.t0) return;
    forecasts.set(model.id, {asked: model.run.t0, ...await api.get(`/models/${encodeURIComponent(model.id)}/forecast`)});
  }));
  draw();
}

const looksAhead = model => model.watches.some(watch => watch.ahead);

export function draw() {
  const watches = models.flatMap(model => model.watches.map(watch => ({...watch, model})));
  document.querySelector('#runoff').hidden = !watches.length;
  for (const watch of watches) show(watch);
  for (const [id, {figure}] of charts) {
    if (watches.some(watch => watch.id === id)) continue;
    figure.remove();
    charts.delete(id);
  }
}

function show(watch) {
  const known = charts.get(watch.id) ?? make(watch);
  const told = forecasts.get(watch.model.id), courses = told?.watches[watch.id]?.courses;
  say(known, watch);
  if (!courses) return;
  const names = Object.keys(courses), start = Date.parse(told.t0) / 1000, step = told.every_min * 60;
  const times = courses[names[0]].map((_, k) => start + (k + 1) * step);
  const [low, high] = told.watches[watch.id].band;
  known.limits.most = Math.max(...high, ...watch.stages) * 1.1;
  known.chart.setData([times, low, high, courses.persistence ?? low, ...watch.stages.map(limit => times.map(() => limit))]);
}

function say({figure}, watch) {
  const [name, now, ahead] = figure.querySelectorAll('b, .now, .ahead');
  const unit = {depth_m: 'm', inflow_l_s: 'L/s', flow_l_s: 'L/s', flooding_l_s: 'L/s'}[watch.what];
  name.textContent = watch.name;
  const value = watch.value === undefined ? '–' : `${number(watch.value, watch.what === 'depth_m' ? 2 : 0)} ${unit}`;
  now.textContent = watch.stage ? t('watch-stage', {value, stage: STAGES[watch.stage - 1]}) : value;
  now.className = `now${watch.stage ? ` stage-${watch.stage}` : ''}`;
  const next = [...(watch.likely ?? []), ...(watch.ahead ?? [])][0];  // the likely before the possible
  ahead.textContent = watch.model.run?.state === 'failed' ? t('watch-failed')
    : next ? t('watch-ahead', {stage: STAGES[next.stage - 1], minutes: number(next.minutes), member: t(`member-${next.member}`)}) : t('watch-calm');
}

function make(watch) {
  const figure = document.createElement('figure');
  figure.dataset.watch = watch.id;
  figure.innerHTML = '<figcaption><b></b><span class="now"></span><span class="ahead"></span></figcaption><div></div>';
  document.querySelector('#watches').append(figure);
  const limits = {most: 1};
  const chart = new uPlot({
    width: 240, height: 100, legend: {show: false}, cursor: {drag: {x: false, y: false}},
    scales: {x: {time: true}, y: {range: () => [0, limits.most]}},
    axes: [
      {...GREY, size: 26, values: (_, splits) => splits.map(s => clock(s * 1000)), space: 50},
      {...GREY, size: 34, values: (_, splits) => splits.map(s => number(s, s % 1 ? 1 : 0))},
    ],
    series: [
      {}, {stroke: '#5aa9ff60', points: {show: false}}, {stroke: '#5aa9ff60', points: {show: false}},
      {stroke: '#8cc4ff', width: 2, points: {show: false}},
      ...watch.stages.map((_, k) => ({stroke: COLOURS[k], dash: [4, 4], points: {show: false}})),
    ],
    bands: [{series: [2, 1], fill: '#5aa9ff30'}],
  }, [[], [], [], [], ...watch.stages.map(() => [])], figure.lastChild);
  const made = {figure, chart, limits};
  charts.set(watch.id, made);
  return made;
}
