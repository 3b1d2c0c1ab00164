// Elements in a line each.
import {tell} from './errors.js';
import {t} from './l10n.js';

/** @typedef {Node | string | null | undefined} Child */

/**
 * An element with properties and children; a key with a dash is an attribute.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, unknown>} properties
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes('-') || key === 'for' || key === 'role') made.setAttribute(key, String(value));
    else Object.assign(made, {[key]: value});
  }
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

/**
 * What must be on the page, by its selector.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} selector
 * @param {ParentNode} root
 * @returns {T}
 */
export function $(selector, root = document) {
  const found = root.querySelector(selector);
  if (!found) throw new Error(`the page has no ${selector}`);
  return /** @type {T} */ (found);
}

/**
 * A table in a box that scrolls: `heads` are words, `rows` lists of cells.
 * @param {string} label
 * @param {Child[]} heads
 * @param {Child[][]} rows
 */
export function table(label, heads, rows) {
  const kind = (/** @type {number} */ k) => {
    const cell = rows[0]?.[k];
    return cell instanceof HTMLElement && cell.className === 'figure' ? 'figure' : '';
  };
  const head = make('tr', {}, ...heads.map((word, k) => make('th', {scope: 'col', className: kind(k)}, word)));
  const body = rows.map(cells => make('tr', {}, ...cells.map(cell =>
    cell instanceof HTMLTableCellElement ? cell : make('td', {}, cell))));
  return make('div', {className: 'scroll', tabIndex: 0, role: 'region', 'aria-label': label},
    make('table', {}, make('thead', {}, head), make('tbody', {}, ...body)));
}

/** A number in a cell, to the right. @param {string} text */
export const figure = text => make('td', {className: 'figure'}, text);

/**
 * A button that says what went wrong beside itself.
 * @param {string} word
 * @param {() => unknown} act
 * @param {Record<string, unknown>} properties
 */
export function button(word, act, properties = {}) {
  const made = make('button', {type: 'button', ...properties}, word);
  made.addEventListener('click', async () => {
    made.disabled = true;
    made.parentElement?.querySelectorAll(':scope > .error').forEach(old => old.remove());
    try { await act(); } catch (error) { complain(made, error); } finally { made.disabled = made.dataset.locked === 'yes'; }
  });
  return made;
}

/** @param {HTMLElement} beside @param {unknown} error */
function complain(beside, error) {
  const next = beside.nextElementSibling;
  const place = next instanceof HTMLElement && next.classList.contains('error') ? next : make('span', {className: 'error', role: 'alert'});
  beside.after(tell(place, error));
}

/** What stands instead of what could not be had. @param {unknown} error */
export const failed = error => tell(make('p', {className: 'error', role: 'alert'}), error);

/** Throw what is wrong with the first field that holds what it cannot, and go there. @param {...HTMLElement} places fields, or what holds them */
export function checkFields(...places) {
  const fields = places.flatMap(place => place instanceof HTMLInputElement ? [place] : [...place.querySelectorAll('input')]);
  const wrong = fields.find(one => !one.validity.valid);
  if (!wrong) return;
  wrong.focus();
  const said = {field: wrong.getAttribute('aria-label') ?? '', value: wrong.value, example: wrong.placeholder};
  throw new Error(t(wrong.value.trim() ? 'field-wrong' : 'field-empty', said));
}

/** A labelled field; its name is the word alone, whatever a choice holds. @param {string} word @param {HTMLElement} input */
export function field(word, input) {
  input.setAttribute('aria-label', word);
  return make('label', {}, make('span', {}, word), input);
}

/**
 * A choice among names; `word` says each, `chosen` is told.
 * @param {readonly string[]} names
 * @param {string} now
 * @param {(name: string) => string} word
 * @param {(name: string) => unknown} chosen
 */
export function choice(names, now, word, chosen) {
  const made = make('select', {}, ...names.map(name => new Option(word(name), name, false, name === now)));
  made.addEventListener('change', async () => {
    try { await chosen(made.value); } catch (error) { complain(made, error); }
  });
  return made;
}

/** A link to a view. @param {string} view @param {string} about @param {Child} words */
export const to = (view, about, words = about) => make('a', {href: `#/${view}/${encodeURIComponent(about)}`}, words);
