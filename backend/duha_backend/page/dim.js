// Dim or light by hand: whom, how much, until when, why; and what became of it.
import * as api from './api.js';
import {clock, percent, t} from './l10n.js';

const form = document.querySelector('#dim form');
const list = document.querySelector('#overrides');
let chosen = null, groups = [], city = null, now = () => Date.now();

export async function begin(theCity, theClock) {
  city = theCity;
  now = theClock;
  groups = await api.get('/groups');
  fillTargets();
  form.elements.until.value = clock(now() + 2 * 3_600_000);
  form.elements.level.addEventListener('input', showLevel);
  form.addEventListener('submit', send);
}

export function choose(luminaire) {
  chosen = luminaire;
  fillTargets();
  form.elements.target.value = JSON.stringify({kind: 'luminaire', id: luminaire.id});
}

export function relabel() {
  fillTargets();
  showLevel();
}

function showLevel() { form.querySelector('output').textContent = percent(Number(form.elements.level.value)); }

function targets() {
  const found = [];
  if (chosen) found.push({kind: 'luminaire', id: chosen.id}, {kind: 'street', id: chosen.street});
  found.push(...city.cabinets.map(c => ({kind: 'cabinet', id: c.id})));
  found.push(...groups.map(g => ({kind: 'group', id: g.id})));
  found.push({kind: 'city', id: ''});
  return found;
}

function name({kind, id}) {
  return t(`target-${kind}`, {id, name: groups.find(g => g.id === id)?.name ?? id});
}

function fillTargets() {
  if (!city) return;
  const select = form.elements.target, before = select.value;
  select.replaceChildren(...targets().map(target => new Option(name(target), JSON.stringify(target))));
  if ([...select.options].some(o => o.value === before)) select.value = before;
}

/** Minutes from now on the city's clock until it next shows HH:MM. */
function minutesUntil(time) {
  const minutes = text => { const [h, m] = text.split(':').map(Number); return 60 * h + m; };
  const wait = minutes(time) - minutes(clock(now()));
  return wait > 0 ? wait : wait + 24 * 60;
}

async function send(event) {
  event.preventDefault();
  const fields = form.elements, error = form.querySelector('.error');
  error.hidden = true;
  try {
    await api.post('/overrides', {
      target: JSON.parse(fields.target.value), level: Number(fields.level.value),
      minutes: minutesUntil(fields.until.value), reason: fields.reason.value,
    });
    await refresh();
  } catch (problem) {
    error.textContent = problem.message;
    error.hidden = false;
  }
}

export async function refresh() {
  const found = await api.get('/overrides');
  list.replaceChildren(...found.slice(0, 20).map(line));
}

function line(override) {
  const item = document.createElement('li'), text = document.createElement('span'), state = document.createElement('b');
  text.textContent = t('override-line', {
    target: name(override.target), level: percent(override.level), until: clock(Date.parse(override.end))});
  state.className = `state-${override.state}`;
  state.textContent = t(`override-${override.state}`, {count: override.diverged.length});
  item.append(text, state);
  if (['pending', 'applied', 'diverged'].includes(override.state)) {
    const cancel = document.createElement('button');
    cancel.type = 'button';
    cancel.textContent = t('cancel');
    cancel.addEventListener('click', async () => { await api.remove(`/overrides/${override.id}`); await refresh(); });
    item.append(cancel);
  }
  return item;
}
