// One luminaire: commanded, in effect, actual, and the chain of reasons.
import * as api from './api.js';
import {clock, number, percent, span, t} from './l10n.js';

const box = document.querySelector('#detail');

export async function show(id) {
  render(await api.get(`/luminaires/${encodeURIComponent(id)}`));
}

/** A reason in words. */
export function words(cause) {
  return t(`reason-${cause.code}`, {
    name: cause.code === 'override' && cause.name ? ` (${cause.name})` : cause.name ?? '',
    level: percent(cause.level), step: cause.step ?? '', until: cause.until ? clock(cause.until) : '–',
  });
}

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function render(found) {
  const title = element('h2', found.id);
  title.append(' ', element('small', `${found.street}, ${found.cabinet} · ${t(`state-${found.state}`)}`));
  const levels = element('dl', undefined, 'levels');
  for (const [label, value] of [['commanded', found.commanded], ['in-effect', found.in_effect], ['actual', found.actual]]) {
    const bar = element('div', undefined, 'bar'), fill = element('i');
    fill.style.width = `${value ?? 0}%`;
    bar.append(fill);
    levels.append(element('dt', t(label)), bar, element('dd', percent(value)));
  }
  const why = element('ol', undefined, 'why');
  why.setAttribute('aria-label', t('why'));
  for (const cause of found.reason) why.append(element('li', words(cause)));
  const values = found.values;
  const facts = element('p', t('facts', {
    power: `${number(values.power_w, 1)} W`,
    temperature: `${number(values.driver_temperature_c, 1)} °C`,
    hours: `${number(values.burning_h)} h`,
    age: span(found.age_s),
  }), 'facts');
  levels.querySelectorAll('.bar').forEach(bar => bar.setAttribute('aria-hidden', 'true'));
  box.replaceChildren(title, levels, why, facts);
}
