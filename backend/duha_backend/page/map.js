// The map: streets, cabinets, gauges, catchments, and every luminaire in one layer of points.
//
// Nothing is fetched from anywhere else: streets come from the backend, letters from the
// browser's own fonts.
import {Map as MapLibre, NavigationControl, LngLatBounds, prewarm} from './vendor/maplibre-gl.mjs';
import {CITY_ZOOM, pointLayer} from './points.js';

/**
 * @typedef {[number, number]} Point longitude and latitude
 * @typedef {{label: string, problems: number, lamps: number, stale: boolean, failed: boolean}} Standing of a cabinet
 * @typedef {{id: string, name: string, latitude: number, longitude: number, outline: Point[], load_l_s_ha: number | null}} Load of a catchment
 * @typedef {{longitude: number[], latitude: number[], depth_mm: (number | null)[]}} Field of rain
 * @typedef {import('./vendor/maplibre-gl.mjs').ExpressionSpecification} Expression
 */

prewarm();  // its worker is there when the city has come

const FONT = ['DejaVu Sans'], WARN = '#ffb224', FAIL = '#ff5c5c', TEXT = '#d7e0ea', GROUND = '#0b0f14';

/** @param {GeoJSON.Feature[]} features @returns {GeoJSON.FeatureCollection} */
const collection = features => ({type: 'FeatureCollection', features});
/** @param {Point} coordinates @param {Record<string, unknown>} properties @returns {GeoJSON.Feature} */
const point = (coordinates, properties = {}) => ({type: 'Feature', geometry: {type: 'Point', coordinates}, properties});
/** @param {Point[]} ring @param {Record<string, unknown>} properties @returns {GeoJSON.Feature} */
const polygon = (ring, properties = {}) => ({type: 'Feature', geometry: {type: 'Polygon', coordinates: [ring]}, properties});

/** @type {Expression} */
const ABNORMAL = ['case', ['get', 'failed'], FAIL, ['any', ['get', 'stale'], ['>', ['get', 'problems'], 0]], WARN, TEXT];

/**
 * @param {string} id @param {string} source @param {number} size @param {string | Expression} colour @param {Point} offset
 * @returns {import('./vendor/maplibre-gl.mjs').SymbolLayerSpecification}
 */
const names = (id, source, size, colour, offset) => ({
  id, type: 'symbol', source,
  layout: {'text-field': ['get', 'label'], 'text-font': FONT, 'text-size': size, 'text-offset': offset, 'text-allow-overlap': true},
  paint: {'text-color': colour, 'text-halo-color': GROUND, 'text-halo-width': 1.6},
});

/** @param {GeoJSON.FeatureCollection} streets @returns {import('./vendor/maplibre-gl.mjs').StyleSpecification} */
function style(streets) {
  /** @type {import('./vendor/maplibre-gl.mjs').GeoJSONSourceSpecification} */
  const empty = {type: 'geojson', data: collection([])};
  return {
    version: 8,
    sources: {streets: {type: 'geojson', data: streets}, cabinets: empty, gauges: empty, chosen: empty, catchments: empty, hatched: empty},
    layers: [
      {id: 'ground', type: 'background', paint: {'background-color': GROUND}},
      {id: 'catchments', type: 'fill', source: 'catchments', paint: {
        'fill-color': ['interpolate', ['linear'], ['get', 'load'], 0, '#12303f', 20, '#1f6fc4', 100, '#8cc4ff'], 'fill-opacity': .45}},
      {id: 'catchment-names', type: 'symbol', source: 'catchments', minzoom: CITY_ZOOM, layout: {
        'text-field': ['get', 'label'], 'text-font': FONT, 'text-size': 11}, paint: {'text-color': '#a9d2ff', 'text-halo-color': GROUND, 'text-halo-width': 1.4}},
      {id: 'streets', type: 'line', source: 'streets', layout: {'line-cap': 'round', 'line-join': 'round'}, paint: {
        'line-color': ['case', ['get', 'main'], '#2f3b49', '#1d2732'],
        'line-width': ['interpolate', ['exponential', 1.6], ['zoom'], 11, .6, 14, ['case', ['get', 'main'], 7, 4], 18, 40]}},
      {id: 'hatched', type: 'fill', source: 'hatched', paint: {'fill-pattern': 'hatch'}},
      {id: 'names', type: 'symbol', source: 'streets', minzoom: 13.2, layout: {
        'symbol-placement': 'line', 'text-field': ['get', 'name'], 'text-font': FONT, 'text-size': 11},
        paint: {'text-color': '#9fb0c0', 'text-halo-color': GROUND, 'text-halo-width': 1.4}},
      {id: 'chosen', type: 'circle', source: 'chosen', paint: {
        'circle-radius': 13, 'circle-color': 'transparent', 'circle-stroke-color': '#8cc4ff', 'circle-stroke-width': 2}},
      {id: 'gauge-dots', type: 'circle', source: 'gauges', paint: {
        'circle-radius': 6, 'circle-color': '#5aa9ff', 'circle-stroke-color': GROUND, 'circle-stroke-width': 2}},
      names('gauge-names', 'gauges', 12, '#a9d2ff', [0, 1.2]),
      {id: 'cabinet-dots', type: 'circle', source: 'cabinets', minzoom: CITY_ZOOM, paint: {
        'circle-radius': 5, 'circle-color': ABNORMAL, 'circle-stroke-color': GROUND, 'circle-stroke-width': 2}},
      {...names('cabinet-names', 'cabinets', 12, ['case', ['get', 'stale'], WARN, TEXT], [0, -1.3]), minzoom: CITY_ZOOM},
      {id: 'sums', type: 'circle', source: 'cabinets', maxzoom: CITY_ZOOM, filter: ['>', ['get', 'problems'], 0], paint: {
        'circle-radius': ['interpolate', ['linear'], ['sqrt', ['get', 'problems']], 1, 6, 10, 16],
        'circle-color': '#0b0f14d0', 'circle-stroke-color': ABNORMAL, 'circle-stroke-width': 2}},
      {id: 'sum-names', type: 'symbol', source: 'cabinets', maxzoom: CITY_ZOOM, filter: ['>', ['get', 'problems'], 0], layout: {
        'text-field': ['to-string', ['get', 'problems']], 'text-font': FONT, 'text-size': 11, 'symbol-sort-key': ['-', 0, ['get', 'problems']]},
        paint: {'text-color': ABNORMAL}},
    ],
  };
}

