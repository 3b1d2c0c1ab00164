"""Lighting programmes and their evaluation, shared by edge and backend.

Vocabulary: TALQ 2.7.1 (control programme, calendar, override). Nights run from noon
to noon of local time, so that "Saturday night" is not cut at midnight.

Precedence: emergency > manual override > adaptive (rain may only raise) > programme
> default. Without a programme the default is 100 % from sunset to sunrise.
"""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from duha_contract import sun as _sun
from duha_contract.errors import ProgrammeError

_CLOCK_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_SUN_TIME = re.compile(r"(sunset|sunrise)(?:([+-])(\d{1,3}))?")
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


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


class Programme(msgspec.Struct, frozen=True):
    """The steps of one night; off before the first one.

    `wet_level` [%] is the normal class level that wet roads raise the light to while
    the programme has it on; None when rain does not matter here.
    """

    id: str
    name: str
    steps: tuple[Step, ...]
    wet_level: float | None = None


class Rule(msgspec.Struct, frozen=True):
    """Use `programme` on nights in a date range and on weekdays; empty means any."""

    programme: str
    first: dt.date | None = None
    last: dt.date | None = None
    weekdays: tuple[str, ...] = ()

    def covers(self, night: dt.date) -> bool:
        """Whether the rule speaks of the night that begins on this date."""
        return (
            (self.first is None or night >= self.first)
            and (self.last is None or night <= self.last)
            and (not self.weekdays or _WEEKDAYS[night.weekday()] in self.weekdays)
        )


class Calendar(msgspec.Struct, frozen=True):
    """Ordered rules, the first that covers a night wins; else the default."""

    id: str
    name: str
    default: str
    rules: tuple[Rule, ...] = ()


class Override(msgspec.Struct, frozen=True):
    """A level by hand for some luminaires (None: all), never without an end [ms]."""

    id: str
    level: float
    start: int
    end: int
    reason: str = ""
    who: str = ""
    devices: tuple[str, ...] | None = None
    emergency: bool = False

    def covers(self, device: str | None) -> bool:
        """Whether it speaks of this luminaire."""
        return self.devices is None or device in self.devices

    def active(self, t: float) -> bool:
        """Whether it holds at POSIX time `t` [s]."""
        return self.start <= t * 1000 < self.end


class Condition(msgspec.Struct, frozen=True):
    """Something outside that programmes answer to, from `start` to `end` [ms]."""

    kind: Literal["wet_road"]
    start: int
    end: int
    detail: str = ""

    def active(self, t: float) -> bool:
        """Whether it holds at POSIX time `t` [s]."""
        return self.start <= t * 1000 < self.end


class Cause(msgspec.Struct, frozen=True, omit_defaults=True):
    """One link in the chain of reasons for a level."""

    code: Literal[
        "emergency", "override", "wet_road", "programme", "daylight", "default"
    ]
    name: str = ""
    step: int | None = None
    level: float | None = None
    until: int | None = None


class Decision(NamedTuple):
    """A level [%] and why; the first cause is the one that decided."""

    level: float
    reason: tuple[Cause, ...]


class Sun(msgspec.Struct, frozen=True):
    """The nights of a place."""

    place: Place

    def date_of(self, t: float) -> dt.date:
        """Date of the evening of the night (noon to noon) that holds `t` [s]."""
        local = dt.datetime.fromtimestamp(t, _zone(self.place.zone))
        return local.date() - dt.timedelta(days=local.hour < 12)

    def night(self, date: dt.date) -> _sun.Night | None:
        """Sunset and sunrise of a night, POSIX time [s]."""
        return _sun.night(date, self.place.latitude, self.place.longitude)


class _Point(NamedTuple):
    """A step with its instant, POSIX time [s]."""

    t: float
    step: Step
    number: int


def level_at(
    programmes: Mapping[str, Programme],
    calendar: Calendar | None,
    overrides: Iterable[Override],
    conditions: Iterable[Condition],
    sun: Sun,
    t: float,
    device: str | None = None,
) -> Decision:
    """The level of a luminaire at an instant, and the chain of reasons.

    Parameters
    ----------
    programmes : mapping of str to Programme
        The programmes that the calendar names.
    calendar : Calendar or None
        What is assigned to the luminaire; None gives the safe default.
    overrides, conditions : iterable
        Those that are over or not yet due are passed over.
    sun : Sun
        The nights of the place.
    t : float
        POSIX time [s].
    device : str, optional
        The luminaire, for overrides that name some.

    Returns
    -------
    Decision
        Level [%], 0 to 100, and its causes, the deciding one first.
    """
    planned = _adapted(_planned(programmes, calendar, sun, t), conditions, t)
    standing = [o for o in overrides if o.active(t) and o.covers(device)]
    if not standing:
        return Decision(planned.level, planned.reason)
    chosen = max(standing, key=lambda o: (o.emergency, o.start, o.id))
    cause = Cause(
        "emergency" if chosen.emergency else "override",
        name=chosen.reason,
        level=chosen.level,
        until=chosen.end,
    )
    return Decision(chosen.level, (cause, *planned.reason))


