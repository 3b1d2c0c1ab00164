"""Rain minute by minute: from readings of gauges to what can be used. Pure.

Raw minutes are never changed; beside them stand their quality, its reasons, and the rain
that models take: corrected by the gauge's own calibration, filled from its neighbours where
it cannot be believed, and missing where nobody knows.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from duha_backend.errors import Invalid
from duha_backend.geo import distances
from duha_backend.rain.areal import Field
from duha_backend.rain.calibration import Calibration, corrected, in_force
from duha_backend.rain.quality import Judged, Rules, judge
from duha_backend.validate import Array

MINUTE_MS, FIVE = 60_000, 5
LONGEST_MS = 10 * MINUTE_MS
"""A reading after a longer silence says how much fell, and not when."""
COVERED = 0.5
USABLE = 0.5
"""Quality from which on a minute is used as it is."""
LEAST_NEIGHBOURS = 2
QUALITIES = ("good", "filled", "missing")


class Spell(msgspec.Struct, frozen=True):
    """Somebody works on a gauge: its tips count, and are not believed."""

    start: dt.datetime
    end: dt.datetime
    why: str = ""


class GaugeCare(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one rain gauge; its id is the gauge's.

    Attributes
    ----------
    calibrations : tuple of Calibration
        Dated; the last that has begun holds.
    heated : bool
        Whether it measures in frost.
    maintenance : tuple of Spell
        When somebody worked on it.
    """

    id: str
    name: str = ""
    calibrations: tuple[Calibration, ...] = ()
    heated: bool = False
    maintenance: tuple[Spell, ...] = ()

    def check(self) -> None:
        """Raise Invalid for what cannot be."""
        for calibration in self.calibrations:
            calibration.check()
        if any(t.tzinfo is None for s in self.maintenance for t in (s.start, s.end)):
            raise Invalid(f"gauge {self.id}: times of work need a zone, e.g. 12:00Z")
        if any(spell.end <= spell.start for spell in self.maintenance):
            raise Invalid(f"gauge {self.id}: work ends after it begins")


