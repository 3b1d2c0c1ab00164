// What went wrong, in the language of now as far as the page has words for it.
import {ApiError} from './api.js';
import {has, t} from './l10n.js';

/** By status; 0 is no answer at all. @type {Record<number, string>} */
const WORDS = {0: 'no-connection', 403: 'not-allowed', 503: 'not-now'};

/**
 * Say in an element what went wrong; what the backend says is English.
 * @template {HTMLElement} E
 * @param {E} place
 * @param {unknown} error
 * @returns {E}
 */
export function tell(place, error) {
  const plain = error instanceof Error ? error.message : String(error), words = error instanceof ApiError ? WORDS[error.status] ?? '' : '';
  place.textContent = words && has(words) ? t(words, {detail: plain}) : plain;
  place.lang = error instanceof ApiError && !words ? 'en' : document.documentElement.lang;
  return place;
}
