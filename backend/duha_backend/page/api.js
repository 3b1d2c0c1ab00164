// The backend's API; errors carry the sentence of its problem document.
const ROOT = '/api/v1';

export class ApiError extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}

async function ask(method, path, body, etag) {
  const options = {method, headers: {}};
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers['Content-Type'] = 'application/json';
  }
  if (etag) options.headers['If-Match'] = `"${etag}"`;
  const answer = await fetch(ROOT + path, options);
  if (answer.ok) return answer;
  let detail = answer.statusText;
  try { detail = (await answer.json()).detail ?? detail; } catch { /* not a problem document */ }
  throw new ApiError(answer.status, detail);
}

export async function get(path) { return (await ask('GET', path)).json(); }
export async function post(path, body) {
  const answer = await ask('POST', path, body);
  return answer.status === 204 ? null : answer.json();
}
/** Put a document, unless somebody has changed it since (412). */
export async function put(path, body, etag) { return (await ask('PUT', path, body, etag)).json(); }
export async function remove(path) { await ask('DELETE', path); }

export async function state() {
  const answer = await ask('GET', '/state');
  return {seq: Number(answer.headers.get('x-seq')), bytes: new Uint8Array(await answer.arrayBuffer())};
}

export function events() { return new EventSource(`${ROOT}/events`); }
