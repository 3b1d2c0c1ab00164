// How the system itself is.
import * as api from '../api.js';
import {figure, make, table} from '../dom.js';
import {moment, number, quantity, span, t} from '../l10n.js';

const EVERY_MS = 2000, BACKUP_MS = 8 * 86_400_000, SKEW_S = 5;
let box = make('div'), asked = 0;
/** @type {{at: number, rows: number} | null} */
let before = null;

/** @type {import('../types.js').View['show']} */
export async function show(body) {
  box = make('div');
  before = null;
  body.append(make('h2', {}, t('view-health')), box);
  await draw();
}

export async function refresh() {
  if (performance.now() - asked >= EVERY_MS) await draw();
}

/** Readings stored a second since the last look; null at the first. @param {number} rows */
function rate(rows) {
  const at = performance.now(), known = before;
  before = {at, rows};
  return known && at > known.at ? Math.max(0, 1000 * (rows - known.rows) / (at - known.at)) : null;
}

async function draw() {
  asked = performance.now();
  const found = await api.get('/system'), {controllers, ingest, books} = found;
  const backup = found.last_backup, embedded = found.roles.length > 1;  // servers have backups of their own
  const late = embedded && (!backup || Date.now() - Date.parse(backup) > BACKUP_MS);
  /** @type {[string, string, boolean][]} */
  const rows = [
    ['broker', t(found.broker_connected ? 'connected' : 'disconnected'), !found.broker_connected],
    ['controllers-online', `${number(controllers.online)} / ${number(controllers.known)}`, controllers.online < controllers.known],
    ['controllers-stale', number(controllers.stale), controllers.stale > 0],
    ['oldest-data', span(controllers.oldest_data_s), controllers.stale > 0],
    ['clock-ahead', span(Math.max(0, controllers.clock_ahead_s)), controllers.clock_ahead_s > SKEW_S],
    ['clocks-unset', number(controllers.unset_clocks), controllers.unset_clocks > 0],
    ['backlog', number(controllers.backlog), controllers.backlog > 1000],
    ['readings-lost', number(controllers.lost), controllers.lost > 0],
    ['messages-taken', number(ingest.messages), false],
    ['rows-stored', number(ingest.rows), false],
    ['rows-rate', quantity(rate(ingest.rows), '/ s', 1), false],
    ['messages-refused', number(ingest.rejected), ingest.rejected > 0],
    ['failed-commits', number(ingest.failed_commits), ingest.failed_commits > 0],
    ['quarantine', number(books.quarantine), books.quarantine > 0],
    ['last-backup', moment(backup), late],
  ];
  for (const [name, text] of Object.entries(found.alarms)) rows.push([name, String(text), true]);
  const failing = Object.entries(found.failing).map(([part, error]) => `${part}: ${error}`);
  rows.unshift(['parts-failing', failing.join('; ') || number(0), failing.length > 0]);
  box.replaceChildren(table(t('view-health'), [t('col-what'), t('value'), t('judgement')], rows.map(([name, value, bad]) => [
    t(name), figure(value), make('td', {className: bad ? 'what-diverged' : ''}, bad ? `◆ ${t('look-at-it')}` : t('fine'))])),
  make('p', {className: 'hint'}, `Duha ${found.version} · ${found.roles.join(', ')}`));
}
