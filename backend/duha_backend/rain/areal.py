"""Rain between the gauges: Thiessen, inverse distances, kriging. Pure.

Places are (n, k) arrays of metres, as `duha_backend.geo.positions` gives them. Weights are kept for each set of gauges that are valid,
so that a minute of rain over a city is one product of matrices. A gauge without a value
(NaN) is left out; where nobody has one there is no value.
"""

from typing import Literal

import numpy as np

from duha_backend.geo import distances
from duha_backend.validate import Array

Method = Literal["idw", "thiessen", "kriging"]
POWER = 2.0
RANGE_M, NUGGET = 4000.0, 0.1
"""Exponential variogram of kriging: practical range [m], nugget as a share of the sill."""
KEPT = 256


class Field:
    """Rain at some points from some gauges.

    Parameters
    ----------
    gauges, points : (g, k), (p, k) arrays
        Places [m].
    method : {"idw", "thiessen", "kriging"}
        How gauges are weighed. Kriging falls back to inverse distances where its equations
        have no answer, as with two gauges in one place.
    """

    def __init__(self, gauges: Array, points: Array, method: Method = "idw") -> None:
        self._gauges = np.asarray(gauges, dtype=float)
        self._points = np.asarray(points, dtype=float)
        self._method = method
        self._distance = distances(self._points, self._gauges)
        self._kept: dict[bytes, Array] = {}

    @property
    def points(self) -> int:
        """How many points."""
        return len(self._points)

    def at(self, rain: Array) -> Array:
        """Rain at the points.

        Parameters
        ----------
        rain : (g,) array
            Of the gauges, in any unit; NaN where there is no value.

        Returns
        -------
        (p,) array
            Never negative; NaN where no gauge has a value.
        """
        valid = ~np.isnan(rain)
        if not valid.any():
            return np.full(len(self._points), np.nan)
        weights = self.weights(valid)
        return np.asarray(np.maximum(0.0, weights @ np.asarray(rain)[valid]))

    def weights(self, valid: Array) -> Array:
        """Weights (p, v) of the valid gauges; each row sums to one."""
        key = np.packbits(valid).tobytes()
        if key not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = self._weigh(valid)
        return self._kept[key]

    def _weigh(self, valid: Array) -> Array:
        distance = self._distance[:, valid]
        if self._method == "thiessen":
            return _nearest(distance)
        if self._method == "kriging":
            between = distances(self._gauges[valid], self._gauges[valid])
            found = _kriged(between, distance)
            if found is not None:
                return found
        return _inverse(distance)


def _nearest(distance: Array) -> Array:
    found = np.zeros(distance.shape)
    found[np.arange(len(distance)), distance.argmin(axis=1)] = 1.0
    return found


def _inverse(distance: Array) -> Array:
    """Shepard (1968): weights by the power of distance; on a gauge it is that gauge."""
    weights = 1 / np.maximum(distance, 1e-6) ** POWER
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _kriged(between: Array, distance: Array) -> Array | None:
    """Ordinary kriging with a fixed exponential variogram; None where it has no answer.

    Negative weights are put to zero and the others scaled, so that rain is never negative
    (Deutsch 1996, Computers & Geosciences 22(7)).
    """
    n = len(between)
    left = np.ones((n + 1, n + 1))
    left[:n, :n] = _variogram(between)
    left[n, n] = 0.0
    right = np.ones((n + 1, len(distance)))
    right[:n] = _variogram(distance).T
    try:
        if np.linalg.cond(left) > 1e12:
            return None
        weights = np.linalg.solve(left, right)[:n].T
    except np.linalg.LinAlgError:
        return None
    weights = np.maximum(0.0, weights)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _variogram(distance: Array) -> Array:
    rise = NUGGET + (1 - NUGGET) * (1 - np.exp(-3 * distance / RANGE_M))
    return np.where(distance > 0, rise, 0.0)
