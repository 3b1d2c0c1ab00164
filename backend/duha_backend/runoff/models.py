"""Models that are always on: many catchments at once, in milliseconds. Pure.

Rain [mm/h] and runoff [mm/h] are over the catchment; `discharge` makes litres a second of
them. Arrays are (steps, catchments), so that a step lies together in memory.
"""

import math

import numpy as np

from duha_backend.validate import Array

LITRES = 1000 / 360
"""One mm/h on one hectare is so many litres a second."""


def rational(coefficient: Array, rain_mm_h: Array, area_ha: Array) -> Array:
    """Peak flow of small catchments [L/s]: Q = psi i A.

    Parameters
    ----------
    coefficient : (n,) array
        Runoff coefficient psi, 0 to 1.
    rain_mm_h : (n,) array
        Rain of the duration of the catchment's concentration time [mm/h].
    area_ha : (n,) array
        Area [ha].

    Notes
    -----
    Kuichling (1889). 36 mm/h on 1 ha of psi 1 is 100 L/s.
    """
    return np.asarray(coefficient * rain_mm_h * area_ha * LITRES)


def discharge(runoff_mm_h: Array, area_ha: Array) -> Array:
    """Flow [L/s] of runoff [mm/h] from areas [ha]; arrays as in `nash`."""
    return np.asarray(runoff_mm_h * (np.asarray(area_ha) * LITRES))


def scs_runoff(rain_mm: Array, curve_number: Array, initial: float = 0.2) -> Array:
    """Runoff depth of a storm [mm]: Q = (P - I)² / (P - I + S), I = `initial` S.

    Parameters
    ----------
    rain_mm : array
        Depth of the storm so far [mm].
    curve_number : array
        SCS curve number, 1 to 100; S = 25400/CN - 254 [mm].
    initial : float
        Initial abstraction as a share of S.

    Notes
    -----
    USDA SCS, Technical Release 55 (1986), equations 2-1 to 2-4.
    """
    storage = 25_400 / np.asarray(curve_number, dtype=float) - 254
    excess = np.maximum(0.0, np.asarray(rain_mm) - initial * storage)
    return np.asarray(excess**2 / np.maximum(excess + storage, 1e-12))


def effective_rain(rain_mm_h: Array, curve_number: Array, step_s: float) -> Array:
    """What of a storm runs off, step by step [mm/h], by SCS curve numbers.

    Parameters
    ----------
    rain_mm_h : (t, n) array
        Rain [mm/h].
    curve_number : (n,) array
        Of each catchment.
    step_s : float
        Length of a step [s].
    """
    fallen = np.cumsum(rain_mm_h, axis=0) * step_s / 3600
    ran = scs_runoff(fallen, curve_number)
    steps = np.diff(ran, axis=0, prepend=0.0)
    return np.asarray(steps * 3600 / step_s)


def nash(
    rain_mm_h: Array, reservoirs: int, lag_s: Array, step_s: float, state: Array | None = None
) -> tuple[Array, Array]:  # fmt: skip
    """Runoff through a cascade of equal linear reservoirs, exact for steps of even rain.

    Parameters
    ----------
    rain_mm_h : (t, n) array
        Effective rain [mm/h].
    reservoirs : int
        How many; one is the linear reservoir.
    lag_s : (n,) array
        Time constant K of each reservoir [s].
    step_s : float
        Length of a step [s].
    state : (reservoirs, n) array, optional
        Outflow of each reservoir before the first step [mm/h].

    Returns
    -------
    runoff : (t, n) array
        Outflow of the last reservoir at the end of each step [mm/h].
    state : (reservoirs, n) array
        To go on from.

    Notes
    -----
    Nash (1957), IASH Publ. 45. Each reservoir: q' = (inflow - q) / K. With x = step / K
    water of reservoir j passes on to i by the share x^(i-j) e^-x / (i-j)! in a step, and
    even rain fills reservoir i by what remains of 1.
    """
    x = np.minimum(step_s / np.asarray(lag_s, dtype=float), 700.0)
    passed = [np.exp(-x)]  # what passes on by 0, 1, 2 .. reservoirs in a step
    for number in range(1, reservoirs):
        passed.append(passed[-1] * x / number)
    filled = [-np.expm1(-x)]
    for share in passed[1:]:
        filled.append(np.maximum(0.0, filled[-1] - share))
    steps, n = rain_mm_h.shape
    out = np.empty((steps, n))
    held = np.zeros((reservoirs, n)) if state is None else state.copy()
    more = np.empty(n)
    for step in range(steps):
        rain = rain_mm_h[step]
        for number in range(reservoirs - 1, -1, -1):  # those above still as they were
            water = held[number]
            water *= passed[0]
            for above in range(number):
                np.multiply(held[above], passed[number - above], out=more)
                water += more
            np.multiply(rain, filled[number], out=more)
            water += more
        out[step] = held[-1]
    return out, held


