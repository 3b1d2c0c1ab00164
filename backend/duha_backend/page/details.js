// What alarms say in figures, in the language of now. The book, mails and files keep English.
import {make} from './dom.js';
import {t} from './l10n.js';

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
  [/^good$/, 'detail-was-good'],
  [/^no_answer$/, 'state-no_answer'],
  [/^invalid$/, 'detail-was-invalid'],
];
/** Figures and names alone need no words: 0.5 W, L1 253 V, chamber: SPA II, 1.20 m. */
const PLAIN = /^[^a-z]*$|^[\d.]+ (W|V|A|mA|%|°C)$|: SPA I+, [\d.]+ \S+$|^(L\d \d+ V(, )?)+$/;

/** @param {string} detail */
export function words(detail) {
  for (const [sentence, id] of SENTENCES) {
    const found = sentence.exec(detail);
    if (found) return make('small', {}, t(id, {...found.groups, ...found.groups?.count && {count: Number(found.groups.count)}}));
  }
  return make('small', PLAIN.test(detail) ? {} : {lang: 'en'}, detail);
}
