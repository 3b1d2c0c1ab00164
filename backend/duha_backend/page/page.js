// The operators' page: signs in, keeps the city's state from ticks, and shows it.
import * as api from './api.js';
import * as detail from './detail.js';
import * as dim from './dim.js';
import * as l10n from './l10n.js';
import * as rain from './rain.js';
import * as router from './router.js';
import * as runoff from './runoff.js';
import {makeMap} from './map.js';
import {isProblem, nameOf} from './states.js';

const {t, number} = l10n;
const $ = selector => document.querySelector(selector);
const SHOWN_PROBLEMS = 200;

let city, state, map = null, seq = 0, assets = 0, figures = {}, controllers = [], chosen = null, source = null;
let fieldOf = '';  // up to when the rain is that the map shows between the gauges
let cityNow = 0, heard = 0;  // the city's clock at the last tick, and when that was here
const now = () => cityNow + (performance.now() - heard) * city.rate;

// -- signing in ------------------------------------------------------------------------

async function signedIn(words) {
  const given = location.hash.startsWith('#token=') ? new URLSearchParams(location.hash.slice(1)).get('token') : null;
  if (given) {
    history.replaceState(null, '', location.pathname);  // a token does not stay in the address
    try { await api.post('/session', {token: given}); } catch { /* the dialog will ask */ }
  }
  try {
    return await api.get('/city');
  } catch (error) {
    if (error.status !== 401) throw error;
    await words;
    await askForToken();
    return api.get('/city');
  }
}

function askForToken() {
  const dialog = $('#signin'), form = dialog.querySelector('form'), error = dialog.querySelector('.error');
  dialog.addEventListener('cancel', event => event.preventDefault());
  dialog.showModal();
  return new Promise(done => form.addEventListener('submit', async event => {
    event.preventDefault();
    try {
      await api.post('/session', {token: form.elements.token.value.trim()});
      form.reset();
      dialog.close();
      done();
    } catch {
      error.textContent = t('sign-in-wrong');
      error.hidden = false;
    }
  }));
}

// -- the state of the city ---------------------------------------------------------------

async function resync() {
  const fresh = await api.state();
  seq = fresh.seq;
  state.set(fresh.bytes);
  show(true);
}

function listen() {
  source?.close();
  source = api.events();
  source.onopen = () => link(true);
  source.onerror = () => link(false);
  source.addEventListener('tick', async event => {
    const tick = JSON.parse(event.data);
    cityNow = tick.now;
    heard = performance.now();
    figures = tick.figures;
    if (assets && tick.assets && tick.assets !== assets) return location.reload();  // an import
    assets = tick.assets;
    if (tick.seq <= seq) return;
    if (tick.seq !== seq + 1) return resync();
    seq = tick.seq;
    tick.i.forEach((index, k) => { state[index] = tick.s[k]; });
    show(tick.i.length > 0);
  });
}

function link(up) {
  $('#link').textContent = t(up ? 'live' : 'lost');
  $('#link').classList.toggle('lost', !up);
}

function show(changed) {
  showFigures();
  if (!changed) return;
  map?.redraw();
  showProblems();
}

function showFigures() {
  const problems = countProblems(), online = city.cabinets.length - (figures.stale?.length ?? 0);
  const shown = [
    [number(figures.lit), t('figure-lit', {total: number(figures.luminaires)})],
    [l10n.percent(figures.mean_level), t('figure-level')],
    [`${number(figures.power_kw, 1)} kW`, t('figure-power')],
    [number(problems), t('figure-problems'), problems ? 'bad' : ''],
    [`${number(figures.rain_1h_mm, 1)} mm`, t('figure-rain'), figures.rain_1h_mm ? 'wet' : ''],
    [`${number(online)} / ${number(city.cabinets.length)}`, t('figure-controllers'), online < city.cabinets.length ? 'bad' : ''],
  ];
  $('#figures').replaceChildren(...shown.map(([value, name, kind]) => {
    const box = document.createElement('div'), term = document.createElement('dt'), text = document.createElement('dd');
    box.className = kind ?? '';
    term.textContent = name;
    text.textContent = value;
    box.append(term, text);
    return box;
  }));
  $('#clock').textContent = `${l10n.date(cityNow)} ${l10n.clock(cityNow, true)}${city.rate === 1 ? '' : ` ×${number(city.rate)}`}`;
}

function countProblems() {  // a plain loop: of a million lamps, several times a second
  let count = 0;
  for (let i = 0; i < state.length; i++) if (isProblem(state[i])) count++;
  return count;
}

function showProblems() {
  const rows = [], lamps = city.luminaires;
  for (const controller of controllers.filter(c => c.stale)) {
    rows.push(row('stale', t('cabinet-stale', {id: controller.id, age: l10n.span(controller.age_s)}), null, ''));
  }
  const stale = new Set(controllers.filter(c => c.stale).map(c => c.id));
  for (let i = 0; i < state.length && rows.length < SHOWN_PROBLEMS; i++) {
    if (!isProblem(state[i]) || stale.has(lamps.cabinet[i])) continue;
    rows.push(row(nameOf(state[i]), t(`state-${nameOf(state[i])}`), i, lamps.street[i]));
  }
  const count = countProblems(), said = t('problems-said', {count});
  if (!rows.length) rows.push(row('', t('all-well'), null, ''));
  $('#problems tbody').replaceChildren(...rows);
  $('#count').textContent = number(count);
  $('#count').classList.toggle('bad', count > 0);
  if ($('#said').textContent !== said) $('#said').textContent = said;
}

