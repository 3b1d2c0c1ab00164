// The state byte of a luminaire: 0 to 100 is its light in per cent, above is what is wrong.
export const UNKNOWN = 101, STALE = 110;
/** @type {Record<number, string>} */
const NAMES = {101: 'unknown', 102: 'not_networked', 110: 'stale', 111: 'no_answer', 130: 'diverged', 140: 'lamp_failure'};
/** @param {number} byte */
export const isProblem = byte => byte >= STALE;
/** @param {number} byte */
export const nameOf = byte => NAMES[byte] ?? (byte > 0 ? 'lit' : 'off');