/** Slanted lines: what lies under them is old. */
function hatch() {
  const size = 12, data = new Uint8Array(4 * size * size);
  for (let k = 0; k < size * size; k++) if ((k % size + Math.floor(k / size)) % size < 2) data.set([0xff, 0xb2, 0x24, 90], 4 * k);
  return {width: size, height: size, data};
}

/** The least convex outline around points. @param {Point[]} points @returns {Point[]} */
export function outline(points) {
  const sorted = [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  /** @param {Point[]} from */
  const half = from => {
    /** @type {Point[]} */
    const kept = [];
    for (const p of from) {
      for (let a = kept.at(-2), b = kept.at(-1); a && b && (b[0] - a[0]) * (p[1] - a[1]) <= (b[1] - a[1]) * (p[0] - a[0]); a = kept.at(-2), b = kept.at(-1)) kept.pop();
      kept.push(p);
    }
    return kept.slice(0, -1);
  };
  const ring = [...half(sorted), ...half(sorted.reverse())];
  return ring[0] ? [...ring, ring[0]] : [];
}

const WET = [[0, 11, 15, 20, 0], [2, 18, 58, 102, 70], [10, 31, 111, 196, 100], [30, 140, 196, 255, 130]];

/** Colour of a depth of rain [mm]: red, green, blue, opacity. @param {number} mm */
function wet(mm) {
  const upper = Math.max(1, mm > 30 ? 3 : WET.findIndex(([limit = 0]) => limit >= mm)), top = WET[upper] ?? [], low = WET[upper - 1] ?? [];
  const at = (/** @type {number[]} */ row, /** @type {number} */ k) => row[k] ?? 0;
  const share = Math.min(1, (mm - at(low, 0)) / (at(top, 0) - at(low, 0)));
  return [1, 2, 3, 4].map(k => at(low, k) + share * (at(top, k) - at(low, k)));
}

/**
 * A picture of rain between the gauges, a pixel for each point of its grid, north up.
 * @param {HTMLCanvasElement} canvas
 * @param {Field} found
 * @returns {[Point, Point, Point, Point]} its corners
 */
function paint(canvas, {longitude, latitude, depth_mm: depth}) {
  const [width, height] = [longitude.length, latitude.length], image = new ImageData(width, height);
  depth.forEach((mm, k) => image.data.set(wet(mm ?? 0), 4 * ((height - 1 - Math.floor(k / width)) * width + k % width)));
  Object.assign(canvas, {width, height});
  canvas.getContext('2d')?.putImageData(image, 0, 0);
  const [west = 0, east = 0, south = 0, north = 0] = [longitude[0], longitude.at(-1), latitude[0], latitude.at(-1)];
  return [[west, north], [east, north], [east, south], [west, south]];
}

/**
 * Build the map; resolves when it can be drawn on. Returns null where there is no WebGL 2.
 * @param {{city: import('./types.js').City, streets: GeoJSON.FeatureCollection, drawn: Uint8Array, onPick: (index: number) => void}} given
 */
export async function makeMap({city, streets, drawn, onPick}) {
  const lamps = city.luminaires, n = lamps.id.length;
  /** @param {number} i @returns {Point} */
  const placeOf = i => [lamps.longitude[i] ?? 0, lamps.latitude[i] ?? 0];
  const map = made({
    container: 'map', style: style(streets), attributionControl: false, fadeDuration: 0, validateStyle: false, renderWorldCopies: false,
    ...n ? {bounds: boundsOf(lamps), fitBoundsOptions: {padding: 48}} : {center: [13.3776, 49.7475], zoom: 13},
  });
  if (!map) return null;
  map.addControl(new NavigationControl({showCompass: false}), 'top-right');
  const layer = pointLayer(lamps, drawn), field = document.createElement('canvas');
  await new Promise(done => map.once('style.load', done));
  map.addImage('hatch', hatch());
  if (n) map.addLayer(layer, 'chosen');
  const set = (/** @type {string} */ source, /** @type {GeoJSON.Feature[]} */ features) =>
    /** @type {import('./vendor/maplibre-gl.mjs').GeoJSONSource} */ (map.getSource(source)).setData(collection(features));

  map.on('click', event => {
    const best = nearest(lamps, event.lngLat.lng, event.lngLat.lat);
    if (best < 0) return;
    const at = map.project(placeOf(best));
    if (Math.hypot(at.x - event.point.x, at.y - event.point.y) < 30) onPick(best);
  });
  let hatched = '';

  return {
    map,
    redraw() { layer.touch(); map.triggerRepaint(); },
    /** @param {number} i */
    choose(i) {
      set('chosen', [point(placeOf(i))]);
      if (!map.getBounds().contains(placeOf(i))) map.easeTo({center: placeOf(i)});
    },
    /** @param {Map<string, Standing>} standing by cabinet */
    showCabinets(standing) {
      set('cabinets', city.cabinets.map(c => point([c.longitude, c.latitude], standing.get(c.id))));
    },
    /** Hatch the areas of cabinets whose data is old. @param {string[]} cabinets */
    hatch(cabinets) {
      const key = cabinets.join();
      if (key === hatched) return;
      hatched = key;
      const areas = new Map(cabinets.map(id => [id, /** @type {Point[]} */ ([])]));
      lamps.cabinet.forEach((id, i) => areas.get(id)?.push(placeOf(i)));
      set('hatched', [...areas.values()].filter(points => points.length > 2).map(points => polygon(outline(points))));
    },
    /** @param {Map<string, string>} labels by gauge */
    showGauges(labels) {
      set('gauges', city.gauges.map(g => point([g.longitude, g.latitude], {label: labels.get(g.id) ?? g.id})));
    },
    /** @param {Load[]} loads @param {(load: Load) => string} label */
    showCatchments(loads, label) {
      set('catchments', loads.filter(one => one.outline.length > 3).map(one => polygon(one.outline, {load: one.load_l_s_ha ?? 0, label: label(one)})));
    },
    /** Rain between the gauges as a picture under the streets; nothing for null. @param {Field | null} found */
    showField(found) {
      if (map.getLayer('field')) map.removeLayer('field');
      if (map.getSource('field')) map.removeSource('field');
      if (!found) return;
      map.addSource('field', {type: 'canvas', canvas: field, coordinates: paint(field, found), animate: false});
      map.addLayer({id: 'field', type: 'raster', source: 'field', paint: {'raster-fade-duration': 0}}, 'streets');
    },
    idle: () => new Promise(done => map.loaded() ? done(null) : map.once('idle', done)),
  };
}

/** A map; null where the browser cannot draw one, which a canvas made to try it would take long to say. @param {import('./vendor/maplibre-gl.mjs').MapOptions} options */
function made(options) {
  try {
    return new MapLibre(options);
  } catch (error) {
    console.info(error);
    return null;
  }
}

/** @param {import('./types.js').Lamps} lamps */
function boundsOf({longitude, latitude}) {
  let [west, east, south, north] = [180, -180, 90, -90];
  for (const x of longitude) { west = Math.min(west, x); east = Math.max(east, x); }
  for (const y of latitude) { south = Math.min(south, y); north = Math.max(north, y); }
  return new LngLatBounds([west, south, east, north]);
}

/** The lamp that is nearest to a place; -1 without any. @param {import('./types.js').Lamps} lamps @param {number} lng @param {number} lat */
function nearest({longitude, latitude}, lng, lat) {
  const narrow = Math.cos(lat * Math.PI / 180);
  let best = -1, least = Infinity;
  for (let i = 0; i < longitude.length; i++) {
    const dx = ((longitude[i] ?? 0) - lng) * narrow, dy = (latitude[i] ?? 0) - lat, d = dx * dx + dy * dy;
    if (d < least) { least = d; best = i; }
  }
  return best;
}
