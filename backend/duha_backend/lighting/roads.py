"""Which roads are wet: from the tips of gauges to conditions that raise the light.

Every gauge stands for the roads near it. A stretch is as wet as the wettest of the
gauges near it; where none of them has answered lately it gets the light of its normal
class: a broken gauge must never make a street darker.
"""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from duha_backend.lighting.inventory import Asset
from duha_backend.live import Live
from duha_backend.validate import Array
from duha_contract.lighting import Condition
from duha_contract.roads import Drying, Road, RoadState, advance, dry_at, state

NEAR_M = 1500.0
EARTH_M = 6_371_008.8
_AT_ONCE = 1000
LOOK_BACK_MS = 3 * 3_600_000
HOLD_STEP_MS = 10 * 60_000
RAIN_STALE_MS = 15 * 60_000
STALE_HOLD_MS = 60 * 60_000
DETECTED_MM = 0.1
"""A detector that sees rain says not how much; it is taken for so much a reading."""

Gauges = tuple[str, ...]


class Area(NamedTuple):
    """Luminaires of a cabinet that the same gauges are near to; None: all of them."""

    gauges: Gauges
    devices: tuple[str, ...] | None


class Roads:
    """Weighs rain against drying for every gauge; `conditions` by cabinet."""

    def __init__(self, live: Live, drying: Drying | None = None) -> None:
        self._live = live
        self.drying = drying or Drying()
        self._roads: dict[str, Road] = {}
        self._seen: dict[str, int] = {}
        self._standing: dict[Gauges, Condition] = {}
        self._areas: dict[str, list[Area]] = {}
        self._version = -1
        self.conditions: dict[str, tuple[Condition, ...]] = {}

    @property
    def standing(self) -> dict[Gauges, Condition]:
        """The conditions in force, by the gauges that they come from."""
        return self._standing

    def areas(self) -> dict[str, list[Area]]:
        """Which gauges are near to which luminaires, by cabinet."""
        if self._version != self._live.version:
            self._version = self._live.version
            self._areas = _areas(self._live)
        return self._areas

    def weigh(self, now: int) -> bool:
        """Work out which roads are wet; True when that has changed."""
        before = self.conditions
        areas = self.areas()
        for gauge in list(self._live.rain):
            self._advance(gauge, now)
        needed = {area.gauges for mine in areas.values() for area in mine}
        self._standing = {
            gauges: condition
            for gauges in needed
            if (condition := self._wet(gauges, now)) is not None
        }
        self.conditions = {
            cabinet: found
            for cabinet, mine in areas.items()
            if (found := self._of(mine))
        }
        return before != self.conditions

    def state_of(self, cabinet: str, device: str, now: int) -> RoadState | None:
        """State of the road under a luminaire; None where no gauge says."""
        return self.state_of_area(self.area_of(cabinet, device), now)

    def state_of_area(self, area: Area, now: int) -> RoadState | None:
        """State of the roads of an area; None where no gauge says."""
        states = [
            self._state(gauge, now) for gauge in area.gauges if self._fresh(gauge, now)
        ]
        order = ("snow", "wet", "drying", "wetting", "dry")
        return min(states, key=order.index, default=None)

    def area_of(self, cabinet: str, device: str) -> Area:
        """The area that a luminaire lies in."""
        for area in self.areas().get(cabinet, []):
            if area.devices is None or device in area.devices:
                return area
        return Area((), None)

    def _state(self, gauge: str, now: int) -> RoadState:
        return state(self._roads.get(gauge, Road(now / 1000)), self.drying, now / 1000)

    def _of(self, areas: Iterable[Area]) -> tuple[Condition, ...]:
        """The conditions of a cabinet's areas."""
        return tuple(
            _for(condition, area.devices)
            for area in areas
            if (condition := self._standing.get(area.gauges)) is not None
        )

    def _advance(self, gauge: str, now: int) -> None:
        """Take the tips that have come since the last look, in their order."""
        seen = self._seen.get(gauge, now - LOOK_BACK_MS)
        falls = self._live.rain[gauge].after(seen)
        warm, falling = self._weather(gauge, now)
        road = self._roads.get(gauge, Road((falls[0][0] if falls else now) / 1000))
        for ts, mm in falls:
            road = advance(road, self.drying, ts / 1000, mm, warm)
        if falling:
            road = advance(road, self.drying, now / 1000, DETECTED_MM, warm)
        self._roads[gauge] = advance(road, self.drying, now / 1000, 0.0, warm)
        self._seen[gauge] = max([seen, *(ts for ts, _ in falls)])

    def _weather(self, gauge: str, now: int) -> tuple[float | None, bool]:
        """Air temperature [°C] and whether it rains, from the nearest detector."""
        here = self._live.assets.get(gauge)
        latest = self._live.latest["rain_detector"]
        near = [
            (_metres(here, asset), name)
            for name in latest.index
            if here is not None and (asset := self._live.assets.get(name)) is not None
        ]
        for metres, name in sorted(near):
            reading = latest.reading(name)
            if reading is not None and now - reading.ts <= RAIN_STALE_MS:
                falls = reading.values.get("precipitation") == 1
                return reading.values.get("temperature_c"), falls and metres <= NEAR_M
        return None, False

    def _wet(self, gauges: Gauges, now: int) -> Condition | None:
        """The condition of an area; a standing one is moved in large steps only."""
        old = self._standing.get(gauges)
        old = old if old is not None and old.end > now else None
        fresh = [gauge for gauge in gauges if self._fresh(gauge, now)]
        if not fresh:
            known = any(self._live.age_ms(gauge, now) is not None for gauge in gauges)
            return (
                _until(old, now, now + STALE_HOLD_MS, "no rain data") if known else old
            )
        wet = [gauge for gauge in fresh if self._roads[gauge].wet]
        if not wet:
            return old
        last = max(wet, key=lambda gauge: dry_at(self._roads[gauge], self.drying))
        end = round(dry_at(self._roads[last], self.drying) * 1000)
        return _until(old, now, end, last)

    def _fresh(self, gauge: str, now: int) -> bool:
        age = self._live.age_ms(gauge, now)
        return age is not None and age <= RAIN_STALE_MS


