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

/**
 * A chart in a place, as wide as the place; it is drawn when the place is on the page.
 * @param {HTMLElement} place
 * @param {Omit<uPlot.Options, 'width'>} options
 * @param {uPlot.AlignedData} data
 */
export function chart(place, options, data) {
  const width = () => Math.max(160, Math.min(1300, place.clientWidth || document.documentElement.clientWidth - 60));
  const made = new uPlot({cursor: {drag: {x: false, y: false}}, ...options, width: width()}, data, place);
  new ResizeObserver(() => { if (place.clientWidth && place.isConnected) made.setSize({width: width(), height: options.height}); }).observe(place);
  return made;
}
