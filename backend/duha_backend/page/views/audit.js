// Who did what, from where, and what was there before.
import * as api from '../api.js';
import {button, make, table} from '../dom.js';
import {clock, date, t} from '../l10n.js';

export async function show(body) {
  const box = make('div'), items = [];
  let cursor = null;
  const more = button(t('older'), () => next());
  async function next() {
    const page = await api.get(`/audit?limit=100${cursor ? `&cursor=${cursor}` : ''}`);
    items.push(...page.items);
    cursor = page.cursor;
    more.hidden = cursor === null;
    const heads = ['at-time', 'who', 'action', 'col-what', 'detail', 'dim-reason', 'from'].map(word => t(word));
    box.replaceChildren(table(t('view-audit'), heads, items.map(line)));
  }
  body.append(make('h2', {}, t('view-audit')), box, more);
  await next();
}

function line(row) {
  const detail = make('td', {}, row.detail);
  if (row.before || row.after) {
    detail.append(make('details', {}, make('summary', {}, t('before-after')), make('pre', {}, `− ${row.before || '–'}\n+ ${row.after || '–'}`)));
  }
  return [`${date(row.ts)} ${clock(row.ts, true)}`, row.who, row.action, row.target, detail, row.why, row.source];
}
