"""Rain events, running sums and how rare they are. Pure."""

import csv
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from duha_backend.errors import Invalid
from duha_backend.validate import Array

DURATIONS_MIN = (5, 10, 15, 30, 60, 120, 360, 1440)
SATURATED_MM, SATURATED_DAYS = 50.0, 10
"""More in ten days and the ground counts as saturated (Czech flood plans)."""


class Event(NamedTuple):
    """A spell of rain: places of its first and last wet step, and how it fell."""

    first: int
    last: int
    depth_mm: float
    most_mm: float


def events(
    rain_mm: Array, step_min: float, dry_h: float = 6.0, least_mm: float = 1.0
) -> list[Event]:
    """Events that are parted by at least so many dry hours.

    Parameters
    ----------
    rain_mm : (n,) array
        Depth of each step [mm]; NaN counts as dry.
    step_min : float
        Length of a step [min].
    dry_h : float
        Minimum inter-event time [h]: 6 h for statistics, concentration time for operation.
    least_mm : float
        Events with less are left out [mm].
    """
    rain = np.nan_to_num(np.asarray(rain_mm, dtype=float))
    wet = np.flatnonzero(rain > 0)
    if not len(wet):
        return []
    parted = np.flatnonzero(np.diff(wet) * step_min > dry_h * 60)
    firsts = wet[np.concatenate(([0], parted + 1))]
    lasts = wet[np.concatenate((parted, [len(wet) - 1]))]
    total = np.concatenate(([0.0], np.cumsum(rain)))
    found = [
        Event(a, b, float(total[b + 1] - total[a]), float(rain[a : b + 1].max()))
        for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True)
    ]
    return [event for event in found if event.depth_mm >= least_mm]


def running(rain_mm: Array, steps: int) -> Array:
    """Sums over the last `steps` steps [mm]; NaN where one of them is missing."""
    rain = np.asarray(rain_mm, dtype=float)
    total = np.concatenate(([0.0], np.cumsum(np.nan_to_num(rain))))
    holes = np.concatenate(([0], np.cumsum(np.isnan(rain))))
    first = np.maximum(0, np.arange(1, len(rain) + 1) - steps)
    last = np.arange(1, len(rain) + 1)
    sums = total[last] - total[first]
    return np.where(holes[last] > holes[first], np.nan, sums)


def saturated(daily_mm: Array) -> bool:
    """Whether the ground is saturated, by the depths of the last days [mm]."""
    return bool(np.nansum(np.asarray(daily_mm)[-SATURATED_DAYS:]) > SATURATED_MM)


def antecedent(daily_mm: Array, decay: float = 0.9) -> float:
    """Antecedent precipitation index [mm]: API = k API + P, day by day.

    Kohler and Linsley (1951), US Weather Bureau Research Paper 34.
    """
    index = 0.0
    for depth in np.nan_to_num(np.asarray(daily_mm, dtype=float)).tolist():
        index = decay * index + depth
    return index


class DesignRain(msgspec.Struct, frozen=True, omit_defaults=True):
    """A city's table of design rain as a document; none is invented.

    Attributes
    ----------
    durations_min, periods_a : tuple of float
        Durations [min] and return periods [a], rising.
    depth_mm : tuple of rows
        Depths [mm], a row for each duration.
    source : str
        Where it comes from: institute, station, years. An example says so here.
    """

    id: str
    name: str
    durations_min: tuple[float, ...]
    periods_a: tuple[float, ...]
    depth_mm: tuple[tuple[float, ...], ...]
    source: str = ""

    @property
    def idf(self) -> "Idf":
        """The table, to be asked; raises Invalid for one that is none."""
        rows = {len(row) for row in self.depth_mm}
        if rows != {len(self.periods_a)}:
            raise Invalid("every row has a depth for each return period")
        return Idf(
            *(np.array(x) for x in (self.durations_min, self.periods_a, self.depth_mm))
        )

    def check(self) -> None:
        """Raise Invalid for a table that is none, or that nobody answers for."""
        if not self.source.strip():
            raise Invalid("say in `source` where the design rain comes from")
        _ = self.idf


