// Why a plan may not hold, in the language of now.
import {date, has, number, t} from '../l10n.js';
import {inWords} from './steps.js';

/**
 * @typedef {{calendar: string, programme: string, rule: number, sentence: string, message: string,
 *   values: Record<string, string | number>, nights: string[]}} Refusal
 */

/** A value as the language of now writes it. @param {string} name @param {string | number} value */
function said(name, value) {
  if (name === 'level' || name === 'least') return `${number(Number(value), Number.isInteger(value) ? 0 : 1)} %`;
  if (name === 'input') return has(`input-${value}`) ? t(`input-${value}`) : value;
  return name === 'at' || name === 'other_at' ? inWords(String(value)) : value;
}

/** @param {Refusal} one @param {import('./plan.js').Plan} plan whose names are said */
export function inFull({calendar, programme, rule, sentence, values, nights}, {calendars, programmes}) {
  return t('refusal', {
    calendar: calendars[calendar]?.name || calendar, programme: programmes[programme]?.name || programme,
    where: rule ? `${t('rule')} ${rule}` : t('other-nights').toLocaleLowerCase(),
    what: t(`refusal-${sentence}`, Object.fromEntries(Object.entries(values).map(([name, value]) => [name, said(name, value)]))),
    nights: nights.map(night => date(Date.parse(`${night}T12:00Z`))).join(', '),
  });
}
