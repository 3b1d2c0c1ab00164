"""The energy of one night, luminaire by luminaire and cabinet by cabinet. Pure.

Measured: what counters say. Calculated: power curve of the type x level x time, quarter by
quarter. Luminaires that nobody measures count as calculated, from what they report or
else from what they were told. Where a cabinet has a meter, what it shows beyond its lamps
is the gap, and the gap has an uncertainty: beside that it means something.

Uncertainty (k = 2): limits of meter 1 % (class 1 of EN 62053-21), of the luminaires' own
measurement 1 % in common and 2 % each, of calculated ones 5 %; rectangular, combined after
JCGM 100:2008, 4.3.7 and clause 5.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from duha_backend.lighting.inventory import Asset, LuminaireType
from duha_backend.readings import QUARTER_MS, Frame
from duha_backend.validate import Array

METER_U, COMMON_U, LAMP_U, CALCULATED_U = 0.01, 0.01, 0.02, 0.05
HOURS_A_QUARTER = 0.25


class CabinetNight(NamedTuple):
    """The energy of a cabinet in a night.

    Attributes
    ----------
    night : date
        The evening on which it begins.
    lamps, measured_lamps, unknown_lamps : int
        Luminaires; those with a counter; those of unknown type without one, which are in
        no sum.
    measured_wh, calculated_wh : float
        Of the luminaires that have both, counted and calculated [Wh].
    lamps_wh : float
        Of all luminaires: counted where there is a counter, else calculated [Wh].
    meter_wh, reactive_varh : float or None
        What the cabinet's meter counted [Wh], [varh].
    own_wh : float
        Declared load of the cabinet itself [Wh].
    uncertainty_wh : float
        Of the gap, k = 2 [Wh].
    baseline_wh : float
        What the declared baseline would have taken [Wh].
    burning_h : float
        Mean time that a luminaire was lit [h].
    covered : float
        Share of the night's readings that are there, 0 to 1.
    """

    night: dt.date
    cabinet: str
    district: str
    lamps: int
    measured_lamps: int
    unknown_lamps: int
    measured_wh: float
    calculated_wh: float
    lamps_wh: float
    meter_wh: float | None
    reactive_varh: float | None
    own_wh: float
    uncertainty_wh: float
    baseline_wh: float
    burning_h: float
    covered: float

    @property
    def gap_wh(self) -> float | None:
        """What the meter shows beyond luminaires and cabinet [Wh]."""
        if self.meter_wh is None:
            return None
        return self.meter_wh - self.lamps_wh - self.own_wh


@dataclass
class Quarters:
    """Readings of a night in quarters of an hour, put into rows and columns.

    Attributes
    ----------
    level : (n, q) float64
        Mean level [%]; NaN where nothing was read.
    counter : (n, q + 1) float64
        Counters at the end of each quarter [Wh], with what stood before the night.
    """

    index: dict[str, int]
    start: int
    level: Array
    counter: Array

    @classmethod
    def empty(cls, names: Sequence[str], start: int, end: int) -> "Quarters":
        """For some devices and a night [ms)."""
        count = (end - start) // QUARTER_MS
        shape = (len(names), count)
        return cls(
            {name: i for i, name in enumerate(names)},
            start,
            np.full(shape, np.nan),
            np.full((len(names), count + 1), np.nan),
        )

    def take(
        self, frame: Frame, counter: str, level: str = "", other: str = ""
    ) -> None:
        """Take quarters of devices; those before the night count for the counters alone."""
        rows = np.array([self.index.get(name, -1) for name in frame["device"].tolist()])
        column = (frame["ts"] - self.start) // QUARTER_MS
        here = rows >= 0
        early = here & (column < 0)
        inside = here & (column >= 0) & (column < self.level.shape[1])
        self.counter[rows[early], 0] = frame[counter][early]
        self.counter[rows[inside], column[inside] + 1] = frame[counter][inside]
        if level:
            found = frame[level]
            found = np.where(np.isnan(found), frame[other], found)
            self.level[rows[inside], column[inside]] = found[inside]


def counted(counter: Array) -> Array:
    """What counters have counted over a night, NaN where they said nothing.

    Parameters
    ----------
    counter : (n, q) float64
        Readings in time, NaN where there is none; one that goes back has begun anew.

    Returns
    -------
    (n,) float64
        In the unit of the counters.
    """
    known = ~np.isnan(counter)
    filled = _carried(counter)
    steps = np.diff(filled, axis=1)
    anew = steps < 0
    steps = np.where(anew, filled[:, 1:], steps)
    total = np.nansum(steps, axis=1)
    return np.where(known.sum(axis=1) >= 2, total, np.nan)


def _carried(values: Array) -> Array:
    """Every hole filled with what stood before it."""
    known = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(known, np.arange(values.shape[1]), 0), axis=1)
    return np.take_along_axis(values, last, axis=1)


def settled(
    night: dt.date,
    lamps: Sequence[Asset],
    read: Quarters,
    told: Array,
    types: Mapping[str, LuminaireType],
    baseline_w: Mapping[str, float],
    dark_h: float,
    meters: Mapping[str, tuple[float, float | None]],
    own_w: float,
) -> list[CabinetNight]:
    """The energy of every cabinet in a night.

    Parameters
    ----------
    night : date
        Which one.
    lamps : sequence of Asset
        All luminaires, in the order of `read` and `told`.
    read : Quarters
        What they have reported.
    told : (n, q) float64
        Levels that they were told [%], for those that report nothing.
    types : mapping of str to LuminaireType
        Power curves.
    baseline_w : mapping of str to float
        Declared power before, by type [W]; else the rated power, undimmed.
    dark_h : float
        From sunset to sunrise [h].
    meters : mapping of cabinet to (Wh, varh)
        What meters counted.
    own_w : float
        Declared load of a cabinet [W].

    Returns
    -------
    list of CabinetNight
        By cabinet.
    """
    level = np.where(np.isnan(read.level), told, read.level)
    power = np.full(level.shape, np.nan)
    rated = np.full(len(lamps), np.nan)
    for name in {lamp.type for lamp in lamps} & types.keys():
        here = np.array([lamp.type == name for lamp in lamps])
        power[here] = types[name].power(level[here])
        rated[here] = baseline_w.get(name, types[name].rated_w)
    calculated = power.sum(axis=1) * HOURS_A_QUARTER
    measured = counted(read.counter)
    lit = (level > 0).sum(axis=1) * HOURS_A_QUARTER
    covered = (~np.isnan(read.level)).mean(axis=1)
    best = np.where(np.isnan(measured), calculated, measured)
    baseline = rated * dark_h
    made = []
    for cabinet, rows in _by_cabinet(lamps).items():
        both = rows[~np.isnan(measured[rows]) & ~np.isnan(calculated[rows])]
        counters = ~np.isnan(measured[rows])
        networked = rows[[lamps[i].networked for i in rows]]
        own = own_w * level.shape[1] * HOURS_A_QUARTER
        meter, reactive = meters.get(cabinet, (None, None))
        made.append(
            CabinetNight(
                night,
                cabinet,
                lamps[rows[0]].district,
                len(rows),
                int(counters.sum()),
                int(np.isnan(best[rows]).sum()),
                float(measured[both].sum()),
                float(calculated[both].sum()),
                float(np.nansum(best[rows])),
                meter,
                reactive,
                own,
                _uncertainty(meter, measured[rows], calculated[rows]),
                float(np.nansum(baseline[rows])),
                float(lit[rows].mean()),
                float(covered[networked].mean()) if len(networked) else 1.0,
            )
        )
    return made


def _uncertainty(meter: float | None, measured: Array, calculated: Array) -> float:
    """Of the gap of a cabinet, k = 2 [Wh]."""
    counted_ = np.nansum(measured)
    guessed = calculated[np.isnan(measured)]
    parts = [
        METER_U * (meter or 0.0),
        COMMON_U * counted_,
        LAMP_U * np.sqrt(np.nansum(measured**2)),
        CALCULATED_U * np.nansum(guessed),
    ]
    return float(2 * np.sqrt(np.sum(np.square(parts)) / 3))


def _by_cabinet(lamps: Iterable[Asset]) -> dict[str, Array]:
    found: dict[str, list[int]] = {}
    for i, lamp in enumerate(lamps):
        found.setdefault(lamp.cabinet, []).append(i)
    return {cabinet: np.array(rows) for cabinet, rows in found.items()}
