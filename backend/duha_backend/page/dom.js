// Elements in a line each.

/** An element with properties and children; a key with a dash is an attribute. */
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes('-') || key === 'for') made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

/** A table in a box that scrolls: `heads` are words, `rows` lists of cells. */
export function table(label, heads, rows) {
  const kind = k => rows[0]?.[k]?.className === 'figure' ? 'figure' : '';
  const head = make('tr', {}, ...heads.map((word, k) => make('th', {scope: 'col', className: kind(k)}, word)));
  const body = rows.map(cells => make('tr', {}, ...cells.map(cell =>
    cell instanceof HTMLTableCellElement ? cell : make('td', {}, cell))));
  return make('div', {className: 'scroll', tabIndex: 0, role: 'region', 'aria-label': label},
    make('table', {}, make('thead', {}, head), make('tbody', {}, ...body)));
}

/** A number in a cell, to the right. */
export const figure = text => make('td', {className: 'figure'}, text);

/** A button that says what went wrong beside itself. */
export function button(word, act, properties = {}) {
  const made = make('button', {type: 'button', ...properties}, word);
  made.addEventListener('click', async () => {
    made.disabled = true;
    made.parentElement.querySelectorAll(':scope > .error').forEach(old => old.remove());
    try { await act(); } catch (error) { complain(made, error); } finally { made.disabled = made.dataset.locked === 'yes'; }
  });
  return made;
}

function complain(beside, error) {
  const next = beside.nextElementSibling;
  const place = next?.classList.contains('error') ? next : make('span', {className: 'error', 'role': 'alert'});
  place.textContent = error.message;
  beside.after(place);
}

/** A labelled field. */
export const field = (word, input) => make('label', {}, make('span', {}, word), input);
