// How the system itself is.
import * as api from '../api.js';
import {figure, make, table} from '../dom.js';
import {number, span, t} from '../l10n.js';

let box = null;

export async function show(body) {
  box = make('div');
  body.append(make('h2', {}, t('view-health')), box);
  await refresh();
}

export async function refresh() {
  const found = await api.get('/system'), {controllers, ingest, books} = found;
  const rows = [
    ['broker', found.broker_connected ? t('connected') : t('disconnected'), !found.broker_connected],
    ['controllers-online', `${number(controllers.online)} / ${number(controllers.known)}`, controllers.online < controllers.known],
    ['controllers-stale', number(controllers.stale), controllers.stale > 0],
    ['oldest-data', span(controllers.oldest_data_s), controllers.stale > 0],
    ['backlog', number(controllers.backlog), controllers.backlog > 1000],
    ['readings-lost', number(controllers.lost), controllers.lost > 0],
    ['clocks-unset', number(controllers.unset_clocks), controllers.unset_clocks > 0],
    ['messages-taken', number(ingest.messages), false],
    ['rows-stored', number(ingest.rows), false],
    ['messages-refused', number(ingest.rejected), ingest.rejected > 0],
    ['failed-commits', number(ingest.failed_commits), ingest.failed_commits > 0],
    ['quarantine', number(books.quarantine), books.quarantine > 0],
    ...Object.entries(found.alarms).map(([name, text]) => [name, String(text), true]),
  ];
  box.replaceChildren(table(t('view-health'), [t('col-what'), t('value'), t('judgement')], rows.map(([name, value, bad]) => [
    t(name), figure(value), make('td', {className: bad ? 'what-diverged' : ''}, bad ? `◆ ${t('look-at-it')}` : t('fine'))])),
  make('p', {className: 'hint'}, `Duha ${found.version} · ${found.roles.join(', ')}`));
}
