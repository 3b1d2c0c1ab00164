// Alarms after ISA-18.2: seen, put aside, given to somebody; one for one cause.
import * as api from '../api.js';
import {button, field, make, table} from '../dom.js';
import {clock, date, t} from '../l10n.js';

const WEIGHT = {high: 0, medium: 1, low: 2}, SHAPE = {high: '▲', medium: '◆', low: '●'};
const STATES = ['all', 'unacknowledged', 'acknowledged', 'cleared', 'shelved'];
const MOST = 5000;
const chosen = new Set();
let items = [], box = null, city = null, wanted = 'all', order = 'severity', kept = '';

export async function show(body, about, theCity) {
  city = theCity;
  wanted = STATES.includes(about) ? about : 'all';
  chosen.clear();
  kept = '';
  box = make('div');
  body.append(make('h2', {}, t('view-alarms')), filters(), actions(), box);
  await refresh();
}

export async function refresh() {
  items = await whole();
  const now = JSON.stringify([items, order, wanted]);
  if (now === kept) return;  // who is reading or choosing is not disturbed
  kept = now;
  draw();
}

/** All that stands, page by page: the oldest is on the last one. */
async function whole() {
  const found = [], asked = `/alarms?limit=500${wanted === 'shelved' ? '&everything=true' : ''}`;
  for (let cursor = 0; cursor !== null && found.length < MOST;) {
    const page = await api.get(cursor ? `${asked}&cursor=${cursor}` : asked);
    found.push(...page.items);
    cursor = page.cursor;
  }
  return found;
}

function filters() {
  const state = make('select', {}, ...STATES.map(name => new Option(t(`alarm-${name}`), name, false, name === wanted)));
  state.addEventListener('change', () => { location.hash = `#/alarms/${state.value}`; });
  const by = make('select', {}, ...['severity', 'oldest'].map(name => new Option(t(`order-${name}`), name, false, name === order)));
  by.addEventListener('change', () => { order = by.value; refresh(); });
  return make('div', {className: 'bar-of-tools'}, field(t('alarm-state'), state), field(t('order'), by),
    make('a', {href: '/api/v1/alarms/orders.csv', download: 'orders.csv'}, t('work-orders')));
}

function actions() {
  const reason = make('input', {maxLength: 200}), hours = make('input', {type: 'number', min: 1, max: 720, value: 24}), to = make('input', {maxLength: 100});
  const send = (path, more) => async () => {
    if (!chosen.size) throw new Error(t('choose-first'));
    await api.post(`/alarms/${path}`, {ids: [...chosen], ...more()});
    chosen.clear();
    kept = '';
    await refresh();
  };
  return make('div', {className: 'bar-of-tools'},
    button(t('acknowledge'), send('acknowledge', () => ({}))),
    field(t('assign-to'), to), button(t('assign'), send('assign', () => ({to: to.value}))),
    field(t('shelve-hours'), hours), field(t('dim-reason'), reason),
    button(t('shelve'), send('shelve', () => ({hours: Number(hours.value), reason: reason.value}))),
    button(t('unshelve'), send('unshelve', () => ({}))));
}

function draw() {
  const found = items.filter(item => wanted === 'all' ? item.state !== 'shelved' : item.state === wanted);
  found.sort(order === 'oldest' ? older : (a, b) => WEIGHT[a.severity] - WEIGHT[b.severity] || older(a, b));
  // What has gone from the list is not acted on unseen.
  for (const id of chosen) if (!found.some(item => item.id === id)) chosen.delete(id);
  if (!found.length) return box.replaceChildren(make('p', {className: 'hint'}, t('no-alarms')));
  const heads = ['', 'severity', 'col-what', 'object', 'cabinet', 'since', 'alarm-state', 'assigned'].map(word => word && t(word));
  heads[0] = make('span', {className: 'unseen'}, t('choose'));
  box.replaceChildren(table(t('view-alarms'), heads, found.map(line)));
}

const older = (a, b) => a.raised.localeCompare(b.raised);

function line(item) {
  const tick = make('input', {type: 'checkbox', checked: chosen.has(item.id), 'aria-label': `${t(`alarm-${item.code}`)} ${item.object}`});
  tick.addEventListener('change', () => tick.checked ? chosen.add(item.id) : chosen.delete(item.id));
  const raised = Date.parse(item.raised), what = make('td', {}, t(`alarm-${item.code}`));
  if (item.affected > 1) what.append(` (${t('affected', {count: item.affected})})`);
  if (item.detail) what.append(make('small', {}, item.detail));
  return [
    tick, make('td', {className: `severity-${item.severity}`}, `${SHAPE[item.severity]} ${t(`severity-${item.severity}`)}`),
    what, thing(item.object), item.cabinet ? make('a', {href: `#/cabinets/${encodeURIComponent(item.cabinet)}`}, item.cabinet) : '–',
    `${date(raised)} ${clock(raised)}`, standing(item), item.assigned || '–',
  ];
}

const thing = id => city.luminaires.id.includes(id) ? make('a', {href: `#/luminaire/${encodeURIComponent(id)}`}, id) : id || '–';

function standing(item) {
  const words = t(`alarm-${item.state}`);
  if (item.state === 'shelved') return `${words}: ${item.shelved_by}, ${t('until', {time: clock(Date.parse(item.shelved_until))})} – ${item.shelved_reason}`;
  return item.acknowledged_by ? `${words}: ${item.acknowledged_by}` : words;
}
