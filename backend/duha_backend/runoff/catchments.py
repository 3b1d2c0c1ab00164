"""Catchments and the model that is always on: rain to runoff, a minute at a time. Pure."""

from collections.abc import Sequence

import msgspec
import numpy as np

from duha_backend.errors import Invalid
from duha_backend.runoff.models import LITRES, Bucket, nash, scs_runoff
from duha_backend.validate import Array

STEP_S = 60.0


class Catchment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of the city that drains to one place.

    Attributes
    ----------
    latitude, longitude : float
        Its centre of gravity [°].
    area_ha : float
        Area [ha].
    coefficient : float
        Share of rain that runs off at once, 0 to 1; with `curve_number` of what is paved.
    curve_number : float or None
        SCS curve number of what is not paved, with `dry_h` without rain between storms.
    reservoirs, lag_min : int, float
        Nash cascade: how many, and the time constant of each [min].
    garden_m2, garden_share : float
        Area of its rain gardens and swales [m²], and the share of what is paved that drains
        to them.
    garden_depth_m, garden_conductivity_m_s : float
        How deep they are [m], and how fast their soil takes water [m/s].
    outline : tuple of (longitude, latitude)
        For the map.
    """

    id: str
    name: str
    latitude: float
    longitude: float
    area_ha: float
    coefficient: float = 0.5
    curve_number: float | None = None
    dry_h: float = 6.0
    reservoirs: int = 2
    lag_min: float = 10.0
    garden_m2: float = 0.0
    garden_share: float = 0.5
    garden_depth_m: float = 0.25
    garden_conductivity_m_s: float = 5e-6
    outline: tuple[tuple[float, float], ...] = ()

    def check(self) -> None:
        """Raise Invalid for what cannot be."""
        if self.area_ha <= 0 or not 0 <= self.coefficient <= 1:
            raise Invalid(f"catchment {self.id}: an area, and a coefficient of 0 to 1")
        if self.curve_number is not None and not 1 <= self.curve_number <= 100:
            raise Invalid(f"catchment {self.id}: a curve number is 1 to 100")
        if not 1 <= self.reservoirs <= 10 or self.lag_min <= 0 or self.dry_h <= 0:
            raise Invalid(f"catchment {self.id}: 1 to 10 reservoirs, times over zero")
        if not 0 <= self.garden_m2 <= self.area_ha * 10_000:
            raise Invalid(f"catchment {self.id}: gardens are within the catchment")
        if not 0 <= self.garden_share <= 1 or self.garden_depth_m <= 0:
            raise Invalid(f"catchment {self.id}: a share is 0 to 1, a depth over zero")


class Tier1:
    """Runoff of many catchments at once, with what they remember.

    Parameters
    ----------
    catchments : sequence of Catchment
        Order of every array here.
    """

    def __init__(self, catchments: Sequence[Catchment]) -> None:
        self.catchments = tuple(catchments)
        self.area_ha = np.array([c.area_ha for c in catchments])
        self._paved = np.array([c.coefficient for c in catchments])
        number = [c.curve_number or 0.0 for c in catchments]
        self._curve = np.array(number)
        self._green = self._curve > 0
        self._dry = np.array([c.dry_h * 3600 for c in catchments])
        self._groups = [
            (n, np.flatnonzero([c.reservoirs == n for c in catchments]))
            for n in sorted({c.reservoirs for c in catchments})
        ]
        self._lag = np.array([c.lag_min * 60 for c in catchments])
        self._held = {n: np.zeros((n, len(rows))) for n, rows in self._groups}
        planted = [i for i, c in enumerate(catchments) if c.garden_m2 > 0]
        some = [catchments[i] for i in planted]
        self._planted = np.array(planted, dtype=np.int64)
        self._to_garden = np.array([c.garden_share for c in some])
        self.gardens = Bucket(
            np.array([c.garden_m2 for c in some]),
            np.array([c.garden_depth_m for c in some]),
            np.array([c.garden_conductivity_m_s for c in some]),
        )
        self._fallen = np.zeros(len(catchments))
        self._since = np.full(len(catchments), np.inf)

    def step(self, rain_mm: Array) -> Array:
        """Runoff (t, n) [L/s] of minutes of rain (t, n) [mm]; NaN counts as none."""
        rain = np.asarray(rain_mm, dtype=float)
        if np.isnan(rain.sum()):
            rain = np.nan_to_num(rain)
        # All is linear from here on: rain becomes litres before it is delayed.
        litres = self.area_ha * (LITRES * 60)
        water = rain * (self._paved * litres)
        if self._green.any():
            water += self._green_runoff(rain) * litres
        if len(self._planted):
            self._through_gardens(rain, water)
        if len(self._groups) == 1:
            n = self._groups[0][0]
            out, self._held[n] = nash(water, n, self._lag, STEP_S, self._held[n])
            return out
        out = np.empty(water.shape)
        for n, rows in self._groups:
            out[:, rows], self._held[n] = nash(
                water[:, rows], n, self._lag[rows], STEP_S, self._held[n]
            )
        return out

    def _through_gardens(self, rain: Array, water: Array) -> None:
        """Lead a part of what is paved through its gardens; what spills goes on."""
        none = np.zeros(len(self._planted))
        for t in range(len(rain)):
            led = water[t, self._planted] * self._to_garden
            spilled = self.gardens.step(led, none, STEP_S)
            water[t, self._planted] += spilled - led

    def _green_runoff(self, rain: Array) -> Array:
        """Of what is not paved, by curve numbers over the storm so far [mm]."""
        found = np.zeros(rain.shape)
        curve = np.where(self._green, self._curve, 100.0)
        for t in range(len(rain)):
            self._since = np.where(rain[t] > 0, 0.0, self._since + STEP_S)
            self._fallen = np.where(self._since > self._dry, 0.0, self._fallen)
            before = scs_runoff(self._fallen, curve)
            self._fallen = self._fallen + rain[t]
            found[t] = scs_runoff(self._fallen, curve) - before
        share = (1 - self._paved) * self._green
        return np.asarray(found * share)
