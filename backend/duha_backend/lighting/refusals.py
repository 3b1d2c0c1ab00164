"""Calendars that would leave a street dark, or lamps on by day, are refused. Pure.

Every night of the coming year is looked at: the longest and the shortest, both changes of
the clock, every holiday. What is refused names programme, rule and the next nights on
which it would happen.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from duha_contract.lighting import Sun
from duha_contract.programmes import Calendar, Programme, Segment, noons, plan, segments

NIGHTS = 366
TWILIGHT_S = 30 * 60.0
"""The street is dark from so long after sunset until so long before sunrise."""
DAY_S = 75 * 60.0
"""And it is day from so long after sunrise until so long before sunset."""
MOST_SWITCH_ONS = 2
"""Drivers wear by their inrush: an evening and a morning are enough."""
SHOWN = 3

Code = Literal[
    "dark", "below_class", "lit_by_day", "contradiction", "switches", "unknown_programme"
]  # fmt: skip


SENTENCES: Mapping[str, tuple[Code, str]] = {
    "no-light": ("dark", "no light from {at} although it is dark"),
    "below-class": (
        "below_class", "{level:g} % from {at}, the lighting class needs {least:g} %",
    ),
    "lowers": (
        "below_class", "{input} lowers to {level:g} %, the lighting class needs {least:g} %",
    ),
    "by-day": ("lit_by_day", "light at {at} although it is day"),
    "order": ("contradiction", "step {step} ({at}) comes before step {other} ({other_at})"),
    "at-once": (
        "contradiction", "steps {step} and {other} both begin at {at} with other levels",
    ),
    "switches": ("switches", "lamps are switched on {count} times a night"),
    "no-programme": ("unknown_programme", "there is no programme {name!r}"),
}  # fmt: skip
"""What can be wrong, in English; the page has the same sentences in its languages."""
Values = Mapping[str, str | float]
Wrong = tuple[str, Values]
"""A sentence by its name, and what stands in it."""


class Refusal(NamedTuple):
    """Why a calendar cannot be in force: programme, rule (0: default), next nights."""

    sentence: str
    values: Values
    programme: str
    rule: int
    nights: tuple[dt.date, ...]

    @property
    def code(self) -> Code:
        """The kind of what is wrong."""
        return SENTENCES[self.sentence][0]

    @property
    def detail(self) -> str:
        """What is wrong, in English."""
        return SENTENCES[self.sentence][1].format_map(self.values)

    def __str__(self) -> str:
        where = f"rule {self.rule}" if self.rule else "default"
        nights = ", ".join(night.isoformat() for night in self.nights)
        return f"{self.programme} ({where}): {self.detail}; next: {nights}"

    def told(self) -> dict[str, Any]:
        """For whoever asks by the API: in English, and in parts for other languages."""
        nights = [night.isoformat() for night in self.nights]
        more = {"code": self.code, "detail": self.detail, "message": str(self)}
        return {**self._asdict(), **more, "nights": nights}


def refusals(
    programmes: Mapping[str, Programme],
    calendar: Calendar,
    sun: Sun,
    since: dt.date,
    least: float = 0.0,
) -> list[Refusal]:
    """Why a calendar may not be given to luminaires with a class floor.

    Parameters
    ----------
    programmes : mapping of str to Programme
        Those that there are.
    calendar : Calendar
        With the dates of its holidays.
    sun : Sun
        The nights of the place.
    since : date
        The first night to look at; a year of nights follows.
    least : float
        Least level in the dark that the lighting classes of its stretches allow [%].

    Returns
    -------
    list of Refusal
        Empty for a calendar that may be used.
    """
    found: dict[tuple[Code, str, int], tuple[Wrong, list[dt.date]]] = {}
    for number in range(NIGHTS):
        date = since + dt.timedelta(days=number)
        rule = calendar.rule_of(date) or 0
        name = calendar.programme_of(date)
        for wrong in _night(programmes.get(name), name, sun, date, least):
            code, _ = SENTENCES[wrong[0]]
            _, nights = found.setdefault((code, name, rule), (wrong, []))
            nights.append(date)
    return [
        Refusal(*wrong, name, rule, tuple(nights[:SHOWN]))
        for (_, name, rule), (wrong, nights) in found.items()
    ]


def _night(
    programme: Programme | None, name: str, sun: Sun, date: dt.date, least: float
) -> Iterable[Wrong]:
    """What is wrong with one night."""
    if programme is None:
        yield "no-programme", {"name": name}
        return
    parts = segments(programme, sun.place, date)
    for check in (_dark, _day):
        yield from check(programme, parts, sun, date, least)
    if any(part.lit for part in parts):  # by midnight sun nothing is
        yield from _contradictions(programme, sun, date)
    yield from _switches(parts)
    yield from _lowering(programme, least)


def _dark(
    programme: Programme,
    parts: Iterable[Segment],
    sun: Sun,
    date: dt.date,
    least: float,
) -> Iterable[Wrong]:
    """Gaps, and light below the class, while the street is dark."""
    spans = _dark_spans(sun, date)
    lowest, when = 100.0, 0.0
    for part in parts:
        for start, end in spans:
            a, b = max(part.start, start), min(part.end, end)
            if a >= b:
                continue
            sure = part.lit and part.sensor != "bright"  # a sensor may err: it is dark
            level = min(part.at(a), part.at(b)) if sure else 0.0
            if level < lowest:
                lowest, when = level, a
    meant = programme.part_night and least <= 0
    if lowest <= 0 and not meant:
        yield "no-light", {"at": _clock(sun, when)}
    elif lowest < least - 1e-9:
        figures = {"level": round(lowest, 1), "least": round(least, 1)}
        yield "below-class", {"at": _clock(sun, when), **figures}


def _day(
    _programme: Programme,
    parts: Iterable[Segment],
    sun: Sun,
    date: dt.date,
    _least: float,
) -> Iterable[Wrong]:
    """Lamps that burn by day."""
    spans = _day_spans(sun, date)
    for part in parts:
        if max(part.level, part.then) <= 0 or not (part.lit or part.sensor == "dark"):
            continue
        when = [
            max(part.start, start)
            for start, end in spans
            if max(part.start, start) < min(part.end, end)
        ]
        if when:
            yield "by-day", {"at": _clock(sun, when[0])}
            return


def _dark_spans(sun: Sun, date: dt.date) -> list[tuple[float, float]]:
    """Intervals in which the street is dark; in a polar night from noon to noon."""
    noon, next_noon = noons(sun.place, date)
    return [
        (
            part.sunset + TWILIGHT_S if part.sunset > noon else noon,
            part.sunrise - TWILIGHT_S if part.sunrise < next_noon else next_noon,
        )
        for part in sun.darkness(date)
    ]


def _day_spans(sun: Sun, date: dt.date) -> list[tuple[float, float]]:
    """Intervals of day between the noons of a night; all of it under midnight sun."""
    noon, next_noon = noons(sun.place, date)
    edges = [edge for part in sun.darkness(date) for edge in part]
    day = [*zip([noon, *edges[1::2]], [*edges[::2], next_noon], strict=True)]
    return [
        (
            start + DAY_S if start > noon else noon,
            end - DAY_S if end < next_noon else next_noon,
        )
        for start, end in day
    ]


def _contradictions(programme: Programme, sun: Sun, date: dt.date) -> Iterable[Wrong]:
    """Steps that come in another order than they are written, or at once."""
    for one, other in pairwise(plan(programme, sun.place, date)):
        steps: Values = {"step": one.number, "other": other.number}
        if other.number < one.number:
            yield "order", {**steps, "at": one.step.at, "other_at": other.step.at}
            return
        if one.t == other.t and one.step.level != other.step.level:
            yield "at-once", {**steps, "at": _clock(sun, one.t)}
            return


def _switches(parts: Iterable[Segment]) -> Iterable[Wrong]:
    """How often lamps are switched on in a night."""
    ends = [
        value if part.lit else 0.0
        for part in parts
        for value in (part.level, part.then)
    ]
    ons = sum(a <= 0 < b for a, b in pairwise(ends))
    if ons > MOST_SWITCH_ONS:
        yield "switches", {"count": ons}


def _lowering(programme: Programme, least: float) -> Iterable[Wrong]:
    """Adaptive inputs that lower the light below the class."""
    for effect in programme.effects:
        lowers = effect.operation in {"min", "set"} and effect.level is not None
        if lowers and effect.level is not None and effect.level < least - 1e-9:
            figures = {"level": round(effect.level, 1), "least": round(least, 1)}
            yield "lowers", {"input": effect.on, **figures}


def _clock(sun: Sun, t: float) -> str:
    zone = ZoneInfo(sun.place.zone)
    return dt.datetime.fromtimestamp(t, zone).strftime("%H:%M")
