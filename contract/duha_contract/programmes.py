"""Programmes and calendars: what a night shall be like, as data, and its segments.

Vocabulary: TALQ 2.7.1 (control programme, active period, calendar, rule). Nights run from
noon to noon of local time, so that "Saturday night" is not cut at midnight.

A programme becomes a few straight segments for each night. The edge looks one up at an
instant, the backend draws whole weeks from the same ones.
"""

import datetime as dt
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from duha_contract import sun as _sun
from duha_contract.errors import ProgrammeError

_CLOCK_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_SUN_TIME = re.compile(r"(sunset|sunrise)(?:([+-])(\d{1,3}))?")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST_EARLY_MIN = 180
DAY_S = 86_400.0

Input = Literal["wet_road", "traffic", "motion"]
"""What programmes answer to. `wet_road` may only raise."""


class Place(msgspec.Struct, frozen=True):
    """Where a controller stands: position [°] and IANA time zone."""

    latitude: float
    longitude: float
    zone: str


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


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Use `programme` on the nights that every condition covers; an empty one covers any.

    Attributes
    ----------
    first, last : date
        A range of nights; `yearly` compares month and day only, over New Year too.
    weekdays : tuple of str
        ``mon`` to ``sun``: evenings on which the night begins.
    nth : tuple of int
        Which of these weekdays in the month: 1 to 5, -1 for the last one.
    holidays : str
        Country code: public holidays. Whoever compiles the calendar writes their dates
        into `dates`.
    dates : tuple of date
        These nights.
    """

    programme: str
    first: dt.date | None = None
    last: dt.date | None = None
    yearly: bool = False
    weekdays: tuple[str, ...] = ()
    nth: tuple[int, ...] = ()
    holidays: str = ""
    dates: tuple[dt.date, ...] = ()

    def covers(self, night: dt.date) -> bool:
        """Whether the rule speaks of the night that begins on this date."""
        listed = bool(self.dates or self.holidays)
        return (
            self._in_range(night)
            and (not self.weekdays or WEEKDAYS[night.weekday()] in self.weekdays)
            and (not self.nth or bool(_occurrence(night) & set(self.nth)))
            and (not listed or night in self.dates)
        )

    def _in_range(self, night: dt.date) -> bool:
        first, last = self.first or dt.date.min, self.last or dt.date.max
        if not self.yearly:
            return first <= night <= last
        begins, day, ends = (_day(date) for date in (first, night, last))
        if begins <= ends:
            return begins <= day <= ends
        return day >= begins or day <= ends


def _day(date: dt.date) -> tuple[int, int]:
    return (date.month, date.day)


def _occurrence(night: dt.date) -> set[int]:
    """Which of its weekday in the month a date is: 1 to 5, and -1 for the last."""
    last = (night + dt.timedelta(days=7)).month != night.month
    return {(night.day - 1) // 7 + 1} | ({-1} if last else set())


class Calendar(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ordered rules, the first that covers a night wins; else the default."""

    id: str
    name: str
    default: str
    rules: tuple[Rule, ...] = ()

    def rule_of(self, night: dt.date) -> int | None:
        """Number of the rule that speaks of a night, from 1; None for the default."""
        covering = (n for n, rule in enumerate(self.rules, 1) if rule.covers(night))
        return next(covering, None)

    def programme_of(self, night: dt.date) -> str:
        """Id of the programme of a night."""
        number = self.rule_of(night)
        return self.default if number is None else self.rules[number - 1].programme


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


@lru_cache(maxsize=4096)
def effect_window(
    effect: Effect, place: Place, date: dt.date, name: str = ""
) -> tuple[float, float]:
    """From when to when an effect holds in a night, POSIX time [s]."""
    noon, next_noon = noons(place, date)
    start = instant(effect.start, place, date, name) if effect.start else noon
    end = instant(effect.end, place, date, name) if effect.end else next_noon
    return start, end


def date_of(place: Place, t: float) -> dt.date:
    """Date of the evening of the night (noon to noon) that holds `t` [s]."""
    local = dt.datetime.fromtimestamp(t, _zone(place.zone))
    return local.date() - dt.timedelta(days=local.hour < 12)


@lru_cache(maxsize=4096)
def noons(place: Place, date: dt.date) -> tuple[float, float]:
    """Where a night begins and ends, POSIX time [s]."""
    following = date + dt.timedelta(days=1)
    return _local(date, 12, 0, place.zone), _local(following, 12, 0, place.zone)


def night(place: Place, date: dt.date) -> _sun.Night | None:
    """Sunset and sunrise of a night, POSIX time [s]; see `duha_contract.sun.night`."""
    return _sun.night(*noons(place, date), place.latitude, place.longitude)


def darkness(place: Place, date: dt.date) -> tuple[_sun.Night, ...]:
    """When the sun is below the horizon between the noons of a night."""
    return _sun.darkness(*noons(place, date), place.latitude, place.longitude)


def by_sun(at: str) -> bool:
    """Whether a time of day is one by the sun."""
    return _SUN_TIME.fullmatch(at) is not None


def instant(at: str, place: Place, date: dt.date, name: str = "") -> float:
    """POSIX time [s] of a time of day in a night.

    Raises
    ------
    ProgrammeError
        It is no time; `name` says whose.
    """
    if by_clock := _CLOCK_TIME.fullmatch(at):
        return _local(date, int(by_clock[1]), int(by_clock[2]), place.zone)
    sun_time = _SUN_TIME.fullmatch(at)
    if sun_time is None:
        raise ProgrammeError(
            f"{name}: {at!r} is no time: 22:30, sunset+15 or sunrise-5"
        )
    event, sign, minutes = sun_time.groups()
    dark = night(place, date)
    if dark is None:  # midnight sun: a night without length, when the sun is lowest
        base = _sun.solar_noon(noons(place, date)[0], place.longitude) + DAY_S / 2
    else:
        base = dark.sunset if event == "sunset" else dark.sunrise
    offset = 60 * int(minutes or 0)
    return base - offset if sign == "-" else base + offset


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
    """In a polar night no step puts the light out before noon: the sun does not rise."""
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
    """Where a period lies between the noons of a night, POSIX time [s].

    At the edges of a polar night a neighbouring night may reach over noon.
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
    """From when to when a period holds in a night, POSIX time [s]; it may be empty.

    Where the sun does not set, a period that names it is empty. Where it does not rise,
    the period reaches to noon: an offset counts from an event that there is not.
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


def _local(date: dt.date, hour: int, minute: int, zone: str) -> float:
    """POSIX time of a wall-clock time in a night; before noon is the next morning."""
    day = date + dt.timedelta(days=hour < 12)
    return dt.datetime(
        day.year, day.month, day.day, hour, minute, tzinfo=_zone(zone)
    ).timestamp()


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # "Europe" is a folder
        raise ProgrammeError(f"{name!r} is no IANA time zone") from None
