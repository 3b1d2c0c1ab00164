// The map: streets, cabinets, gauges, and every luminaire in one layer of points.
//
// The luminaires are one WebGL buffer of positions and one of state bytes; a tick
// changes bytes and draws again. Nothing is fetched from anywhere else: streets come
// from the backend, letters from the browser's own fonts.
import {Map as MapLibre, NavigationControl, LngLatBounds} from './vendor/maplibre-gl.mjs';

const FONT = ['DejaVu Sans'];
const css = getComputedStyle(document.documentElement);
const colour = name => {
  const hex = css.getPropertyValue(name).trim();
  return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16) / 255);
};
const mercatorX = longitude => (longitude + 180) / 360;
const mercatorY = latitude => {
  const sine = Math.sin(latitude * Math.PI / 180);
  return .5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI);
};

const VERTEX = `#version 300 es
in vec2 place; in float state;
uniform mat4 matrix; uniform float radius; uniform float pass;
uniform vec3 off, low, full, warn, fail;
out vec3 shade; out float shape; out float glow;
void main() {
  bool lost = state > 100.5 && state < 120.;
  bool broken = state > 120.;
  bool mine = pass > .5 ? (lost || broken) : !(lost || broken);
  shape = broken ? 1. : lost ? 2. : 0.;
  shade = broken ? fail : lost ? (state < 105. ? off : warn)
        : state < .5 ? off : mix(low, full, clamp(state / 100., 0., 1.));
  float lit = state < 101. ? state / 100. : 0.;
  glow = lit;
  gl_Position = mine ? matrix * vec4(place, 0., 1.) : vec4(2., 2., 2., 1.);
  gl_PointSize = broken ? max(radius * 2.2, 9.) : lost ? max(radius * 1.6, 7.) : radius * (1.3 + 2.2 * lit);
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec3 shade; in float shape; in float glow; out vec4 result;
void main() {
  vec2 d = abs(gl_PointCoord - .5);
  float r = 2. * length(d), a;
  if (shape > 1.5) a = smoothstep(1., .9, r) * smoothstep(.5, .6, r);  // a ring
  else if (shape > .5) a = smoothstep(1., .92, 2. * (d.x + d.y));      // a diamond
  else {                                                               // a disc, and its light around it
    float core = .9 / (1.3 + 2.2 * glow);
    a = max(smoothstep(core + .12, core - .06, r), .4 * glow * pow(max(0., 1. - r), 2.));
  }
  result = vec4(shade * a, a);
}`;

function pointLayer(lamps, state) {
  const n = lamps.id.length;
  const anchorX = mercatorX(lamps.longitude[0] ?? 0), anchorY = mercatorY(lamps.latitude[0] ?? 0);
  const places = new Float32Array(2 * n);
  for (let i = 0; i < n; i++) {
    places[2 * i] = mercatorX(lamps.longitude[i]) - anchorX;
    places[2 * i + 1] = mercatorY(lamps.latitude[i]) - anchorY;
  }
  let gl, program, vertices, bytes, dirty = false, where;
  return {
    id: 'luminaires', type: 'custom',
    touch() { dirty = true; },
    onAdd(map, context) {
      gl = context;
      this.map = map;
      program = gl.createProgram();
      for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
        const shader = gl.createShader(type);
        gl.shaderSource(shader, source);
        gl.compileShader(shader);
        gl.attachShader(program, shader);
      }
      gl.linkProgram(program);
      where = name => gl.getUniformLocation(program, name);
      vertices = gl.createVertexArray();
      gl.bindVertexArray(vertices);
      const attribute = (name, data, size, type, usage) => {
        const buffer = gl.createBuffer(), index = gl.getAttribLocation(program, name);
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        gl.bufferData(gl.ARRAY_BUFFER, data, usage);
        gl.enableVertexAttribArray(index);
        gl.vertexAttribPointer(index, size, type, false, 0, 0);
        return buffer;
      };
      attribute('place', places, 2, gl.FLOAT, gl.STATIC_DRAW);
      bytes = attribute('state', state, 1, gl.UNSIGNED_BYTE, gl.DYNAMIC_DRAW);
      gl.bindVertexArray(null);
    },
    render(context, args) {
      // Folding the anchor into the matrix in 64 bits keeps 32-bit positions exact.
      const matrix = args.defaultProjectionData.mainMatrix, moved = new Float64Array(matrix);
      for (let r = 0; r < 4; r++) moved[12 + r] = matrix[r] * anchorX + matrix[4 + r] * anchorY + matrix[12 + r];
      gl.useProgram(program);
      gl.uniformMatrix4fv(where('matrix'), false, new Float32Array(moved));
      const ratio = gl.canvas.width / gl.canvas.clientWidth;
      gl.uniform1f(where('radius'), ratio * Math.min(16, Math.max(2, 3.2 * 1.5 ** (this.map.getZoom() - 13))));
      for (const name of ['off', 'low', 'full', 'warn', 'fail']) gl.uniform3fv(where(name), colour(`--${name}`));
      gl.bindVertexArray(vertices);
      if (dirty) {
        gl.bindBuffer(gl.ARRAY_BUFFER, bytes);
        gl.bufferSubData(gl.ARRAY_BUFFER, 0, state);
        dirty = false;
      }
      gl.disable(gl.DEPTH_TEST);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      for (const pass of [0, 1]) {  // the abnormal ones are drawn on top
        gl.uniform1f(where('pass'), pass);
        gl.drawArrays(gl.POINTS, 0, n);
      }
      gl.bindVertexArray(null);
    },
  };
}

