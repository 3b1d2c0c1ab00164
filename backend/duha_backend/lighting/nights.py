"""Levels over many instants at once: the nights of a set of luminaires as arrays.

The same segments and effects as `duha_contract.lighting.level_at`, which the edge
evaluates; a property test holds both to be one, minute by minute.
"""

import datetime as dt
from collections.abc import Iterable, Mapping

import numpy as np

from duha_backend.validate import Array
from duha_contract.errors import ProgrammeError
from duha_contract.lighting import NORMAL, Condition, Override, Sun, worked
from duha_contract.programmes import (
    Calendar,
    Effect,
    Programme,
    effect_window,
    noons,
    segments,
)


def grid(sun: Sun, first: dt.date, nights: int = 1, step_s: float = 60.0) -> Array:
    """POSIX times [s] from noon of a date over some nights, in even steps."""
    begin = noons(sun.place, first)[0]
    end = noons(sun.place, first + dt.timedelta(days=nights - 1))[1]
    return np.arange(begin, end, step_s)


def levels(
    programmes: Mapping[str, Programme],
    calendar: Calendar | None,
    overrides: Iterable[Override],
    conditions: Iterable[Condition],
    sun: Sun,
    times: Array,
    device: str | None = None,
    normal: float = NORMAL,
) -> Array:
    """Levels [%] of a luminaire at many instants.

    Parameters
    ----------
    programmes, calendar, overrides, conditions, sun, device, normal
        As of `level_at`.
    times : (n,) float64
        POSIX times [s], rising.

    Returns
    -------
    (n,) float64
        Levels [%].
    """
    seen = [c for c in conditions if c.covers(device)]
    planned = _planned(programmes, calendar, seen, sun, times, normal)
    found = planned.copy()
    standing = [o for o in overrides if o.covers(device)]
    for override in sorted(standing, key=lambda o: (o.emergency, o.start, o.id)):
        since = times - override.start / 1000
        here = _active(override, times)
        share = (
            np.minimum(1.0, since[here] / override.fade_s) if override.fade_s else 1.0
        )
        found[here] = planned[here] + (override.level - planned[here]) * share
    found[np.isnan(found)] = 100.0
    return found.clip(0.0, 100.0)


def _planned(
    programmes: Mapping[str, Programme],
    calendar: Calendar | None,
    conditions: list[Condition],
    sun: Sun,
    times: Array,
    normal: float,
) -> Array:
    found = np.empty(len(times))
    done = 0
    while done < len(times):
        date = sun.date_of(float(times[done]))
        end = int(np.searchsorted(times, noons(sun.place, date)[1]))
        night = times[done:end]
        programme = programmes.get(calendar.programme_of(date)) if calendar else None
        found[done:end] = _programmed(programme, conditions, sun, date, night, normal)
        done = end
    return found


def _programmed(
    programme: Programme | None,
    conditions: list[Condition],
    sun: Sun,
    date: dt.date,
    times: Array,
    normal: float,
) -> Array:
    """Levels of a night by a programme, or by the default where it cannot be evaluated."""
    if programme is None:
        return _default(sun, date, times)
    try:
        return _night(programme, conditions, sun, date, times, normal)
    except ProgrammeError:
        return _default(sun, date, times)


def _default(sun: Sun, date: dt.date, times: Array) -> Array:
    found = np.zeros(len(times))
    for part in sun.darkness(date):
        found[(times >= part.sunset) & (times < part.sunrise)] = 100.0
    return found


def _night(
    programme: Programme,
    conditions: list[Condition],
    sun: Sun,
    date: dt.date,
    times: Array,
    normal: float,
) -> Array:
    parts = segments(programme, sun.place, date)
    start, end, level, then = np.array([part[:4] for part in parts]).T
    here = np.clip(np.searchsorted(start, times, side="right") - 1, 0, len(parts) - 1)
    share = (times - start[here]) / (end - start)[here]
    found = level[here] + (then - level)[here] * share
    lit = np.array([part.lit for part in parts])[here]
    for kind in ("dark", "bright"):
        moved = np.array([part.sensor == kind for part in parts])[here]
        lit ^= moved & _any_active(conditions, kind, times)
    for effect in programme.effects:
        asked = lit & _any_active(conditions, effect.on, times)
        asked &= _within(effect, sun, date, times)
        if effect.on == "wet_road" or not programme.active:
            asked &= found > 0
        if asked.any():
            found[asked] = [worked(effect, x, normal) for x in found[asked].tolist()]
    return np.where(lit, found, 0.0)


def _within(effect: Effect, sun: Sun, date: dt.date, times: Array) -> Array:
    start, end = effect_window(effect, sun.place, date)
    return (times >= start) & (times < end)


def _any_active(conditions: list[Condition], kind: str, times: Array) -> Array:
    found = np.zeros(len(times), dtype=bool)
    for condition in conditions:
        if condition.kind == kind:
            found |= _active(condition, times)
    return found


def _active(what: Condition | Override, times: Array) -> Array:
    ms = times * 1000
    return (ms >= what.start) & (ms < what.end)
