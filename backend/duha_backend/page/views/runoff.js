// Runoff: each watched place of a model as it was and as forecasts see it; catchments by load.
import * as api from '../api.js';
import {ago} from '../clock.js';
import {figure, make, table, to} from '../dom.js';
import {moment, number, quantity, span, t} from '../l10n.js';
import {ahead, draw, standing, unitOf, valueOf} from '../watch.js';

/**
 * @typedef {import('../watch.js').Model} Model
 * @typedef {import('../watch.js').Watch} Watch
 */

const EVERY_MS = 15_000, HOURS = 6, STAGES = ['I', 'II', 'III'];
let box = make('div'), about = '', asked = 0;

/** @type {import('../types.js').View['show']} */
export async function show(body, theOne) {
  [about, box] = [theOne, make('div')];
  body.append(make('h2', {}, t('view-runoff')), box);
  await look();
}

export async function refresh() {
  if (performance.now() - asked > EVERY_MS && !box.contains(document.activeElement)) await look();
}

async function look() {
  asked = performance.now();
  /** @type {[Model[], any[]]} */
  const [models, loads] = await Promise.all([api.get('/models'), api.get('/runoff')]);
  if (about && !models.some(model => model.id === about)) throw new Error(t('no-model', {id: about}));
  const shown = models.filter(model => !about || model.id === about);
  const parts = await Promise.all(shown.map(section));
  const links = models.length > 1 && about ? [make('p', {}, make('a', {href: '#/runoff'}, t('all-models')))] : [];
  const nothing = models.length ? [] : [make('p', {className: 'hint'}, t('no-models'))];
  box.replaceChildren(...links, ...nothing, ...parts.flat(), ...catchments(loads));
}

/** One model: how it runs, and its watched places. @param {Model} model */
async function section(model) {
  const path = `/models/${encodeURIComponent(model.id)}`;
  const [told, pasts] = await Promise.all([api.find(`${path}/forecast`), Promise.all(model.watches.map(past))]);
  const failed = model.run?.state === 'failed';
  return [
    make('h3', {}, to('runoff', model.id, model.name)),
    make('p', {className: failed ? 'what-diverged' : 'hint'}, failed ? `◆ ${t('watch-failed')}` : t('model-said', {behind: span(model.behind_s), time: told ? moment(told.t0) : '–'}), ' ',
      make('a', {href: `/api/v1${path}/export.json?since=${ago(24)}`, download: `${model.id}.json`}, 'PI-JSON')),
    ...model.watches.map((watch, k) => place(model, watch, told, pasts[k] ?? [])),
  ];
}

/** What a watched place has done in the last hours. @param {Watch} watch @returns {Promise<[number, number][]>} */
async function past(watch) {
  const kind = watch.part === 'node' ? 'node' : 'conduit';
  const page = await api.find(`/readings/${kind}/${encodeURIComponent(watch.device)}?since=${ago(HOURS)}&limit=2000`);
  const rows = (page?.items ?? []).filter((/** @type {any} */ row) => row[watch.what] !== null);
  return rows.map((/** @type {any} */ row) => [Date.parse(row.ts) / 1000, row[watch.what]]);
}

/** @param {Model} model @param {Watch} watch @param {import('../watch.js').Forecast | null} told @param {[number, number][]} before */
function place(model, watch, told, before) {
  const chart = make('div', {className: 'chart'}), limits = watch.stages.map((limit, k) => `${t('stage', {stage: STAGES[k] ?? ''})}: ${valueOf(watch, limit)}`).join(' · ');
  queueMicrotask(() => draw(chart, 240, watch, told, before));
  return make('figure', {'data-watch': watch.id},
    make('figcaption', {}, make('b', {}, watch.name), make('span', {className: `now stage-${watch.stage ?? 0}`}, standing(watch)), make('span', {}, ahead(watch, model)), make('span', {}, limits)),
    chart, members(watch, told));
}

/** Each member of a forecast: how high, and when which stage is reached. @param {Watch} watch @param {import('../watch.js').Forecast | null} told */
function members(watch, told) {
  const courses = Object.entries(told?.watches[watch.id]?.courses ?? {}), step = told?.every_min ?? 1;
  if (!courses.length) return make('p', {className: 'hint'}, t('no-forecast'));
  const rows = courses.map(([member, values]) => [t(`member-${member}`), figure(valueOf(watch, Math.max(...values))),
    ...watch.stages.map((limit, stage) => figure(stage < (watch.stage ?? 0) ? t('reached') : inMinutes(values, limit, step)))]);
  return table(t('forecast'), [t('forecast'), `${t('highest')} [${unitOf(watch)}]`, ...watch.stages.map((_, k) => t('stage', {stage: STAGES[k] ?? ''}))], rows);
}

/** When a course first reaches a limit. @param {number[]} values @param {number} limit @param {number} step [min] */
function inMinutes(values, limit, step) {
  const k = values.findIndex(value => value >= limit);
  return k < 0 ? '–' : t('in-minutes', {minutes: number((k + 1) * step)});
}

/** Catchments, the heaviest load first. @param {any[]} loads */
function catchments(loads) {
  if (!loads.length) return [];
  const rows = [...loads].sort((a, b) => (b.load_l_s_ha ?? -1) - (a.load_l_s_ha ?? -1)).map(one => [one.name || one.id, figure(quantity(one.area_ha, 'ha', 1)),
    figure(quantity(one.runoff_l_s, 'L/s', 1)), figure(quantity(one.load_l_s_ha, 'L/s·ha', 1)), moment(one.at)]);
  return [make('h3', {}, t('catchments')), table(t('catchments'), ['catchment', 'area', 'runs-off', 'load', 'at-time'].map(word => t(word)), rows)];
}