function row(kind, what, index, where) {
  const line = document.createElement('tr'), [first, second, third] = [0, 1, 2].map(() => document.createElement('td'));
  first.className = kind && `what-${kind}`;
  first.textContent = kind ? `◆ ${what}` : what;
  if (index !== null) {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = city.luminaires.id[index];
    button.addEventListener('click', () => pick(index));
    second.append(button);
  } else first.colSpan = 3;
  third.textContent = where;
  line.append(first, ...(index === null ? [] : [second, third]));
  return line;
}

// -- what is asked for now and then -------------------------------------------------------

async function pick(index) {
  const lamps = city.luminaires;
  chosen = index;
  history.replaceState(null, '', `#/luminaire/${encodeURIComponent(lamps.id[index])}`);
  map?.choose(index);
  dim.choose({id: lamps.id[index], street: lamps.street[index], cabinet: lamps.cabinet[index]});
  await detail.show(lamps.id[index]);
}

/** The next luminaire whose id or street has what is looked for. */
function search(event) {
  event.preventDefault();
  const wanted = event.target.elements.what.value.trim().toLocaleLowerCase(), lamps = city.luminaires, n = lamps.id.length;
  const fits = i => lamps.id[i].toLocaleLowerCase().includes(wanted) || lamps.street[i].toLocaleLowerCase().includes(wanted);
  const from = chosen === null ? 0 : chosen + 1;
  let found = -1;
  for (let k = 0; wanted && k < n && found < 0; k++) if (fits((from + k) % n)) found = (from + k) % n;
  event.target.querySelector('output').textContent = found < 0 ? t('search-nothing') : '';
  if (found >= 0) location.hash = `#/luminaire/${encodeURIComponent(lamps.id[found])}`;
}

/** A luminaire by its address. */
function pickById(id) {
  const index = city.luminaires.id.indexOf(id);
  if (index >= 0) pick(index);
}

async function refresh() {
  await router.refresh();
  if (!router.onMap()) return;
  controllers = await api.get('/controllers');
  await Promise.all([rain.refresh(city.gauges), runoff.refresh(), dim.refresh(), chosen === null ? null : detail.show(city.luminaires.id[chosen])]);
  showProblems();
  showPlaces();
  await showField();
}

/** Rain between the gauges, when somebody wants it; it is always said what it is. */
async function showField() {
  const wanted = $('#between input').checked, said = $('#between output');
  if (!map || !wanted) {
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
    if (error.status === 401) throw error;
    said.textContent = t('rain-field-none');
  }
}

function showPlaces() {
  map?.showCabinets(new Set(controllers.filter(c => c.stale).map(c => c.id)));
  const totals = rain.totals();
  map?.showGauges(new Map(city.gauges.map(g => [g.id, `${g.id}\n${number(totals.get(g.id) ?? 0, 1)} mm`])));
}

/** Ask again every two seconds, however long an answer takes, while somebody looks. */
async function keepFresh() {
  for (;;) {
    await new Promise(done => setTimeout(done, 2000));
    if (document.hidden) continue;
    try { await refresh(); } catch (error) {
      if (error.status === 401) location.reload();
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
  const legend = [['--off', 'off'], ['--low', 'low'], ['--full', 'full'], ['--fail', 'failure', 'diamond'], ['--warn', 'lost', 'ring']];
  $('#legend').replaceChildren(...legend.map(([colour, key, shape]) => {
    const item = document.createElement('li'), mark = document.createElement('i');
    mark.className = shape ?? '';
    mark.style[shape === 'ring' ? 'borderColor' : 'background'] = `var(${colour})`;
    item.append(mark, t(`legend-${key}`));
    return item;
  }));
}

async function main() {
  const words = l10n.load().then(relabel);
  city = await signedIn(words);
  l10n.setZone(city.zone);
  cityNow = city.now;
  heard = performance.now();
  state = new Uint8Array(city.luminaires.id.length);
  $('#city').textContent = city.name;
  const [streets] = await Promise.all([api.get('/streets'), resyncQuietly(), words]);
  [map] = await Promise.all([makeMap({city, streets, state, onPick: pick}), dim.begin(city, now)]);
  $('#nomap').hidden = map !== null;
  listen();
  await router.begin(city, pickById);
  await refresh();
  relabel();
  $('#language').addEventListener('click', () => { l10n.switchLanguage(); relabel(); dim.relabel(); link(source.readyState === 1); showFigures(); router.go(false); refresh(); });
  $('#between input').addEventListener('change', showField);
  $('#search').addEventListener('submit', search);
  $('#signout').addEventListener('click', async () => { await api.remove('/session'); location.reload(); });
  document.addEventListener('visibilitychange', () => {  // browsers allow few streams: a hidden page lets go of its own
    if (document.hidden) { source.close(); return; }
    resync();
    listen();
  });
  keepFresh();
  await map?.idle();
  document.documentElement.dataset.ready = 'yes';
}

async function resyncQuietly() {
  const fresh = await api.state();
  seq = fresh.seq;
  state.set(fresh.bytes);
}

main();