def nash_peak(reservoirs: int, lag_s: float) -> tuple[float, float]:
    """Time [s] and height [1/s] of the peak of the instantaneous unit hydrograph.

    u(t) = (t/K)^(n-1) e^(-t/K) / (K Gamma(n)), at its greatest at (n - 1) K.
    """
    t = (reservoirs - 1) * lag_s
    x = t / lag_s
    return t, x ** (reservoirs - 1) * math.exp(-x) / (lag_s * math.gamma(reservoirs))


class Bucket:
    """Swales and rain gardens: filled by rain and runoff, emptied by soil and throttle.

    Parameters
    ----------
    area_m2, depth_m : (n,) arrays
        Infiltrating area [m²] and greatest depth of water [m].
    conductivity_m_s : (n,) array
        Of the saturated soil [m/s]; half of it counts (safety f = 2, ČSN 75 9010).
    throttle_l_s : (n,) array
        Outflow while there is water [L/s].
    porosity : (n,) array
        Share of the volume that holds water; 1 for an open basin.

    Attributes
    ----------
    depth : (n,) array
        Water now [m].
    infiltrated_m3, throttled_m3, spilled_m3 : (n,) arrays
        What has left so far [m³].
    """

    def __init__(
        self,
        area_m2: Array,
        depth_m: Array,
        conductivity_m_s: Array,
        throttle_l_s: Array | float = 0.0,
        porosity: Array | float = 1.0,
    ) -> None:
        self._area = np.asarray(area_m2, dtype=float)
        self._most = np.asarray(depth_m, dtype=float)
        self._soil = np.asarray(conductivity_m_s, dtype=float) / 2
        self._throttle = np.broadcast_to(throttle_l_s, self._area.shape) / 1000
        self._holds = self._area * np.broadcast_to(porosity, self._area.shape)
        self.depth = np.zeros_like(self._area)
        self.infiltrated_m3 = np.zeros_like(self._area)
        self.throttled_m3 = np.zeros_like(self._area)
        self.spilled_m3 = np.zeros_like(self._area)

    def step(self, inflow_l_s: Array, rain_mm_h: Array, step_s: float) -> Array:
        """One step; returns what spills over [L/s]."""
        came = (inflow_l_s / 1000 + rain_mm_h / 3.6e6 * self._area) * step_s
        volume = self.depth * self._holds + came
        soaked = np.minimum(volume, self._soil * self._area * step_s)
        volume = volume - soaked
        throttled = np.minimum(volume, self._throttle * step_s)
        volume = volume - throttled
        spilled = np.maximum(0.0, volume - self._most * self._holds)
        self.depth = (volume - spilled) / self._holds
        self.infiltrated_m3 += soaked
        self.throttled_m3 += throttled
        self.spilled_m3 += spilled
        return np.asarray(spilled / step_s * 1000)

    def volume_m3(self) -> Array:
        """Water in it now [m³]."""
        return np.asarray(self.depth * self._holds)

    def emptying_h(self) -> Array:
        """How long until it is empty without more rain [h]."""
        rate = self._soil * self._area + self._throttle
        return np.asarray(self.volume_m3() / np.maximum(rate, 1e-12) / 3600)
