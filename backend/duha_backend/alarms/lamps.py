"""What is wrong with luminaires, from their readings. Pure.

Limits: EN 50160 for voltage (230 V ± 10 %); power against the curve of the type; the rest
are engineering values, each named here.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from duha_backend.lighting.inventory import Asset, LuminaireType
from duha_backend.validate import Array

LOWEST_V, HIGHEST_V = 207.0, 253.0
HOT_C = 90.0
DIM_TOLERANCE_PCT, LIGHT_TOLERANCE_PCT = 5.0, 15.0
DARK_W = 1.5
"""A lamp of unknown type that takes less while it is on gives no light [W]."""
BURNS_W = 5.0
"""One that takes more while it is off burns [W]."""
FAILED_SHARE = 0.4
MOST_SWITCH_ONS = 4
"""More in an hour is cycling."""
HOUR_S = 3600.0


class Ratings:
    """What the types of luminaires say of each of them, in columns."""

    def __init__(
        self, lamps: Sequence[Asset], types: Mapping[str, LuminaireType]
    ) -> None:
        names = sorted({lamp.type for lamp in lamps})
        self._types = [types.get(name) for name in names]
        number = {name: i for i, name in enumerate(names)}
        self.of = np.array([number[lamp.type] for lamp in lamps], dtype=np.int64)
        self.rated = self._each("rated_w")
        self.standby = self._each("standby_w")
        self.tolerance = self._each("tolerance_pct")

    def _each(self, field: str) -> Array:
        values = [getattr(t, field) if t else np.nan for t in self._types]
        return np.array([*values, np.nan])[self.of]

    def expected(self, rows: Array, level: Array, hours: Array) -> Array:
        """Power [W] that lamps take at their levels [%]; NaN where no type is known."""
        found = np.full(len(rows), np.nan)
        kinds = self.of[rows]
        for number in np.unique(kinds).tolist():
            kind = self._types[number]
            if kind is not None:
                here = kinds == number
                age = (
                    float(np.nanmedian(hours[here])) if kind.clo and len(hours) else 0.0
                )
                found[here] = kind.power(level[here], age)
        return found

    def least_factor(self, rows: Array, level: Array) -> Array:
        """Least power factor at levels [%]; NaN where none is stated."""
        found = np.full(len(rows), np.nan)
        for number, kind in enumerate(self._types):
            if kind is not None and kind.power_factor:
                here = self.of[rows] == number
                x, y = np.array(kind.power_factor).T
                found[here] = np.interp(level[here], x, y)
        return found


class Cycling:
    """Counts how often lamps are switched on in an hour."""

    def __init__(self, n: int) -> None:
        self._base = np.full(n, np.nan)
        self._from = np.zeros(n)
        self._last = np.zeros(n)

    def see(self, rows: Array, count: Array, t: Array) -> Array:
        """Whether lamps cycle, from the counters at some times [s]."""
        base, begun, last = self._base[rows], self._from[rows], self._last[rows]
        more = count - base
        anew = np.isnan(more) | (more < 0)  # the first reading, or a counter begun anew
        over = ~anew & (t - begun >= HOUR_S)
        last = np.where(over, more, np.where(anew, 0.0, last))
        known = ~np.isnan(count)
        start = (anew | over) & known
        self._base[rows] = np.where(start, count, base)
        self._from[rows] = np.where(start, t, begun)
        self._last[rows] = last
        return np.maximum(last, np.where(anew | over, 0.0, more)) > MOST_SWITCH_ONS


def conditions(
    rows: Array, values: Mapping[str, Array], ratings: Ratings
) -> dict[str, Array]:
    """Which conditions hold for luminaires that have answered.

    Parameters
    ----------
    rows : (m,) int64
        Their places in the city.
    values : mapping of str to (m,) float64
        Their quantities; NaN where none was read.
    ratings : Ratings
        Their types.

    Returns
    -------
    dict of str to (m,) bool
        By code; what is unknown does not hold.
    """
    commanded, effect = values["level_commanded_pct"], values["level_in_effect_pct"]
    actual, power = values["level_actual_pct"], values["power_w"]
    effect = np.where(np.isnan(effect), commanded, effect)
    on = effect > 0
    expected = ratings.expected(rows, np.nan_to_num(effect), values["burning_h"])
    rated = ratings.rated[rows]
    # A driver that admits to less light is not dimmed right, but its lamp has not failed.
    given = np.where(actual > 1, np.fmin(actual, effect), effect)
    least = ratings.expected(rows, np.nan_to_num(given), values["burning_h"])
    dark = np.where(np.isnan(least), DARK_W, FAILED_SHARE * least)
    failed = (values["lamp_failure"] > 0) | (on & (power < dark))
    burns = np.where(np.isnan(rated), BURNS_W, np.maximum(2.0, 0.25 * rated))
    unexpected = (commanded == 0) & ((actual > 1) | (power > burns))
    undimmed = on & (np.abs(effect - commanded) > DIM_TOLERANCE_PCT)
    undimmed |= on & (np.abs(actual - effect) > LIGHT_TOLERANCE_PCT)
    undimmed &= ~failed & (commanded > 0)
    settled = on & ~failed & ~undimmed
    off_curve = power - expected
    tolerance = ratings.tolerance[rows] / 100 * rated
    voltage = values["voltage_v"]
    least_factor = ratings.least_factor(rows, np.nan_to_num(effect))
    return {
        "lampFailure": failed,
        "lampUnexpectedOn": unexpected,
        "dimmingFailure": undimmed,
        "lampPowerTooHigh": settled & (off_curve > tolerance),
        "lampPowerTooLow": settled & (off_curve < -tolerance),
        "powerFactorTooLow": settled & (np.abs(values["power_factor"]) < least_factor),
        "supplyVoltageTooHigh": voltage > HIGHEST_V,
        "supplyVoltageTooLow": voltage < LOWEST_V,
        "currentTooHigh": values["current_a"] > 1.5 * rated / LOWEST_V,
        "highTemperature": values["driver_temperature_c"] > HOT_C,
        "controlGearFailure": values["gear_failure"] > 0,
    }
