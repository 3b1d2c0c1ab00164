"""Places on Earth as points in metres, and the distances between them. Pure."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from duha_backend.validate import Array

EQUATOR_M, FLATTENING = 6_378_137.0, 1 / 298.257223563
"""Semi-major axis [m] and flattening of WGS 84."""


class Located(Protocol):
    """Something with a geodetic position [°]."""

    @property
    def latitude(self) -> float: ...  # noqa: D102

    @property
    def longitude(self) -> float: ...  # noqa: D102


def places_of(things: Iterable[Located]) -> Array:
    """Positions of things, (n, 3) [m]."""
    found = [(thing.latitude, thing.longitude) for thing in things]
    return positions(*np.array(found, dtype=float).reshape(-1, 2).T)


def positions(latitude: npt.ArrayLike, longitude: npt.ArrayLike) -> Array:
    """Earth-centred coordinates of places on the WGS 84 ellipsoid.

    The straight distance between two of them is the distance on the ground to within
    1 mm in 10 km, at any latitude and across the 180th meridian; a projection that
    scales each longitude by its own latitude shears the map.

    Parameters
    ----------
    latitude, longitude : (n,) array_like
        Geodetic position [°].

    Returns
    -------
    (n, 3) array
        Coordinates [m].
    """
    phi, lam = (
        np.radians(np.atleast_1d(np.asarray(a, float))) for a in (latitude, longitude)
    )
    squared = FLATTENING * (2 - FLATTENING)
    normal = EQUATOR_M / np.sqrt(1 - squared * np.sin(phi) ** 2)
    across = normal * np.cos(phi)
    return np.column_stack(
        (
            across * np.cos(lam),
            across * np.sin(lam),
            normal * (1 - squared) * np.sin(phi),
        )
    )


def distances(some: Array, others: Array) -> Array:
    """Distances between points.

    Parameters
    ----------
    some, others : (n, k), (m, k) arrays
        Points in any number of dimensions [m].

    Returns
    -------
    (n, m) array
        Distances [m].
    """
    return np.asarray(np.linalg.norm(some[:, None] - others[None], axis=-1))
