// The operators' page: signs in, keeps the city's state from ticks, and shows it.
import * as api from './api.js';
import * as cityClock from './clock.js';
import * as detail from './detail.js';
import * as dim from './dim.js';
import * as filter from './filter.js';
import * as headline from './headline.js';
import * as l10n from './l10n.js';
import * as problems from './problems.js';
import * as rain from './rain.js';
import * as router from './router.js';
import * as runoff from './runoff.js';
import * as stream from './stream.js';
import {sweep} from './chart.js';
import {$, make} from './dom.js';
import {tell} from './errors.js';
import {makeMap} from './map.js';
import {isProblem, nameOf, STALE} from './states.js';

/** @typedef {import('./map.js').Standing} Standing */

const {t, number} = l10n;

/** @type {import('./types.js').City} */
let city;
/** What each lamp does; and of it what the filter lets be drawn. */
let state = new Uint8Array(0), drawn = state;
/** @type {Awaited<ReturnType<typeof makeMap>>} */
let map = null;
/** @type {Partial<import('./types.js').Figures>} */
let figures = {};
/** @type {import('./types.js').Controller[]} */
let controllers = [];
/** @type {number | null} */
let chosen = null;
let seq = 0, assets = 0;
/** @type {Promise<void> | null} */
let syncing = null;
let fieldOf = '';  // up to when the rain is that the map shows between the gauges

// -- signing in ------------------------------------------------------------------------

/** @param {Promise<void>} words @returns {Promise<Omit<import('./types.js').City, 'luminaires'>>} */
async function signedIn(words) {
  const given = location.hash.startsWith('#token=') ? new URLSearchParams(location.hash.slice(1)).get('token') : null;
  if (given) {
    history.replaceState(null, '', location.pathname);  // a token does not stay in the address
    try { await api.post('/session', {token: given}); } catch { /* the dialog will ask */ }
  }
  try {
    return await api.get('/city');
  } catch (error) {
    if (!api.isStatus(error, 401)) throw error;
    await words;
    await askForToken();
    return api.get('/city');
  }
}

function askForToken() {
  const dialog = /** @type {HTMLDialogElement} */ ($('#signin')), form = /** @type {HTMLFormElement} */ ($('form', dialog)), error = $('.error', dialog);
  const field = /** @type {HTMLInputElement} */ ($('input', form));
  dialog.addEventListener('cancel', event => event.preventDefault());
  dialog.showModal();
  return new Promise(done => form.addEventListener('submit', async event => {
    event.preventDefault();
    try {
      await api.post('/session', {token: field.value.trim()});
      form.reset();
      dialog.close();
      done(null);
    } catch {
      error.textContent = t('sign-in-wrong');
      error.hidden = false;
    }
  }));
}

// -- the state of the city ---------------------------------------------------------------

/**
 * Apply a tick. After a new connection the whole state is fetched: the process may be another one, which counts from zero.
 * @param {{seq: number, now: number, i: number[], s: number[], figures: import('./types.js').Figures, assets: number, overrides: number}} tick
 * @param {boolean} fresh
 */
async function take(tick, fresh) {
  cityClock.set(tick.now);
  figures = tick.figures;
  dim.follow(tick.overrides);
  link(stream.state());
  if (assets && tick.assets && tick.assets !== assets) return location.reload();  // an import
  assets = tick.assets;
  if (!fresh && tick.seq <= seq) return showFigures();
  let changed = tick.i.length > 0;
  if (!fresh && tick.seq === seq + 1) {
    seq = tick.seq;
    tick.i.forEach((index, k) => { state[index] = tick.s[k] ?? 0; });
  } else {  // some were missed
    await resync();
    changed = true;
  }
  show(changed);
}

/** Fetch the whole state, once at a time; a failure leaves it to the next tick. */
async function resync() {
  syncing ??= fetchState().finally(() => { syncing = null; });
  await syncing;
}

async function fetchState() {
  const found = await api.state();
  if (found.bytes.length !== state.length) return location.reload();  // an import
  seq = found.seq;
  state.set(found.bytes);
  stream.resumed();
}

/** What the connection is like; `partly`: ticks come, but something that is asked for does not. @param {'live' | 'partly' | 'lost'} how */
function link(how) {
  $('#link').textContent = t(how);
  $('#link').classList.toggle('lost', how !== 'live');
}

