"""Sizing of what keeps rain: storage for infiltration or a throttle, with its steps. Pure.

Czech practice: ČSN 75 9010 for infiltration, TNV 75 9011 for a throttled outflow, with the
city's own table of design rain.
"""

from typing import NamedTuple

import numpy as np

from duha_backend.errors import Invalid
from duha_backend.rain.events import Idf

SAFETY = 2.0
LONGEST_EMPTYING_H = 72.0
THROTTLE_L_S_HA, LEAST_THROTTLE_L_S = 3.0, 0.5
LEAST_CONDUCTIVITY = 1e-6
"""Below it infiltration alone is not allowed [m/s]."""
COEFFICIENTS: dict[str, tuple[float, float, float]] = {
    "roof": (1.0, 1.0, 1.0),
    "asphalt": (0.7, 0.8, 0.9),
    "paving": (0.5, 0.6, 0.7),
    "gravel": (0.3, 0.4, 0.5),
    "permeable": (0.2, 0.25, 0.3),
}
"""Runoff coefficients for slopes under 1 %, of 1 to 5 %, over 5 %.

Roof: an impermeable roof after ČSN 75 9010, as cited by SBToolCZ, criterion ZSV.OS.1. The
others: the table for sewers (ČSN 75 6101), as cited by the calculator of TZB-info.
"""


class Surface(NamedTuple):
    """A part of what drains: area [m²] and its runoff coefficient, 0 to 1."""

    name: str
    area_m2: float
    coefficient: float


class Trial(NamedTuple):
    """One duration of the calculation: depth, what comes, what leaves, what must be kept."""

    duration_min: float
    depth_mm: float
    inflow_m3: float
    outflow_m3: float
    volume_m3: float


class Sizing(NamedTuple):
    """A device and how it was reckoned.

    Attributes
    ----------
    reduced_m2 : float
        Reduced area, the sum of area times coefficient [m²].
    outflow_l_s : float
        Infiltration (with its safety) and throttle together [L/s].
    volume_m3, duration_min : float
        What must be kept, and the duration of rain that decides.
    emptying_h : float
        How long it takes to empty [h].
    trials : tuple of Trial
        Every duration of the table.
    warnings : tuple of str
        What the norms do not allow.
    """

    reduced_m2: float
    outflow_l_s: float
    volume_m3: float
    duration_min: float
    emptying_h: float
    trials: tuple[Trial, ...]
    warnings: tuple[str, ...]


def coefficient(kind: str, slope_pct: float) -> float:
    """Runoff coefficient of a surface by its slope [%].

    Raises
    ------
    Invalid
        There is no such surface.
    """
    if kind not in COEFFICIENTS:
        raise Invalid(f"no surface {kind!r}; there are {', '.join(COEFFICIENTS)}")
    flat, usual, steep = COEFFICIENTS[kind]
    if slope_pct < 1:
        return flat
    return usual if slope_pct <= 5 else steep


def throttle_l_s(area_m2: float) -> float:
    """Permitted outflow [L/s]: 3 L/(s ha) of the whole area, 0.5 L/s at least.

    TNV 75 9011.
    """
    return max(LEAST_THROTTLE_L_S, THROTTLE_L_S_HA * area_m2 / 10_000)


def size(
    surfaces: tuple[Surface, ...],
    table: Idf,
    period_a: float,
    infiltrating_m2: float = 0.0,
    conductivity_m_s: float = 0.0,
    outflow_l_s: float = 0.0,
) -> Sizing:
    """The storage that a device needs.

    Parameters
    ----------
    surfaces : tuple of Surface
        What drains into it.
    table : Idf
        The city's design rain.
    period_a : float
        Return period [a]: 5 as a rule, 10 where an overflow would do harm.
    infiltrating_m2, conductivity_m_s : float
        Area [m²] and saturated conductivity of the soil [m/s].
    outflow_l_s : float
        Throttled outflow [L/s].

    Returns
    -------
    Sizing
        V = max over durations of h (A_red + A_vz) / 1000 - (k_v A_vsak / f + Q_o) t.

    Raises
    ------
    Invalid
        Nothing leaves the device, or something is negative.
    """
    _check(surfaces, infiltrating_m2, conductivity_m_s, outflow_l_s)
    reduced = sum(surface.area_m2 * surface.coefficient for surface in surfaces)
    soil_m3_s = conductivity_m_s * infiltrating_m2 / SAFETY
    leaving = soil_m3_s + outflow_l_s / 1000
    trials = []
    for minutes in table.durations.tolist():
        depth = table.depth_of(minutes, period_a)
        came = depth / 1000 * (reduced + infiltrating_m2)
        gone = leaving * minutes * 60
        trials.append(Trial(minutes, depth, came, gone, max(0.0, came - gone)))
    worst = trials[int(np.argmax([trial.volume_m3 for trial in trials]))]
    hours = worst.volume_m3 / leaving / 3600
    return Sizing(
        reduced, leaving * 1000, worst.volume_m3, worst.duration_min, hours, tuple(trials),
        tuple(_warnings(surfaces, conductivity_m_s, outflow_l_s, hours, worst, trials)),
    )  # fmt: skip


def _check(
    surfaces: tuple[Surface, ...],
    infiltrating: float,
    conductivity: float,
    outflow: float,
) -> None:
    if min(infiltrating, conductivity, outflow) < 0 or not surfaces:
        raise Invalid(
            "areas, conductivity and outflow are not negative, and something drains"
        )
    for surface in surfaces:
        if surface.area_m2 <= 0 or not 0 <= surface.coefficient <= 1:
            raise Invalid(f"{surface.name}: an area is positive, a coefficient 0 to 1")
    if conductivity * infiltrating + outflow <= 0:
        raise Invalid("nothing leaves the device: give it soil or a throttle")


def _warnings(
    surfaces: tuple[Surface, ...], conductivity: float, outflow: float, hours: float,
    worst: Trial, trials: list[Trial],
) -> list[str]:  # fmt: skip
    found = []
    if hours > LONGEST_EMPTYING_H:
        found.append(
            f"it empties in {hours:.1f} h; {LONGEST_EMPTYING_H:.0f} h is allowed"
        )
    if 0 < conductivity < LEAST_CONDUCTIVITY and outflow <= 0:
        found.append("the soil is too tight for infiltration alone: add a throttle")
    allowed = throttle_l_s(sum(surface.area_m2 for surface in surfaces))
    if outflow > allowed:
        found.append(f"{outflow:.2f} L/s is more than the {allowed:.2f} L/s permitted")
    if worst is trials[-1]:
        found.append("the longest duration of the table decides: it may be too short")
    return found
