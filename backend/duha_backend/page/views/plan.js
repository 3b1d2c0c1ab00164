// Tonight's plan: change programmes and the calendar, see the nights, check, publish, watch it go out.
//
// Nothing is stored before it is published; then all that was changed is stored at once.
import * as api from '../api.js';
import {atTime, chart, line, numbers, TIMES} from '../chart.js';
import {button, checkFields, choice, field, make, table, to} from '../dom.js';
import {clock, number, percent, t} from '../l10n.js';
import {rollout} from './cabinets.js';
import {changes} from './changes.js';
import {inFull} from './refusals.js';
import {rules} from './rules.js';
import {steps} from './steps.js';

/**
 * @typedef {import('./steps.js').Programme} Programme
 * @typedef {import('./rules.js').Calendar} Calendar
 * @typedef {{programmes: Record<string, Programme>, calendars: Record<string, Calendar>}} Plan
 */

const NIGHTS = 14, EVERY_MS = 2000;
/** @type {Plan} what holds, and what is being edited */
let stored = {programmes: {}, calendars: {}}, draft = stored;
const rooms = () => ({calendar: make('div'), steps: make('div'), said: make('p', {role: 'status'}), changes: make('div'), night: make('div', {className: 'night'}), rollout: make('div')});
let parts = rooms();
/** @type {HTMLButtonElement} */
let publisher = make('button');
let programme = '', calendar = '', checked = '', published = false, asked = 0;

/** @type {import('../types.js').View['show']} */
export async function show(body, about) {
  if (!begun()) await load();  // what somebody has begun waits for them, in either language
  [checked, published] = ['', false];
  body.append(make('h2', {}, t('view-plan')));
  const ids = Object.keys(draft.programmes), calendars = Object.keys(draft.calendars);
  const [kind, name] = about.includes('/') ? about.split('/') : ['programme', about];
  programme = kind === 'programme' && ids.includes(name ?? '') ? name ?? '' : ids[0] ?? '';
  calendar = kind === 'calendar' && calendars.includes(name ?? '') ? name ?? '' : calendars[0] ?? '';
  if (!programme) { body.append(make('p', {className: 'hint'}, t('no-programme'))); return; }
  parts = rooms();
  publisher = button(t('publish'), publish);
  lock(true);
  body.append(
    make('h3', {}, t('calendar')), parts.calendar, make('h3', {}, t('programme')), parts.steps,
    make('div', {className: 'bar-of-tools'}, button(t('check-plan'), check), publisher, button(t('start-over'), startOver)),
    parts.said, parts.changes, parts.night, parts.rollout);
  drawCalendar();
  drawSteps();
  await preview();
}

export async function refresh() {
  if (!published || performance.now() - asked < EVERY_MS) return;
  asked = performance.now();
  /** @type {import('../types.js').Controller[]} */
  const controllers = await api.get('/controllers');
  const done = controllers.filter(known => known.reported_revision === known.desired_revision && !known.diverged.length).length;
  parts.rollout.replaceChildren(make('h3', {}, `${t('rollout')}: ${number(done)} / ${number(controllers.length)}`),
    make('progress', {max: controllers.length, value: done, 'aria-label': t('rollout')}),
    table(t('rollout'), [t('cabinet'), t('programme-state')], controllers.map(known => [to('cabinets', known.id), rollout(known)])));
}

async function load() {
  /** @type {[Programme[], Calendar[]]} */
  const [programmes, calendars] = await Promise.all([api.get('/programmes'), api.get('/calendars')]);
  const byId = (/** @type {any[]} */ all) => Object.fromEntries(all.map(one => [one.id, one]));
  for (const one of calendars) one.rules ??= [];  // so that only what somebody changes differs
  stored = {programmes: byId(programmes), calendars: byId(calendars)};
  draft = structuredClone(stored);
}

// -- what is edited --------------------------------------------------------------------------

