"""Correction of intensity by each gauge's own calibration, dated. Pure.

Tipping buckets lose water while they tip, more in heavy rain; how much is a matter of the
single gauge. Raw tips are kept for ever, so that a new calibration can be applied to old
rain.
"""

import datetime as dt
from collections.abc import Sequence

import msgspec
import numpy as np

from duha_backend.errors import Invalid
from duha_backend.validate import Array

MOST_FACTOR = 2.0


class Calibration(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a calibration has found.

    Attributes
    ----------
    since : date
        From which day on it holds.
    points : tuple of (measured, true)
        Intensities [mm/h], rising; straight between, the ratio of the last one beyond.
    tip_loss_s : float
        Time of a tip during which water is lost [s], for a gauge without points.
    mm_per_tip : float
        Depth of a tip [mm], with `tip_loss_s`.
    source : str
        Who has calibrated, and when.
    """

    since: dt.date
    points: tuple[tuple[float, float], ...] = ()
    tip_loss_s: float = 0.0
    mm_per_tip: float = 0.2
    source: str = ""

    def check(self) -> None:
        """Raise Invalid for a calibration that cannot be."""
        measured = [x for x, _ in self.points]
        if measured != sorted(set(measured)) or any(x <= 0 for x in measured):
            raise Invalid("a calibration goes from low to high intensity")
        if any(not 1 / MOST_FACTOR <= y / x <= MOST_FACTOR for x, y in self.points):
            raise Invalid("a calibration corrects by a half to a double")
        if self.tip_loss_s < 0 or self.mm_per_tip <= 0:
            raise Invalid("a tip has a depth, and takes no less than no time")


def corrected(measured_mm_h: Array, calibration: Calibration) -> Array:
    """True intensities [mm/h] of measured ones; NaN stays NaN.

    Without points: I / (1 - t I / (3600 h)), Duchon and Biddle (2010), Adv. Geosci. 25;
    Duchon et al. (2014), J. Atmos. Oceanic Technol. 31(6).
    """
    measured = np.asarray(measured_mm_h, dtype=float)
    if calibration.points:
        x, y = np.array([(0.0, 0.0), *calibration.points]).T
        beyond = measured * (y[-1] / x[-1])
        inside = np.interp(measured, x, y)
        return np.asarray(np.where(measured > x[-1], beyond, inside))
    lost = calibration.tip_loss_s * measured / (3600 * calibration.mm_per_tip)
    return np.asarray(measured / (1 - np.minimum(lost, 1 - 1 / MOST_FACTOR)))


def in_force(calibrations: Sequence[Calibration], day: dt.date) -> Calibration | None:
    """The calibration that holds on a day: the last one that has begun."""
    begun = [c for c in calibrations if c.since <= day]
    return max(begun, key=lambda c: c.since, default=None)
