// Who did what, from where, and what was there before.
import * as api from '../api.js';
import {button, make, table} from '../dom.js';
import {clock, date, t} from '../l10n.js';

/** @typedef {{ts: number, who: string, source: string, action: string, target: string, detail: string, before: string, after: string, why: string}} Entry */

const HEADS = ['at-time', 'who', 'action', 'col-what', 'detail', 'dim-reason', 'from'];

/** @type {import('../types.js').View['show']} */
export async function show(body) {
  const box = make('div');
  /** @type {Entry[]} */
  const items = [];
  /** @type {number | null} */
  let cursor = null;
  const more = button(t('older'), next);
  async function next() {
    const page = await api.get(`/audit?limit=100${cursor ? `&cursor=${cursor}` : ''}`);
    items.push(...page.items);
    cursor = page.cursor;
    more.hidden = cursor === null;
    box.replaceChildren(table(t('view-audit'), HEADS.map(word => t(word)), items.map(line)));
  }
  body.append(make('h2', {}, t('view-audit')),
    make('p', {}, make('a', {href: '/api/v1/audit.csv', download: 'audit.csv'}, 'CSV')), box, more);
  await next();
}

/** @param {Entry} entry */
function line(entry) {
  const detail = make('td', {}, entry.detail);
  if (entry.before || entry.after) {
    detail.append(make('details', {}, make('summary', {}, t('before-after')), make('pre', {}, `− ${entry.before || '–'}\n+ ${entry.after || '–'}`)));
  }
  return [`${date(entry.ts)} ${clock(entry.ts, true)}`, entry.who, entry.action, entry.target, detail, entry.why, entry.source];
}
