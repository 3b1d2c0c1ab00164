"""Readings of a night in quarters of an hour, in rows and columns. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duha_backend.readings import QUARTER_MS, Frame
from duha_backend.validate import Array

BEFORE = 48
"""Quarters before the night: where a counter stood that was silent by day."""
FEW = 8
"""Quarters below which the period of a device is not known."""
HOURS = QUARTER_MS / 3_600_000


@dataclass
class Quarters:
    """Quarters of a night and the `BEFORE` quarters before it, device by device.

    Attributes
    ----------
    index : dict of str to int
        Row of each device.
    start : int
        When the first column begins [ms].
    level : (n, BEFORE + q) float32
        Mean level [%]; NaN where nothing was read.
    counter : (n, BEFORE + q) float64
        Last reading of the counter in the quarter; NaN where there is none.
    answers : (n, BEFORE + q) float32
        Readings that the quarter was worked out from.
    """

    index: dict[str, int]
    start: int
    level: Array
    counter: Array
    answers: Array

    @classmethod
    def empty(cls, names: Sequence[str], start: int, end: int) -> "Quarters":
        """For some devices and a night [ms)."""
        shape = (len(names), BEFORE + (end - start) // QUARTER_MS)
        return cls(
            {name: i for i, name in enumerate(names)},
            start - BEFORE * QUARTER_MS,
            np.full(shape, np.nan, dtype=np.float32),
            np.full(shape, np.nan),
            np.zeros(shape, dtype=np.float32),
        )

    def take(
        self, frame: Frame, counter: str, level: str = "", other: str = ""
    ) -> None:
        """Take quarters of devices; `other` stands in where there is no `level`."""
        rows = np.array([self.index.get(name, -1) for name in frame["device"].tolist()])
        column = (frame["ts"] - self.start) // QUARTER_MS
        here = (rows >= 0) & (column >= 0) & (column < self.counter.shape[1])
        place = (rows[here], column[here])
        self.counter[place] = frame[counter][here]
        self.answers[place] = np.nan_to_num(frame["n"][here].astype(float))
        if level:
            found = np.where(np.isnan(frame[level]), frame[other], frame[level])
            self.level[place] = found[here]

    def of(self, rows: Array) -> "Quarters":
        """Some of the devices, without their names."""
        return Quarters(
            {}, self.start, self.level[rows], self.counter[rows], self.answers[rows]
        )

    @property
    def unread(self) -> Array:
        """Most time in each quarter after its last reading [h].

        A device is polled evenly, so that its fullest quarter tells the period, and k
        readings cannot all lie in the first k - 1 periods.
        """
        found = HOURS - (self.answers - 1) * self.period[:, None]
        clipped: Array = np.clip(found, 0.0, HOURS)
        return clipped

    @property
    def period(self) -> Array:
        """Time between two readings, by the fullest quarter of each device [h].

        Few quarters do not tell it: of devices that were hardly read it is the shortest of
        the others, else a second, so that nothing is taken for read that may not have been.
        """
        own = HOURS / self.answers.max(axis=1, initial=1.0).astype(float)
        few = (self.answers > 0).sum(axis=1) < FEW
        least = own[~few].min() if not few.all() else 1 / 3600
        found: Array = np.where(few, np.minimum(own, least), own)
        return found
