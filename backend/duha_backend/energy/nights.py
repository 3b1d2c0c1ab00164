"""The energy of one night, cabinet by cabinet and stretch by stretch. Pure.

What was read is summed and set against the baseline of the same luminaires and the same
quarters of an hour; what was not read is unknown, with bounds, and never saved. Luminaires
without a type and those that no controller reads are on neither side. Where a cabinet has
a meter, what it shows beyond its lamps is the gap, and the gap has an uncertainty.

Uncertainty of the gap (k = 2): limits of meter 1 % (class 1 of EN 62053-21), of the
luminaires' own measurement 1 % in common and 2 % each, of calculated ones 5 %;
rectangular, combined after JCGM 100:2008, 4.3.7 and clause 5; and half the width of what is
unknown. Uncertainty of the saving: the limits of errors that luminaires have in common and
of the times of readings added up, and three standard deviations of the others.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from duha_backend.energy.counters import MARGIN, METER_MODULI, METER_UNITS, spans
from duha_backend.energy.lamps import (  # fmt: skip
    CALCULATED_U,
    LampNights,
    counted_in_night,
    lamp_nights,
)
from duha_backend.energy.quarters import HOURS, Quarters
from duha_backend.lighting.inventory import Asset, LuminaireType
from duha_backend.readings import QUARTER_MS
from duha_backend.validate import Array
from duha_contract.lighting import Sun
from duha_contract.programmes import noons

METER_U, COMMON_U, LAMP_U = 0.01, 0.01, 0.02
SERVICE_W = 3 * 25 * 230.0
"""Least power that the service of a cabinet can carry: three phases of 25 A."""
METER_ENOUGH = 0.9
"""Share of the dark hours that a meter must have counted for its gap to be told."""
_HORIZON_DEG = -0.833


class CabinetNight(NamedTuple):
    """The energy of a cabinet in a night.

    Attributes
    ----------
    night : date
        The evening on which it begins.
    lamps, measured_lamps, unknown_lamps : int
        Luminaires; those with a counter; those of unknown type without one, of which
        nothing can be said.
    measured_wh, calculated_wh : float
        Of the quarters that can be known both ways, counted and calculated [Wh].
    lamps_wh : float
        Of the luminaires that are judged, in the quarters that are known [Wh].
    meter_wh, reactive_varh : float or None
        What the cabinet's meter counted [Wh], [varh].
    own_wh : float
        Declared load of the cabinet itself [Wh].
    uncertainty_wh : float
        Of the gap, k = 2 [Wh].
    baseline_wh : float
        What the declared baseline would have taken in the same quarters [Wh].
    burning_h : float
        Mean time that a luminaire was read as lit [h].
    due_h, covered_h : float
        Lamp-hours in which light was due, and those of which the energy is known [h].
    saved_uncertainty_wh : float
        Of baseline less lamps [Wh].
    unknown_wh, unknown_baseline_wh : float
        Most that the quarters that are not known can have taken; the least is nothing;
        and the baseline of those [Wh].
    excluded_lamps : int
        Luminaires of unknown type or that no controller reads: in neither sum.
    excluded_wh, excluded_unknown_wh : float
        What those have counted, and the most that they can have taken beyond [Wh].
    meter_covered : float or None
        Share of the dark hours that the meter has counted, 0 to 1.
    """

    night: dt.date
    cabinet: str
    district: str
    lamps: int
    measured_lamps: int = 0
    unknown_lamps: int = 0
    measured_wh: float = 0.0
    calculated_wh: float = 0.0
    lamps_wh: float = 0.0
    meter_wh: float | None = None
    reactive_varh: float | None = None
    own_wh: float = 0.0
    uncertainty_wh: float = 0.0
    baseline_wh: float = 0.0
    burning_h: float = 0.0
    due_h: float = 0.0
    covered_h: float = 0.0
    saved_uncertainty_wh: float = 0.0
    unknown_wh: float = 0.0
    unknown_baseline_wh: float = 0.0
    excluded_lamps: int = 0
    excluded_wh: float = 0.0
    excluded_unknown_wh: float = 0.0
    meter_covered: float | None = None

    @property
    def gap_wh(self) -> float | None:
        """What the meter shows beyond luminaires and cabinet [Wh].

        The middle between its bounds: what is unknown of the luminaires may be in it.
        """
        if self.meter_wh is None:
            return None
        known = self.lamps_wh + self.excluded_wh + self.own_wh
        return self.meter_wh - known - (self.unknown_wh + self.excluded_unknown_wh) / 2

    @property
    def covered(self) -> float:
        """Share of the lamp-hours in which light was due that are known, 0 to 1."""
        return self.covered_h / self.due_h if self.due_h else 1.0


class StretchNight(NamedTuple):
    """The energy of a stretch's own luminaires in a night, as of `CabinetNight`."""

    night: dt.date
    stretch: str
    lamps_wh: float
    due_h: float
    covered_h: float


