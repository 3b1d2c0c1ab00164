"""Roads under rain: how wet a road is, and when it will be dry. Pure.

A film of water stands on the road: rain adds to it up to what a road holds (the rest
runs off), air and tyres take it away. Two thresholds keep the state from flickering, and
a road stays wet for a while after the last tip, whatever the film says.

Evaporation after Penman's aerodynamic term with his wind function [1]_ over the
saturation pressure of Magnus' formula [2]_. Film and thresholds are engineering
assumptions: every one of them is a field of `Drying`.

.. [1] H. L. Penman, "Natural evaporation from open water, bare soil and grass",
   Proc. R. Soc. A 193 (1948): 0.35 (1 + u/100) mm/day/mmHg, u in miles a day.
.. [2] WMO-No. 8, Guide to Instruments and Methods of Observation, annex 4.B:
   6.112 exp(17.62 T / (243.12 + T)) hPa.
"""

import math
from typing import Literal, NamedTuple

import msgspec

RoadState = Literal["dry", "wetting", "wet", "drying", "snow"]
LOST_S = 900.0
LONGEST_WET_H = 48.0
"""In air that takes no water a road is looked at again after so long [h]."""


class Drying(msgspec.Struct, frozen=True, omit_defaults=True):
    """How roads take up water and dry.

    Attributes
    ----------
    film_mm : float
        Most water that stays on a road [mm].
    wet_mm, dry_mm : float
        It is wet from the one on, and dry again below the other [mm].
    hold_s : float
        It stays wet at least so long after the last rain [s].
    traffic_mm_h : float
        What tyres carry away [mm/h].
    wind_m_s, humidity : float
        Air where nothing is measured [m/s], [0 to 1].
    snow_c : float
        At this temperature and below, what falls stays white [°C].
    """

    film_mm: float = 0.4
    wet_mm: float = 0.1
    dry_mm: float = 0.02
    hold_s: float = 1200.0
    traffic_mm_h: float = 0.2
    wind_m_s: float = 1.5
    humidity: float = 0.8
    snow_c: float = 0.5


class Road(NamedTuple):
    """A road at an instant.

    Attributes
    ----------
    t : float
        POSIX time [s].
    film_mm : float
        Water on it [mm].
    wet : bool
        Whether it counts as wet.
    rained : float
        When it last rained, POSIX time [s].
    temperature_c : float or None
        Of the air, where it is measured [°C].
    """

    t: float
    film_mm: float = 0.0
    wet: bool = False
    rained: float = -math.inf
    temperature_c: float | None = None


def evaporation(drying: Drying, temperature_c: float | None) -> float:
    """What leaves a wet road [mm/h]; without a temperature it is taken for 5 °C."""
    warm = 5.0 if temperature_c is None else min(60.0, max(-60.0, temperature_c))
    saturation = 0.6112 * math.exp(17.62 * warm / (243.12 + warm))  # kPa
    deficit = saturation * (1 - drying.humidity)
    # 0.35 mm/day/mmHg and 54 % more for each m/s, in mm/h/kPa
    aerodynamic = 0.35 * 7.50062 / 24 * (1 + 0.54 * drying.wind_m_s) * deficit
    return aerodynamic + (drying.traffic_mm_h if warm > drying.snow_c else 0.0)


def advance(
    road: Road, drying: Drying, t: float, rain_mm: float = 0.0,
    temperature_c: float | None = None,
) -> Road:  # fmt: skip
    """The road at `t` [s], after `rain_mm` [mm] have fallen since it was last looked at."""
    warm = road.temperature_c if temperature_c is None else temperature_c
    hours = max(0.0, t - road.t) / 3600
    left = max(0.0, road.film_mm - evaporation(drying, warm) * hours)
    film = min(drying.film_mm, max(left, left + rain_mm))
    rained = t if rain_mm > 0 else road.rained
    held = t - rained < drying.hold_s
    wet = film >= drying.wet_mm - 1e-9 or (road.wet and (film > drying.dry_mm or held))
    return Road(max(t, road.t), film, wet, rained, warm)


def state(road: Road, drying: Drying, t: float) -> RoadState:
    """The road in a word."""
    road = advance(road, drying, t)
    raining = t - road.rained < LOST_S
    cold = road.temperature_c is not None and road.temperature_c <= drying.snow_c
    if cold and road.film_mm > 0:
        return "snow"
    if road.wet:
        return "wet" if raining else "drying"
    return "wetting" if raining and road.film_mm > 0 else "dry"


def dry_at(road: Road, drying: Drying) -> float:
    """When a wet road will be dry again if no more rain falls, POSIX time [s]."""
    rate = evaporation(drying, road.temperature_c)
    left = max(0.0, road.film_mm - drying.dry_mm)
    hours = min(LONGEST_WET_H, left / rate) if rate > 0 else LONGEST_WET_H
    return max(road.t + 3600 * hours, road.rained + drying.hold_s)
