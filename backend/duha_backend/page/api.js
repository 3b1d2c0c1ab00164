// The backend's API; errors carry the sentence of its problem document.
import {answers} from './early.js';

const ROOT = '/api/v1';
/** How long an answer may take [ms]; what changes something may be a study or a backup. */
const READ_MS = 30_000, CHANGE_MS = 300_000;

/** @typedef {{detail: string, refusals?: import('./views/refusals.js').Refusal[]}} Problem of RFC 9457 */

export class ApiError extends Error {
  /** @param {number} status 0 without any answer @param {Problem} problem */
  constructor(status, problem) { super(problem.detail); this.status = status; this.problem = problem; }
}

/** Whether an error is the backend's, of a status. @param {unknown} error @param {number} status */
export const isStatus = (error, status) => error instanceof ApiError && error.status === status;

/** What early.js has asked for already; each answer is taken once. @type {Record<string, Promise<Response>>} */
let early = {...answers};

/** @param {string} path */
function takeEarly(path) {
  const found = early[path];
  delete early[path];
  return found;
}

/** @param {string} method @param {string} path @param {unknown} [body] @param {string} [etag] */
async function ask(method, path, body, etag) {
  const headers = new Headers();
  if (body !== undefined) headers.set('Content-Type', 'application/json');
  if (etag) headers.set('If-Match', `"${etag}"`);
  const sent = takeEarly(path) ?? fetch(ROOT + path, {
    method, headers, body: body === undefined ? null : JSON.stringify(body), signal: AbortSignal.timeout(method === 'GET' ? READ_MS : CHANGE_MS)});
  const answer = await sent.catch(error => { throw new ApiError(0, {detail: String(error)}); });
  if (answer.ok) return answer;
  early = {};  // nobody was signed in then
  const problem = {detail: answer.statusText};
  try { Object.assign(problem, await answer.json()); } catch { /* not a problem document */ }
  throw new ApiError(answer.status, problem);
}

/** @param {string} path @returns {Promise<any>} */
export async function get(path) { return (await ask('GET', path)).json(); }

/** What is asked for, or null where there is none (404). @param {string} path @returns {Promise<any>} */
export async function find(path) {
  try {
    return await get(path);
  } catch (error) {
    if (isStatus(error, 404)) return null;
    throw error;
  }
}

/** @param {string} path @param {unknown} body @returns {Promise<any>} */
export async function post(path, body) {
  const answer = await ask('POST', path, body);
  return answer.status === 204 ? null : answer.json();
}

/** Put a document, unless somebody has changed it since (412). @param {string} path @param {unknown} body @param {string} [etag] */
export async function put(path, body, etag) { return (await ask('PUT', path, body, etag)).json(); }

/** @param {string} path */
export async function remove(path) { await ask('DELETE', path); }

/** The newest readings of a kind as rows. @param {string} kind @param {string} query @returns {Promise<any[]>} */
export async function latest(kind, query = '') {
  const found = (await get(`/latest/${kind}${query && `?${query}`}`)).columns;
  return found.device.map((/** @type {string} */ _, /** @type {number} */ k) =>
    Object.fromEntries(Object.entries(found).map(([name, column]) => [name, column[k]])));
}

/** All luminaires; what is written once for many is spread out. @returns {Promise<import('./types.js').Lamps>} */
export async function lamps() {
  const spread = (/** @type {any} */ column) => Array.isArray(column) ? column : column.of.map((/** @type {number} */ code) => column.names[code]);
  const found = Object.entries(await get('/luminaires')).map(([name, column]) => [name, spread(column)]);
  return Object.fromEntries(found);
}

export async function state() {
  const answer = await ask('GET', '/state');
  return {seq: Number(answer.headers.get('x-seq')), bytes: new Uint8Array(await answer.arrayBuffer())};
}

export function events() { return new EventSource(`${ROOT}/events`); }