const collection = features => ({type: 'FeatureCollection', features});
const point = (longitude, latitude, properties = {}) =>
  ({type: 'Feature', geometry: {type: 'Point', coordinates: [longitude, latitude]}, properties});

function style(streets) {
  const name = (id, source, size, colour, offset) => ({
    id, type: 'symbol', source,
    layout: {'text-field': ['get', 'label'], 'text-font': FONT, 'text-size': size, 'text-offset': offset, 'text-allow-overlap': true},
    paint: {'text-color': colour, 'text-halo-color': '#0b0f14', 'text-halo-width': 1.6},
  });
  return {
    version: 8,
    sources: {
      streets: {type: 'geojson', data: streets},
      cabinets: {type: 'geojson', data: collection([])},
      gauges: {type: 'geojson', data: collection([])},
      chosen: {type: 'geojson', data: collection([])},
    },
    layers: [
      {id: 'ground', type: 'background', paint: {'background-color': '#0b0f14'}},
      {id: 'streets', type: 'line', source: 'streets', layout: {'line-cap': 'round', 'line-join': 'round'}, paint: {
        'line-color': ['case', ['get', 'main'], '#2f3b49', '#1d2732'],
        'line-width': ['interpolate', ['exponential', 1.6], ['zoom'], 11, .6, 14, ['case', ['get', 'main'], 7, 4], 18, 40]}},
      {id: 'names', type: 'symbol', source: 'streets', minzoom: 13.2, layout: {
        'symbol-placement': 'line', 'text-field': ['get', 'name'], 'text-font': FONT, 'text-size': 11},
        paint: {'text-color': '#9fb0c0', 'text-halo-color': '#0b0f14', 'text-halo-width': 1.4}},
      {id: 'chosen', type: 'circle', source: 'chosen', paint: {
        'circle-radius': 13, 'circle-color': 'transparent', 'circle-stroke-color': '#8cc4ff', 'circle-stroke-width': 2}},
      {id: 'gauge-dots', type: 'circle', source: 'gauges', paint: {
        'circle-radius': 6, 'circle-color': '#5aa9ff', 'circle-stroke-color': '#0b0f14', 'circle-stroke-width': 2}},
      name('gauge-names', 'gauges', 12, '#a9d2ff', [0, 1.2]),
      {id: 'cabinet-dots', type: 'circle', source: 'cabinets', paint: {
        'circle-radius': 5, 'circle-color': ['case', ['get', 'stale'], '#ffb224', '#d7e0ea'], 'circle-stroke-color': '#0b0f14', 'circle-stroke-width': 2}},
      name('cabinet-names', 'cabinets', 12, ['case', ['get', 'stale'], '#ffb224', '#d7e0ea'], [0, -1.3]),
    ],
  };
}

