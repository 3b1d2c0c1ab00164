// The state byte of a luminaire: 0 to 100 is its light in per cent, above is what is wrong.
export const UNKNOWN = 101, STALE = 110;
const NAMES = {101: 'unknown', 102: 'not_networked', 110: 'stale', 111: 'no_answer', 130: 'diverged', 140: 'lamp_failure'};
export const isProblem = byte => byte >= STALE;
export const nameOf = byte => NAMES[byte] ?? (byte > 0 ? 'lit' : 'off');
