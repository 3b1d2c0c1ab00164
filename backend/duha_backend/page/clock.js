// The city's clock: that of the world, or of a simulation that runs faster.
let shown = Date.now(), heard = performance.now(), rate = 1;

/** It shows this time [ms] now, and goes so much faster than the world's. @param {number} ms @param {number} [faster] */
export function set(ms, faster) {
  [shown, heard] = [ms, performance.now()];
  if (faster !== undefined) rate = faster;
}

/** What it shows now [ms]. */
export const now = () => shown + (performance.now() - heard) * rate;

/** A time so many hours ago, as the API takes it. @param {number} hours */
export const ago = hours => new Date(now() - hours * 3_600_000).toISOString();

/**
 * Something that is asked for now and then, however often it is called; after a failure at once again.
 * @param {number} everyMs @param {() => Promise<unknown>} ask
 */
export function paced(everyMs, ask) {
  let asked = -Infinity;
  return async () => {
    if (performance.now() - asked < everyMs) return;
    asked = performance.now();
    try { await ask(); } catch (error) {
      asked = -Infinity;
      throw error;
    }
  };
}
