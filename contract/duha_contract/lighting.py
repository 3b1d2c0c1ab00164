"""The level of a luminaire at an instant, and why; shared by edge and backend.

Precedence: emergency > manual override > adaptive inputs (rain may only raise) >
programme > default. Without a programme the default is 100 % from sunset to sunrise.
"""

import datetime as dt
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Literal, NamedTuple

import msgspec

from duha_contract import sun as _sun
from duha_contract.errors import ProgrammeError
from duha_contract.programmes import (
    Calendar,
    Effect,
    Place,
    Programme,
    Segment,
    darkness,
    date_of,
    effect_window,
    night,
    noons,
    segments,
)

NORMAL = 100.0
"""Normal class level [%] of a luminaire of which nobody said another."""


class Override(msgspec.Struct, frozen=True):
    """A level by hand for some luminaires (None: all), never without an end [ms].

    With `fade_s` [s] the light goes there on a straight line.
    """

    id: str
    level: float
    start: int
    end: int
    reason: str = ""
    who: str = ""
    devices: tuple[str, ...] | None = None
    emergency: bool = False
    fade_s: float = 0.0

    def covers(self, device: str | None) -> bool:
        """Whether it speaks of this luminaire."""
        return self.devices is None or device in self.devices

    def active(self, t: float) -> bool:
        """Whether it holds at POSIX time `t` [s]."""
        return self.start <= t * 1000 < self.end

    def over(self, base: float, t: float) -> float:
        """The level [%] at `t` [s], over what would be without it."""
        since = t - self.start / 1000
        if since >= self.fade_s:
            return self.level
        share = since / self.fade_s
        return base + (self.level - base) * share


class Condition(msgspec.Struct, frozen=True):
    """Something outside that programmes answer to, from `start` to `end` [ms].

    `dark` and `bright` are what a light sensor sees. Without `devices` it is for all.
    """

    kind: Literal["wet_road", "traffic", "motion", "dark", "bright"]
    start: int
    end: int
    detail: str = ""
    devices: tuple[str, ...] | None = None

    def covers(self, device: str | None) -> bool:
        """Whether it speaks of this luminaire."""
        return self.devices is None or device in self.devices

    def active(self, t: float) -> bool:
        """Whether it holds at POSIX time `t` [s]."""
        return self.start <= t * 1000 < self.end


class Cause(msgspec.Struct, frozen=True, omit_defaults=True):
    """One link in the chain of reasons for a level."""

    code: Literal[
        "emergency", "override", "wet_road", "traffic", "motion", "dark", "bright",
        "programme", "daylight", "default",
    ]  # fmt: skip
    name: str = ""
    step: int | None = None
    level: float | None = None
    until: int | None = None
    rule: int | None = None


class Decision(NamedTuple):
    """A level [%] and why; the first cause is the one that decided.

    Nothing that is known changes it before `until`, POSIX time [s].
    """

    level: float
    reason: tuple[Cause, ...]
    until: float = 0.0


class Sun(msgspec.Struct, frozen=True):
    """The nights of a place."""

    place: Place

    def date_of(self, t: float) -> dt.date:
        """Date of the evening of the night (noon to noon) that holds `t` [s]."""
        return date_of(self.place, t)

    def night(self, date: dt.date) -> _sun.Night | None:
        """Sunset and sunrise of a night, POSIX time [s]; None where the sun stays up.

        Where the sun stays down it lasts from noon to noon.
        """
        return night(self.place, date)

    def darkness(self, date: dt.date) -> tuple[_sun.Night, ...]:
        """Intervals with the sun below the horizon between the noons of a night."""
        return darkness(self.place, date)


def level_at(
    programmes: Mapping[str, Programme],
    calendar: Calendar | None,
    overrides: Iterable[Override],
    conditions: Iterable[Condition],
    sun: Sun,
    t: float,
    device: str | None = None,
    normal: float = NORMAL,
) -> Decision:
    """The level of a luminaire at an instant, and the chain of reasons.

    Parameters
    ----------
    programmes : mapping of str to Programme
        The programmes that the calendar names.
    calendar : Calendar or None
        What is assigned to the luminaire; None gives the safe default.
    overrides, conditions : iterable
        Those that are over or not yet due change nothing now.
    sun : Sun
        The nights of the place.
    t : float
        POSIX time [s].
    device : str, optional
        The luminaire, for overrides and conditions that name some.
    normal : float
        Its normal class level [%], which effects without a level of their own raise to.

    Returns
    -------
    Decision
        Level [%], 0 to 100, its causes, the deciding one first, and how long it holds.
    """
    conditions = [c for c in conditions if c.end > t * 1000 and c.covers(device)]
    overrides = [o for o in overrides if o.end > t * 1000 and o.covers(device)]
    now = [c for c in conditions if c.start <= t * 1000]
    planned = _planned(programmes, calendar, now, sun, t, normal)
    coming: list[Condition | Override] = [*conditions, *overrides]
    ends = [x.end if x.active(t) else x.start for x in coming]
    until = min([planned.until, *(end / 1000 for end in ends)])
    standing = [o for o in overrides if o.active(t)]
    if not standing:
        return planned._replace(level=bounded(planned.level), until=until)
    chosen = max(standing, key=lambda o: (o.emergency, o.start, o.id))
    level = bounded(chosen.over(bounded(planned.level), t))
    cause = Cause(
        "emergency" if chosen.emergency else "override",
        name=chosen.reason,
        level=chosen.level,
        until=chosen.end,
    )
    fading = t < chosen.start / 1000 + chosen.fade_s
    return Decision(level, (cause, *planned.reason), t if fading else until)


