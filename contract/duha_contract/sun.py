"""Sunrise and sunset.

Low-accuracy solar coordinates of the Astronomical Almanac as used in [1]_, with the
hour angle solved for the sun's upper limb at the horizon (refraction and radius:
-0.833°). The tests hold it to within a minute of an independent implementation, from
the equator to Stockholm.

.. [1] NOAA Global Monitoring Laboratory, "Solar Calculation Details",
   after J. Meeus, "Astronomical Algorithms", 2nd ed., 1998, chapters 25 and 28.
"""

import datetime as dt
import math
from functools import lru_cache
from typing import NamedTuple

HORIZON_DEG = -0.833
_DAY_S = 86_400.0
_J2000 = 946_728_000.0  # 2000-01-01 12:00 UTC [s]


class Night(NamedTuple):
    """Sunset and the next sunrise, POSIX time [s]; None where the sun does not set."""

    sunset: float
    sunrise: float


def _declination_and_equation(t: float) -> tuple[float, float]:
    """Declination [rad] and equation of time [s] at a POSIX time [s]."""
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
    return declination, equation * _DAY_S / math.tau


def elevation(t: float, latitude: float, longitude: float) -> float:
    """Height of the sun's centre above the horizon [°], without refraction."""
    declination, equation = _declination_and_equation(t)
    solar = (t % _DAY_S) + equation + longitude * 240
    hour_angle = math.radians(solar / 240 - 180)
    phi = math.radians(latitude)
    sine = math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(
        declination
    ) * math.cos(hour_angle)
    return math.degrees(math.asin(max(-1.0, min(1.0, sine))))


def _crossing(
    guess: float, latitude: float, longitude: float, side: int
) -> float | None:
    """Time at which the sun crosses the horizon near `guess`; side -1 rise, +1 set."""
    t = guess
    for _ in range(4):
        declination, equation = _declination_and_equation(t)
        phi = math.radians(latitude)
        cosine = (
            math.sin(math.radians(HORIZON_DEG)) - math.sin(phi) * math.sin(declination)
        ) / (math.cos(phi) * math.cos(declination))
        if abs(cosine) > 1:
            return None
        noon = _noon(guess, equation, longitude)
        t = noon + side * math.degrees(math.acos(cosine)) * 240
    return t


def _noon(near: float, equation: float, longitude: float) -> float:
    """Solar noon of the solar day that holds `near`."""
    shift = longitude * 240 + equation
    return math.floor((near + shift) / _DAY_S) * _DAY_S + _DAY_S / 2 - shift


@lru_cache(maxsize=4096)
def night(date: dt.date, latitude: float, longitude: float) -> Night | None:
    """The night that begins on the evening of `date`.

    Parameters
    ----------
    date : datetime.date
        Local date of the evening.
    latitude, longitude : float
        Position [°], north and east positive.

    Returns
    -------
    Night or None
        Sunset of that date and the sunrise after it, POSIX time [s]; None when the
        sun does not cross the horizon (polar day or night).
    """
    midday = (
        dt.datetime(date.year, date.month, date.day, 12, tzinfo=dt.UTC).timestamp()
        - longitude * 240
    )
    sunset = _crossing(midday, latitude, longitude, side=1)
    sunrise = _crossing(midday + _DAY_S, latitude, longitude, side=-1)
    if sunset is None or sunrise is None:
        return None
    return Night(sunset, sunrise)
