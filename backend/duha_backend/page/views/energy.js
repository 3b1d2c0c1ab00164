// Energy: what was used, what it would have been, and how that is reckoned.
import * as api from '../api.js';
import {field, figure, make, table} from '../dom.js';
import {language, number, percent, t} from '../l10n.js';

const EVERY = ['night', 'month', 'year'], PARTS = ['city', 'district', 'cabinet'];
let every = 'month', part = 'cabinet', box = null;

export async function show(body) {
  box = make('div');
  body.append(make('h2', {}, t('view-energy')), tools(), box);
  await draw();
}

function tools() {
  const select = (names, now, changed) => {
    const made = make('select', {}, ...names.map(name => new Option(t(`energy-${name}`), name, false, name === now)));
    made.addEventListener('change', () => { changed(made.value); draw(); });
    return made;
  };
  return make('div', {className: 'bar-of-tools'},
    field(t('period'), select(EVERY, every, value => { every = value; })),
    field(t('part'), select(PARTS, part, value => { part = value; })),
    make('a', {href: `/api/v1/energy.pdf?language=${language}`}, t('report-pdf')), make('a', {href: '/api/v1/energy.csv'}, 'CSV'));
}

async function draw() {
  const found = await api.get(`/energy?every=${every}&part=${part}`);
  if (!found.lines.length) return box.replaceChildren(make('p', {className: 'hint'}, t('no-energy')));
  const heads = ['period', 'part', 'luminaires', 'energy-used', 'energy-measured', 'energy-baseline', 'energy-saved'].map(word => t(word));
  box.replaceChildren(table(t('view-energy'), heads, found.lines.map(line)), make('p', {className: 'hint', lang: 'en'}, found.method));
}

const kwh = value => figure(`${number(value, 1)} kWh`);

const line = row => [row.period, row.part, figure(number(row.lamps)), kwh(row.kwh), kwh(row.measured_kwh), kwh(row.baseline_kwh),
  figure(row.baseline_kwh ? `${number(row.baseline_kwh - row.kwh, 1)} kWh (${percent(100 * (1 - row.kwh / row.baseline_kwh))})` : '–')];
