// A short tone when there are more alarms that nobody has seen; off until somebody turns it on.
const KEY = 'duhaSound', TONE_HZ = 880, LONG_S = .25;
/** @type {number | null} */
let known = null;
/** @type {AudioContext | null} */
let audio = null;

export const on = () => localStorage[KEY] === 'on';

/** @param {boolean} wanted */
export function turn(wanted) {
  localStorage[KEY] = wanted ? 'on' : 'off';
  if (wanted) tone();  // a browser lets a page sound only after somebody has touched it
}

/** How many alarms nobody has seen. @param {number} unseen */
export function hear(unseen) {
  const more = known !== null && unseen > known;
  known = unseen;
  if (more && on()) tone();
}

function tone() {
  audio ??= new AudioContext();
  const source = audio.createOscillator(), volume = audio.createGain();
  source.frequency.value = TONE_HZ;
  volume.gain.setValueAtTime(.2, audio.currentTime);
  volume.gain.exponentialRampToValueAtTime(.001, audio.currentTime + LONG_S);
  source.connect(volume).connect(audio.destination);
  source.start();
  source.stop(audio.currentTime + LONG_S);
  document.documentElement.dataset.sounded = String(Number(document.documentElement.dataset.sounded ?? 0) + 1);
}