function drawCalendar() {
  const names = Object.keys(draft.calendars), mine = draft.calendars[calendar];
  if (!mine) return parts.calendar.replaceChildren(make('p', {className: 'hint'}, t('no-calendar')));
  const pick = choice(names, calendar, id => draft.calendars[id]?.name || id, id => { calendar = id; drawCalendar(); });
  parts.calendar.replaceChildren(rules(field(t('calendar'), pick), mine, draft.programmes, () => { changed(); drawCalendar(); }, changed));
}

function drawSteps() {
  const names = Object.keys(draft.programmes), mine = draft.programmes[programme];
  if (!mine) return;
  const pick = choice(names, programme, id => draft.programmes[id]?.name || id, id => { programme = id; drawSteps(); });
  const name = make('input', {maxLength: 60, 'aria-label': t('new-name')});
  const copy = button(t('copy-programme'), () => {
    const id = slug(name.value);
    if (!id || draft.programmes[id]) throw new Error(t('name-taken'));
    draft.programmes[id] = {...structuredClone(mine), id, name: name.value.trim(), etag: ''};
    programme = id;
    changed();
    drawSteps();
    drawCalendar();
  });
  parts.steps.replaceChildren(
    make('div', {className: 'bar-of-tools'}, field(t('programme'), pick), field(t('new-name'), name), copy, button(t('previous-version'), previous)),
    steps(mine, () => { changed(); drawSteps(); }, changed));
}

/** @param {string} name */
const slug = name => name.trim().normalize('NFD').replace(/[^\w\s-]/g, '').toLowerCase().replace(/\s+/g, '-').slice(0, 40);

/** The programme as it was before it was last published. */
async function previous() {
  /** @type {{document: Programme | null}[]} */
  const versions = draft.programmes[programme]?.etag ? await api.get(`/programmes/${encodeURIComponent(programme)}/history`) : [];
  const before = versions.slice(1).find(version => version.document)?.document;
  if (!before) throw new Error(t('no-previous'));
  draft.programmes[programme] = {...before, etag: draft.programmes[programme]?.etag ?? ''};
  changed();
  drawSteps();
}

/** @param {boolean} locked */
function lock(locked) {
  publisher.dataset.locked = locked ? 'yes' : '';
  publisher.disabled = locked;
}

/** What was checked is what is published: after a change it is to be checked anew. */
function changed() {
  checked = '';
  lock(true);
}

/** @param {any} document without what the store adds */
const bare = ({id: _, etag: __, ...rest}) => rest;

/** What differs from what holds, and the tags of what it replaces. */
function proposal() {
  /** @type {{programmes: Record<string, object>, calendars: Record<string, object>, etags: Record<string, string>}} */
  const found = {programmes: {}, calendars: {}, etags: {}};
  for (const room of /** @type {const} */ (['programmes', 'calendars'])) {
    for (const [id, document] of Object.entries(draft[room])) {
      const before = stored[room][id];
      if (before && JSON.stringify(bare(before)) === JSON.stringify(bare(document))) continue;
      found[room][id] = bare(document);
      found.etags[`${room}/${id}`] = document.etag;
    }
  }
  return found;
}

/** Whether something is changed and not published. */
const begun = () => { const {programmes, calendars} = proposal(); return Object.keys(programmes).length + Object.keys(calendars).length > 0; };

// -- the two steps ---------------------------------------------------------------------------

/** @param {boolean} dry */
async function put(dry) {
  try {
    await api.post(`/plan${dry ? '?dry_run=true' : ''}`, proposal());
  } catch (error) {
    throw error instanceof api.ApiError ? inWords(error) : error;
  }
}

/** What the backend has against a plan. @param {InstanceType<typeof api.ApiError>} error */
function inWords(error) {
  if (error.status === 412) return new Error(t('edited-meanwhile'));
  const {refusals} = error.problem;
  return refusals ? new Error(refusals.map(one => inFull(one, draft)).join('\n')) : error;
}

async function check() {
  say('');
  checkFields(parts.calendar, parts.steps);
  await put(true);
  await preview();
  checked = JSON.stringify(proposal());
  lock(false);
  say(t('plan-checked'));
}

async function publish() {
  if (checked !== JSON.stringify(proposal())) throw new Error(t('check-first'));
  await put(false);
  await load();
  published = true;
  asked = 0;
  changed();
  drawSteps();  // their fields now write into what came back
  drawCalendar();
  parts.changes.replaceChildren();
  say(t('plan-published'));
  await refresh();
}

