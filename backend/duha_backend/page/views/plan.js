// Tonight's plan: change the steps of a programme, see the night, check, publish, watch it go out.
import uPlot from '../vendor/uPlot.esm.js';
import * as api from '../api.js';
import {button, field, make, table} from '../dom.js';
import {clock, number, percent, t} from '../l10n.js';
import {rollout} from './cabinets.js';

const GREY = {stroke: '#93a4b5', grid: {stroke: '#1f2a36'}, ticks: {stroke: '#1f2a36'}, font: '11px system-ui'};
let programmes = [], programme = null, checked = null, parts = {}, chart = null, published = false;

export async function show(body, about) {
  programmes = await api.get('/programmes');
  programme = programmes.find(one => one.id === about) ?? programmes[0];
  [checked, chart, published] = [null, null, false];
  body.append(make('h2', {}, t('view-plan')));
  if (!programme) return body.append(make('p', {className: 'hint'}, t('no-programme')));
  parts = {steps: make('div'), night: make('div', {className: 'night'}), said: make('p', {'role': 'status'}), rollout: make('div')};
  const select = make('select', {}, ...programmes.map(one => new Option(one.name, one.id, false, one === programme)));
  select.addEventListener('change', () => { location.hash = `#/plan/${encodeURIComponent(select.value)}`; });
  parts.publish = button(t('publish'), publish);
  lock(true);
  body.append(field(t('programme'), select), parts.steps,
    make('div', {className: 'bar-of-tools'}, button(t('add-step'), addStep), button(t('check-plan'), check), parts.publish),
    parts.said, parts.night, parts.rollout);
  drawSteps();
  await preview();
}

export async function refresh() {
  if (!published) return;
  const controllers = await api.get('/controllers');
  parts.rollout.replaceChildren(make('h3', {}, t('rollout')), table(t('rollout'), [t('cabinet'), t('programme-state')],
    controllers.map(known => [known.id, rollout(known)])));
}

function drawSteps() {
  const rows = programme.steps.map((step, k) => [
    input(step, 'at', {value: step.at, 'aria-label': `${t('step-at')} ${k + 1}`}, String),
    input(step, 'level', {type: 'number', min: 0, max: 100, value: step.level, 'aria-label': `${t('dim-level')} ${k + 1}`}, Number),
    input(step, 'fade_s', {type: 'number', min: 0, max: 3600, value: step.fade_s ?? 0, 'aria-label': `${t('step-fade')} ${k + 1}`}, Number),
    button(t('remove-step'), () => { programme.steps.splice(k, 1); changed(); drawSteps(); }, {'aria-label': `${t('remove-step')} ${k + 1}`}),
  ]);
  parts.steps.replaceChildren(table(t('steps'), [t('step-at'), `${t('dim-level')} [%]`, `${t('step-fade')} [s]`, ''], rows),
    make('p', {className: 'hint'}, t('step-help')));
}

function input(step, name, properties, read) {
  const made = make('input', properties);
  made.addEventListener('input', () => { step[name] = read(made.value); changed(); });
  return made;
}

function lock(locked) {
  parts.publish.dataset.locked = locked ? 'yes' : '';
  parts.publish.disabled = locked;
}

/** What was checked is what is published: after a change it is to be checked anew. */
function changed() {
  checked = null;
  lock(true);
}

function addStep() {
  programme.steps.push({at: '23:00', level: 50, fade_s: 60});
  changed();
  drawSteps();
}

/** The programme as it is edited, without what the store adds. */
function edited() {
  const {id, etag, ...rest} = programme;
  return rest;
}

async function put(dry) {
  const path = `/programmes/${encodeURIComponent(programme.id)}${dry ? '?dry_run=true' : ''}`;
  try {
    return await api.put(path, edited(), programme.etag);
  } catch (error) {
    if (error.status === 412) throw new Error(t('edited-meanwhile'));
    throw error;
  }
}

async function check() {
  parts.said.textContent = '';
  await put(true);
  await preview();
  checked = JSON.stringify(edited());
  lock(false);
  parts.said.textContent = t('plan-checked');
}

async function publish() {
  if (checked !== JSON.stringify(edited())) throw new Error(t('check-first'));
  await put(false);
  const fresh = await api.get('/programmes');
  programme = fresh.find(one => one.id === programme.id);
  published = true;
  changed();
  drawSteps();  // their fields now write into what came back
  parts.said.textContent = t('plan-published');
  await refresh();
}

async function preview() {
  const target = {kind: 'city', id: ''};
  const [now, then] = await Promise.all([
    api.post('/preview', {target, nights: 1}), api.post('/preview', {target, nights: 1, programme: edited()})]);
  draw(mean(now), mean(then), then);
}

/** The mean level of all lamps over a preview, with its times [s]. */
function mean(found) {
  const lamps = found.courses.reduce((sum, course) => sum + course.luminaires, 0);
  const start = Date.parse(found.start) / 1000;
  return found.courses[0].level.map((_, k) => [start + k * found.step_s,
    found.courses.reduce((sum, course) => sum + course.level[k] * course.luminaires, 0) / lamps]);
}

function draw(now, then, found) {
  const [night] = found.nights, {total} = found;
  const line = t('plan-energy', {
    lamps: number(found.courses.reduce((sum, course) => sum + course.luminaires, 0)),
    kwh: number(night.kwh, 1), now: number(night.now_kwh, 1),
    saved: night.baseline_kwh ? percent(100 * (1 - night.kwh / night.baseline_kwh)) : '–',
    cost: total.cost === null ? '–' : `${number(total.cost)} ${total.currency}`,
    sunset: night.sunset ? clock(Date.parse(night.sunset)) : '–', sunrise: night.sunrise ? clock(Date.parse(night.sunrise)) : '–',
  });
  const data = [now.map(([at]) => at), now.map(([, level]) => level), then.map(([, level]) => level)];
  const place = make('div');
  parts.night.replaceChildren(make('h3', {}, t('tonight')), make('p', {}, line), place);
  chart?.destroy();
  chart = new uPlot({
    width: Math.min(900, document.documentElement.clientWidth - 60), height: 220, cursor: {drag: {x: false, y: false}},
    scales: {x: {time: true}, y: {range: () => [0, 105]}}, legend: {live: false},
    axes: [{...GREY, values: (_, splits) => splits.map(s => clock(s * 1000))}, {...GREY, values: (_, splits) => splits.map(s => `${number(s)} %`), size: 60}],
    series: [{}, {label: t('plan-now'), stroke: '#93a4b5', dash: [6, 4], points: {show: false}}, {label: t('plan-then'), stroke: '#f0cf82', width: 2, points: {show: false}}],
  }, data, place);
}
