// Each view has an address of its own behind the '#': it can be kept, sent and gone back to.
import {isStatus} from './api.js';
import {$, failed, make} from './dom.js';
import {t} from './l10n.js';

/** @typedef {import('./types.js').View} View */

/** Each view comes when it is first opened. @type {Record<string, () => Promise<View>>} */
const VIEWS = {
  alarms: () => import('./views/alarms.js'), plan: () => import('./views/plan.js'), rain: () => import('./views/rain.js'),
  runoff: () => import('./views/runoff.js'), energy: () => import('./views/energy.js'), cabinets: () => import('./views/cabinets.js'),
  audit: () => import('./views/audit.js'), health: () => import('./views/health.js')};
const main = $('main'), box = $('#view');
/** @type {View | null} */
let shown = null;
/** @type {import('./types.js').City} */
let city;
let pickLamp = (/** @type {string} */ _) => {};
let drawing = 0;

/** Where the address points to: a view and what it is about. */
function address() {
  try {
    const [name = '', ...rest] = location.hash.replace(/^#\/?/, '').split('/').map(decodeURIComponent);
    return {name, about: rest.join('/')};
  } catch {  // a broken address is no reason to show nothing
    return {name: '', about: ''};
  }
}

/** @param {import('./types.js').City} theCity @param {(id: string) => void} onLamp */
export function begin(theCity, onLamp) {
  city = theCity;
  pickLamp = onLamp;
  addEventListener('hashchange', () => go(true));
  return go(false);
}

/** Draw the view of the address anew; the map is the view without a name. @param {boolean} focus */
export async function go(focus) {
  const {name, about} = address(), bring = VIEWS[name], mine = ++drawing, body = make('div');
  /** @type {View | null} */
  let view = null;
  try {
    view = bring ? await bring() : null;
    if (mine !== drawing) return;  // somebody has gone elsewhere meanwhile
    turnTo(view, Boolean(bring));
    await view?.show(body, about, city);
  } catch (error) {
    if (isStatus(error, 401)) return location.reload();
    if (mine === drawing) turnTo(view, true);
    body.replaceChildren(failed(error));
  }
  if (mine !== drawing) return;
  if (!bring) return name === 'luminaire' ? pickLamp(about) : undefined;
  box.replaceChildren(body);
  if (focus) box.focus();
}

/** @param {View | null} view @param {boolean} named whether it is another than the map */
function turnTo(view, named) {
  shown = view;
  main.hidden = named;
  box.hidden = !named;
  label();
}

/** What the view that is shown asks for again and again. */
export async function refresh() { await shown?.refresh?.(); }

export const onMap = () => !main.hidden;

/** The links to all views, in the language of now. */
export function label() {
  const {name} = address();
  const link = (/** @type {string} */ to, /** @type {string} */ word) => {
    const here = (name in VIEWS ? name : '') === to;
    return make('a', {href: `#/${to}`, ...here ? {'aria-current': 'page'} : {}}, t(`view-${word}`));
  };
  $('#views').replaceChildren(link('', 'map'), ...Object.keys(VIEWS).map(key => link(key, key)));
}