class RainRules(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a city judges its rain; the document ``city`` is in force.

    Attributes
    ----------
    thresholds : dict of str to float
        Those of `quality.Rules` that differ from the usual.
    delay_min : float
        How long after its end five minutes are judged: what comes later is worked in
        later, and models that run have not seen it.
    """

    id: str
    name: str = ""
    thresholds: dict[str, float] = {}
    delay_min: float = 3.0

    @property
    def rules(self) -> Rules:
        """The thresholds in force; raises Invalid for one that is none."""
        usual = Rules()._asdict()
        for name in self.thresholds:
            if not isinstance(usual.get(name), int | float):
                raise Invalid(f"there is no threshold {name!r}")
        made = {
            name: type(usual[name])(value) for name, value in self.thresholds.items()
        }
        return Rules(**{**usual, **made})

    def check(self) -> None:
        """Raise Invalid for a threshold that is none."""
        _ = self.rules
        if not 0 <= self.delay_min <= 60:
            raise Invalid("rain waits 0 to 60 minutes for what comes late")


class Minutes(NamedTuple):
    """Rain of gauges, (g, t) arrays of minutes.

    Attributes
    ----------
    raw : mm, NaN where no reading covers the minute.
    rain : mm, corrected and filled, NaN where nobody knows.
    quality : 0 to 1.
    flags : bits of `quality.FLAGS`.
    filled : bool, from neighbours.
    """

    raw: Array
    rain: Array
    quality: Array
    flags: Array
    filled: Array


def spread(
    ts: Array, rain_mm: Array, interval_s: Array, start_ms: int, minutes: int
) -> Array:
    """Readings of one gauge as minutes [mm].

    Parameters
    ----------
    ts, rain_mm, interval_s : (n,) arrays
        End [ms] and length [s] of what each reading covers, ascending; the rain in it.
    start_ms, minutes : int
        What is wanted.

    Returns
    -------
    (minutes,) array
        NaN where readings cover less than half of a minute.
    """
    ends = np.asarray(ts, dtype=float)
    if not len(ends):
        return np.full(minutes, np.nan)
    before = np.concatenate(([-np.inf], ends[:-1]))
    length = np.asarray(interval_s, dtype=float) * 1000
    length = np.where(np.isnan(length), np.minimum(ends - before, MINUTE_MS), length)
    begins = np.maximum(ends - length, before)
    known = (length <= LONGEST_MS) & ~np.isnan(rain_mm)
    depth = np.cumsum(np.where(known, np.nan_to_num(rain_mm), 0.0))
    time = np.cumsum(np.where(known, ends - begins, 0.0))
    knots = np.column_stack((begins, ends)).ravel()
    edges = start_ms + np.arange(minutes + 1) * float(MINUTE_MS)

    def between(total: Array) -> Array:
        lower = np.concatenate(([0.0], total[:-1]))
        return np.diff(np.interp(edges, knots, np.column_stack((lower, total)).ravel()))

    covered = between(time) >= COVERED * MINUTE_MS
    # Differences of long sums: what is no rain is exactly none.
    fell = np.round(between(depth), 9)
    return np.where(covered, fell, np.nan)


def fives(minutes: Array) -> Array:
    """Minutes (g, t) in steps of five, NaN where three or more are missing."""
    parts = minutes.reshape(len(minutes), -1, FIVE)
    missing = np.isnan(parts).sum(axis=2)
    return np.where(missing > 2, np.nan, np.nansum(parts, axis=2))


def judged_last(
    history: Array, places: Array, rules: Rules, last: int, **more: Array | None
) -> Judged:
    """Judgement of the last steps of five minutes of a longer record."""
    found = judge(history, places, rules, **more)
    return Judged(found.quality[:, -last:], found.flags[:, -last:])


def made(
    raw: Array, judged: Judged, places: Array,
    calibrations: Sequence[Sequence[Calibration]], day: dt.date, near_m: float,
) -> Minutes:  # fmt: skip
    """What becomes of raw minutes.

    Parameters
    ----------
    raw : (g, t) array
        Minutes [mm].
    judged : Judged
        Of the same time, in steps of five minutes.
    places : (g, k) array
        Places [m].
    calibrations : sequence of sequences
        Of each gauge.
    day : date
        Which calibration is in force.
    near_m : float
        How far a neighbour may be that fills a gap [m].
    """
    quality = np.repeat(judged.quality, FIVE, axis=1)
    flags = np.repeat(judged.flags, FIVE, axis=1)
    good = ~np.isnan(raw) & (quality >= USABLE)
    rain = np.where(good, raw, np.nan)
    for gauge, known in enumerate(calibrations):
        calibration = in_force(known, day)
        if calibration is not None:
            rain[gauge] = corrected(rain[gauge] * 60, calibration) / 60
    filled = fill(rain, places, near_m)
    gaps = ~good & ~np.isnan(filled)
    return Minutes(raw, np.where(gaps, filled, rain), quality, flags, gaps)


def fill(rain: Array, places: Array, near_m: float) -> Array:
    """Rain of each gauge by its neighbours' (inverse distances); NaN with less than two."""
    found = np.full(rain.shape, np.nan)
    holes = np.isnan(rain)
    apart = distances(places, places)
    for gauge in np.flatnonzero(holes.any(axis=1)).tolist():
        near = np.flatnonzero((apart[gauge] <= near_m) & (apart[gauge] > 0))
        if len(near) < LEAST_NEIGHBOURS:
            continue
        field = Field(places[near], places[gauge : gauge + 1])
        for minute in np.flatnonzero(holes[gauge]).tolist():
            others = rain[near, minute]
            if np.isfinite(others).sum() >= LEAST_NEIGHBOURS:
                found[gauge, minute] = field.at(others)[0]
    return found


def worked_on(
    care: Mapping[str, GaugeCare], gauges: Sequence[str], start_ms: int, steps: int
) -> Array:
    """When somebody works on gauges: (g, t) bool, steps of five minutes."""
    times = start_ms + np.arange(steps) * FIVE * MINUTE_MS
    found = np.zeros((len(gauges), steps), dtype=bool)
    for row, gauge in enumerate(gauges):
        for spell in care[gauge].maintenance if gauge in care else ():
            begin = moment_ms(spell.start) - FIVE * MINUTE_MS
            found[row] |= (times > begin) & (times < moment_ms(spell.end))
    return found


def moment_ms(moment: dt.datetime) -> float:
    """POSIX time of a moment [ms]; one without a zone, of an older document, is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return aware.timestamp() * 1000


def quality_words(minutes: Minutes) -> Array:
    """`good`, `filled` or `missing` for each minute."""
    words = np.full(minutes.raw.shape, "good", dtype=object)
    words[minutes.filled] = "filled"
    words[np.isnan(minutes.rain)] = "missing"
    return words
