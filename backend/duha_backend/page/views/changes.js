// What a plan changes, in sentences.
import {percent, t} from '../l10n.js';
import {inWords} from './steps.js';

/**
 * @typedef {import('./plan.js').Plan} Plan
 * @typedef {import('./steps.js').Step} Step
 */

/** @param {Step | undefined} step */
const said = step => step ? t('change-step', {at: inWords(step.at), level: percent(step.level), fade: step.fade_s ?? 0}) : '–';

/** @param {Plan} before @param {Plan} after @returns {string[]} */
export function changes(before, after) {
  const found = [];
  for (const [id, one] of Object.entries(after.programmes)) {
    const old = before.programmes[id];
    if (!old) found.push(t('change-new', {name: one.name}));
    const most = old ? Math.max(old.steps.length, one.steps.length) : 0;
    for (let k = 0; k < most; k++) {
      const [was, is] = [said(old?.steps[k]), said(one.steps[k])];
      if (was !== is) found.push(t('change-line', {name: one.name, number: k + 1, was, is}));
    }
    if (old && JSON.stringify([old.effects, old.active, old.part_night]) !== JSON.stringify([one.effects, one.active, one.part_night])) found.push(t('change-other', {name: one.name}));
  }
  for (const [id, one] of Object.entries(after.calendars)) {
    const old = before.calendars[id];
    if (old && JSON.stringify([old.default, old.rules]) !== JSON.stringify([one.default, one.rules])) found.push(t('change-calendar', {name: one.name || id, rules: one.rules.length}));
  }
  return found;
}
