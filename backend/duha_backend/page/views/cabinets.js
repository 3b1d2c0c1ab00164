// Cabinets: all of them in a list, one with its meter, its lamps and its alarms.
import * as api from '../api.js';
import {figure, make, table} from '../dom.js';
import {clock, number, percent, span, t} from '../l10n.js';

const PHASES = [1, 2, 3];
let about = '', box = null, city = null;

export async function show(body, theOne, theCity) {
  [about, city, box] = [theOne, theCity, make('div')];
  if (about && !city.cabinets.some(cabinet => cabinet.id === about)) throw new Error(t('no-cabinet', {id: about}));
  body.append(make('h2', {}, about ? t('target-cabinet', {id: about}) : t('view-cabinets')), box);
  await refresh();
}

export async function refresh() {
  if (box.contains(document.activeElement)) return;  // who walks through the list by keyboard is not thrown out of it
  const parts = await (about ? one() : all());
  box.replaceChildren(...parts);
}

async function all() {
  const [controllers, meters] = await Promise.all([api.get('/controllers'), latest('meter')]);
  const rows = city.cabinets.map(cabinet => {
    const known = controllers.find(one => one.id === cabinet.id), power = meters.filter(m => m.device.startsWith(`${cabinet.id}-`));
    return [
      make('a', {href: `#/cabinets/${encodeURIComponent(cabinet.id)}`}, cabinet.id), cabinet.street || '–',
      link(known), figure(span(known?.age_s)), figure(power.length ? `${number(power.reduce((sum, m) => sum + m.power_w, 0) / 1000, 2)} kW` : '–'),
      figure(number(city.luminaires.cabinet.filter(id => id === cabinet.id).length)), rollout(known),
    ];
  });
  return [table(t('view-cabinets'), ['cabinet', 'col-where', 'connection', 'data-age', 'power', 'luminaires', 'programme-state'].map(word => t(word)), rows)];
}

async function one() {
  const id = encodeURIComponent(about);
  const [controllers, meters, lamps, alarms] = await Promise.all([
    api.get('/controllers'), latest('meter'), latest('luminaire', 'level_commanded_pct,level_actual_pct,power_w,burning_h'),
    api.get(`/alarms?cabinet=${id}`)]);
  const known = controllers.find(one => one.id === about), mine = new Set(city.luminaires.id.filter((_, k) => city.luminaires.cabinet[k] === about));
  const rows = lamps.filter(lamp => mine.has(lamp.device)).map(lampLine);
  return [
    make('p', {}, link(known), ` · ${t('data-age')}: ${span(known?.age_s)} · ${t('programme-state')}: `, rollout(known)),
    ...meters.filter(meter => meter.device.startsWith(`${about}-`)).map(phases),
    make('p', {}, make('a', {href: '#/alarms'}, t('alarms-of', {count: alarms.items.length}))),
    table(t('luminaires'), [t('luminaire'), t('commanded'), t('actual'), t('power'), t('burning'), t('at-time')], rows),
  ];
}

function lampLine(lamp) {
  const good = lamp.ts > 0 && lamp.quality === 0;  // what did not answer has no figures, only old ones
  const value = text => figure(good ? text : '–');
  return [
    make('a', {href: `#/luminaire/${encodeURIComponent(lamp.device)}`}, lamp.device),
    value(percent(lamp.level_commanded_pct)), value(percent(lamp.level_actual_pct)),
    value(`${number(lamp.power_w, 1)} W`), value(`${number(lamp.burning_h)} h`),
    good ? clock(lamp.ts) : make('span', {className: 'what-no_answer'}, `◆ ${t(lamp.ts ? 'state-no_answer' : 'state-unknown')}`)];
}

function phases(meter) {
  const rows = PHASES.map(p => [`L${p}`, figure(`${number(meter[`voltage_l${p}_v`], 1)} V`), figure(`${number(meter[`current_l${p}_a`], 2)} A`), figure(`${number(meter[`power_l${p}_w`])} W`)]);
  return table(t('meter', {id: meter.device}), [meter.device, t('voltage'), t('current'), t('power')], rows);
}

/** The newest readings of a kind as rows. */
async function latest(kind, columns = '') {
  const found = (await api.get(`/latest/${kind}${columns && `?columns=${columns}`}`)).columns;
  return found.device.map((_, k) => Object.fromEntries(Object.entries(found).map(([name, column]) => [name, column[k]])));
}

const link = known => known && !known.stale && known.status?.online ? `● ${t('connected')}`
  : make('span', {className: 'what-stale'}, `◆ ${t('disconnected')}`);

/** Whether what is wanted of a cabinet has come there: pending, applied or diverged. */
export function rollout(known) {
  const state = !known ? 'pending' : known.diverged.length ? 'diverged'
    : known.reported_revision === known.desired_revision ? 'applied' : 'pending';
  return make('b', {className: `state-${state}`}, t(`rollout-${state}`, {count: known?.diverged.length ?? 0}));
}
