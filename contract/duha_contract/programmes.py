"""Programmes and calendars: what a night shall be like, as data, and its segments.

Vocabulary: TALQ 2.7.1 (control programme, active period, calendar, rule). Nights run from
noon to noon of local time, so that "Saturday night" is not cut at midnight.

A programme becomes a few straight segments for each night. The edge looks one up at an
instant, the backend draws whole weeks from the same ones.
"""

import datetime as dt
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

from duha_contract.calendars import WEEKDAYS, Calendar, Rule
from duha_contract.errors import ProgrammeError
from duha_contract.times import (
    Place,
    by_sun,
    darkness,
    date_of,
    instant,
    night,
    noons,
)

__all__ = [
    "WEEKDAYS",
    "Calendar",
    "Effect",
    "Input",
    "Period",
    "Place",
    "Point",
    "Programme",
    "Rule",
    "Segment",
    "Step",
    "by_sun",
    "check",
    "darkness",
    "date_of",
    "effect_window",
    "instant",
    "night",
    "noons",
    "plan",
    "segments",
    "span",
]  # fmt: skip

MOST_EARLY_MIN = 180
MOST_PARTS = 200
"""Most steps, periods and effects of a programme."""
CHECKED_NIGHTS = 366

Input = Literal["wet_road", "traffic", "motion"]
"""What programmes answer to. `wet_road` may only raise."""


class Step(msgspec.Struct, frozen=True):
    """From `at` on, `level` [%], reached in `fade_s` seconds.

    `at` is a local time ``22:30`` or a time by the sun in minutes: ``sunset-10``,
    ``sunrise+5``.
    """

    at: str
    level: float
    fade_s: float = 0.0


class Period(msgspec.Struct, frozen=True, omit_defaults=True):
    """An active period: the light may be on from `start` to `end`, times as of a step.

    With `early_min` or `late_min` [min] a light sensor moves both ends: dark weather
    begins the period up to `early_min` before `start` and ends it up to `late_min` after
    `end`; a bright sky holds it back up to `late_min` and ends it up to `early_min`
    before. Without a sensor that answers, `start` and `end` stand.
    """

    start: str = "sunset"
    end: str = "sunrise"
    early_min: float = 0.0
    late_min: float = 0.0