/** @param {boolean} changed */
function show(changed) {
  showFigures();
  if (!changed) return;
  filter.apply(state, drawn);
  map?.redraw();
  problems.show(city, state, controllers, filter.shows, pick);
}

function showFigures() {
  headline.show(figures, problems.count(state), city);
  $('#clock').textContent = `${l10n.date(cityClock.now())} ${l10n.clock(cityClock.now(), true)}${city.rate === 1 ? '' : ` ×${number(city.rate)}`}`;
}

// -- what is asked for now and then -------------------------------------------------------

/** @param {number} index */
async function pick(index) {
  const lamps = city.luminaires, id = lamps.id[index] ?? '';
  chosen = index;
  history.replaceState(null, '', `#/luminaire/${encodeURIComponent(id)}`);
  map?.choose(index);
  dim.choose({id, street: lamps.street[index] ?? ''});
  await detail.show(id);
}

/** The next luminaire whose id, street, pole or number in the city's books has what is looked for. @param {SubmitEvent} event */
function search(event) {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ ($('#search input')), wanted = input.value.trim().toLocaleLowerCase();
  const lamps = city.luminaires, n = lamps.id.length, from = chosen === null ? 0 : chosen + 1;
  const columns = [lamps.id, lamps.street, lamps.pole, lamps.asset_id];
  const fits = (/** @type {number} */ i) => columns.some(column => column[i]?.toLocaleLowerCase().includes(wanted));
  let found = -1;
  for (let k = 0; wanted && k < n && found < 0; k++) if (fits((from + k) % n)) found = (from + k) % n;
  $('#search output').textContent = found < 0 ? t('search-nothing') : '';
  if (found >= 0) location.hash = `#/luminaire/${encodeURIComponent(lamps.id[found] ?? '')}`;
}

/** A luminaire by its address. @param {string} id */
function pickById(id) {
  const index = city.luminaires.id.indexOf(id);
  if (index >= 0) pick(index);
}

/** Ask for all that is shown; what fails keeps nothing else from being shown anew. */
async function refresh() {
  await all([router.refresh(), headline.refresh(), ...router.onMap() ? [refreshMap()] : []]);
}

async function refreshMap() {
  try {
    await all([
      api.get('/controllers').then(found => { controllers = found; }), rain.refresh(city.gauges), runoff.refresh(), dim.refresh(),
      filter.refresh(), problems.refresh(), chosen === null ? null : detail.refresh()]);
  } finally {
    problems.show(city, state, controllers, filter.shows, pick);
    showPlaces();
  }
  await showField();
}

/** Wait for all; then throw what went wrong, a session that is over before anything else. @param {unknown[]} work */
async function all(work) {
  const failed = (await Promise.allSettled(work)).flatMap(one => one.status === 'rejected' ? [one.reason] : []);
  const first = failed.find(error => api.isStatus(error, 401)) ?? failed[0];
  if (first) throw first;
}

/** Rain between the gauges, when somebody wants it; it is always said what it is. */
async function showField() {
  const box = /** @type {HTMLInputElement} */ ($('#between input')), said = $('#between output');
  if (!map || !box.checked) {
    map?.showField(null);
    fieldOf = '';
    said.textContent = '';
    return;
  }
  try {
    const found = await api.get('/rain/field?minutes=60&columns=40');
    if (found.until !== fieldOf) map.showField(found);
    fieldOf = found.until;
    said.textContent = t('rain-field-said', {time: l10n.clock(Date.parse(found.until))});
  } catch (error) {
    if (api.isStatus(error, 401)) throw error;
    said.textContent = t('rain-field-none');
  }
}

let placed = '';

/** What stands on the map beside the lamps; nothing is drawn again that has not changed. */
function showPlaces() {
  if (!map) return;
  const totals = rain.totals(), labels = new Map(city.gauges.map(g => [g.id, `${g.id}\n${number(totals.get(g.id) ?? 0, 1)} mm`]));
  const standing = cabinetsNow(), key = JSON.stringify([...standing.values(), ...labels.values(), runoff.loads()]);
  if (key === placed) return;
  placed = key;
  map.showCabinets(standing);
  map.hatch(controllers.filter(c => c.stale && c.age_s !== null).map(c => c.id));
  map.showGauges(labels);
  map.showCatchments(runoff.loads(), one => `${one.name}\n${l10n.quantity(one.load_l_s_ha, 'L/s·ha', 1)}`);
}

