"""The energy of luminaires in a night, and what is not known of it. Pure.

Each quarter of an hour of a luminaire is counted (it lies between two readings of the
counter), calculated (power curve of the type at the level that was read back), or
unknown. Of an unknown quarter only bounds are given: nothing, and the rated power.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from duha_backend.energy.counters import (
    LAMP_UNITS,
    MARGIN,
    NONE,
    Spans,
    resolution,
    spans,
)
from duha_backend.energy.quarters import BEFORE, HOURS, Quarters
from duha_backend.lighting.inventory import LuminaireType
from duha_backend.validate import Array

CALCULATED_U = 0.05
"""Limit of the error of a power curve."""
UNTYPED_W = 2000.0
"""What a luminaire of unknown type can draw at most: the range of its power readings."""
NARROW = 0.05
"""Width of bounds, as a share of what is possible, up to which energy counts as known."""
_FROZEN_WH = 5.0
_CAUGHT_UP = 0.5
_SWITCHING_H = 0.1 * HOURS


class LampNights(NamedTuple):
    """The night of some luminaires, all energies [Wh].

    Attributes
    ----------
    counted, calculated : (n, q) bool
        Quarters that are known, and how.
    counted_wh, calculated_wh : (n,) float64
        Energy of those.
    both_counted_wh, both_calculated_wh : (n,) float64
        Energy of the quarters that can be known both ways.
    limit_wh : (n,) float64
        Largest error that the times of the readings may make: edges of what was counted,
        calculated quarters that were not read whole.
    coarse_wh : (n,) float64
        Standard deviation that the counter's resolution makes.
    highest_wh : (n,) float64
        Most that the unknown quarters can have taken.
    lit_h : (n,) float64
        Time lit, of the quarters that were read [h].
    """

    counted: Array
    calculated: Array
    counted_wh: Array
    calculated_wh: Array
    both_counted_wh: Array
    both_calculated_wh: Array
    limit_wh: Array
    coarse_wh: Array
    highest_wh: Array
    lit_h: Array

    @property
    def known(self) -> Array:
        """Quarters of which the energy is known, (n, q) bool."""
        found: Array = self.counted | self.calculated
        return found

    @property
    def energy_wh(self) -> Array:
        """Energy of the known quarters [Wh]."""
        found: Array = self.counted_wh + self.calculated_wh
        return found


def lamp_nights(read: Quarters, kinds: Sequence[LuminaireType | None]) -> LampNights:
    """The night of some luminaires.

    Parameters
    ----------
    read : Quarters
        What they have reported.
    kinds : sequence of LuminaireType or None
        The type of each; None is unknown: counted is what its counter says, nothing is
        calculated.
    """
    level = read.level.astype(float)
    power, top = _powers(level, kinds)
    found = spans(read.counter, MARGIN * top * HOURS)
    found, repeated = _thawed(found, power, level, read.counter)
    counted_wh, counted, edge_wh, torn = counted_in_night(
        found, MARGIN * top, read.unread, _border_w(power)
    )
    period = read.period[:, None]
    level, answers, power = level[:, BEFORE:], read.answers[:, BEFORE:], power[:, BEFORE:]  # fmt: skip
    full = answers * 2 * period >= HOURS
    curve = ~np.isnan(power)
    calculated = ~counted & ~torn & ~repeated[:, BEFORE:] & curve & full
    sampling = _change(power) * (period + _SWITCHING_H)
    missed = MARGIN * top[:, None] * np.clip(HOURS - answers * period, 0.0, HOURS)
    single = counted & curve & (found.start[:, BEFORE:] == _columns(found) - 1)
    runs = np.diff(counted.astype(np.int8), axis=1, prepend=0) > 0
    coarse = resolution(read.counter, LAMP_UNITS)
    unknown = ~(counted | calculated)
    wh = np.nan_to_num(power) * HOURS
    return LampNights(
        counted,
        calculated,
        counted_wh,
        (wh * calculated).sum(axis=1),
        (found.energy[:, BEFORE:] * single).sum(axis=1),
        (wh * single).sum(axis=1),
        edge_wh + ((sampling + missed) * calculated).sum(axis=1),
        coarse * np.sqrt(runs.sum(axis=1) / 6),
        unknown.sum(axis=1) * HOURS * top * (1 + CALCULATED_U),
        (level > 0).sum(axis=1) * HOURS,
    )


def counted_in_night(
    found: Spans, top: Array, unread: Array, border: Array
) -> tuple[Array, Array, Array, Array]:
    """Energy of the spans of a night, the quarters in them, and the limit of its error.

    Last come the quarters of a span from before the night that cannot be divided well.

    A reading lies somewhere in its quarter. What is drawn after the last reading of a run
    of spans is missing, what was drawn after the reading before it is in it: at most the
    load's full power for the time that was not read.

    Parameters
    ----------
    found : Spans
        Of the night and the time before it.
    top : (n,) float64
        Most power of each load [W], or whatever gives `found.energy` by the hour.
    unread : (n, BEFORE + q) float64
        Time in each quarter after its last reading [h].
    border : (n, 2) float64
        Power in the quarters before the night and at its end, NaN where it is not known.
    """
    ends = np.arange(found.start.shape[1])
    crossing = (found.start != NONE) & (found.start < BEFORE - 1) & (ends >= BEFORE)
    low, high, inside = _shares(found, crossing, top)
    wide = high - low > NARROW * top * inside * HOURS
    whole_known = found.known
    found = found.without(crossing & wide[:, None])
    known = found.known[:, BEFORE:]
    torn = whole_known[:, BEFORE:] & ~known
    crossed = crossing.any(axis=1) & ~wide
    whole = np.where(crossing, 0.0, found.energy)[:, BEFORE:].sum(axis=1)
    energy = whole + np.where(crossed, (low + high) / 2, 0.0)
    limit = np.where(crossed, (high - low) / 2, 0.0)
    padded = np.diff(np.pad(known, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    before, after = padded > 0, padded < 0  # columns of both: quarter BEFORE - 1 + i
    before[crossed, 0] = False
    watts = np.repeat(top[:, None], known.shape[1] + 1, axis=1)
    for column, power in ((0, border[:, 0]), (-1, border[:, 1])):
        watts[:, column] = np.where(np.isnan(power), top, np.minimum(power, top))
    edges = (before | after) * watts * unread[:, BEFORE - 1 :]
    return energy, known, limit + edges.sum(axis=1), torn


def _shares(found: Spans, crossing: Array, top: Array) -> tuple[Array, Array, Array]:
    """Bounds of the energy within the night of spans that begin before it, and their quarters."""
    energy = np.where(crossing, found.energy, 0.0).sum(axis=1)
    ends = np.arange(crossing.shape[1])
    end = np.where(crossing, ends, 0).sum(axis=1)
    start = np.where(crossing, found.start, 0).sum(axis=1)
    inside = np.where(crossing.any(axis=1), end - BEFORE + 1, 0)
    outside = np.where(crossing.any(axis=1), BEFORE - start, 0)
    low = np.maximum(0.0, energy - top * outside * HOURS)
    return low, np.minimum(energy, top * inside * HOURS), inside


def _powers(level: Array, kinds: Sequence[LuminaireType | None]) -> tuple[Array, Array]:
    """Power at some levels [W], NaN where it is not known, and the most of each [W]."""
    power = np.full(level.shape, np.nan)
    top = np.full(len(kinds), UNTYPED_W)
    for kind in {kind.id: kind for kind in kinds if kind is not None}.values():
        here = np.array([k is not None and k.id == kind.id for k in kinds])
        power[here] = np.where(np.isnan(level[here]), np.nan, kind.power(level[here]))
        top[here] = max(kind.rated_w, *(watts for _, watts in kind.curve), 0.0)
    return power, top


def _border_w(power: Array) -> Array:
    """Power around both noons of a night [W]: by the levels read in those quarters."""
    return np.column_stack([power[:, BEFORE - 1], power[:, -1]]) * MARGIN


def _change(power: Array) -> Array:
    """Largest change of power to a neighbouring quarter [W]."""
    steps = np.abs(np.nan_to_num(np.diff(power, axis=1)))
    steps = np.pad(steps, ((0, 0), (1, 1)))
    found: Array = np.maximum(steps[:, :-1], steps[:, 1:])
    return found


def _columns(found: Spans) -> Array:
    return np.arange(BEFORE, found.start.shape[1])


def _thawed(
    found: Spans, power: Array, level: Array, counter: Array
) -> tuple[Spans, Array]:
    """The spans without those in which a counter stands still while light is reported.

    A gateway repeated its last answer, or the register counts nothing. Where the counter
    rises afterwards by what can have been drawn since it stood still, one span is made of
    both; else the driver's energy is not in the counter. Quarters in which the level stood
    still, too, come second: it may be as old as the counter.
    """
    lit = np.where(level > 0, np.nan_to_num(power) * HOURS, 0.0)
    still = (found.start != NONE) & (found.energy == 0)
    limit = np.maximum(_FROZEN_WH, 3 * resolution(counter, LAMP_UNITS))
    start, energy = found.start.copy(), found.energy.copy()
    repeated = np.zeros(still.shape, dtype=bool)
    for row in np.flatnonzero((lit * still).sum(axis=1) > limit).tolist():
        edges = np.flatnonzero(np.diff(np.pad(still[row], 1).astype(np.int8)))
        for begin, end in edges.reshape(-1, 2).tolist():
            taken = (lit[row, begin:end] * still[row, begin:end]).sum()
            if taken <= limit[row]:
                continue
            first = start[row, begin]
            start[row, begin:end] = NONE
            after = end + int(np.argmax(np.append(start[row, end:] != NONE, True)))
            if after < start.shape[1] and start[row, after] == end - 1:
                rise = energy[row, after]
                if rise >= _CAUGHT_UP * (taken + lit[row, end : after + 1].sum()):
                    start[row, after] = first
                    continue
            if begin and start[row, begin - 1] < begin - 2:
                start[row, begin - 1] = (
                    NONE  # after a hole it may have stood still before
                )
            shown = level[row, begin:end]
            repeated[row, begin:end] = np.nanmax(shown) - np.nanmin(shown) < 1
    return Spans(start, np.where(start == NONE, 0.0, energy)), repeated