async function startOver() {
  await load();
  if (!draft.programmes[programme]) programme = Object.keys(draft.programmes)[0] ?? '';
  changed();
  drawSteps();
  drawCalendar();
  await preview();
  say('');
}

/** @param {string} words */
function say(words) { parts.said.textContent = words; }

// -- the night -------------------------------------------------------------------------------

async function preview() {
  const target = {kind: 'city', id: ''}, {programmes, calendars} = proposal();
  const [now, then] = await Promise.all([
    api.post('/preview', {target, nights: 1}), api.post('/preview', {target, nights: NIGHTS, plan: {programmes, calendars}})]);
  const said = changes(stored, draft);
  parts.changes.replaceChildren(...said.length ? [make('h3', {}, t('changes')), make('ul', {}, ...said.map(words => make('li', {}, words)))] : []);
  const place = make('div');
  parts.night.replaceChildren(make('h3', {}, t('tonight')), make('p', {}, nightSaid(then)), place, ...fortnight(then));
  curves(place, mean(now), mean(then));
}

/** The mean level of all lamps over the first night of a preview, with its times [s]. @param {any} found @returns {[number, number][]} */
function mean(found) {
  const lamps = found.courses.reduce((/** @type {number} */ sum, /** @type {any} */ course) => sum + course.luminaires, 0), start = Date.parse(found.start) / 1000;
  const night = found.courses[0].level.slice(0, Math.round(86_400 / found.step_s));
  return night.map((/** @type {number} */ _, /** @type {number} */ k) => [start + k * found.step_s,
    found.courses.reduce((/** @type {number} */ sum, /** @type {any} */ course) => sum + course.level[k] * course.luminaires, 0) / lamps]);
}

/** @param {any} found */
function nightSaid(found) {
  const [night] = found.nights, {total} = found;
  return t('plan-energy', {
    lamps: number(found.courses.reduce((/** @type {number} */ sum, /** @type {any} */ course) => sum + course.luminaires, 0)),
    affected: number(found.affected), kwh: number(night.kwh, 1), now: number(night.now_kwh, 1),
    saved: night.baseline_kwh ? percent(100 * (1 - night.kwh / night.baseline_kwh)) : '–',
    cost: total.cost === null ? '–' : `${number(total.cost * night.kwh / total.kwh)} ${total.currency}`,
    sunset: night.sunset ? clock(Date.parse(night.sunset)) : '–', sunrise: night.sunrise ? clock(Date.parse(night.sunrise)) : '–',
  });
}

/** Which programme on which of the coming nights. @param {any} found */
function fortnight(found) {
  return Object.entries(found.calendars).map(([id, names]) => make('details', {open: id === calendar},
    make('summary', {}, t('coming-nights', {calendar: draft.calendars[id]?.name || id})),
    make('ol', {className: 'fortnight'}, ...names.map((/** @type {string} */ name, /** @type {number} */ k) =>
      make('li', {}, make('b', {}, weekday(found.nights[k].date)), ' ', draft.programmes[name]?.name ?? name)))));
}

/** @param {string} date */
const weekday = date => new Intl.DateTimeFormat(document.documentElement.lang, {weekday: 'short', day: 'numeric', month: 'numeric', timeZone: 'UTC'}).format(Date.parse(date));

/** @param {HTMLElement} place @param {[number, number][]} now @param {[number, number][]} then */
function curves(place, now, then) {
  const at = now.map(([time]) => time), level = (/** @type {[number, number][]} */ course) => course.map(([, value]) => value);
  queueMicrotask(() => chart(place, {
    height: 220, scales: {x: {time: true}, y: {range: [0, 105]}},
    axes: [TIMES, numbers({size: 60, values: (_, splits) => splits.map(s => `${number(s)} %`)})],
    series: [atTime(), line(t('plan-now'), '#93a4b5', {dash: [6, 4]}), line(t('plan-then'), '#f0cf82', {width: 2})],
  }, [at, level(now), level(then).slice(0, at.length)]));
}
