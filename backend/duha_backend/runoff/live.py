"""What a live model is asked to be: its file, where its rain is from, what is kept. Pure."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from duha_backend.errors import Invalid
from duha_backend.geo import places_of, positions
from duha_backend.lighting.inventory import Asset
from duha_backend.rain.areal import Field
from duha_backend.runoff.inp import LARGEST_BYTES, describe, parse
from duha_backend.validate import Array

MOST_MM_H = 400.0
"""More than that is no rain: 200 mm/h within five minutes are rarer than a century."""
FEW = 200
"""A model with no more nodes keeps the results of all of them."""


class Place(msgspec.Struct, frozen=True):
    """Where rain of a model falls: on a gauge of the city, or at a place."""

    gauge: str = ""
    latitude: float | None = None
    longitude: float | None = None


class SwmmModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A SWMM model of the city.

    Attributes
    ----------
    raw : bytes
        Its input file, as its author wrote it.
    gauges : dict of str to Place
        Where the rain of each of its rain gages is from. One that is not named takes the
        city's gauge of its own name, or else the rain at the centre of the model.
    latitude, longitude : float or None
        Centre of the model [°]; the middle of the gauges when left out.
    replay_days : int
        How far back it begins cold [d]: long enough for everything in it to have drained.
    running : bool
        Whether it runs live.
    horizon_h : float
        How far its forecasts go [h].
    """

    id: str
    name: str
    raw: bytes
    gauges: dict[str, Place] = {}
    latitude: float | None = None
    longitude: float | None = None
    replay_days: int = 7
    running: bool = True
    horizon_h: float = 3.0

    def check(self) -> None:
        """Raise Invalid for what cannot be; whether SWMM takes it, SWMM says."""
        if not 0 < len(self.raw) <= LARGEST_BYTES:
            raise Invalid(f"a model has 1 byte to {LARGEST_BYTES // 1_000_000} MB")
        if not 1 <= self.replay_days <= 30 or not 0 < self.horizon_h <= 48:
            raise Invalid("a model is replayed 1 to 30 days, and forecast up to 48 h")
        known = describe(parse(self.raw)).gauges
        for name in self.gauges:
            if name not in known:
                raise Invalid(
                    f"the model has no rain gage {name!r}; it has {', '.join(known)}"
                )


def rain_field(
    model: SwmmModel, names: Sequence[str], gauges: Sequence[Asset]
) -> Array:
    """Position of each rain gage of a model, (n, 3) [m].

    Parameters
    ----------
    model : SwmmModel
        The model.
    names : sequence of str
        Its rain gages.
    gauges : sequence of Asset
        Those of the city.

    Raises
    ------
    Invalid
        A gauge is named that the city does not have.
    """
    places = places_of(gauges)
    at = {gauge.id: place for gauge, place in zip(gauges, places, strict=True)}
    middle = places.mean(axis=0) if at else np.zeros(3)
    if model.latitude is not None and model.longitude is not None:
        middle = positions(model.latitude, model.longitude)[0]
    found = []
    for name in names:
        place = model.gauges.get(name, Place(name if name in at else ""))
        if place.gauge:
            if place.gauge not in at:
                raise Invalid(
                    f"rain gage {name}: the city has no gauge {place.gauge!r}"
                )
            found.append(at[place.gauge])
        elif place.latitude is not None and place.longitude is not None:
            found.append(positions(place.latitude, place.longitude)[0])
        else:
            found.append(middle)
    return np.array(found, dtype=float).reshape(-1, 3)


def areal(field: Field, rain_mm: Array) -> Array:
    """Rain (p, t) at the points of a field from rain (g, t) of its gauges; NaN for none."""
    found = np.full((field.points, rain_mm.shape[1]), np.nan)
    valid = ~np.isnan(rain_mm)
    patterns, which = np.unique(valid, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        known = patterns[:, number]
        if known.any():
            minutes = np.flatnonzero(which.ravel() == number)
            found[:, minutes] = field.weights(known) @ rain_mm[np.ix_(known, minutes)]
    return np.asarray(np.maximum(found, 0.0))


def kept(
    nodes: Sequence[str], links: Sequence[str], outfalls: Sequence[str],
    watched: Mapping[str, Sequence[str]],
) -> tuple[list[int], list[int]]:  # fmt: skip
    """Rows of the nodes and links whose results are stored."""
    if len(nodes) <= FEW:
        return list(range(len(nodes))), list(range(len(links)))
    named = {*outfalls, *watched.get("node", ())}
    conduits = set(watched.get("link", ()))
    return (
        [i for i, name in enumerate(nodes) if name in named],
        [i for i, name in enumerate(links) if name in conduits],
    )


def device(model: str, name: str) -> str:
    """Id under which results of a part of a model are stored: ``model.part``."""
    clean = "".join(
        c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name
    )
    return f"{model}.{clean}"[:64]
