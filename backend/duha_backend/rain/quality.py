"""Quality of rain in real time: what of a gauge's rain can be believed, and why not. Pure.

Every test looks back only, so that what it says live is what it says when it is run again.
Raw rain is never changed: a value gets a quality from 0 to 1 and its reasons.

Blocked gauges are found by their neighbours: within a shower the sum over a place that
lies among others is not far below the least of theirs (the sum of a moving shower has no
hole). After the ideas of de Vos et al. (2019), "Quality control for crowdsourced personal
weather stations", Geophys. Res. Lett. 46, and RainGaugeQC (Ośródka et al. 2022, AMT 15).
"""

from typing import NamedTuple

import numpy as np

from duha_backend.geo import distances
from duha_backend.validate import Array

FLAGS = (
    "missing", "range", "suspect", "spike", "stuck", "blocked", "partly_blocked",
    "false_wet", "drift", "frozen", "maintenance",
)  # fmt: skip
PENALTY = dict(
    zip(FLAGS, (0.0, 0.0, 0.5, 0.2, 0.2, 0.0, 0.3, 0.4, 0.7, 0.0, 0.0), strict=True)
)
_BIT = {name: 1 << i for i, name in enumerate(FLAGS)}
MISSING_SHARE = 0.2
EVEN_STEPS = 3
"""In less than a quarter of an hour nothing can be said of evenness."""


class Rules(NamedTuple):
    """Thresholds, for steps of five minutes; each city may have its own.

    Attributes
    ----------
    suspect_mm, reject_mm : float
        In a step: unlikely (Norway's highest on record is 16.2 mm), and impossible.
    spike_mm, spike_dry_mm, spike_ratio : float
        A step over the one while the neighbours' median is below the other, or so many
        times that median (PWSQC "high influx").
    stuck_steps, stuck_mm : int, float
        So many equal steps of at least so much.
    neighbours, near_m : int, float
        How many of the nearest count, and how far they may be [m].
    windows : tuple of (steps, mm)
        Sums that are compared, and the least that the neighbours must have.
    part, tip_mm : float
        Below so much of the least neighbour, less a tip, a gauge is partly blocked.
    even, alike : float
        Where the least neighbour has so much of the greatest (less a tip), so that it
        rains evenly, below so much of their median, less a tip, is partly blocked, too.
    wet_mm : float
        So much in an hour while no neighbour has any in three is falsely wet.
    drift_days, drift_mm, drift_low, drift_high : int, float
        The ratio of its sum to the neighbours' median over so many days of so much rain.
    frost_c : float
        A gauge without heating is frozen below it [°C].
    """

    suspect_mm: float = 16.0
    reject_mm: float = 50.0
    spike_mm: float = 10.0
    spike_dry_mm: float = 0.4
    spike_ratio: float = 25.0
    stuck_steps: int = 12
    stuck_mm: float = 0.4
    neighbours: int = 6
    near_m: float = 10_000.0
    windows: tuple[tuple[int, float], ...] = (
        (1, 0.6), (2, 0.8), (3, 0.8), (6, 1.2), (12, 1.8), (36, 3.0),
    )  # fmt: skip
    part: float = 0.55
    even: float = 0.8
    alike: float = 0.65
    tip_mm: float = 0.2
    wet_mm: float = 2.0
    drift_days: int = 30
    drift_mm: float = 20.0
    drift_low: float = 0.7
    drift_high: float = 1.4
    frost_c: float = 2.0


class Judged(NamedTuple):
    """Quality (g, t), 0 to 1, and reasons (g, t) as bits in the order of `FLAGS`."""

    quality: Array
    flags: Array


def reasons(bits: int) -> tuple[str, ...]:
    """The reasons that bits stand for."""
    return tuple(name for name, bit in _BIT.items() if bits & bit)


def judge(
    rain_mm: Array,
    places: Array,
    rules: Rules | None = None,
    maintenance: Array | None = None,
    temperature_c: Array | None = None,
    heated: Array | None = None,
) -> Judged:
    """Judge the rain of a network.

    Parameters
    ----------
    rain_mm : (g, t) array
        Depth of each step of five minutes [mm]; NaN where nothing came.
    places : (g, k) array
        Places [m].
    rules : Rules, optional
        Thresholds.
    maintenance : (g, t) bool array, optional
        Somebody works on the gauge.
    temperature_c : (t,) array, optional
        Air temperature [°C].
    heated : (g,) bool array, optional
        Which gauges are heated.

    Returns
    -------
    Judged
        Quality and reasons of every value.
    """
    rules = rules or Rules()
    rain = np.asarray(rain_mm, dtype=float)
    flags = np.zeros(rain.shape, dtype=np.uint16)

    def flag(name: str, where: Array) -> None:
        flags[where] |= _BIT[name]

    flag("missing", np.isnan(rain))
    flag("range", (rain > rules.reject_mm) | (rain < 0))
    flag("suspect", (rain > rules.suspect_mm) & (rain <= rules.reject_mm))
    flag("stuck", _stuck(rain, rules))
    if maintenance is not None:
        flag("maintenance", np.asarray(maintenance, dtype=bool))
    if temperature_c is not None:
        cold = np.asarray(temperature_c) < rules.frost_c
        bare = ~np.asarray(
            heated if heated is not None else np.zeros(len(rain)), dtype=bool
        )
        flag("frozen", bare[:, None] & cold[None])
    out = (
        flags & (_BIT["missing"] | _BIT["range"] | _BIT["maintenance"] | _BIT["frozen"])
    ) > 0
    usable = np.where(out, np.nan, rain)
    for gauge, near in enumerate(neighbours(places, rules)):
        if len(near):
            _beside(gauge, near, usable, rules, flags)
    return Judged(_quality(flags), flags)