class Effect(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an adaptive input does to the level while the light is on.

    `level` [%]; None stands for the normal class level of each luminaire. The effect
    holds from `start` to `end`, times as of a step, or the whole night without them.
    """

    on: Input
    level: float | None = None
    operation: Literal["max", "set", "min"] = "max"
    start: str = ""
    end: str = ""


class Programme(msgspec.Struct, frozen=True, omit_defaults=True):
    """The steps of one night, within its active periods.

    Without a period the light is off before the first step, and the last step holds until
    noon. With periods it is off outside them, and the first step holds from their start.
    `part_night` says that being off in the middle of the night is meant.
    """

    id: str
    name: str
    steps: tuple[Step, ...]
    active: tuple[Period, ...] = ()
    effects: tuple[Effect, ...] = ()
    part_night: bool = False


class Point(NamedTuple):
    """A step with its instant, POSIX time [s]."""

    t: float
    step: Step
    number: int


class Segment(NamedTuple):
    """A part of a night in which the level stays, or changes on a straight line.

    Attributes
    ----------
    start, end : float
        POSIX time [s].
    level, then : float
        At the start and at the end [%]; what the lamp gives if it is `lit`.
    step : int
        The step that decides, from 1; 0 before the first one.
    lit : bool
        Whether it is within an active period.
    sensor : str
        ``dark``: a light sensor that sees the dark lights it; ``bright``: one that sees
        a bright sky puts it out; empty: sensors do not matter.
    """

    start: float
    end: float
    level: float
    then: float
    step: int
    lit: bool
    sensor: Literal["", "dark", "bright"]

    def at(self, t: float) -> float:
        """The level [%] at a time [s] within."""
        if self.level == self.then:
            return self.level
        share = (t - self.start) / (self.end - self.start)
        return self.level + (self.then - self.level) * share


@lru_cache(maxsize=4096)
def segments(programme: Programme, place: Place, date: dt.date) -> tuple[Segment, ...]:
    """The night of a programme, from noon to noon without a hole.

    Raises
    ------
    ProgrammeError
        There is no step, a time is not understood, or a level not 0 to 100 %.
    """
    noon, next_noon = noons(place, date)
    lines = _lines(programme, place, date)
    windows = _windows(programme, place, date)
    cuts = {noon, next_noon}
    cuts |= {line.t for line in lines} | {w.start for w in windows}
    cuts |= {w.end for w in windows}
    inside = sorted(t for t in cuts if noon <= t <= next_noon)
    if len(inside) < 2:  # a day that a zone has left out
        inside = [noon, noon + 1]
    found = [_segment(a, b, lines, windows) for a, b in pairwise(inside)]
    return tuple(_joined(found))


@lru_cache(maxsize=4096)
def plan(programme: Programme, place: Place, date: dt.date) -> tuple[Point, ...]:
    """The steps of a programme in one night, each with its POSIX time [s], in order.

    Raises
    ------
    ProgrammeError
        There is no step, its time is not understood, or its level not 0 to 100 %.
    """
    if not programme.steps:
        raise ProgrammeError(f"{programme.id}: a programme has a step at least")
    points = []
    for number, step in enumerate(programme.steps, 1):
        if not 0 <= step.level <= 100:
            raise ProgrammeError(
                f"{programme.id}: {step.level} at {step.at} is not 0 to 100 %"
            )
        if not 0 <= step.fade_s <= 3600:
            raise ProgrammeError(f"{programme.id}: a fade takes 0 to 3600 s")
        points.append(Point(instant(step.at, place, date, programme.id), step, number))
    return tuple(sorted(points, key=lambda point: (point.t, point.number)))


def check(programme: Programme, place: Place) -> None:
    """Refuse a programme that cannot be evaluated in every night of a year.

    Raises
    ------
    ProgrammeError
        Names the programme and what is wrong.
    """
    name = programme.id
    for what in (programme.steps, programme.active, programme.effects):
        if len(what) > MOST_PARTS:
            raise ProgrammeError(f"{name}: more than {MOST_PARTS} parts of one kind")
    date = dt.date(2026, 6, 21)
    segments(programme, place, date)
    for period in programme.active:
        _check_period(period, place, name)
    for effect in programme.effects:
        _check_effect(effect, name)
        effect_window(effect, place, date, name)


def _check_effect(effect: Effect, name: str) -> None:
    if effect.on == "wet_road" and effect.operation != "max":
        raise ProgrammeError(f"{name}: rain may raise light, never lower it")
    if effect.level is not None and not 0 <= effect.level <= 100:
        raise ProgrammeError(f"{name}: {effect.level} is not 0 to 100 %")


def _check_period(period: Period, place: Place, name: str) -> None:
    """Refuse a period that its light sensor may use up in a night of the year.

    A period from sunset to sunrise is exempt: where nights are short, evaluation limits
    the sensor.
    """
    sensed = (period.early_min, period.late_min)
    if not all(0 <= minutes <= MOST_EARLY_MIN for minutes in sensed):
        raise ProgrammeError(
            f"{name}: a light sensor moves a period by 0 to {MOST_EARLY_MIN} min"
        )
    taken = 60 * sum(sensed)
    if not taken or (by_sun(period.start) and by_sun(period.end)):
        return
    for n in range(CHECKED_NIGHTS):
        date = dt.date(2026, 1, 1) + dt.timedelta(days=n)
        start, end = span(period, place, date, name)
        if 0 < end - start < taken:
            raise ProgrammeError(
                f"{name}: the period {period.start} to {period.end} is shorter than what"
                f" its light sensor may take of it in the night of {date}"
            )


@lru_cache(maxsize=4096)
def effect_window(
    effect: Effect, place: Place, date: dt.date, name: str = ""
) -> tuple[float, float]:
    """From when to when an effect holds in a night, POSIX time [s]."""
    noon, next_noon = noons(place, date)
    start = instant(effect.start, place, date, name) if effect.start else noon
    end = instant(effect.end, place, date, name) if effect.end else next_noon
    return start, end


def clear_caches() -> None:
    """Drop cached nights, so that programmes no longer in use free their memory."""
    for cached in (segments, plan, effect_window):
        cached.cache_clear()


class _Line(NamedTuple):
    """From `t` [s] on: from `level` to `then` [%] in `fade` [s], then it stays."""

    t: float
    level: float
    then: float
    fade: float
    step: int

    def at(self, t: float) -> float:
        if t >= self.t + self.fade:
            return self.then
        return self.level + (self.then - self.level) * (t - self.t) / self.fade


def _lines(programme: Programme, place: Place, date: dt.date) -> list[_Line]:
    """The level over a night, without its active periods."""
    points = _settled(plan(programme, place, date), place, date)
    noon = noons(place, date)[0]
    dusk = not programme.active and by_sun(points[0].step.at)
    dark = darkness(place, date) if dusk else ()
    early = bool(dark) and dark[0].sunset == noon
    first = points[0].step.level if programme.active or early else 0.0
    lines = [_Line(min([noon, *(p.t for p in points)]), first, first, 0.0, 0)]
    if early and dark[0].sunrise < points[0].t:
        lines.append(_Line(dark[0].sunrise, 0.0, 0.0, 0.0, 0))
    for point, following in zip(points, (*points[1:], None), strict=True):
        level, wanted = lines[-1].at(point.t), point.step.level
        fade = point.step.fade_s
        lines.append(_Line(point.t, level, wanted, fade, point.number))
        end = point.t + fade
        if fade and (following is None or end < following.t):
            lines.append(_Line(end, wanted, wanted, 0.0, point.number))
    if len(dark) > 1 and dark[-1].sunset > lines[-1].t:
        level = points[0].step.level
        lines.append(_Line(dark[-1].sunset, level, level, 0.0, 1))
    return lines


def _settled(
    points: tuple[Point, ...], place: Place, date: dt.date
) -> tuple[Point, ...]:
    """Move steps that switch off by the sunrise to noon where the sun does not rise."""
    dark, (_, next_noon) = night(place, date), noons(place, date)
    if dark is None or dark.sunrise < next_noon:
        return points
    return tuple(
        point._replace(t=max(point.t, next_noon))
        if point.step.level == 0 and point.step.at.startswith("sunrise")
        else point
        for point in points
    )


class _Window(NamedTuple):
    start: float
    end: float
    lit: bool
    sensor: Literal["", "dark", "bright"]


def _windows(programme: Programme, place: Place, date: dt.date) -> list[_Window]:
    """When the light is within an active period, and when a light sensor decides."""
    noon, next_noon = noons(place, date)
    if not programme.active:
        always_day = night(place, date) is None
        if always_day and any(by_sun(step.at) for step in programme.steps):
            return []
        return [_Window(noon, next_noon, lit=True, sensor="")]
    windows = []
    for period in programme.active:
        for start, end in _spans(period, place, date, programme.id):
            early, late = 60 * period.early_min, 60 * period.late_min
            windows += [
                _Window(start - early, start, lit=False, sensor="dark"),
                _Window(start, min(start + late, end), lit=True, sensor="bright"),
                _Window(start + late, end - early, lit=True, sensor=""),
                _Window(max(start, end - early), end, lit=True, sensor="bright"),
                _Window(end, end + late, lit=False, sensor="dark"),
            ]
    return [window for window in windows if window.start < window.end]


def _spans(
    period: Period, place: Place, date: dt.date, name: str
) -> list[tuple[float, float]]:
    """Intervals of a period between the noons of a night, POSIX time [s].

    At the edges of a polar night the previous or next night may extend past noon.
    """
    noon, next_noon = noons(place, date)
    found = [span(period, place, date, name)]
    before, after = (night(place, date + dt.timedelta(days=n)) for n in (-1, 1))
    if before is not None and before.sunrise > noon:
        found.append(span(period, place, date - dt.timedelta(days=1), name))
    if after is not None and after.sunset < next_noon:
        found.append(span(period, place, date + dt.timedelta(days=1), name))
    inside = [(max(start, noon), min(end, next_noon)) for start, end in found[1:]]
    return [(start, end) for start, end in (found[0], *inside) if start < end]


def span(
    period: Period, place: Place, date: dt.date, name: str = ""
) -> tuple[float, float]:
    """Start and end of a period in a night, POSIX time [s]; it may be empty.

    Where the sun does not set, a period that refers to it is empty. Where it does not
    rise, the period extends to noon without its offset: there is no event to count from.
    """
    noon, next_noon = noons(place, date)
    start = instant(period.start, place, date, name)
    end = instant(period.end, place, date, name)
    dark = night(place, date)
    if dark is None:
        return (
            (noon, noon) if by_sun(period.start) or by_sun(period.end) else (start, end)
        )
    if dark.sunset == noon and by_sun(period.start):
        start = noon
    if dark.sunrise == next_noon and by_sun(period.end):
        end = next_noon
    return start, end


def _segment(
    start: float, end: float, lines: list[_Line], windows: list[_Window]
) -> Segment:
    middle = (start + end) / 2
    line = [line for line in lines if line.t <= start][-1]
    here = [window for window in windows if window.start <= middle < window.end]
    sure = [window for window in here if window.lit and not window.sensor]
    window = next(iter(sure or sorted(here, key=lambda w: not w.lit)), None)
    return Segment(
        start, end, line.at(start), line.at(end), line.step,
        lit=window is not None and window.lit,
        sensor=window.sensor if window is not None else "",
    )  # fmt: skip


def _joined(found: Iterable[Segment]) -> list[Segment]:
    """Without the cuts that nothing changes at."""
    joined: list[Segment] = []
    for segment in found:
        last = joined[-1] if joined else None
        same = (
            last is not None
            and last[2:] == segment[2:]
            and segment.level == segment.then
        )
        if last is not None and same:
            joined[-1] = last._replace(end=segment.end)
        else:
            joined.append(segment)
    return joined
