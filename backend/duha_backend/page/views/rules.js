// The rules of a calendar: the first that covers a night says its programme; else the default.
import {button, choice, field, make, table} from '../dom.js';
import {t} from '../l10n.js';

/**
 * @typedef {{programme: string, first?: string | null, last?: string | null, yearly?: boolean, weekdays?: string[],
 *   nth?: number[], holidays?: string, dates?: string[]}} Rule
 * @typedef {{id: string, name: string, etag: string, default: string, rules: Rule[]}} Calendar
 */

const WEEKDAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];
const NTH = '((-1|[1-5])([\\s,;]+|$))*', DATES = '(\\d{4}-\\d{2}-\\d{2}([\\s,;]+|$))*';
const HEADS = ['rule', 'programme', 'weekdays', 'nth', 'rule-first', 'rule-last', 'yearly', 'holidays', 'dates', ''];

/**
 * @param {HTMLElement} which chooses the calendar
 * @param {Calendar} calendar is changed in place
 * @param {Record<string, import('./steps.js').Programme>} programmes
 * @param {() => void} redraw when rows come or go
 * @param {() => void} changed when a field has another value
 */
export function rules(which, calendar, programmes, redraw, changed) {
  const ids = Object.keys(programmes), all = calendar.rules;
  const one = (/** @type {string} */ now, /** @type {string} */ label, /** @type {(id: string) => void} */ take) => {
    const made = choice(ids, now, id => programmes[id]?.name ?? id, id => { take(id); changed(); });
    made.setAttribute('aria-label', label);
    return made;
  };
  const rows = all.map((rule, k) => [
    String(k + 1), one(rule.programme, `${t('programme')} ${k + 1}`, id => { rule.programme = id; }), ...conditions(rule, k, changed),
    make('span', {className: 'pair'},
      button('↑', () => { swap(all, k); redraw(); }, {'aria-label': `${t('rule-up')} ${k + 1}`, disabled: k === 0, 'data-locked': k === 0 ? 'yes' : ''}),
      button(t('remove-step'), () => { all.splice(k, 1); redraw(); }, {'aria-label': `${t('rule-remove')} ${k + 1}`})),
  ]);
  const add = button(t('rule-add'), () => { all.push({programme: calendar.default, weekdays: ['sat', 'sun']}); redraw(); });
  return make('div', {},
    rows.length ? table(t('rules'), HEADS.map(word => word && t(word)), rows) : '',
    make('div', {className: 'bar-of-tools'}, which, field(t('other-nights'), one(calendar.default, t('other-nights'), id => { calendar.default = id; })), add),
    make('p', {className: 'hint'}, t('rules-help')));
}

/** @param {Rule[]} all @param {number} k */
function swap(all, k) { all.splice(k - 1, 2, .../** @type {Rule[]} */ ([all[k], all[k - 1]])); }

/** Fields of what must hold for a night. @param {Rule} rule @param {number} k @param {() => void} changed */
function conditions(rule, k, changed) {
  const input = (/** @type {string} */ word, /** @type {Record<string, unknown>} */ properties, /** @type {(field: HTMLInputElement) => void} */ take) => {
    const made = make('input', {'aria-label': `${t(word)} ${k + 1}`, ...properties});
    made.addEventListener('change', () => { take(made); changed(); });
    return made;
  };
  const list = (/** @type {string} */ text) => text.split(/[\s,;]+/).filter(Boolean);
  const days = make('span', {className: 'weekdays'}, ...WEEKDAYS.map(day => make('label', {}, t(`day-${day}`), input(`day-${day}`, {type: 'checkbox', checked: rule.weekdays?.includes(day)}, box => {
    rule.weekdays = WEEKDAYS.filter(one => one === day ? box.checked : rule.weekdays?.includes(one));
  }))));
  return [
    days,
    input('nth', {value: (rule.nth ?? []).join(', '), size: 4, placeholder: '1, -1', pattern: NTH}, field => { rule.nth = list(field.value).map(Number); }),
    input('rule-first', {type: 'date', value: rule.first ?? ''}, field => { rule.first = field.value || null; }),
    input('rule-last', {type: 'date', value: rule.last ?? ''}, field => { rule.last = field.value || null; }),
    input('yearly', {type: 'checkbox', checked: Boolean(rule.yearly)}, field => { rule.yearly = field.checked; }),
    input('holidays', {value: rule.holidays ?? '', size: 3, placeholder: 'CZ', pattern: '\\s*[A-Za-z]{2}\\s*'}, field => { rule.holidays = field.value.trim().toUpperCase(); }),
    input('dates', {value: (rule.dates ?? []).join(', '), size: 12, placeholder: '2026-12-31', pattern: DATES}, field => { rule.dates = list(field.value); }),
  ];
}
