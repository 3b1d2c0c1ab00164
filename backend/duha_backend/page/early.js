// Asks for the city while the modules are still on their way; api.js takes the answers.
// With a token in the address nobody is signed in yet.
if (!location.hash.startsWith('#token=')) {
  /** @type {import('./types.js').Early} */ (window).duhaEarly = Object.fromEntries(['/city', '/luminaires', '/streets', '/state'].map(path => [path, fetch(`/api/v1${path}`)]));
}