def neighbours(places: Array, rules: Rules) -> list[Array]:
    """The nearest gauges of each one, those not too far."""
    at = np.asarray(places, dtype=float)
    apart = distances(at, at)
    found = []
    for gauge, row in enumerate(apart):
        order = [i for i in np.argsort(row, kind="stable").tolist() if i != gauge]
        near = [i for i in order[: rules.neighbours] if row[i] <= rules.near_m]
        found.append(np.array(near, dtype=np.int64))
    return found


def _beside(gauge: int, near: Array, rain: Array, rules: Rules, flags: Array) -> None:
    """What the neighbours say of one gauge."""
    mine, others = rain[gauge], rain[near]
    median = _median(others)
    heavy = (mine > rules.spike_mm) & (median < rules.spike_dry_mm)
    heavy |= (median >= rules.spike_dry_mm) & (mine > rules.spike_ratio * median)
    flags[gauge, heavy] |= _BIT["spike"]
    blocked, partly = _blocked(mine, others, rules)
    flags[gauge, blocked] |= _BIT["blocked"]
    flags[gauge, partly & ~blocked] |= _BIT["partly_blocked"]
    hour, spell = _sums(mine, 12), _sums(others, 36)
    alone = (hour > rules.wet_mm) & (np.nanmax(_filled(spell), axis=0) <= 0)
    flags[gauge, alone & _several(spell)] |= _BIT["false_wet"]
    flags[gauge, _drifts(mine, others, rules)] |= _BIT["drift"]


def _blocked(mine: Array, others: Array, rules: Rules) -> tuple[Array, Array]:
    """Where a gauge is blocked fully, and in part."""
    whole = np.zeros(len(mine), dtype=bool)
    part = np.zeros(len(mine), dtype=bool)
    if len(others) < 2:
        return whole, part
    for steps, least_mm in rules.windows:
        # A step that is missing would make this gauge, and no other, look blocked.
        own, known = _sums(mine, steps, missing_share=0.0), _sums(others, steps)
        least = _filled(known, np.inf).min(axis=0)
        rains = (least >= least_mm) & _several(known)
        whole |= rains & (own <= 1e-9)
        part |= rains & (own < rules.part * least - rules.tip_mm)
        if steps >= EVEN_STEPS:
            most, median = _filled(known, -np.inf).max(axis=0), _median(known)
            even = least >= rules.even * most - rules.tip_mm
            even &= (median >= least_mm) & _several(known)
            part |= even & (own < rules.alike * median - rules.tip_mm)
    return whole, part


def _several(sums: Array) -> Array:
    """Where two neighbours at least have something to say."""
    return np.asarray(np.isfinite(sums).sum(axis=0) >= 2)


def _drifts(mine: Array, others: Array, rules: Rules) -> Array:
    steps = rules.drift_days * 288
    own, median = _sums(mine, steps), _median(_sums(others, steps))
    ratio = own / np.maximum(median, 1e-9)
    enough = median >= rules.drift_mm
    return np.asarray(enough & ((ratio < rules.drift_low) | (ratio > rules.drift_high)))


def _stuck(rain: Array, rules: Rules) -> Array:
    """Values that have not changed for long although it rains."""
    same = np.zeros(rain.shape, dtype=np.int64)
    equal = (np.diff(rain, axis=1) == 0) & (rain[:, 1:] >= rules.stuck_mm)
    places = np.arange(1, rain.shape[1])
    broken = np.where(equal, 0, places)
    last = np.maximum.accumulate(broken, axis=1)
    same[:, 1:] = places - last
    return np.asarray(same >= rules.stuck_steps - 1)


def _sums(rain: Array, steps: int, missing_share: float = MISSING_SHARE) -> Array:
    """Sums of the last steps, along the last axis; NaN where too many are missing."""
    missing = np.isnan(rain)
    found = _last(np.where(missing, 0.0, rain), steps)
    if missing.any():
        lost = _last(missing.astype(float), steps)
        found = np.where(lost > missing_share * steps, np.nan, found)
    return found


def _last(values: Array, steps: int) -> Array:
    total = np.cumsum(values, axis=-1)
    found = total.copy()
    if steps < total.shape[-1]:
        found[..., steps:] -= total[..., :-steps]
    return np.asarray(np.maximum(0.0, found))


def _median(values: Array) -> Array:
    known = ~np.isnan(values).all(axis=0)
    found = np.zeros(values.shape[-1])
    found[known] = np.nanmedian(values[:, known], axis=0)
    return found


def _filled(values: Array, by: float = 0.0) -> Array:
    return np.where(np.isnan(values), by, values)


def _quality(flags: Array) -> Array:
    quality = np.ones(flags.shape)
    for name, bit in _BIT.items():
        quality = np.where(flags & bit, np.minimum(quality, PENALTY[name]), quality)
    return quality
