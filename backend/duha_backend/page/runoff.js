// What is watched in the sewers, beside the map; and what runs off catchments.
import * as api from './api.js';
import {paced} from './clock.js';
import {$, make, to} from './dom.js';
import {t} from './l10n.js';
import {ahead, draw, standing} from './watch.js';

const EVERY_MS = 10_000;
/** @type {Map<string, import('./watch.js').Forecast & {asked: string}>} */
const forecasts = new Map();
/** @type {import('./map.js').Load[]} */
let found = [];
/** @type {import('./watch.js').Model[]} */
let models = [];
let drawn = '';
const look = paced(EVERY_MS, async () => {
  [models, found] = await Promise.all([api.get('/models'), api.get('/runoff')]);
  await Promise.all(models.map(lookAhead));
});

export async function refresh() {
  await look();
  show();
}

/** What runs off each catchment now. */
export const loads = () => found;

/** @param {import('./watch.js').Model} model */
async function lookAhead(model) {
  const newest = model.run?.t0;
  if (!newest || !model.watches.some(watch => watch.ahead) || forecasts.get(model.id)?.asked === newest) return;
  forecasts.set(model.id, {...await api.get(`/models/${encodeURIComponent(model.id)}/forecast`), asked: newest});
}

function show() {
  const watches = models.flatMap(model => model.watches.map(watch => ({watch, model})));
  const key = JSON.stringify([models, t('runoff')]);
  if (key === drawn) return;
  drawn = key;
  $('#runoff').hidden = !watches.length;
  $('#watches').replaceChildren(...watches.map(({watch, model}) => {
    const words = ahead(watch, model), chart = make('div', {className: 'small-chart'});
    queueMicrotask(() => draw(chart, 100, watch, forecasts.get(model.id) ?? null));
    return make('figure', {'data-watch': watch.id}, make('figcaption', {},
      make('b', {}, to('runoff', model.id, watch.name)), make('span', {className: `now stage-${watch.stage ?? 0}`}, standing(watch)),
      make('span', {className: 'ahead', title: words}, words)), chart);
  }));
}
