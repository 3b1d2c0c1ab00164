// Rain of one gauge: hyetograph and sum, how rare it is, its events; and the field over the city.
import * as api from '../api.js';
import {atTime, bars, chart, line, numbers, TIMES} from '../chart.js';
import {ago, now} from '../clock.js';
import {button, choice, field, figure, make, table, to} from '../dom.js';
import {tell} from '../errors.js';
import {clock, moment, number, percent, quantity, span, t} from '../l10n.js';

/** @typedef {{duration_min: number, depth_mm: number | null, period: string | null}} Sum */

const SPANS = ['6', '24', '168', '720'], EVERY_MS = 30_000, FIELD_STEP_MIN = 15, FIELD_HOURS = 6;
let gauge = '', hours = '24', asked = 0;
let parts = {sums: make('div'), chart: make('div'), events: make('div')};

/** @type {import('../types.js').View['show']} */
export async function show(body, about, city) {
  const ids = city.gauges.map(one => one.id);
  body.append(make('h2', {}, t('view-rain')));
  gauge = ids.includes(about) ? about : ids[0] ?? '';
  if (about && about !== gauge) throw new Error(t('no-gauge', {id: about}));
  if (!gauge) return body.append(make('p', {className: 'hint'}, t('no-gauges')));
  parts = {sums: make('div'), chart: make('div'), events: make('div')};
  body.append(
    make('div', {className: 'bar-of-tools'},
      field(t('gauge'), choice(ids, gauge, id => id, id => { location.hash = `#/rain/${encodeURIComponent(id)}`; })),
      field(t('span'), choice(SPANS, hours, name => t(`span-${name}`), value => { hours = value; return draw(); })),
      make('a', {href: `/api/v1/rain/export.json?since=${ago(24)}`, download: 'rain.json'}, 'PI-JSON'),
      make('a', {href: `/api/v1/rain/export.dat?since=${ago(24)}`, download: 'rain.dat'}, 'SWMM')),
    make('h3', {}, t('sums')), parts.sums, make('h3', {}, t('hyetograph', {id: gauge})), parts.chart,
    make('h3', {}, t('events')), parts.events, make('h3', {}, t('rain-field-title')), slider());
  await draw();
}

export async function refresh() {
  if (gauge && performance.now() - asked > EVERY_MS && !parts.sums.contains(document.activeElement)) await draw();
}

async function draw() {
  asked = performance.now();
  await Promise.all([sums(), curve(), events()]);
}

/** Sums of all gauges: what has fallen, and how seldom so much falls. */
async function sums() {
  const found = await api.find('/rain/sums');
  if (!found) return parts.sums.replaceChildren(make('p', {className: 'hint'}, t('rain-field-none')));
  /** @type {Sum[]} */
  const first = found.gauges[0]?.sums ?? [];
  const rows = found.gauges.map((/** @type {any} */ one) => [
    to('rain', one.gauge), ...one.sums.map((/** @type {any} */ sum) => figure(quantity(sum.depth_mm, 'mm', 1) + rare(sum))), figure(percent(100 * one.quality_index))]);
  const heads = [t('gauge'), ...first.map(sum => duration(sum.duration_min)), t('trust')];
  parts.sums.replaceChildren(table(t('sums'), heads, rows),
    make('p', {className: 'hint'}, t(found.design_rain ? 'sums-said' : 'sums-plain', {time: moment(found.until)})));
}

/** @param {number} minutes */
const duration = minutes => minutes < 60 ? `${minutes} min` : `${number(minutes / 60)} h`;

/** A return period as the backend says it ("< 1", "1.5", "> 50"), in the language of now. @param {string} period */
const years = period => period.replace(/[\d.]+/, found => number(Number(found), found.includes('.') ? 1 : 0));

/** @param {Sum} sum */
const rare = sum => sum.period && sum.depth_mm ? ` (${t('return-period', {years: years(sum.period)})})` : '';

