// The steps of a programme, as a table of fields.
import {button, choice, field, make, table} from '../dom.js';
import {t} from '../l10n.js';

/**
 * @typedef {{at: string, level: number, fade_s: number}} Step
 * @typedef {{start: string, end: string, early_min?: number, late_min?: number}} Period
 * @typedef {{id: string, name: string, etag: string, steps: Step[], active?: Period[], effects?: {on: string, level?: number | null}[], part_night?: boolean}} Programme
 */

const SUN = ['sunset', 'sunrise'], CLOCK = '\\s*([01]\\d|2[0-3]):[0-5]\\d\\s*', MINUTES = '\\s*[+−\\-]?\\d{1,3}\\s*';

/**
 * @param {Programme} programme is changed in place
 * @param {() => void} redraw when rows come or go
 * @param {() => void} changed when a field has another value
 */
export function steps(programme, redraw, changed) {
  const input = (/** @type {Record<string, unknown>} */ properties, /** @type {(value: string) => void} */ take) => {
    const made = make('input', properties);
    made.addEventListener('input', () => { take(made.value); changed(); });
    return made;
  };
  const upTo = (/** @type {number} */ most) => ({type: 'number', min: '0', max: String(most), step: 'any', placeholder: `0–${most}`, required: true});
  const rows = programme.steps.map((step, k) => [
    moment(step, k + 1, changed),
    input({...upTo(100), value: String(step.level), 'aria-label': `${t('dim-level')} ${k + 1}`}, value => { step.level = Number(value); }),
    input({...upTo(3600), value: String(step.fade_s ?? 0), 'aria-label': `${t('step-fade')} ${k + 1}`}, value => { step.fade_s = Number(value); }),
    button(t('remove-step'), () => { programme.steps.splice(k, 1); redraw(); }, {'aria-label': `${t('remove-step')} ${k + 1}`}),
  ]);
  const add = button(t('add-step'), () => { programme.steps.push({at: '23:00', level: 50, fade_s: 60}); redraw(); });
  return make('div', {},
    table(t('steps'), [t('step-at'), `${t('dim-level')} [%]`, `${t('step-fade')} [s]`, ''], rows),
    make('p', {className: 'hint'}, t('step-help')),
    make('div', {className: 'bar-of-tools'}, add, wet(programme, changed)), periods(programme));
}

/** The time of a step: by the clock, or by the sun with minutes before or after. @param {Step} step @param {number} number @param {() => void} changed */
function moment(step, number, changed) {
  const by = SUN.find(name => step.at.startsWith(name)) ?? 'clock';
  const text = make('input', {value: by === 'clock' ? step.at : String(Number(step.at.slice(by.length)) || 0), size: 8, required: true, 'aria-label': `${t('step-at')} ${number}`});
  const kind = choice(['clock', ...SUN], by, name => t(`by-${name}`), () => { text.value = kind.value === 'clock' ? '22:00' : '0'; form(); take(); });
  kind.setAttribute('aria-label', `${t('step-by')} ${number}`);
  const form = () => { [text.pattern, text.placeholder] = kind.value === 'clock' ? [CLOCK, '22:30'] : [MINUTES, '-15']; };
  const take = () => { step.at = kind.value === 'clock' ? text.value.trim() : bySun(kind.value, text.value); changed(); };
  text.addEventListener('input', take);
  form();
  return make('span', {className: 'pair'}, kind, text);
}

/** @param {string} event @param {string} minutes */
function bySun(event, minutes) {
  const offset = minutes.trim().replace('−', '-');
  if (/^[+-]?0*$/.test(offset)) return event;
  return `${event}${/^[+-]/.test(offset) ? '' : '+'}${offset}`;
}

/** A time of a programme in words. @param {string} at */
export function inWords(at) {
  const by = SUN.find(name => at.startsWith(name));
  return by ? `${t(`by-${by}`)}${at.slice(by.length) && ` ${at.slice(by.length)} min`}` : at;
}

/** Whether a wet road raises the light. @param {Programme} programme @param {() => void} changed */
function wet(programme, changed) {
  const box = make('input', {type: 'checkbox', checked: Boolean(programme.effects?.some(effect => effect.on === 'wet_road'))});
  box.addEventListener('change', () => {
    const others = (programme.effects ?? []).filter(effect => effect.on !== 'wet_road');
    programme.effects = box.checked ? [...others, {on: 'wet_road'}] : others;
    changed();
  });
  return field(t('wet-raises'), box);
}

/** @param {Programme} programme */
function periods({active = [], part_night: part}) {
  const said = active.map(({start, end}) => t('active-period', {start: inWords(start), end: inWords(end)}));
  return make('p', {className: 'hint'}, [...said, ...part ? [t('part-night')] : []].join(' · '));
}
