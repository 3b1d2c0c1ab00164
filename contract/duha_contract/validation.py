"""Validation of desired documents before they come into force. Pure.

Every number is finite and within its range, every list is bounded, ids follow their
grammar. Then the next two days are evaluated for the luminaires of the controller. A
document that passes can be evaluated at every later instant.
"""

import datetime as dt
import math
from collections.abc import Iterable

import msgspec

from duha_contract.errors import ContractError, MessageError
from duha_contract.lighting import Condition, Override
from duha_contract.messages import Desired
from duha_contract.programmes import Calendar, Place, check, night
from duha_contract.roads import Drying
from duha_contract.topics import is_id

MOST_PROGRAMMES = 200
MOST_CALENDARS = 200
MOST_ORDERS = 5000
"""Most overrides, and most conditions, of a document."""
MOST_LUMINAIRES = 5000
MOST_RULES = 1000
NAME_CHARS = 256
LONGEST_FADE_S = 86_400.0
FIRST_MS = 946_684_800_000  # 2000-01-01
LAST_MS = 7_258_118_400_000  # 2200-01-01
TRIED_HOURS = 48

_DRYING_RANGES = {
    "film_mm": (0.0, 100.0),
    "wet_mm": (0.0, 100.0),
    "dry_mm": (0.0, 100.0),
    "hold_s": (0.0, 86_400.0),
    "traffic_mm_h": (0.0, 100.0),
    "wind_m_s": (0.0, 100.0),
    "humidity": (0.0, 1.0),
    "snow_c": (-60.0, 60.0),
}


def validate_desired(desired: Desired) -> None:
    """Refuse a document that a controller cannot execute.

    Raises
    ------
    ContractError
        Says what is wrong.
    """
    _check_values(desired)
    _check_counts(desired)
    _check_place(desired.place)
    for programme in desired.programmes:
        _check_name("programme", programme.id)
        check(programme, desired.place)
    for calendar in desired.calendars:
        _check_calendar(calendar)
    for override in desired.overrides:
        _check_override(override)
    for condition in desired.conditions:
        _check_times(condition)
    for device, calendar_id in desired.assignments.items():
        _check_devices((device,) if device != "*" else ())
        _check_name("calendar", calendar_id)
    for device, level in desired.normals.items():
        _check_devices((device,))
        _check_range(f"normal level of {device}", level, 0, 100)
    if desired.drying is not None:
        _check_drying(desired.drying)


def evaluate_ahead(desired: Desired, luminaires: Iterable[str], now: float) -> None:
    """Evaluate the next two days of some luminaires from POSIX time `now` [s].

    Each luminaire is evaluated at `now`; of luminaires with equal assignments one is
    evaluated at every hour.

    Raises
    ------
    ContractError
        The document cannot be evaluated.
    """
    alike: dict[tuple[str | None, float | None], str] = {}
    try:
        for device in luminaires:
            wanted = desired.assignments.get(device, desired.assignments.get("*"))
            alike.setdefault((wanted, desired.normals.get(device)), device)
            desired.decide(device, now)
        for device in alike.values():
            for hour in range(1, TRIED_HOURS + 1):
                desired.decide(device, now + 3600 * hour)
    except ContractError:
        raise
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        raise MessageError(f"cannot be evaluated: {problem}") from error


def _check_values(desired: Desired) -> None:
    """Refuse numbers that are not finite or exceed 64 bits, and texts with NUL."""
    left = [msgspec.to_builtins(desired)]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            left += value
        elif isinstance(value, str):
            _check_text(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise MessageError(f"{value} is no number")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise MessageError("a number is larger than 64 bits")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise MessageError("a text holds NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MessageError("a text is no UTF-8") from None


def _check_counts(desired: Desired) -> None:
    for name, most in (
        ("programmes", MOST_PROGRAMMES),
        ("calendars", MOST_CALENDARS),
        ("overrides", MOST_ORDERS),
        ("conditions", MOST_ORDERS),
        ("assignments", MOST_LUMINAIRES),
        ("normals", MOST_LUMINAIRES),
    ):
        if (count := len(getattr(desired, name))) > most:
            raise MessageError(f"{count} {name} are more than {most}")


def _check_place(place: Place) -> None:
    _check_range("latitude", place.latitude, -90, 90)
    _check_range("longitude", place.longitude, -180, 180)
    if len(place.zone) > NAME_CHARS:
        raise MessageError("the name of the time zone is too long")
    night(place, dt.date(2026, 6, 21))


def _check_calendar(calendar: Calendar) -> None:
    _check_name("calendar", calendar.id)
    if len(calendar.rules) > MOST_RULES:
        raise MessageError(f"calendar {calendar.id}: more than {MOST_RULES} rules")


def _check_override(override: Override) -> None:
    _check_name("override", override.id)
    _check_range(f"level of override {override.id}", override.level, 0, 100)
    _check_range(f"fade of override {override.id}", override.fade_s, 0, LONGEST_FADE_S)
    _check_times(override)


def _check_times(what: Override | Condition) -> None:
    for time in (what.start, what.end):
        if not FIRST_MS <= time < LAST_MS:
            raise MessageError(f"{time} ms is no time of the years 2000 to 2199")
    _check_devices(what.devices or ())


def _check_devices(names: Iterable[str]) -> None:
    for name in names:
        if not is_id(name):
            raise MessageError(f"{name[:NAME_CHARS]!r} is no id of a luminaire")


def _check_name(what: str, name: str) -> None:
    if not 0 < len(name) <= NAME_CHARS:
        raise MessageError(f"the id of a {what} has 1 to {NAME_CHARS} characters")


def _check_range(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise MessageError(f"{what}: {value} is not {low:g} to {high:g}")


def _check_drying(drying: Drying) -> None:
    for name, (low, high) in _DRYING_RANGES.items():
        _check_range(name, getattr(drying, name), low, high)
