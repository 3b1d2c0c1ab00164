"""What nights will be like, and cost: for any luminaires, against now and a baseline. Pure.

Luminaires that are told the same and are of one type are worked out once.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from duha_backend.lighting.days import dated
from duha_backend.lighting.inventory import Asset, LuminaireType
from duha_backend.lighting.nights import grid, levels
from duha_backend.lighting.tariff import Tariff
from duha_backend.lighting.wanted import Wanted
from duha_backend.validate import Array
from duha_contract.lighting import Override, Sun

STEP_S = 300.0


class Told(NamedTuple):
    """What luminaires that behave alike are told: calendar, normal level, overrides."""

    calendar: str | None
    normal: float
    overrides: tuple[Override, ...]


@dataclass
class Course:
    """The light of luminaires that behave alike.

    Attributes
    ----------
    told : Told
        What they are told.
    luminaires : int
        How many there are.
    level : (n,) float64
        Level over the grid [%].
    """

    told: Told
    luminaires: int
    level: Array


@dataclass
class Night:
    """One night: energy of what is proposed, of what runs now, of the baseline [kWh]."""

    date: dt.date
    sunset: float | None
    sunrise: float | None
    kwh: float = 0.0
    now_kwh: float = 0.0
    baseline_kwh: float = 0.0


@dataclass
class Preview:
    """Some nights of some luminaires.

    Attributes
    ----------
    start, step_s : float
        Of the grid: first time, POSIX [s], and step [s].
    courses : list of Course
        The light, the most common first.
    nights : list of Night
        What it takes; luminaires without a known type are not in it.
    without_type : int
        How many those are.
    programmes : dict of str to list of str
        The programme of each night, by calendar.
    affected : int
        Luminaires whose light is another than now in any of the nights.
    """

    start: float
    step_s: float
    courses: list[Course]
    nights: list[Night] = field(default_factory=list)
    without_type: int = 0
    programmes: dict[str, list[str]] = field(default_factory=dict)
    affected: int = 0

    @property
    def kwh(self) -> float:
        """Energy of all its nights [kWh]."""
        return sum(night.kwh for night in self.nights)


def preview(
    lamps: Sequence[Asset],
    proposed: Wanted,
    now: Wanted,
    overrides: Iterable[tuple[Override, frozenset[str] | None]],
    types: Mapping[str, LuminaireType],
    tariff: Tariff,
    sun: Sun,
    first: dt.date,
    nights: int = 7,
) -> Preview:
    """What nights will be like.

    Parameters
    ----------
    lamps : sequence of Asset
        The luminaires.
    proposed, now : Wanted
        What would be wanted, and what is.
    overrides : iterable of (Override, frozenset of str or None)
        Those that stand, and whom they reach; None: all.
    types, tariff : mapping of str to LuminaireType, Tariff
        For energy and its baseline.
    sun : Sun
        The nights of the place.
    first : date
        The first night.
    nights : int
        How many.

    Returns
    -------
    Preview
        Curves and energy.
    """
    times = grid(sun, first, nights, STEP_S)
    standing = list(overrides)
    found = Preview(float(times[0]), STEP_S, [])
    found.nights = [_night(sun, first + dt.timedelta(days=n)) for n in range(nights)]
    of_night = _of_nights(sun, first, nights, times)
    kinds = {asset.type for asset in lamps}
    found.without_type = sum(a.type not in types for a in lamps)
    told = Counter(
        (_told(a, proposed, standing), _told(a, now, standing), a.type) for a in lamps
    )
    after = _courses({key for key, _, _ in told}, proposed, sun, times, first)
    before = after
    if now is not proposed:
        before = _courses({key for _, key, _ in told}, now, sun, times, first)
    found.courses = _listed(told, after)
    found.programmes = _programmes(found.courses, proposed, first, nights)
    for (then, is_now, kind), count in told.items():
        if not np.array_equal(after[then], before[is_now]):
            found.affected += count
        if kind in types:
            power = types[kind].power
            kwh = count * _kwh(power(after[then]), of_night, nights)
            now_kwh = count * _kwh(power(before[is_now]), of_night, nights)
            _add(found.nights, "kwh", kwh)
            _add(found.nights, "now_kwh", now_kwh)
    for kind in kinds & types.keys():
        count = sum(asset.type == kind for asset in lamps)
        rated = tariff.baseline_w.get(kind, types[kind].rated_w)
        dark = levels({}, None, (), (), sun, times) > 0
        _add(found.nights, "baseline_kwh", count * _kwh(rated * dark, of_night, nights))
    return found


def _told(
    asset: Asset, wanted: Wanted, standing: list[tuple[Override, frozenset[str] | None]]
) -> Told:
    mine = tuple(o for o, reached in standing if reached is None or asset.id in reached)
    return Told(wanted.calendar_of(asset), wanted.normal_of(asset), mine)


def _courses(
    told: Iterable[Told], wanted: Wanted, sun: Sun, times: Array, first: dt.date
) -> dict[Told, Array]:
    found = {}
    for key in told:
        calendar = wanted.calendars.get(key.calendar or "")
        calendar = dated(calendar, first) if calendar else None
        overrides = [_for_all(o) for o in key.overrides]
        found[key] = levels(
            wanted.programmes, calendar, overrides, (), sun, times, None, key.normal
        )
    return found


def _for_all(override: Override) -> Override:
    return Override(
        override.id, override.level, override.start, override.end, override.reason,
        override.who, None, override.emergency, override.fade_s,
    )  # fmt: skip


def _listed(
    told: Counter[tuple[Told, Told, str]], courses: Mapping[Told, Array]
) -> list[Course]:
    counts: Counter[Told] = Counter()
    for (key, _, _), count in told.items():
        counts[key] += count
    return [Course(key, count, courses[key]) for key, count in counts.most_common()]


def _programmes(
    courses: Iterable[Course], wanted: Wanted, first: dt.date, nights: int
) -> dict[str, list[str]]:
    dates = [first + dt.timedelta(days=n) for n in range(nights)]
    names = {course.told.calendar for course in courses}
    return {
        name: [dated(calendar, first).programme_of(date) for date in dates]
        for name in names
        if name and (calendar := wanted.calendars.get(name)) is not None
    }


def _night(sun: Sun, date: dt.date) -> Night:
    dark = sun.night(date)
    return Night(date, dark.sunset if dark else None, dark.sunrise if dark else None)


def _of_nights(sun: Sun, first: dt.date, nights: int, times: Array) -> Array:
    """Number of the night of each instant."""
    begins = [grid(sun, first + dt.timedelta(days=n))[0] for n in range(nights)]
    return np.searchsorted(begins, times, side="right") - 1


def _kwh(watts: Array, of_night: Array, nights: int) -> Array:
    """Energy of each night [kWh]."""
    return np.bincount(of_night, watts, minlength=nights) * STEP_S / 3_600_000


def _add(nights: Sequence[Night], name: str, kwh: Array) -> None:
    for night, more in zip(nights, kwh.tolist(), strict=True):
        setattr(night, name, getattr(night, name) + more)
