"""Times of a night: its noons, sunset and sunrise, and times of day as people write them.

Nights run from noon to noon of local time, so that "Saturday night" is not cut at midnight.
"""

import datetime as dt
import re
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from duha_contract import sun as _sun
from duha_contract.errors import ProgrammeError

_CLOCK_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_SUN_TIME = re.compile(r"(sunset|sunrise)(?:([+-])(\d{1,3}))?")
DAY_S = 86_400.0


class Place(msgspec.Struct, frozen=True):
    """Where a controller stands: position [°] and IANA time zone."""

    latitude: float
    longitude: float
    zone: str


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
    """Intervals with the sun below the horizon between the noons of a night."""
    return _sun.darkness(*noons(place, date), place.latitude, place.longitude)


def by_sun(at: str) -> bool:
    """True for a time relative to sunset or sunrise."""
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