const WET = [[0, 11, 15, 20, 0], [2, 18, 58, 102, 70], [10, 31, 111, 196, 100], [30, 140, 196, 255, 130]];

/** Colour of a depth of rain [mm]: red, green, blue, opacity. */
function wet(mm) {
  const upper = Math.max(1, WET.findIndex(([limit]) => limit >= mm)), top = WET[mm > 30 ? 3 : upper], low = WET[(mm > 30 ? 3 : upper) - 1];
  const share = Math.min(1, (mm - low[0]) / (top[0] - low[0]));
  return [1, 2, 3, 4].map(k => low[k] + share * (top[k] - low[k]));
}

/** A picture of rain between the gauges, a pixel for each point of its grid, north up. */
function paint(canvas, {longitude, latitude, depth_mm: depth}) {
  const [width, height] = [longitude.length, latitude.length], image = new ImageData(width, height);
  depth.forEach((mm, k) => image.data.set(wet(mm ?? 0), 4 * ((height - 1 - Math.floor(k / width)) * width + k % width)));
  Object.assign(canvas, {width, height});
  canvas.getContext('2d').putImageData(image, 0, 0);
  const [west, east, south, north] = [longitude[0], longitude.at(-1), latitude[0], latitude.at(-1)];
  return [[west, north], [east, north], [east, south], [west, south]];
}

/** Build the map; resolves when it is drawn. Returns null where there is no WebGL 2. */
export async function makeMap({city, streets, state, onPick}) {
  if (!document.createElement('canvas').getContext('webgl2')) return null;
  const lamps = city.luminaires, n = lamps.id.length;
  const bounds = new LngLatBounds();
  for (let i = 0; i < n; i++) bounds.extend([lamps.longitude[i], lamps.latitude[i]]);
  const map = new MapLibre({
    container: 'map', style: style(streets), attributionControl: false, fadeDuration: 0,
    ...(n ? {bounds, fitBoundsOptions: {padding: 48}} : {center: [13.3776, 49.7475], zoom: 13}),
  });
  map.addControl(new NavigationControl({showCompass: false}), 'top-right');
  const layer = pointLayer(lamps, state), field = document.createElement('canvas');
  await new Promise(done => map.on('load', done));
  if (n) map.addLayer(layer, 'chosen');

  map.on('click', event => {
    const {lng, lat} = event.lngLat, narrow = Math.cos(lat * Math.PI / 180);
    let best = -1, least = Infinity;
    for (let i = 0; i < n; i++) {
      const dx = (lamps.longitude[i] - lng) * narrow, dy = lamps.latitude[i] - lat;
      const d = dx * dx + dy * dy;
      if (d < least) { least = d; best = i; }
    }
    if (best < 0) return;
    const at = map.project([lamps.longitude[best], lamps.latitude[best]]);
    if (Math.hypot(at.x - event.point.x, at.y - event.point.y) < 30) onPick(best);
  });

  return {
    map,
    redraw() { layer.touch(); map.triggerRepaint(); },
    choose(i) {
      const place = [lamps.longitude[i], lamps.latitude[i]];
      map.getSource('chosen').setData(collection([point(...place)]));
      if (!map.getBounds().contains(place)) map.easeTo({center: place});
    },
    showCabinets(stale) {
      map.getSource('cabinets').setData(collection(city.cabinets.map(c => point(c.longitude, c.latitude, {
        label: stale.has(c.id) ? `◆ ${c.id}` : c.id, stale: stale.has(c.id)}))));
    },
    showGauges(labels) {
      map.getSource('gauges').setData(collection(city.gauges.map(g => point(g.longitude, g.latitude, {
        label: labels.get(g.id) ?? g.id}))));
    },
    /** Rain between the gauges as a picture under the streets; nothing for null. */
    showField(found) {
      if (map.getLayer('field')) map.removeLayer('field');
      if (map.getSource('field')) map.removeSource('field');
      if (!found) return;
      map.addSource('field', {type: 'canvas', canvas: field, coordinates: paint(field, found), animate: false});
      map.addLayer({id: 'field', type: 'raster', source: 'field', paint: {'raster-fade-duration': 0}}, 'streets');
    },
    idle: () => new Promise(done => map.once('idle', done)),
  };
}
