// The figures above everything: of every tick, and those asked for now and then.
import * as api from './api.js';
import {paced} from './clock.js';
import {$, make} from './dom.js';
import {day, number, percent, quantity, t} from './l10n.js';
import * as sound from './sound.js';

const EVERY_MS = 5000;
/** @type {any} */
let told = null;

export const refresh = paced(EVERY_MS, async () => {
  told = await api.get('/headline');
  sound.hear(told.alarms.unacknowledged);
});

/**
 * What the last night saved, and of how much of it that is known: too little is no figure.
 * @param {{date: string, baseline_kwh: number, saved_kwh: number, covered: number | null, partial: boolean} | null | undefined} night
 * @returns {[string, string]}
 */
function savings(night) {
  if (!night) return ['–', t('figure-saved-none')];
  const of = {date: day(night.date), kwh: quantity(night.saved_kwh, 'kWh'), covered: percent(Math.floor(100 * (night.covered ?? 0)))};
  if (night.covered === null) return [t('energy-not-known'), t('figure-saved-untold', of)];
  if (night.partial || !night.baseline_kwh) return [t('energy-not-known'), t('figure-saved-partial', of)];
  return [percent(100 * night.saved_kwh / night.baseline_kwh), t('figure-saved', of)];
}

/**
 * @param {Partial<import('./types.js').Figures>} figures @param {number} problems
 * @param {import('./types.js').City} city
 */
export function show(figures, problems, city) {
  const online = city.cabinets.length - (figures.stale?.length ?? 0);
  const [saved, saying] = savings(told?.night);
  /** @type {[string, string, string, string][]} */
  const shown = [
    ['lit', number(figures.lit), t('figure-lit', {total: number(city.luminaires.id.length)}), ''],
    ['level', percent(figures.mean_level), t('figure-level'), ''],
    ['power', quantity(figures.power_kw, 'kW', 1), t('figure-power', {expected: quantity(told?.expected_kw, 'kW', 1)}), ''],
    ['saved', saved, saying, ''],
    ['available', percent(told?.availability_pct, 1), t('figure-availability'), told && told.availability_pct < 98 ? 'bad' : ''],
    ['problems', number(problems), t('figure-problems'), problems ? 'bad' : ''],
    ['alarms', number(told?.alarms.unacknowledged), t('figure-alarms', {seen: number(told?.alarms.acknowledged)}), told?.alarms.unacknowledged ? 'bad' : ''],
    ['burning', number(told?.lit_uncommanded), t('figure-burning'), told?.lit_uncommanded ? 'bad' : ''],
    ['rain', quantity(figures.rain_1h_mm, 'mm', 1), t('figure-rain'), figures.rain_1h_mm ? 'wet' : ''],
    ['controllers', `${number(online)} / ${number(city.cabinets.length)}`, t('figure-controllers'), online < city.cabinets.length ? 'bad' : ''],
  ];
  $('#figures').replaceChildren(...shown.map(([id, value, name, kind]) =>
    make('div', {className: kind, 'data-figure': id}, make('dt', {}, name), make('dd', {}, value))));
}