class MeterNight(NamedTuple):
    """What the meters of a cabinet counted in a night [Wh], [varh].

    `covered` is the share of the dark hours, `hours` the time that was counted [h].
    """

    wh: float
    varh: float | None
    covered: float
    hours: float


class Settled(NamedTuple):
    """A night: its cabinets, its stretches, and the cabinets that could not be judged."""

    cabinets: list[CabinetNight]
    stretches: list[StretchNight]
    failures: dict[str, Exception]


class City(NamedTuple):
    """What a night is judged by.

    Attributes
    ----------
    types : mapping of str to LuminaireType
        Power curves.
    baseline_w : mapping of str to float
        Declared power before, by type [W]; else the rated power, undimmed.
    own_w : float
        Declared load of a cabinet [W].
    """

    types: Mapping[str, LuminaireType]
    baseline_w: Mapping[str, float]
    own_w: float = 0.0

    def kind_of(self, lamp: Asset) -> LuminaireType | None:
        """The type of a luminaire; None where its rated power is not known."""
        kind = self.types.get(lamp.type)
        return kind if kind is not None and kind.rated_w > 0 else None


def darkness(sun: Sun, night: dt.date) -> Array:
    """Share of each quarter of a night in which light is due, (q,) float64."""
    begin, end = noons(sun.place, night)
    count = round((end - begin) * 1000) // QUARTER_MS
    edges = begin + np.arange(count + 1) * QUARTER_MS / 1000
    found = np.zeros(count)
    for dark in sun.darkness(night):
        since = np.maximum(edges[:-1], dark.sunset)
        until = np.minimum(edges[1:], dark.sunrise)
        found += np.clip(until - since, 0.0, None) / (QUARTER_MS / 1000)
    return found


def settled(
    night: dt.date,
    lamps: Sequence[Asset],
    read: Quarters,
    dark: Array,
    city: City,
    meters: Mapping[str, MeterNight],
) -> Settled:
    """The energy of every cabinet and every stretch in a night.

    A cabinet that cannot be judged does not stop the others: it is wholly unknown.

    Parameters
    ----------
    night : date
        Which one.
    lamps : sequence of Asset
        All luminaires, in the order of `read`.
    read : Quarters
        What they have reported.
    dark : (q,) float64
        Share of each quarter in which light is due.
    city : City
        Types, baseline, loads.
    meters : mapping of cabinet to MeterNight
        What meters counted.
    """
    cabinets: list[CabinetNight] = []
    stretches: dict[str, StretchNight] = {}
    failures: dict[str, Exception] = {}
    for cabinet, rows in _by_cabinet(lamps).items():
        mine = [lamps[i] for i in rows]
        meter = meters.get(cabinet)
        try:
            found = lamp_nights(read.of(rows), [city.kind_of(lamp) for lamp in mine])
            cabinets.append(_cabinet(night, mine, found, dark, city, meter))
            for part in _stretches(night, mine, found, dark, city):
                stretches[part.stretch] = _sum(stretches.get(part.stretch), part)
        except Exception as error:  # noqa: BLE001 - a barrier: the others go on
            failures[cabinet] = error
            cabinets.append(_unjudged(night, mine, dark, city))
    return Settled(cabinets, list(stretches.values()), failures)


