// Czech and English from Fluent files; numbers and times from the browser's Intl.
import {FluentBundle, FluentResource} from './vendor/fluent/index.js';
import * as early from './early.js';

/** @type {Map<string, FluentBundle>} */
const bundles = new Map();
/** @type {string} */
export let language = early.language;
let zone = 'Europe/Prague';

/** Bring the words of the language of now. */
export async function load() {
  if (bundles.has(language)) return;
  const name = language, answer = await (name === early.language ? early.words : early.askForWords(name));
  const bundle = new FluentBundle(name, {useIsolating: false});
  bundle.addResource(new FluentResource(await answer.text()));
  bundles.set(name, bundle);
}

/** @param {string} name */
export function setZone(name) { zone = name; }

/** Words of the language of now. @param {string} id @param {Record<string, string | number>} args */
export function t(id, args = {}) {
  const bundle = bundles.get(language), message = bundle?.getMessage(id);
  return bundle && message?.value ? bundle.formatPattern(message.value, args) : id;
}

/** Whether there are words of this id. @param {string} id */
export const has = id => Boolean(bundles.get(language)?.hasMessage(id));

export function other() { return early.LANGUAGES.find(name => name !== language) ?? language; }

export function switchLanguage() {
  language = other();
  localStorage.language = language;
  return load();
}

/** Write the words into the elements that name theirs. */
export function label() {
  document.documentElement.lang = language;
  const each = (/** @type {string} */ selector) => /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(selector));
  for (const e of each('[data-l10n]')) e.textContent = t(e.dataset.l10n ?? '');
  for (const e of each('[data-l10n-hint]')) e.setAttribute('placeholder', t(e.dataset.l10nHint ?? ''));
  for (const e of each('[data-l10n-label]')) e.setAttribute('aria-label', t(e.dataset.l10nLabel ?? ''));
}

/** @typedef {number | null | undefined} Maybe */

/** @param {Maybe} value */
export function number(value, digits = 0) {
  if (value === null || value === undefined) return '–';
  return new Intl.NumberFormat(language, {minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: 'negative'}).format(value);
}

/** A value with its unit. @param {Maybe} value @param {string} unit */
export const quantity = (value, unit, digits = 0) => value === null || value === undefined ? '–' : `${number(value, digits)} ${unit}`.trim();

/** @param {Maybe} value */
export const percent = (value, digits = 0) => quantity(value, '%', digits);

const region = () => language === 'en' ? 'en-GB' : language;

/** @param {number} ms */
export function clock(ms, seconds = false) {
  /** @type {Intl.DateTimeFormatOptions} */
  const options = {timeZone: zone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23'};
  if (seconds) options.second = '2-digit';
  return new Intl.DateTimeFormat(region(), options).format(ms);
}

/** @param {number} ms */
export function date(ms) {
  return new Intl.DateTimeFormat(region(), {timeZone: zone, day: 'numeric', month: 'numeric', year: 'numeric'}).format(ms);
}

/** A date without a time, such as of a night: no zone moves it. @param {string} iso */
export const day = iso => new Intl.DateTimeFormat(region(), {timeZone: 'UTC', day: 'numeric', month: 'numeric', year: 'numeric'}).format(Date.parse(iso));

/** Day and time of what the backend wrote (RFC 3339) or of a number [ms]. @param {string | number | null | undefined} at */
export function moment(at) {
  if (at === null || at === undefined) return '–';
  const ms = typeof at === 'number' ? at : Date.parse(at);
  return `${date(ms)} ${clock(ms)}`;
}

/** @param {Maybe} seconds */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 120) return `${number(seconds)} s`;
  if (seconds < 7200) return `${number(seconds / 60)} min`;
  if (seconds < 172_800) return `${number(seconds / 3600, 1)} h`;
  return t('days', {days: number(seconds / 86_400)});
}
