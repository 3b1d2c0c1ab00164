// Chooses the language, and asks for its words and for the city while the modules are still
// on their way. It imports nothing: it runs as soon as it is there.
export const LANGUAGES = ['cs', 'en'];
export const language = LANGUAGES.includes(localStorage.language)
  ? localStorage.language : navigator.language?.startsWith('en') ? 'en' : 'cs';
document.documentElement.lang = language;

/** @param {string} name */
export const askForWords = name => fetch(`locales/${name}.ftl`);

export const words = askForWords(language);

/** Answers by path. With a token in the address nobody is signed in yet. @type {Record<string, Promise<Response>>} */
export const answers = location.hash.startsWith('#token=') ? {}
  : Object.fromEntries(['/city', '/luminaires', '/streets', '/state'].map(path => [path, fetch(`/api/v1${path}`)]));