/** The minutes in bars of a width that can be seen, and their sum. */
async function curve() {
  const found = await api.get(`/rain/minutes/${encodeURIComponent(gauge)}?since=${ago(Number(hours))}`);
  parts.chart.replaceChildren();
  if (!found.ts.length) return parts.chart.append(make('p', {className: 'hint'}, t('rain-field-none')));
  const width = 60_000 * ({6: 5, 24: 10, 168: 60, 720: 240}[hours] ?? 10), binned = bins(found, width);
  let sum = 0;
  const total = binned.map(([, mm]) => sum += mm), most = Math.max(1, ...binned.map(([, mm]) => mm));
  const place = parts.chart;
  chart(place, {
    height: 240, scales: {x: {time: true}, y: {dir: -1, range: [0, 2 * most]}, sum: {range: [0, 1.9 * Math.max(2, sum)]}},
    axes: [TIMES, numbers({label: t('mm-in', {minutes: width / 60_000})}), numbers({scale: 'sum', side: 1, grid: {show: false}, stroke: '#7ee0c5', label: 'mm'})],
    series: [atTime(), bars(t('rain-depth'), '#5aa9ff'), line(t('rain-sum'), '#7ee0c5', {scale: 'sum', width: 2})],
  }, [binned.map(([at]) => at), binned.map(([, mm]) => mm), total]);
  const doubted = found.quality.filter((/** @type {string} */ word) => word !== 'good').length;
  place.append(make('p', {className: 'hint'}, t('minutes-said', {sum: quantity(sum, 'mm', 1), doubted: number(doubted)})));
}

/** @param {{ts: number[], rain_mm: (number | null)[]}} found @param {number} width [ms] @returns {[number, number][]} */
function bins({ts, rain_mm: depth}, width) {
  const found = new Map();
  ts.forEach((at, k) => { const bin = Math.floor(at / width) * width; found.set(bin, (found.get(bin) ?? 0) + (depth[k] ?? 0)); });
  /** @type {[number, number][]} */
  const all = [];
  for (let at = Math.floor((ts[0] ?? 0) / width) * width; at <= (ts.at(-1) ?? 0); at += width) all.push([at / 1000, found.get(at) ?? 0]);
  return all;
}

async function events() {
  const found = await api.get(`/rain/events/${encodeURIComponent(gauge)}?since=${ago(720)}`);
  /** @type {any[]} */
  const list = [...found.statistics.events].reverse();
  if (!list.length) return parts.events.replaceChildren(make('p', {className: 'hint'}, t('no-events')));
  const rows = list.slice(0, 100).map(one => [moment(one.start), figure(span((one.end - one.start) / 1000)), figure(quantity(one.depth_mm, 'mm', 1)),
    figure(quantity(one.most_mm_h, 'mm/h', 1)), rarest(one)]);
  parts.events.replaceChildren(table(t('events'), [t('since'), t('lasted'), t('rain-depth'), t('peak'), t('rarest')], rows),
    make('p', {className: 'hint'}, t('events-said', {hours: number(found.statistics.dry_h, 1)})));
}

/** @param {any} event */
const rarest = ({rarest: one}) => one?.period ? `${duration(one.duration_min)}: ${quantity(one.depth_mm, 'mm', 1)} (${t('return-period', {years: years(one.period)})})` : '–';

// -- the field over the city, hour by hour ---------------------------------------------------

function slider() {
  const canvas = make('canvas', {className: 'field', width: 40, height: 40, role: 'img', 'aria-label': t('rain-field-title')}), said = make('output');
  const back = make('input', {type: 'range', min: String(-60 * FIELD_HOURS), max: '0', step: String(FIELD_STEP_MIN), value: '0'});
  const look = async () => {
    const until = now() + 60_000 * Number(back.value), path = `/rain/field?minutes=60&columns=40&until=${new Date(until).toISOString()}`;
    const found = Number(back.value) === 0 ? await api.find('/rain/field?minutes=60&columns=40') : await api.find(path);
    if (!found) { said.textContent = t('rain-field-none'); return; }
    paint(canvas, found);
    const depths = found.depth_mm.filter((/** @type {number | null} */ mm) => mm !== null);
    said.textContent = `${t('rain-field-said', {time: clock(Date.parse(found.until))})}: ${quantity(Math.min(...depths), 'mm', 1)} – ${quantity(Math.max(...depths), 'mm', 1)}`;
  };
  back.addEventListener('change', () => look().catch(error => tell(said, error)));
  return make('div', {className: 'field-box'}, canvas, field(t('field-time', {hours: FIELD_HOURS}), back), said, button(t('field-show'), look));
}

/** @param {HTMLCanvasElement} canvas @param {any} found */
function paint(canvas, found) {
  const [width, height] = [found.longitude.length, found.latitude.length], image = new ImageData(width, height);
  found.depth_mm.forEach((/** @type {number | null} */ mm, /** @type {number} */ k) => {
    const share = Math.min(1, (mm ?? 0) / 20), row = height - 1 - Math.floor(k / width);
    image.data.set([18 + 120 * share, 40 + 150 * share, 60 + 195 * share, 255], 4 * (row * width + k % width));
  });
  Object.assign(canvas, {width, height});
  canvas.getContext('2d')?.putImageData(image, 0, 0);
}
