// Charts over time: uPlot with the words, numbers and times of the language of now.
import uPlot from './vendor/uPlot.esm.js';
import {clock, date, number, t} from './l10n.js';

export {uPlot};

const GREY = {stroke: '#93a4b5', grid: {stroke: '#1f2a36'}, ticks: {stroke: '#1f2a36'}};
const DAY = 86_400;
/** @param {number} value */
const short = value => number(value, Number.isInteger(value) ? 0 : Math.abs(value) < 1 ? 2 : 1);

/** An axis of times [s]: the hour, or the day where the span is of days. @type {uPlot.Axis} */
export const TIMES = {...GREY, font: '11px system-ui', space: 60, size: 30, values: (chart, splits) => {
  const {min = 0, max = 0} = chart.scales.x ?? {};
  return splits.map(at => max - min > 3 * DAY ? date(at * 1000) : clock(at * 1000));
}};

/** An axis of numbers. @param {Partial<uPlot.Axis>} more @returns {uPlot.Axis} */
export const numbers = (more = {}) => ({...GREY, font: '11px system-ui', size: 50, values: (_, splits) => splits.map(short), ...more});

/** A line; nothing at single points. @param {string} label @param {string} stroke @param {Partial<uPlot.Series>} more @returns {uPlot.Series} */
export const line = (label, stroke, more = {}) => ({
  label, stroke, width: 1.5, points: {show: false}, value: (_, value) => value === null || value === undefined ? '–' : short(value), ...more});

/** Bars from one end of the axis. @param {string} label @param {string} stroke @param {Partial<uPlot.Series>} more */
export const bars = (label, stroke, more = {}) => {
  const paths = uPlot.paths.bars?.({size: [.9, 60], align: 1});
  return line(label, stroke, {fill: `${stroke}b0`, ...paths && {paths}, ...more});
};

/** The times' own column of the legend. @returns {uPlot.Series} */
export const atTime = () => ({label: t('at-time'), value: (_, at) => at === null ? '–' : `${date(at * 1000)} ${clock(at * 1000)}`});

const ATTACH_MS = 60_000;
/** Charts by their place; uPlot keeps each in a set of its own until it is destroyed. @type {Map<HTMLElement, {destroy: () => void, attached: number}>} */
const drawn = new Map();

/** Number of charts in memory. */
export const count = () => drawn.size;

/** Destroy the charts whose place has left the page, and those whose place never came to it. */
export function sweep() {
  const now = performance.now();
  for (const [place, one] of drawn) {
    if (place.isConnected) one.attached = -Infinity;  // gone at the first sweep after it leaves
    else if (now - one.attached > ATTACH_MS) one.destroy();
  }
}

/**
 * A chart in a place, as wide as the place; it is drawn when the place is on the page, and destroyed once the place has left it.
 * @param {HTMLElement} place
 * @param {Omit<uPlot.Options, 'width'>} options
 * @param {uPlot.AlignedData} data
 */
export function chart(place, options, data) {
  drawn.get(place)?.destroy();
  const width = () => Math.max(160, Math.min(1300, place.clientWidth || document.documentElement.clientWidth - 60));
  const made = new uPlot({cursor: {drag: {x: false, y: false}}, ...options, width: width()}, data, place);
  const observer = new ResizeObserver(() => { if (place.clientWidth && place.isConnected) made.setSize({width: width(), height: options.height}); });
  observer.observe(place);
  const destroy = () => {
    observer.disconnect();
    made.destroy();
    drawn.delete(place);
  };
  drawn.set(place, {destroy, attached: performance.now()});
  return made;
}