def _cabinet(
    night: dt.date, lamps: Sequence[Asset], found: LampNights, dark: Array,
    city: City, meter: MeterNight | None,
) -> CabinetNight:  # fmt: skip
    judged = _judged(lamps, city)
    typed = np.array([city.kind_of(lamp) is not None for lamp in lamps])
    counters = found.counted.any(axis=1)
    covered_h, due_h = _hours(found, dark)
    rated = _baseline_w(lamps, city)
    lit_h, unlit_h = _lit(found, dark)
    energy = found.energy_wh
    left = ~judged
    own = city.own_w * (meter.hours if meter else len(dark) * HOURS)
    bounds = float(found.highest_wh[judged].sum())
    bounds_left = float(found.highest_wh[left & typed].sum())
    whole = meter if meter and meter.covered >= METER_ENOUGH else None
    return CabinetNight(
        night=night,
        cabinet=lamps[0].cabinet,
        district=lamps[0].district,
        lamps=len(lamps),
        measured_lamps=int(counters.sum()),
        unknown_lamps=int((~typed & ~counters).sum()),
        measured_wh=float(found.both_counted_wh.sum()),
        calculated_wh=float(found.both_calculated_wh.sum()),
        lamps_wh=float(energy[judged].sum()),
        meter_wh=whole.wh if whole else None,
        reactive_varh=whole.varh if whole else None,
        own_wh=own,
        uncertainty_wh=_gap_uncertainty(whole, found) + (bounds + bounds_left) / 2,
        baseline_wh=float((rated * lit_h)[judged].sum()),
        burning_h=float(found.lit_h.mean()),
        due_h=float(due_h[judged].sum()),
        covered_h=float(covered_h[judged].sum()),
        saved_uncertainty_wh=_saved_uncertainty(found, judged),
        unknown_wh=bounds,
        unknown_baseline_wh=float((rated * unlit_h)[judged].sum()),
        excluded_lamps=int(left.sum()),
        excluded_wh=float(energy[left].sum()),
        excluded_unknown_wh=bounds_left,
        meter_covered=meter.covered if meter else None,
    )


def _unjudged(
    night: dt.date, lamps: Sequence[Asset], dark: Array, city: City
) -> CabinetNight:
    """A cabinet of which nothing is known."""
    judged = _judged(lamps, city)
    rated = _baseline_w(lamps, city)[judged]
    due = float(_weights(dark).sum() * HOURS)
    return CabinetNight(
        night, lamps[0].cabinet, lamps[0].district, len(lamps),
        due_h=due * int(judged.sum()),
        unknown_wh=float(rated.sum()) * len(dark) * HOURS * (1 + CALCULATED_U),
        unknown_baseline_wh=float(rated.sum() * dark.sum() * HOURS),
        excluded_lamps=int((~judged).sum()),
    )  # fmt: skip


def _stretches(
    night: dt.date, lamps: Sequence[Asset], found: LampNights, dark: Array, city: City
) -> list[StretchNight]:
    covered_h, due_h = _hours(found, dark)
    names = np.array([lamp.stretch for lamp in lamps])
    judged = _judged(lamps, city)
    parts = []
    for name in sorted({*names.tolist()} - {""}):
        here = judged & (names == name)
        sums = (found.energy_wh, due_h, covered_h)
        parts.append(StretchNight(night, name, *(float(x[here].sum()) for x in sums)))
    return parts


def _sum(one: StretchNight | None, other: StretchNight) -> StretchNight:
    """A stretch whose luminaires hang on several cabinets."""
    if one is None:
        return other
    added = (a + b for a, b in zip(one[2:], other[2:], strict=True))
    return StretchNight(one.night, one.stretch, *added)


def _judged(lamps: Sequence[Asset], city: City) -> Array:
    """Luminaires that are read and whose rated power is known."""
    return np.array([lamp.networked and city.kind_of(lamp) is not None for lamp in lamps])  # fmt: skip


def _baseline_w(lamps: Sequence[Asset], city: City) -> Array:
    kinds = [city.kind_of(lamp) for lamp in lamps]
    watts = [0.0 if kind is None else city.baseline_w.get(kind.id, kind.rated_w) for kind in kinds]  # fmt: skip
    return np.array(watts)


