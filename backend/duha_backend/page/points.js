// Every luminaire in one layer of points: a WebGL buffer of positions and one of state bytes.
//
// A tick changes bytes and draws again. Where many lamps share a pixel, on the scale of a
// whole city, what is wrong is not enlarged: cabinets show their counts there.

/** Below this zoom cabinets stand for their lamps. */
export const CITY_ZOOM = 12;
/** The byte of a lamp that a filter hides. */
export const HIDDEN = 255;

/** @typedef {import('./types.js').Lamps} Lamps */

const css = getComputedStyle(document.documentElement);
/** @param {string} name */
const colour = name => {
  const hex = css.getPropertyValue(name).trim();
  return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16) / 255);
};
/** @param {number} longitude */
const mercatorX = longitude => (longitude + 180) / 360;
/** @param {number} latitude */
const mercatorY = latitude => {
  const sine = Math.sin(latitude * Math.PI / 180);
  return .5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI);
};

const VERTEX = `#version 300 es
in vec2 place; in float state;
uniform mat4 matrix; uniform float radius; uniform float pass; uniform float near;
uniform vec3 off, low, full, warn, fail;
out vec3 shade; out float shape; out float glow;
void main() {
  bool lost = state > 100.5 && state < 120.;
  bool broken = state > 120. && state < 200.;
  bool hidden = state > 200.;
  bool mine = hidden ? false : pass > .5 ? (lost || broken) : !(lost || broken);
  shape = broken ? 1. : lost ? 2. : 0.;
  shade = broken ? fail : lost ? (state < 105. ? off : warn)
        : state < .5 ? off : mix(low, full, clamp(state / 100., 0., 1.));
  float lit = state < 101. ? state / 100. : 0.;
  glow = lit;
  gl_Position = mine ? matrix * vec4(place, 0., 1.) : vec4(2., 2., 2., 1.);
  gl_PointSize = broken ? mix(radius * 1.6, max(radius * 2.2, 9.), near) : lost ? mix(radius, max(radius * 1.6, 7.), near) : radius * (1.3 + 2.2 * lit);
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

/**
 * The layer; call `touch` when bytes of `state` have changed.
 * @param {Lamps} lamps
 * @param {Uint8Array} state
 */
export function pointLayer(lamps, state) {
  const n = lamps.id.length;
  const anchorX = mercatorX(lamps.longitude[0] ?? 0), anchorY = mercatorY(lamps.latitude[0] ?? 0);
  const places = new Float32Array(2 * n);
  for (let i = 0; i < n; i++) {
    places[2 * i] = mercatorX(lamps.longitude[i] ?? 0) - anchorX;
    places[2 * i + 1] = mercatorY(lamps.latitude[i] ?? 0) - anchorY;
  }
  /** @type {Record<string, WebGLUniformLocation | null>} */
  const where = {};
  /** @type {WebGLProgram} */
  let program;
  /** @type {WebGLVertexArrayObject} */
  let vertices;
  /** @type {WebGLBuffer} */
  let bytes;
  /** @type {import('./vendor/maplibre-gl.mjs').Map} */
  let map;
  /** @type {[string, number[]][]} */
  let shades = [];
  let dirty = false;
  return {
    id: 'luminaires', type: /** @type {const} */ ('custom'),
    touch() { dirty = true; },
    /** @param {import('./vendor/maplibre-gl.mjs').Map} theMap @param {WebGL2RenderingContext} gl */
    onAdd(theMap, gl) {
      map = theMap;
      program = built(gl);
      shades = COLOURS.map(name => [name, colour(`--${name}`)]);
      for (const name of ['matrix', 'radius', 'pass', 'near', ...COLOURS]) where[name] = gl.getUniformLocation(program, name);
      vertices = gl.createVertexArray();
      gl.bindVertexArray(vertices);
      attribute(gl, program, 'place', places, 2, gl.FLOAT, gl.STATIC_DRAW);
      bytes = attribute(gl, program, 'state', state, 1, gl.UNSIGNED_BYTE, gl.DYNAMIC_DRAW);
      gl.bindVertexArray(null);
    },
    /** @param {WebGL2RenderingContext} gl @param {import('./vendor/maplibre-gl.mjs').CustomRenderMethodInput} args */
    render(gl, args) {
      // Folding the anchor into the matrix in 64 bits keeps 32-bit positions exact.
      const matrix = Float64Array.from(args.defaultProjectionData.mainMatrix), moved = Float32Array.from(matrix);
      const at = (/** @type {number} */ k) => matrix[k] ?? 0;
      for (let r = 0; r < 4; r++) moved[12 + r] = at(r) * anchorX + at(4 + r) * anchorY + at(12 + r);
      const zoom = map.getZoom(), ratio = gl.canvas.width / map.getCanvas().clientWidth;
      gl.useProgram(program);
      gl.uniformMatrix4fv(where.matrix ?? null, false, moved);
      gl.uniform1f(where.radius ?? null, ratio * Math.min(16, Math.max(2, 3.2 * 1.5 ** (zoom - 13))));
      gl.uniform1f(where.near ?? null, zoom < CITY_ZOOM ? 0 : 1);
      for (const [name, shade] of shades) gl.uniform3fv(where[name] ?? null, shade);
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
        gl.uniform1f(where.pass ?? null, pass);
        gl.drawArrays(gl.POINTS, 0, n);
      }
      gl.bindVertexArray(null);
    },
  };
}

const COLOURS = ['off', 'low', 'full', 'warn', 'fail'];

/** @param {WebGL2RenderingContext} gl */
function built(gl) {
  const program = gl.createProgram(), sources = [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]];
  for (const [type, source] of /** @type {[number, string][]} */ (sources)) {
    const shader = gl.createShader(type);
    if (!shader) throw new Error('the graphics driver makes no shader');
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  return program;
}

/**
 * @param {WebGL2RenderingContext} gl @param {WebGLProgram} program @param {string} name
 * @param {Float32Array | Uint8Array} data @param {number} size @param {number} type @param {number} usage
 */
function attribute(gl, program, name, data, size, type, usage) {
  const buffer = gl.createBuffer(), index = gl.getAttribLocation(program, name);
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.bufferData(gl.ARRAY_BUFFER, data, usage);
  gl.enableVertexAttribArray(index);
  gl.vertexAttribPointer(index, size, type, false, 0, 0);
  return buffer;
}
