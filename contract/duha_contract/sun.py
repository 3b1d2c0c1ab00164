"""Sunrise and sunset.

Low-accuracy solar coordinates of the Astronomical Almanac as used in [1]_; the sun has
set when its upper limb is below the horizon, which refraction lowers by 34'. The tests
hold it to within a minute of independent implementations, from the equator to Stockholm
and in zones whose clock is a day off the sun.

.. [1] NOAA Global Monitoring Laboratory, "Solar Calculation Details",
   after J. Meeus, "Astronomical Algorithms", 2nd ed., 1998, chapters 25 and 28.
"""

import math
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

REFRACTION_DEG = 34 / 60
RADIUS_DEG = 959.63 / 3600
"""Radius of the sun at a distance of one astronomical unit."""
_DAY_S = 86_400.0
_J2000 = 946_728_000.0  # 2000-01-01 12:00 UTC [s]
_CLOSE_DEG = 1e-6
_CLOSE_S = 1e-3
_MOST_ROUNDS = 60


class Night(NamedTuple):
    """Sunset and the next sunrise, POSIX time [s]."""

    sunset: float
    sunrise: float


class _Position(NamedTuple):
    """Declination [rad], equation of time [s], apparent radius [°]."""

    declination: float
    equation: float
    radius: float


def _position(t: float) -> _Position:
    """The sun at a POSIX time [s]."""
    century = (t - _J2000) / (36_525 * _DAY_S)
    mean_longitude = math.radians((280.46646 + 36_000.76983 * century) % 360)
    anomaly = math.radians(357.52911 + 35_999.05029 * century)
    eccentricity = 0.016708634 - 0.000042037 * century
    centre = (
        (1.914602 - 0.004817 * century) * math.sin(anomaly)
        + 0.019993 * math.sin(2 * anomaly)
        + 0.000289 * math.sin(3 * anomaly)
    )
    node = math.radians(125.04 - 1934.136 * century)
    longitude = mean_longitude + math.radians(
        centre - 0.00569 - 0.00478 * math.sin(node)
    )
    obliquity = math.radians(23.439291 - 0.013004 * century + 0.00256 * math.cos(node))
    declination = math.asin(math.sin(obliquity) * math.sin(longitude))
    y = math.tan(obliquity / 2) ** 2
    equation = (
        y * math.sin(2 * mean_longitude)
        - 2 * eccentricity * math.sin(anomaly)
        + 4 * eccentricity * y * math.sin(anomaly) * math.cos(2 * mean_longitude)
        - 0.5 * y * y * math.sin(4 * mean_longitude)
        - 1.25 * eccentricity**2 * math.sin(2 * anomaly)
    )
    distance = (1 - eccentricity**2) / (
        1 + eccentricity * math.cos(anomaly + math.radians(centre))
    )
    return _Position(declination, equation * _DAY_S / math.tau, RADIUS_DEG / distance)


def elevation(t: float, latitude: float, longitude: float) -> float:
    """Height of the sun's centre above the horizon [°], without refraction."""
    return _elevation(_position(t), t, latitude, longitude)


def _elevation(sun: _Position, t: float, latitude: float, longitude: float) -> float:
    solar = (t % _DAY_S) + sun.equation + longitude * 240
    hour_angle = math.radians(solar / 240 - 180)
    phi = math.radians(latitude)
    sine = math.sin(phi) * math.sin(sun.declination) + math.cos(phi) * math.cos(
        sun.declination
    ) * math.cos(hour_angle)
    return math.degrees(math.asin(max(-1.0, min(1.0, sine))))


def solar_noon(near: float, longitude: float) -> float:
    """The upper culmination of the sun nearest to a time, POSIX time [s]."""
    shift = longitude * 240 + _position(near).equation
    return round((near + shift) / _DAY_S - 0.5) * _DAY_S + _DAY_S / 2 - shift


@lru_cache(maxsize=4096)
def night(
    noon: float, next_noon: float, latitude: float, longitude: float
) -> Night | None:
    """The night between two civil noons, for any offset between clock and sun.

    Parameters
    ----------
    noon, next_noon : float
        Civil noons, POSIX time [s]. The zone may be hours off the sun.
    latitude, longitude : float
        Position [°], north and east positive.

    Returns
    -------
    Night or None
        Sunset after the solar noon nearest to `noon`, and the next sunrise, POSIX time
        [s]. A noon stands in for the crossing that a polar night lacks: there the night
        lasts from noon to noon. None when the sun does not set.
    """
    midday = solar_noon(noon, longitude)
    midnight = midday + _DAY_S / 2
    if not _below(midnight, latitude, longitude):
        return None
    sunset = _crossing(midday, midnight, latitude, longitude)
    sunrise = _crossing(midnight, midday + _DAY_S, latitude, longitude)
    return Night(
        noon if sunset is None else sunset, next_noon if sunrise is None else sunrise
    )


@lru_cache(maxsize=4096)
def darkness(
    noon: float, next_noon: float, latitude: float, longitude: float
) -> tuple[Night, ...]:
    """Intervals with the sun below the horizon between two civil noons.

    Usually one night. At the edges of a polar night the sun may rise for less than an hour
    after noon: then it is dark from noon until sunrise, and again from sunset.
    """
    midday = solar_noon(noon, longitude)
    turns = [midday + half * _DAY_S / 2 for half in range(-1, 5)]
    cuts = [_crossing(a, b, latitude, longitude) for a, b in pairwise(turns)]
    edges = [turns[0], *(t for t in cuts if t is not None), turns[-1]]
    dark = [
        (a, b) for a, b in pairwise(edges) if _below((a + b) / 2, latitude, longitude)
    ]
    inside = [Night(max(a, noon), min(b, next_noon)) for a, b in dark]
    return tuple(part for part in inside if part.sunset < part.sunrise)


def _height(t: float, latitude: float, longitude: float) -> float:
    """Height of the sun's upper limb above the visible horizon [°]."""
    sun = _position(t)
    return _elevation(sun, t, latitude, longitude) + REFRACTION_DEG + sun.radius


def _below(t: float, latitude: float, longitude: float) -> bool:
    return _height(t, latitude, longitude) < 0


def _crossing(a: float, b: float, latitude: float, longitude: float) -> float | None:
    """Time at which the sun crosses the horizon between two culminations, or None.

    False position with Illinois' rule: it converges where the sun grazes the horizon,
    which an iteration over the hour angle does not.
    """
    high, low = _height(a, latitude, longitude), _height(b, latitude, longitude)
    if (high < 0) == (low < 0):
        return None
    t, side = a, 0
    for _ in range(_MOST_ROUNDS):
        t = (a * low - b * high) / (low - high)
        here = _height(t, latitude, longitude)
        if abs(here) < _CLOSE_DEG or b - a < _CLOSE_S:
            break
        if (here < 0) == (low < 0):
            b, low = t, here
            high = high / 2 if side == 1 else high
            side = 1
        else:
            a, high = t, here
            low = low / 2 if side == -1 else low
            side = -1
    return t
