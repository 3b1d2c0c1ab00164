// A watched place in a sewer: how high it stands, what forecasts say, and its chart.
import {atTime, chart, line, numbers, TIMES} from './chart.js';
import {number, t} from './l10n.js';

const STAGES = ['I', 'II', 'III'], COLOURS = ['#ffd166', '#ffb224', '#ff5c5c'];
/** @type {Record<string, string>} */
const UNITS = {depth_m: 'm', inflow_l_s: 'L/s', flow_l_s: 'L/s', flooding_l_s: 'L/s'};

/**
 * @typedef {{stage: number, minutes: number, member: string}} Ahead
 * @typedef {{id: string, name: string, what: string, part: string, device: string, stages: number[], value?: number, stage?: number, likely?: Ahead[], ahead?: Ahead[]}} Watch
 * @typedef {{id: string, name: string, running: boolean, behind_s: number | null, run: {t0: string, state: string} | null, watches: Watch[]}} Model
 * @typedef {{t0: string, every_min: number, watches: Record<string, {courses: Record<string, number[]>, band: [number[], number[]]}>}} Forecast
 */

/** @param {Watch} watch */
export const unitOf = watch => UNITS[watch.what] ?? '';
/** @param {Watch} watch @param {number | undefined} value */
export const valueOf = (watch, value) => value === undefined ? '–' : `${number(value, watch.what === 'depth_m' ? 2 : 0)} ${unitOf(watch)}`;

/** How high it stands now, in words. @param {Watch} watch */
export function standing(watch) {
  const value = valueOf(watch, watch.value);
  return watch.stage ? t('watch-stage', {value, stage: STAGES[watch.stage - 1] ?? ''}) : value;
}

/** The first stage ahead, the likely before the possible, in words. @param {Watch} watch @param {Model} model */
export function ahead(watch, model) {
  if (model.run?.state === 'failed') return t('watch-failed');
  const next = [...watch.likely ?? [], ...watch.ahead ?? []][0];
  return next ? t('watch-ahead', {stage: STAGES[next.stage - 1] ?? '', minutes: number(next.minutes), member: t(`member-${next.member}`)}) : t(watch.stage ? 'watch-no-higher' : 'watch-calm');
}

/**
 * Its chart: what was, the forecast if the rain goes on, the band of all members, the stages.
 * @param {HTMLElement} place @param {number} height @param {Watch} watch @param {Forecast | null} told
 * @param {[number, number][]} past times [s] and values
 */
export function draw(place, height, watch, told, past = []) {
  const found = told?.watches[watch.id], step = 60 * (told?.every_min ?? 1), start = told ? Date.parse(told.t0) / 1000 : 0;
  const [low = [], high = []] = found?.band ?? [], next = found?.courses.persistence ?? low;
  const before = past.filter(([at]) => !found || at <= start), none = before.map(() => null), later = next.map(() => null);
  const times = [...before.map(([at]) => at), ...next.map((_, k) => start + (k + 1) * step)];
  const most = 1.1 * Math.max(...before.map(([, value]) => value), ...high, ...watch.stages, .01);
  return chart(place, {
    height, legend: {show: height > 150},
    scales: {x: {time: true}, y: {range: [0, most]}},
    axes: [TIMES, numbers({size: 42})],
    series: [
      atTime(), line(t('forecast-low'), '#5aa9ff60'), line(t('forecast-high'), '#5aa9ff60'),
      line(t('forecast-on'), '#8cc4ff', {width: 2, dash: [4, 3]}), line(t('observed'), '#7ee0c5', {width: 2}),
      ...watch.stages.map((_, k) => line(t('stage', {stage: STAGES[k] ?? ''}), COLOURS[k] ?? '', {dash: [8, 4]})),
    ],
    bands: [{series: [2, 1], fill: '#5aa9ff30'}],
  }, [times, [...none, ...low], [...none, ...high], [...none, ...next], [...before.map(([, value]) => value), ...later],
    ...watch.stages.map(limit => times.map(() => limit))]);
}