def bounded(level: float) -> float:
    """Limit a level to 0 to 100 %; NaN becomes full light."""
    if 0.0 <= level <= 100.0:
        return level
    return 0.0 if level < 0.0 else 100.0


def _planned(
    programmes: Mapping[str, Programme],
    calendar: Calendar | None,
    conditions: list[Condition],
    sun: Sun,
    t: float,
    normal: float,
) -> Decision:
    """What the programme of this night and the adaptive inputs say."""
    date = date_of(sun.place, t)
    rule = calendar.rule_of(date) if calendar else None
    programme = programmes.get(_named(calendar, rule)) if calendar else None
    if programme is None:
        return _default(sun, date, t)
    try:
        return _programmed(programme, conditions, sun.place, date, t, normal, rule)
    except ProgrammeError:  # validated documents do not get here; a lit street is safe
        return _default(sun, date, t)


def _programmed(
    programme: Programme,
    conditions: list[Condition],
    place: Place,
    date: dt.date,
    t: float,
    normal: float,
    rule: int | None,
) -> Decision:
    """Decision by a programme, the light sensor and the adaptive inputs."""
    parts = segments(programme, place, date)
    number = max(0, bisect_right(parts, t, key=itemgetter(0)) - 1)
    segment = parts[number]
    seen = next((c for c in conditions if c.kind == segment.sensor), None)
    if segment.lit == (
        seen is not None
    ):  # neither lit and left so, nor lit by a sensor
        causes = _sensed(seen)
        daylight = Cause("daylight", name=programme.name, rule=rule)
        return Decision(0.0, (*causes, daylight), segment.end)
    level = segment.at(t)
    begun = segment.step or programme.active
    cause = Cause(
        "programme" if begun else "daylight",
        name=programme.name,
        step=segment.step or None,
        level=level if begun else None,
        until=_ms(_next(parts, number)) if begun else None,
        rule=rule,
    )
    until = segment.end if segment.level == segment.then else t
    planned = Decision(level, (*_sensed(seen), cause), until)
    return _adapted(planned, programme, conditions, place, date, t, normal)


def _named(calendar: Calendar, rule: int | None) -> str:
    return calendar.default if rule is None else calendar.rules[rule - 1].programme


def _sensed(seen: Condition | None) -> tuple[Cause, ...]:
    """The light sensor as a cause, where it has decided."""
    if seen is None:
        return ()
    return (Cause(seen.kind, name=seen.detail, until=seen.end),)


def _next(night: tuple[Segment, ...], number: int) -> float | None:
    """When another step begins to decide, or the active period ends."""
    here = night[number]
    others = (s for s in night[number + 1 :] if s[4:6] != here[4:6])
    return next((s.start for s in others), None)


def _ms(t: float | None) -> int | None:
    return None if t is None else round(t * 1000)


def _adapted(
    planned: Decision,
    programme: Programme,
    conditions: list[Condition],
    place: Place,
    date: dt.date,
    t: float,
    normal: float,
) -> Decision:
    """Let the adaptive inputs work, in the order of the programme's effects."""
    for effect in programme.effects:
        start, end = effect_window(effect, place, date)
        edges = [edge for edge in (start, end) if edge > t]
        planned = planned._replace(until=min([planned.until, *edges]))
        active = [c for c in conditions if c.kind == effect.on]
        if (
            not active
            or not start <= t < end
            or not _answers(programme, effect, planned)
        ):
            continue
        level = worked(effect, planned.level, normal)
        if level != planned.level:
            until = max(c.end for c in active)
            name = active[0].detail
            cause = Cause(effect.on, name=name, level=level, until=until)
            planned = Decision(level, (cause, *planned.reason), planned.until)
    return planned


def _answers(programme: Programme, effect: Effect, planned: Decision) -> bool:
    """Whether an input may light a lamp that the programme has off: never by day."""
    inside = bool(programme.active) and effect.on != "wet_road"
    return planned.level > 0 or inside


def worked(effect: Effect, level: float, normal: float) -> float:
    """What an effect makes of a level [%]; rain raises, whatever the effect says."""
    goal = normal if effect.level is None else effect.level
    if effect.on == "wet_road" or effect.operation == "max":
        return max(level, goal)
    return min(level, goal) if effect.operation == "min" else goal


def _default(sun: Sun, date: dt.date, t: float) -> Decision:
    """100 % for as long as the sun is below the horizon."""
    dark = sun.darkness(date)
    until = noons(sun.place, date)[1]
    level = 100.0 if any(part.sunset <= t < part.sunrise for part in dark) else 0.0
    edges = [edge for part in dark for edge in part if edge > t]
    return Decision(level, (Cause("default"),), min([until, *edges]))