class _Planned(NamedTuple):
    level: float
    reason: tuple[Cause, ...]
    wet_level: float | None


def _adapted(planned: _Planned, conditions: Iterable[Condition], t: float) -> _Planned:
    """Let conditions raise what the programme has on; they never lower it."""
    wet = [c for c in conditions if c.active(t)]
    floor = planned.wet_level
    if not wet or floor is None or planned.level <= 0 or planned.level >= floor:
        return planned
    until = max(c.end for c in wet)
    cause = Cause("wet_road", level=floor, until=until)
    return planned._replace(level=floor, reason=(cause, *planned.reason))


def _planned(
    programmes: Mapping[str, Programme], calendar: Calendar | None, sun: Sun, t: float
) -> _Planned:
    """What the programme of this night says, or the safe default without one."""
    date = sun.date_of(t)
    programme = programmes.get(programme_of(calendar, date)) if calendar else None
    if programme is None:
        return _default(sun, date, t)
    points = plan(programme, sun.place, date)
    past = [point for point in points if point.t <= t]
    if not past:
        return _Planned(0.0, (Cause("daylight", name=programme.name),), None)
    level = _faded(past, t)
    following = points[len(past)].t if len(past) < len(points) else None
    cause = Cause(
        "programme",
        name=programme.name,
        step=past[-1].number,
        level=level,
        until=None if following is None else round(following * 1000),
    )
    return _Planned(level, (cause,), programme.wet_level)


def _faded(past: list[_Point], t: float) -> float:
    """Level at `t` on the way from the step before to the last one."""
    last = past[-1]
    if last.step.fade_s <= 0 or t >= last.t + last.step.fade_s:
        return last.step.level
    before = past[-2].step.level if len(past) > 1 else 0.0
    share = (t - last.t) / last.step.fade_s
    return before + (last.step.level - before) * share


def _default(sun: Sun, date: dt.date, t: float) -> _Planned:
    """100 % from sunset to sunrise; on where the sun gives no answer."""
    night = sun.night(date)
    dark = night is None or night.sunset <= t < night.sunrise
    return _Planned(100.0 if dark else 0.0, (Cause("default"),), None)


def programme_of(calendar: Calendar, night: dt.date) -> str:
    """Id of the programme that a calendar gives a night."""
    covering = (rule.programme for rule in calendar.rules if rule.covers(night))
    return next(covering, calendar.default)


@lru_cache(maxsize=4096)
def plan(programme: Programme, place: Place, date: dt.date) -> tuple[_Point, ...]:
    """The steps of a programme in one night, each with its POSIX time [s], in order.

    Raises
    ------
    ProgrammeError
        A step's time is not understood, or its level is not within 0 to 100 %.
    """
    night = _sun.night(date, place.latitude, place.longitude)
    points = [
        _Point(_instant(step, night, place, date, programme.id), step, number)
        for number, step in enumerate(programme.steps, 1)
    ]
    return tuple(sorted(points, key=lambda point: (point.t, point.number)))


def check(programme: Programme, place: Place) -> None:
    """Refuse a programme that cannot be evaluated.

    Raises
    ------
    ProgrammeError
        Names the programme and the step.
    """
    plan(programme, place, dt.date(2026, 6, 21))


def _instant(
    step: Step, night: _sun.Night | None, place: Place, date: dt.date, name: str
) -> float:
    """POSIX time [s] of a step in a night."""
    if not 0 <= step.level <= 100:
        raise ProgrammeError(f"{name}: {step.level} at {step.at} is not 0 to 100 %")
    if by_clock := _CLOCK_TIME.fullmatch(step.at):
        return _local(date, int(by_clock[1]), int(by_clock[2]), place.zone)
    by_sun = _SUN_TIME.fullmatch(step.at)
    if by_sun is None:
        raise ProgrammeError(
            f"{name}: {step.at!r} is no time: 22:30, sunset+15 or sunrise-5"
        )
    event, sign, minutes = by_sun.groups()
    if night is None:  # polar: the civil evening and morning stand in for the sun
        base = _local(date, 18 if event == "sunset" else 6, 0, place.zone)
    else:
        base = night.sunset if event == "sunset" else night.sunrise
    offset = 60 * int(minutes or 0)
    return base - offset if sign == "-" else base + offset


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
    except (ZoneInfoNotFoundError, ValueError):
        raise ProgrammeError(f"{name!r} is no IANA time zone") from None
