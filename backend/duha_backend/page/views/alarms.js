// Alarms after ISA-18.2: seen, put aside, given to somebody; one for one cause.
import * as api from '../api.js';
import {now} from '../clock.js';
import {words} from '../details.js';
import {button, checkFields, choice, field, make, table, to} from '../dom.js';
import {moment, span, t} from '../l10n.js';
import * as sound from '../sound.js';
import {place} from '../things.js';

/** @typedef {import('../types.js').Alarm} Alarm */

const WEIGHT = {high: 0, medium: 1, low: 2}, SHAPE = {high: '▲', medium: '◆', low: '●'};
const STATES = ['all', 'unacknowledged', 'acknowledged', 'cleared', 'shelved'], ORDERS = ['severity', 'oldest', 'cabinet'];
const HEADS = ['severity', 'col-what', 'object', 'cabinet', 'since', 'alarm-state', 'assigned'];
const MOST = 5000, EVERY_MS = 4000;
/** @type {Set<number>} */
const chosen = new Set();
/** @type {Alarm[]} */
let items = [];
let box = make('div'), wanted = 'all', order = 'severity', kept = '', asked = 0;

/** @type {import('../types.js').View['show']} */
export async function show(body, about) {
  wanted = STATES.includes(about) ? about : 'all';
  chosen.clear();
  box = make('div');
  body.append(make('h2', {}, t('view-alarms')), filters(), actions(), box);
  await again();
}

export async function refresh() {
  if (performance.now() - asked > EVERY_MS) await load();
}

function again() {
  kept = '';
  return load();
}

async function load() {
  asked = performance.now();
  items = await whole();
  const found = JSON.stringify([items, order, wanted]);
  if (found === kept) return;  // who is reading or choosing is not disturbed
  kept = found;
  draw();
}

/** All that stands, page by page: the oldest is on the last one. */
async function whole() {
  /** @type {Alarm[]} */
  const found = [];
  const path = `/alarms?limit=500${wanted === 'shelved' ? '&shelved=true' : ''}`;
  for (let cursor = 0; cursor !== null && found.length < MOST;) {
    const page = await api.get(cursor ? `${path}&cursor=${cursor}` : path);
    found.push(...page.items);
    cursor = page.cursor;
  }
  return found;
}

function filters() {
  const bell = make('input', {type: 'checkbox', checked: sound.on()});
  bell.addEventListener('change', () => sound.turn(bell.checked));
  return make('div', {className: 'bar-of-tools'},
    field(t('alarm-state'), choice(STATES, wanted, name => t(`alarm-${name}`), name => { location.hash = `#/alarms/${name}`; })),
    field(t('order'), choice(ORDERS, order, name => t(`order-${name}`), name => { order = name; return again(); })),
    field(t('sound'), bell),
    make('a', {href: '/api/v1/alarms/orders.csv', download: 'orders.csv'}, t('work-orders')));
}

function actions() {
  const reason = make('input', {maxLength: 200, required: true, pattern: '.*\\S.*'}), hours = make('input', {type: 'number', min: '1', max: '720', value: '24', required: true, placeholder: '1–720'});
  const who = make('input', {maxLength: 100}), comment = make('input', {maxLength: 200});
  const send = (/** @type {string} */ path, /** @type {() => object} */ more, /** @type {HTMLElement[]} */ ...needs) => async () => {
    if (!chosen.size) throw new Error(t('choose-first'));
    checkFields(...needs);
    await api.post(`/alarms/${path}`, {ids: [...chosen], ...more()});
    chosen.clear();
    await again();
  };
  return make('div', {className: 'bar-of-tools'},
    field(t('comment'), comment), button(t('acknowledge'), send('acknowledge', () => ({comment: comment.value}))),
    field(t('assign-to'), who), button(t('assign'), send('assign', () => ({to: who.value}))),
    field(t('shelve-hours'), hours), field(t('dim-reason'), reason),
    button(t('shelve'), send('shelve', () => ({hours: Number(hours.value), reason: reason.value}), hours, reason)),
    button(t('unshelve'), send('unshelve', () => ({}))));
}

/** @param {Alarm} a @param {Alarm} b */
const older = (a, b) => a.raised.localeCompare(b.raised);
/** @type {Record<string, (a: Alarm, b: Alarm) => number>} */
const COMPARE = {
  oldest: older,
  severity: (a, b) => WEIGHT[a.severity] - WEIGHT[b.severity] || older(a, b),
  cabinet: (a, b) => a.cabinet.localeCompare(b.cabinet) || WEIGHT[a.severity] - WEIGHT[b.severity] || older(a, b),
};

function draw() {
  const found = items.filter(item => wanted === 'all' ? item.state !== 'shelved' : item.state === wanted).sort(COMPARE[order]);
  // What has gone from the list is not acted on unseen.
  for (const id of chosen) if (!found.some(item => item.id === id)) chosen.delete(id);
  if (!found.length) return box.replaceChildren(make('p', {className: 'hint'}, t('no-alarms')));
  const focused = document.activeElement?.getAttribute('data-alarm');
  box.replaceChildren(table(t('view-alarms'), [make('span', {className: 'unseen'}, t('choose')), ...HEADS.map(word => t(word))], found.map(line)),
    items.length < MOST ? '' : make('p', {className: 'hint'}, t('only-newest', {count: MOST})));
  if (focused) /** @type {HTMLElement | null} */ (box.querySelector(`[data-alarm="${focused}"]`))?.focus();
}

/** @param {Alarm} item */
function line(item) {
  const tick = make('input', {type: 'checkbox', checked: chosen.has(item.id), 'data-alarm': item.id, 'aria-label': `${t(`alarm-${item.code}`)} ${item.object}`});
  tick.addEventListener('change', () => tick.checked ? chosen.add(item.id) : chosen.delete(item.id));
  const what = make('td', {}, t(`alarm-${item.code}`), item.affected > 1 ? ` (${t('affected', {count: item.affected})})` : '');
  if (item.detail) what.append(words(item.detail));
  if (item.comment) what.append(make('small', {}, `„${item.comment}“`));
  const raised = make('td', {}, moment(item.raised), make('small', {}, span((now() - Date.parse(item.raised)) / 1000)));
  return [
    tick, make('td', {className: `severity-${item.severity}`}, `${SHAPE[item.severity]} ${t(`severity-${item.severity}`)}`),
    what, place(item), item.cabinet ? to('cabinets', item.cabinet) : '–', raised, standing(item), item.assigned || '–',
  ];
}

/** @param {Alarm} item */
function standing(item) {
  const state = t(`alarm-${item.state}`);
  if (item.state === 'shelved') return `${state}: ${item.shelved_by}, ${t('until', {time: moment(item.shelved_until)})} – ${item.shelved_reason}`;
  return item.acknowledged_by ? `${state}: ${item.acknowledged_by}` : state;
}
