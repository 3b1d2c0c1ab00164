"""Energy that counters have counted, judged by what is physically possible. Pure.

A reading of a counter may be a glitch (a gateway that answers 0, a bit that flipped), the
counter may have been reset (power loss, another driver), may have wrapped, or may stand
still because a gateway repeats its last answer. What is counted between two readings is
believed where no load could have drawn more; the rest is not counted, and not guessed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from duha_backend.validate import Array

MARGIN = 1.25
"""Power beyond the rated one that is still possible: tolerances, cold start, constant light output."""
NONE = -1
_BITS = (2.0**16, 2.0**32)
LAMP_MODULI = tuple(m * s for m in _BITS for s in (0.1, 1.0, 10.0, 100.0, 1000.0))
"""Where counters of luminaires wrap [Wh]: 16 or 32 bits at the scales of profiles."""
METER_MODULI = (
    *(m * s for m in _BITS for s in (0.001, 0.01, 0.1, 1.0)),
    *(10.0**digits for digits in range(4, 10)),
)
"""Where counters of meters wrap [kWh]: 16 or 32 bits, or four to nine digits."""
LAMP_UNITS = (1000.0, 100.0, 10.0, 1.0)
METER_UNITS = (10.0, 1.0, 0.1, 0.01)


class Spans(NamedTuple):
    """Spans between two readings of a counter of which the energy is known.

    Attributes
    ----------
    start : (n, q) int64
        For a span that ends with the reading of this quarter: the quarter of the reading
        that it begins with; `NONE` where no span ends.
    energy : (n, q) float64
        Counted in the span that ends here [unit of the counter]; 0 where none ends.
    """

    start: Array
    energy: Array

    @property
    def known(self) -> Array:
        """Quarters that lie in a span, (n, q) bool."""
        rows, ends = np.nonzero(self.start != NONE)
        n, q = self.start.shape
        edges = np.zeros((n, q + 1), dtype=np.int64)
        np.add.at(edges, (rows, self.start[rows, ends] + 1), 1)
        np.add.at(edges, (rows, ends + 1), -1)
        found: Array = edges.cumsum(axis=1)[:, :q] > 0
        return found

    def without(self, dropped: Array) -> "Spans":
        """The spans but those that end where `dropped` is true, (n, q) bool."""
        return Spans(
            np.where(dropped, NONE, self.start), np.where(dropped, 0.0, self.energy)
        )


def resolution(counter: Array, units: Sequence[float] = LAMP_UNITS) -> Array:
    """Step in which each counter counts: the largest unit that divides all its readings.

    Parameters
    ----------
    counter : (n, q) float64
        Readings, NaN where there is none.
    units : sequence of float
        Possible steps, the largest first; the last one where no other fits.

    Returns
    -------
    (n,) float64
    """
    found = np.full(len(counter), units[-1])
    some = np.nansum(np.abs(counter), axis=1) > 0
    for unit in reversed(units[:-1]):
        multiples = counter / unit
        off = np.abs(multiples - np.round(multiples))
        found[some & ~(off > 1e-6).any(axis=1)] = unit
    return found


def spans(
    counter: Array,
    most: Array,
    units: Sequence[float] = LAMP_UNITS,
    moduli: Sequence[float] = LAMP_MODULI,
) -> Spans:
    """Energy between the readings of counters, without what is not possible.

    A drop or a leap after which the counter goes on from where it was is a glitch, however
    often it comes in a row; the span bridges it. Where the counter goes on from the new
    value it was reset or replaced: what was drawn between both readings is not known. A
    leap that nothing after it confirms is not believed. A counter that goes back has
    wrapped where that is possible for one of `moduli`.

    Parameters
    ----------
    counter : (n, q) float64
        Last reading of each quarter of an hour, NaN where there is none.
    most : (n,) float64
        What the load can draw at most in a quarter of an hour [unit of the counter].
    units, moduli : sequence of float
        Steps in which such counters count, and where they wrap [unit of the counter].
    """
    n, q = counter.shape
    at = np.arange(q)
    known = ~np.isnan(counter)
    last = np.maximum.accumulate(np.where(known, at, NONE), axis=1)
    before = np.hstack([np.full((n, 1), NONE), last[:, :-1]])
    paired = known & (before != NONE)
    step = counter - np.take_along_axis(counter, np.maximum(before, 0), axis=1)
    coarse = resolution(counter, units)
    limit = most[:, None] * (at - before + 1) + coarse[:, None]
    good = ~paired | ((step >= 0) & (step <= limit))
    found = Spans(np.where(paired, before, NONE), np.where(paired, step, 0.0))
    for row in np.flatnonzero(~good.all(axis=1)).tolist():
        _follow(counter[row], float(most[row]), float(coarse[row]), moduli, found, row)
    # After a hole, a counter that shows no more than could have been drawn since may have
    # begun again at zero in between.
    hole = at - found.start > 1
    most_since = most[:, None] * (at - found.start + 1)
    hidden = (found.start != NONE) & hole & (counter <= most_since)
    return found.without(hidden)


def _follow(
    readings: Array, most: float, coarse: float, moduli: Sequence[float],
    found: Spans, row: int,
) -> None:  # fmt: skip
    """Write the spans of one counter that shows something impossible."""
    found.start[row], found.energy[row] = NONE, 0.0
    at = np.flatnonzero(~np.isnan(readings)).tolist()
    values = readings[at].tolist()

    def possible(i: int, j: int) -> float:
        return float(most * (at[j] - at[i] + 1) + coarse)

    def counted(i: int, j: int) -> float | None:
        return _rise(values[i], values[j], possible(i, j), moduli)

    def write(i: int, j: int, rise: float) -> None:
        found.start[row, at[j]], found.energy[row, at[j]] = at[i], rise

    i, j = 0, 1
    while j < len(at):
        rise = counted(i, j)
        if rise is not None:
            write(i, j, rise)
            i, j = j, j + 1
            continue
        back = next((k for k in range(j + 1, len(at)) if counted(i, k) is not None), 0)
        steady = back and all(counted(k, k + 1) is not None for k in range(j, back))
        if back and not (steady and values[j] > values[i]):
            if not (steady and values[j] <= possible(i, j)):
                write(i, back, counted(i, back) or 0.0)
            # else a small counter, either a glitch or begun again: nothing is said of it
            i, j = back, back + 1
            continue
        confirmed = (k for k in range(j, len(at) - 1) if counted(k, k + 1) is not None)
        j = next(confirmed, len(at))
        still = i
        while still and values[still - 1] == values[i]:
            still -= 1
        if j < len(at) and (rise := counted(still, j)) is not None:
            # It stood still, such as behind a gateway that repeats its last answer.
            found.start[row, at[still] + 1 : at[j]] = NONE
            write(still, j, rise)
        i, j = j, j + 1  # else a reset, or another counter: from what is confirmed on


def _rise(
    before: float, after: float, possible: float, moduli: Sequence[float]
) -> float | None:
    """What was counted between two readings; None where that is not possible."""
    rise = after - before
    if rise >= 0:
        return rise if rise <= possible else None
    for modulus in moduli:
        if before <= modulus and rise + modulus <= possible:
            return rise + modulus
    return None
