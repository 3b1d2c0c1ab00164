// Czech and English from Fluent files; numbers and times from the browser's Intl.
import {FluentBundle, FluentResource} from './vendor/fluent/index.js';

const LANGUAGES = ['cs', 'en'];
const bundles = new Map();
export let language = LANGUAGES.includes(localStorage.language)
  ? localStorage.language : navigator.language?.startsWith('en') ? 'en' : 'cs';
let zone = 'Europe/Prague';

export async function load() {
  await Promise.all(LANGUAGES.map(async name => {
    const text = await (await fetch(`locales/${name}.ftl`)).text();
    const bundle = new FluentBundle(name, {useIsolating: false});
    bundle.addResource(new FluentResource(text));
    bundles.set(name, bundle);
  }));
}

export function setZone(name) { zone = name; }

export function t(id, args = {}) {
  const bundle = bundles.get(language);
  const message = bundle.getMessage(id);
  return message?.value ? bundle.formatPattern(message.value, args) : id;
}

export function other() { return LANGUAGES.find(name => name !== language); }

export function switchLanguage() {
  language = other();
  localStorage.language = language;
}

export function label(root = document) {
  document.documentElement.lang = language;
  for (const e of root.querySelectorAll('[data-l10n]')) e.textContent = t(e.dataset.l10n);
  for (const e of root.querySelectorAll('[data-l10n-label]')) e.setAttribute('aria-label', t(e.dataset.l10nLabel));
}

export function number(value, digits = 0) {
  if (value === null || value === undefined) return '–';
  return new Intl.NumberFormat(language, {minimumFractionDigits: digits, maximumFractionDigits: digits}).format(value);
}

export function percent(value) { return value === null || value === undefined ? '–' : `${number(value)} %`; }

export function clock(ms, seconds = false) {
  const options = {timeZone: zone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23'};
  if (seconds) options.second = '2-digit';
  return new Intl.DateTimeFormat(language === 'en' ? 'en-GB' : language, options).format(ms);
}

export function date(ms) {
  return new Intl.DateTimeFormat(language === 'en' ? 'en-GB' : language, {timeZone: zone, day: 'numeric', month: 'numeric', year: 'numeric'}).format(ms);
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 120) return `${number(seconds)} s`;
  if (seconds < 7200) return `${number(seconds / 60)} min`;
  return `${number(seconds / 3600, 1)} h`;
}