def _weights(dark: Array) -> Array:
    """What quarters count for in the coverage: by light that is due, else all alike."""
    return dark if dark.any() else np.ones(len(dark))


def _hours(found: LampNights, dark: Array) -> tuple[Array, Array]:
    """Known and due time of each luminaire [h]."""
    weights = _weights(dark) * HOURS
    return found.known @ weights, np.full(len(found.known), weights.sum())


def _lit(found: LampNights, dark: Array) -> tuple[Array, Array]:
    """Hours in which the baseline burns in known and in unknown quarters [h]."""
    return found.known @ (dark * HOURS), ~found.known @ (dark * HOURS)


def _saved_uncertainty(found: LampNights, judged: Array) -> float:
    """Of baseline less lamps [Wh]."""
    counted = found.counted_wh[judged]
    alike = (
        COMMON_U * counted.sum()
        + CALCULATED_U * found.calculated_wh[judged].sum()
        + found.limit_wh[judged].sum()
    )
    alone = np.sum((LAMP_U * counted) ** 2 / 3) + np.sum(found.coarse_wh[judged] ** 2)
    return float(alike + 3 * np.sqrt(alone))


def _gap_uncertainty(meter: MeterNight | None, found: LampNights) -> float:
    """Of the gap of a cabinet without what the luminaires leave unknown, k = 2 [Wh]."""
    counted = found.counted_wh
    missed = meter.wh * (1 - meter.covered) if meter else 0.0
    parts = [
        METER_U * (meter.wh if meter else 0.0),
        COMMON_U * counted.sum(),
        LAMP_U * np.sqrt(np.sum(counted**2)),
        CALCULATED_U * found.calculated_wh.sum(),
        found.limit_wh.sum(),
    ]
    return float(2 * np.sqrt(np.sum(np.square(parts)) / 3)) + 2 * missed


def meter_nights(
    names: Sequence[str], cabinets: Sequence[str], active: Quarters,
    reactive: Quarters, dark: Array, connected_w: Callable[[str], float],
) -> dict[str, MeterNight]:  # fmt: skip
    """What the meters of each cabinet counted in a night.

    Parameters
    ----------
    names, cabinets : sequence of str
        The meters and the cabinet of each.
    active, reactive : Quarters
        Their counters [kWh], [kvarh].
    dark : (q,) float64
        Share of each quarter in which light is due.
    connected_w : callable
        Connected load of a cabinet [W].
    """
    load = np.array([connected_w(c) for c in cabinets]) / 1000
    weights = _weights(dark)
    found: dict[str, MeterNight] = {}
    kwh, known = _counted(active, load)
    kvarh, known_too = _counted(reactive, load)
    for i in range(len(names)):
        if not known[i].any():
            continue
        varh = 1000 * float(kvarh[i]) if known_too[i].any() else None
        covered = float(known[i] @ weights / weights.sum())
        hours = float(known[i].sum() * HOURS)
        one = MeterNight(1000 * float(kwh[i]), varh, covered, hours)
        found[cabinets[i]] = _together(found.get(cabinets[i]), one)
    return found


def _counted(read: Quarters, load: Array) -> tuple[Array, Array]:
    top = np.maximum(SERVICE_W / 1000, load)
    most, sealed = MARGIN * top * HOURS, np.zeros(len(top))
    found = spans(read.counter, most, METER_UNITS, METER_MODULI, sealed)
    border = np.full((len(top), 2), np.nan)
    energy, known, _, _ = counted_in_night(found, MARGIN * top, read.unread, border)
    return energy, known


def _together(one: MeterNight | None, other: MeterNight) -> MeterNight:
    if one is None:
        return other
    varh = [x for x in (one.varh, other.varh) if x is not None]
    return MeterNight(
        one.wh + other.wh, sum(varh) if varh else None,
        min(one.covered, other.covered), max(one.hours, other.hours),
    )  # fmt: skip


def _by_cabinet(lamps: Iterable[Asset]) -> dict[str, Array]:
    found: dict[str, list[int]] = {}
    for i, lamp in enumerate(lamps):
        found.setdefault(lamp.cabinet, []).append(i)
    return {cabinet: np.array(rows) for cabinet, rows in found.items()}