def _for(condition: Condition, devices: tuple[str, ...] | None) -> Condition:
    return Condition(
        condition.kind, condition.start, condition.end, condition.detail, devices
    )


def _until(old: Condition | None, now: int, end: int, detail: str) -> Condition:
    """A wet road until `end` [ms], moved in large steps.

    A document that moved with every tip would be sent with every tip.
    """
    if old is not None and end - old.end < HOLD_STEP_MS:
        return old
    return Condition("wet_road", old.start if old else now, end, detail)


def _areas(live: Live) -> dict[str, list[Area]]:
    """Luminaires of each cabinet by the gauges near their stretch, street or cabinet."""
    gauges = [a for a in live.assets.values() if a.kind == "rain_gauge"]
    if not gauges:
        return {}
    where = places(gauges)
    found: dict[str, list[Area]] = {}
    by_cabinet: dict[str, dict[str, list[Asset]]] = {}
    for asset in live.luminaires:
        part = asset.stretch or asset.street
        by_cabinet.setdefault(asset.cabinet, {}).setdefault(part, []).append(asset)
    for cabinet, parts in by_cabinet.items():
        mine: dict[Gauges, list[str]] = {}
        for lamps in parts.values():
            far = np.linalg.norm(where - places(lamps).mean(axis=0), axis=1)
            mine.setdefault(_near(gauges, far), []).extend(lamp.id for lamp in lamps)
        found[cabinet] = [
            Area(near, None if len(mine) == 1 else tuple(devices))
            for near, devices in mine.items()
            if near
        ]
    return found


def _near(gauges: list[Asset], metres: Array) -> Gauges:
    """The gauges near a place, or else the nearest one."""
    near = np.flatnonzero(metres <= NEAR_M)
    if not len(near):
        near = np.flatnonzero(metres == metres.min())
    return tuple(sorted(gauges[i].id for i in near))


def places(assets: Sequence[Asset]) -> Array:
    """Places on the sphere (n, 3), so that straight lines are distances [m] in a city."""
    degrees = np.array([(a.latitude, a.longitude) for a in assets]).reshape(-1, 2)
    latitude, longitude = np.radians(degrees).T
    ring = np.cos(latitude)
    axes = (ring * np.cos(longitude), ring * np.sin(longitude), np.sin(latitude))
    return EARTH_M * np.stack(axes, axis=1)


def _metres(one: Asset, other: Asset) -> float:
    here, there = places([one, other])
    return float(np.linalg.norm(here - there))


def neighbours(
    lamps: Sequence[Asset], centres: Sequence[Asset], metres: float
) -> list[str]:
    """Ids of the luminaires that stand so near to one of some others [m].

    Only luminaires of the same cell of a grid and of those beside it are compared.
    """
    meant = {centre.id for centre in centres}
    near = np.array([lamp.id in meant for lamp in lamps], dtype=bool)
    if metres > 0 and len(centres):
        where, around = places(lamps), places(centres)
        others = _cells(around, metres)
        for cell, mine in _cells(where, metres).items():
            rows = mine[~near[mine]]
            beside = [others[b] for b in _beside(cell) if b in others]
            if len(rows) and beside:
                near[rows] = _any_within(
                    where[rows], around[np.concatenate(beside)], metres
                )
    return [lamps[i].id for i in np.flatnonzero(near).tolist()]


Cell = tuple[int, int, int]


def _cells(where: Array, side: float) -> dict[Cell, Array]:
    """Rows of places by the cube of a grid that they lie in."""
    cells = np.floor(where / side).astype(np.int64)
    found, of = np.unique(cells, axis=0, return_inverse=True)
    order = np.argsort(of.ravel(), kind="stable")
    starts = np.searchsorted(of.ravel()[order], np.arange(1, len(found)))
    rows = np.split(order, starts)
    return {
        (x, y, z): mine for (x, y, z), mine in zip(found.tolist(), rows, strict=True)
    }


def _beside(cell: Cell) -> Iterable[Cell]:
    x, y, z = ((part - 1, part, part + 1) for part in cell)
    return product(x, y, z)


def _any_within(where: Array, around: Array, metres: float) -> Array:
    """Which places lie within a distance [m] of one of some others."""
    found = np.zeros(len(where), dtype=bool)
    for start in range(0, len(around), _AT_ONCE):
        some = around[start : start + _AT_ONCE]
        left = np.flatnonzero(~found)
        far = np.linalg.norm(where[left, None] - some[None], axis=2)
        found[left] = (far <= metres).any(axis=1)
    return found