/** @returns {Map<string, Standing>} */
function cabinetsNow() {
  const stale = new Set(controllers.filter(c => c.stale).map(c => c.id));
  const found = new Map(city.cabinets.map(({id}) => [id, {
    label: stale.has(id) ? `◆ ${id}` : id, stale: stale.has(id), problems: 0, lamps: 0, failed: false}]));
  const owners = city.luminaires.cabinet;
  for (let i = 0; i < state.length; i++) {
    const mine = found.get(owners[i] ?? ''), byte = state[i] ?? 0;
    if (!mine) continue;
    mine.lamps++;
    if (!isProblem(byte) || !filter.shows(i, byte)) continue;
    mine.problems++;
    mine.failed ||= nameOf(byte) !== 'no_answer' && byte !== STALE;
  }
  return found;
}

async function keepFresh() {
  for (;;) {
    await new Promise(done => setTimeout(done, 2000));
    if (document.hidden) continue;
    stream.watch();
    sweep();
    try {
      await refresh();
      link(stream.state());
    } catch (error) {
      if (api.isStatus(error, 401)) location.reload();
      else link(stream.state() === 'live' ? 'partly' : 'lost');
    }
  }
}

// -- words ---------------------------------------------------------------------------------

function relabel() {
  l10n.label();
  router.label();
  document.title = t('title', {city: city?.name ?? ''});
  const other = $('#language');
  other.textContent = t('language');
  other.lang = l10n.other();
  /** @type {[string, string][]} */
  const legend = [['off', ''], ['low', ''], ['full', ''], ['failure', 'diamond'], ['lost', 'ring'], ['stale', 'hatch']];
  $('#legend').replaceChildren(...legend.map(([key, shape]) => make('li', {}, make('i', {className: `${shape} mark-${key}`}), t(`legend-${key}`))));
}

async function switchLanguage() {
  await l10n.switchLanguage();
  relabel();
  filter.label();
  dim.relabel();
  link(stream.state());
  showFigures();
  router.go(false);
  placed = '';
  return refresh();
}

function onVisibility() {
  if (document.hidden) stream.close();
  else stream.watch(true);
}

/** All that was asked for early: the city with its lamps, streets, and what the lamps do. @param {Promise<void>} words */
async function theCity(words) {
  const about = await signedIn(words);
  const [luminaires, streets, now] = await Promise.all([api.lamps(), api.get('/streets'), api.state()]);
  city = {...about, luminaires};
  assets = about.assets;
  [state, seq, drawn] = [now.bytes, now.seq, Uint8Array.from(now.bytes)];
  if (state.length !== luminaires.id.length) location.reload();  // an import came between
  return streets;
}

async function main() {
  const words = l10n.load().then(relabel), streets = await theCity(words);
  await words;
  head();
  filter.begin(city, () => { filter.apply(state, drawn); map?.redraw(); problems.show(city, state, controllers, filter.shows, pick); showPlaces(); });
  stream.begin({onTick: (tick, fresh) => { take(tick, fresh).catch(() => link('partly')); }, onChange: () => link(stream.state())});
  const fresh = Promise.all([dim.begin(city), refresh()]).catch(() => link('partly'));
  map = await makeMap({city, streets, drawn, onPick: pick});
  $('#nomap').hidden = map !== null;
  showPlaces();
  await router.begin(city, pickById);
  $('#language').addEventListener('click', switchLanguage);
  $('#between input').addEventListener('change', showField);
  /** @type {HTMLFormElement} */ ($('#search')).addEventListener('submit', search);
  $('#signout').addEventListener('click', async () => { await api.remove('/session'); location.reload(); });
  document.addEventListener('visibilitychange', onVisibility);
  addEventListener('online', () => stream.watch(true));
  await fresh;
  keepFresh();
  await map?.idle();
  document.documentElement.dataset.ready = 'yes';
}

/** What stands above everything, as high as it will be: a map that is made is not resized at once. */
function head() {
  l10n.setZone(city.zone);
  cityClock.set(city.now, city.rate);
  $('#city').textContent = city.name;
  document.title = t('title', {city: city.name});
  const grafana = /** @type {HTMLAnchorElement} */ ($('#grafana'));
  if (city.grafana) [grafana.href, grafana.hidden] = [city.grafana, false];
  showFigures();
}

main().catch(error => {  // an empty page says why it is one
  tell($('#link'), error).classList.add('lost');
  throw error;
});
