"""Energy that counters have counted, judged by what is physically possible. Pure.

A reading of a counter may be a glitch (a gateway that answers 0, a bit that flipped), the
counter may have been reset (power loss, another driver), may have wrapped, or may stand
still because a gateway repeats its last answer. What is counted between two readings is
believed where no load could have drawn more; the rest is not counted, and not guessed.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from duha_backend.validate import Array

MARGIN = 1.25
"""Power beyond the rated one that is still possible: tolerances, cold start, constant light output."""
RESET = 3
"""A reset is believed where more readings than these go on rising from it."""
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
    usual: Array | None = None,
) -> Spans:
    """Energy between the readings of counters, without what is not possible.

    A drop or a leap after which the counter goes on from where it was is a glitch; the span
    bridges it. Where the counter goes on from the new value for hours it was reset or
    replaced: what was drawn between both readings is not known. A counter that stood still
    and leaps by what can have been drawn meanwhile has caught up. One that goes back has
    wrapped where that is possible for one of `moduli`; a reset so near to a modulus cannot
    be told from that, an error of at most what can be drawn in half an hour.

    Parameters
    ----------
    counter : (n, q) float64
        Last reading of each quarter of an hour, NaN where there is none.
    most : (n,) float64
        What the load can draw at most in a quarter of an hour [unit of the counter].
    units, moduli : sequence of float
        Steps in which such counters count, and where they wrap [unit of the counter].
    usual : (n,) float64, optional
        What the load draws at most in use; `most` without it, 0 for a counter that is never
        reset. One that shows no more than this after a hole may have begun again at zero
        within it.
    """
    n, q = counter.shape
    usual = most if usual is None else usual
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
        rates = (float(most[row]), float(usual[row]), float(coarse[row]))
        one = _Counter(counter[row], *rates, moduli)
        found.start[row], found.energy[row] = NONE, 0.0
        for i, j, rise in one.spans():
            found.start[row, one.at[i] + 1 : one.at[j]] = NONE
            found.start[row, one.at[j]] = one.at[i]
            found.energy[row, one.at[j]] = rise
    found = Spans(found.start, np.where(found.start == NONE, 0.0, found.energy))
    # After a hole, a counter that shows no more than could have been drawn since may have
    # begun again at zero in between.
    hole = (found.start == before) & (at - before > 1)
    drawn = usual[:, None] * (at - before + 1)
    hidden = paired & hole & (counter <= drawn)
    return found.without(hidden)


class _Counter:
    """The readings of one counter that shows something impossible.

    They fall into chains within which all is possible. Of all ways through the chains the
    one is taken that believes the most different readings: it may skip chains as glitches
    where both sides fit together, and begin again with a chain at the price of `RESET`
    readings. A value that is repeated is no proof of itself.
    """

    def __init__(
        self, readings: Array, most: float, usual: float, coarse: float,
        moduli: Sequence[float],
    ) -> None:  # fmt: skip
        self.at: list[int] = np.flatnonzero(~np.isnan(readings)).tolist()
        self._values: list[float] = readings[self.at].tolist()
        self._most, self._usual, self._coarse = most, usual, coarse
        self._moduli = moduli
        n = len(self.at)
        breaks = [k for k in range(1, n) if self.rise(k - 1, k) is None]
        self._chains = list(pairwise([0, *breaks, n]))

    def possible(self, i: int, j: int) -> float:
        """The most that can have been counted between two readings."""
        return self._most * (self.at[j] - self.at[i] + 1) + self._coarse

    def _drawn(self, i: int, j: int) -> float:
        """What is drawn at most between two readings in use."""
        return self._usual * (self.at[j] - self.at[i] + 1) + self._coarse

    def rise(self, i: int, j: int) -> float | None:
        """What was counted between two readings; None where that is not possible."""
        possible = self.possible(i, j)
        # After a hole a wrap cannot be told from a reset.
        wrapped = min(possible, 2 * self._most + self._coarse)
        return _rise(self._values[i], self._values[j], possible, wrapped, self._moduli)

    def spans(self) -> Iterator[tuple[int, int, float]]:
        """Begin, end and energy of the spans that are believed."""
        before: int | None = None
        for first, end in self._way():
            begin = first
            if before is not None:
                joint = self._joint(before, first)
                if joint is None:
                    begin = self._certain(before, first, end)
                elif joint != before or not self._hidden(before, first):
                    yield joint, first, self.rise(joint, first) or 0.0
            for k in range(begin, end - 1):
                yield k, k + 1, self.rise(k, k + 1) or 0.0
            before = end - 1

    def _way(self) -> list[tuple[int, int]]:
        """The chains that are believed."""
        worth: list[float] = []
        came: list[int | None] = []
        for c, (first, end) in enumerate(self._chains):
            best, of = 0.0, None
            for b in range(c):
                fits = self._joint(self._chains[b][1] - 1, first) is not None
                found = worth[b] - (0 if fits else RESET)
                if found > best:
                    best, of = found, b
            worth.append(best + len(set(self._values[first:end])))
            came.append(of)
        way: list[tuple[int, int]] = []
        at: int | None = int(np.argmax(worth))
        while at is not None:
            way.append(self._chains[at])
            at = came[at]
        return way[::-1]

    def _joint(self, last: int, first: int) -> int | None:
        """From which reading on a chain goes on in another one, if it does.

        From its last one, or from where it began to stand still, such as behind a gateway
        that repeats its last answer.
        """
        if self.rise(last, first) is not None:
            return last
        still = last
        while still and self._values[still - 1] == self._values[last]:
            still -= 1
        return still if self.rise(still, first) is not None else None

    def _hidden(self, last: int, first: int) -> bool:
        """Whether the counter may have begun again at zero between two readings."""
        apart = self.at[first] - self.at[last] > 1
        return apart and self._values[first] <= self._drawn(last, first)

    def _certain(self, last: int, first: int, end: int) -> int:
        """From which reading on a chain after a reset is certain.

        One that begins near zero and goes on to where the counter was before may be a
        glitch of a small counter as well.
        """
        if self._values[first] > self._drawn(last, first):
            return first
        passed = (k for k in range(first, end) if self.rise(last, k) is not None)
        return next(passed, first)


def _rise(
    before: float,
    after: float,
    possible: float,
    wrapped: float,
    moduli: Sequence[float],
) -> float | None:
    """What was counted between two readings; None where that is not possible."""
    rise = after - before
    if rise >= 0:
        return rise if rise <= possible else None
    for modulus in moduli:
        if before <= modulus and rise + modulus <= wrapped:
            return rise + modulus
    return None
