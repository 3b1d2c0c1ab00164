// What an alarm is about, and the view that shows it.
import {make, to} from './dom.js';

/** @typedef {import('./types.js').Alarm} Alarm */

/** @param {Alarm} alarm */
export function kindOf({code, object, cabinet}) {
  if (object === cabinet) return 'cabinet';
  if (code.startsWith('flood')) return 'watch';
  if (code.startsWith('rain')) return 'gauge';
  if (code === 'modelFailure' || code === 'forecastFailure') return 'model';
  return object.includes('/') ? 'segment' : 'luminaire';
}

/** A link to the view of what an alarm is about. @param {Alarm} alarm */
export function place(alarm) {
  const {object, cabinet} = alarm;
  if (!object) return '–';
  switch (kindOf(alarm)) {
    case 'cabinet': return to('cabinets', object);
    case 'watch': return make('a', {href: '#/runoff'}, object);
    case 'gauge': return to('rain', object);
    case 'model': return to('runoff', object);
    case 'segment': return to('cabinets', cabinet, object);
    default: return to('luminaire', object);
  }
}