class Idf:
    """A city's table of design rain: depth over duration and return period.

    Parameters
    ----------
    durations_min, periods_a : (d,), (t,) arrays
        Durations [min] and return periods [a], rising.
    depth_mm : (d, t) array
        Depths [mm].

    Raises
    ------
    Invalid
        Depths do not grow with duration and with return period.
    """

    def __init__(self, durations_min: Array, periods_a: Array, depth_mm: Array) -> None:
        self.durations = np.asarray(durations_min, dtype=float)
        self.periods = np.asarray(periods_a, dtype=float)
        self.depth = np.asarray(depth_mm, dtype=float)
        if self.depth.shape != (len(self.durations), len(self.periods)):
            raise Invalid(
                "a design rain table has a depth for each duration and period"
            )
        rising = all((np.diff(x) > 0).all() for x in (self.durations, self.periods))
        growing = (np.diff(self.depth, axis=1) > 0).all()
        growing &= bool((np.diff(self.depth, axis=0) >= 0).all())
        if not rising or not growing or (self.depth <= 0).any():
            raise Invalid("design rain grows with its duration and its return period")

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Idf":
        """From CSV: ``duration_min`` and a column for each return period [a]; depths [mm].

        Raises
        ------
        Invalid
            Names the row that is no such thing.
        """
        rows = list(
            csv.reader(line.replace(";", ",") for line in lines if line.strip())
        )
        if len(rows) < 2:
            raise Invalid("the table has no rows")
        number = 1
        try:
            periods = [float(text) for text in rows[0][1:]]
            found = []
            for number, row in enumerate(rows[1:], 2):  # noqa: B007 - named in the error
                found.append([float(text) for text in row])
        except ValueError:
            raise Invalid(f"row {number} of the design rain table is no row of numbers") from None  # fmt: skip
        if any(len(row) != len(periods) + 1 for row in found):
            raise Invalid("every row has a duration and a depth for each return period")
        table = np.array(found)
        return cls(table[:, 0], np.array(periods), table[:, 1:])

    def depth_of(self, duration_min: float, period_a: float) -> float:
        """Depth [mm] of a duration [min] and return period [a], log-log between points.

        Raises
        ------
        Invalid
            The table does not reach so far: its last depth would pass for a rarer one.
        """
        _within("return periods", period_a, self.periods, "a")
        _within("durations", duration_min, self.durations, "min")
        column = [
            self._over_durations(n, duration_min) for n in range(len(self.periods))
        ]
        return float(
            np.exp(np.interp(np.log(period_a), np.log(self.periods), np.log(column)))
        )

    def period_of(self, duration_min: float, depth_mm: float) -> float:
        """Return period [a] of a depth [mm] within a duration [min].

        Beyond the ends of the table it is 0 (more often than its first column) or infinite
        (rarer than its last one): nobody has said how rare.
        """
        column = [
            self._over_durations(n, duration_min) for n in range(len(self.periods))
        ]
        if depth_mm < column[0]:
            return 0.0
        if depth_mm > column[-1]:
            return float("inf")
        return float(
            np.exp(np.interp(np.log(depth_mm), np.log(column), np.log(self.periods)))
        )

    def _over_durations(self, number: int, duration_min: float) -> float:
        x, y = np.log(self.durations), np.log(self.depth[:, number])
        return float(np.exp(np.interp(np.log(duration_min), x, y)))


def _within(of: str, value: float, known: Array, unit: str) -> None:
    """Refuse a value beyond the ends of a table; a hair is rounding."""
    low, high = float(known[0]), float(known[-1])
    if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
        raise Invalid(
            f"the design rain table has {of} from {low:g} to {high:g} {unit}, not {value:g}"
        )
