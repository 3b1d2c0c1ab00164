// What alarms say in figures, in the language of now. The book, mails and files keep English.
import {make} from './dom.js';
import {number, t} from './l10n.js';

/** Sentences of the alarm engine, and the words for them. @type {[RegExp, string][]} */
const SENTENCES = [
  [/^(?<value>.+) at (?<asked>[\d.]+) % asked$/, 'detail-asked'],
  [/^(?<count>\d+) luminaires do not answer$/, 'detail-silent'],
  [/^none of (?<count>\d+) luminaires answers$/, 'detail-none-answers'],
  [/^(?<count>\d+) luminaires without data$/, 'detail-without-data'],
  [/^revision (?<number>\d+)$/, 'detail-revision'],
  [/^no voltage on (?<phases>[L\d, ]+)$/, 'detail-no-voltage'],
  [/^no mains voltage$/, 'detail-no-mains'],
  [/^(?<value>\d+ mA), only while it is wet: a joint lets water in$/, 'detail-joint'],
  [/^(?<watch>.+): SPA (?<stage>I+) in (?<minutes>\d+) min even if the rain stops$/, 'detail-flood-dry'],
  [/^(?<watch>.+): SPA (?<stage>I+) in (?<minutes>\d+) min if the rain goes on$/, 'detail-flood-on'],
  [/^(?<minutes>\d+) min behind the rain$/, 'detail-behind'],
  [/^no reading$/, 'detail-no-reading'],
  [/^blocked$/, 'gauge-blocked'],
  [/^(blocked )?partly blocked$/, 'gauge-partly-blocked'],
  [/^good$/, 'detail-was-good'],
  [/^no_answer$/, 'state-no_answer'],
  [/^invalid$/, 'detail-was-invalid'],
];
/** What is wrong with a gauge, one or several. */
const DOUBTS = /^((range|spike|stuck|false wet|drift)(, )?)+$/;
/** Figures and names alone need no words: 0.5 W, L1 253 V, chamber: SPA II, 1.20 m. */
const PLAIN = /^[^a-z]*$|^[+-]?[\d.]+ (W|V|A|mA|%|°C|s)$|: SPA I+, [\d.]+ \S+$|^(L\d \d+ V(, )?)+$/;

/** Figures as the language of now writes them. @param {string} text */
const local = text => text.replace(/\d+\.(\d+)/g, (found, decimals) => number(Number(found), decimals.length));

/** @param {string} detail */
export function words(detail) {
  for (const [sentence, id] of SENTENCES) {
    const found = sentence.exec(detail);
    if (!found) continue;
    const said = Object.entries(found.groups ?? {}).map(([name, text]) => [name, name === 'count' ? Number(text) : local(text)]);
    return make('small', {}, t(id, Object.fromEntries(said)));
  }
  if (DOUBTS.test(detail)) return make('small', {}, detail.split(', ').map(word => t(`gauge-${word.replace(' ', '-')}`)).join(', '));
  return PLAIN.test(detail) ? make('small', {}, local(detail)) : make('small', {lang: 'en'}, detail);
}
