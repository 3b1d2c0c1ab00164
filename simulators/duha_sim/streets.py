"""A city of any size on a generated street plan at Plzeň's coordinates. Pure."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PLZEN = (49.7475, 13.3776)
ZONE = "Europe/Prague"
_TURN = math.radians(11)
_DISTRICTS = (
    "Vnitřní Město", "Jižní Předměstí", "Slovany", "Lochotín", "Bolevec", "Doubravka",
    "Skvrňany", "Bory", "Lobzy", "Koterov", "Košutka", "Křimice",
)  # fmt: skip
_STREETS = (
    "Lipová", "Školní", "Dlouhá", "Zahradní", "Polní", "Na Kopci", "Květná", "Nádražní",
    "Mlýnská", "Luční", "Javorová", "U Potoka", "Sadová", "Krátká", "Pod Lesem",
    "Jiráskova", "Tylova", "Spojovací", "Na Výsluní", "Březová", "Hřbitovní", "Okružní",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Street:
    """A named polyline [(longitude, latitude)]."""

    name: str
    main: bool
    line: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Device:
    """Something on a bus of a cabinet, and where it stands [°]."""

    id: str
    kind: str
    profile: str
    unit: int
    bus: str
    latitude: float
    longitude: float
    street: str = ""
    type: str = ""
    feeder: str = ""
    stretch: str = ""


@dataclass(frozen=True, slots=True)
class Bus:
    """A line of a cabinet; units of one line share it."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Cabinet:
    """A cabinet (RVO) with its lines and devices."""

    id: str
    district: str
    latitude: float
    longitude: float
    buses: tuple[Bus, ...]
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class City:
    """Streets and cabinets."""

    id: str
    name: str
    streets: tuple[Street, ...]
    cabinets: tuple[Cabinet, ...]


TYPES = {"LED-38": 38.0, "LED-62": 62.0, "LED-85": 85.0}
"""Types of luminaires and their rated power [W]."""
FEEDERS = 3
UNITS_OF_A_LINE = 200
"""Luminaires on one line; the addresses above are for meters and gauges."""


def generate(
    cabinets: int = 4,
    luminaires: int = 60,
    gauges: int = 6,
    rtu: int = 1,
    seed: int = 1,
) -> City:
    """Lay out a city.

    Parameters
    ----------
    cabinets, luminaires : int
        Number of cabinets, and luminaires of each.
    gauges : int
        Rain gauges, dealt out to the cabinets in turn.
    rtu : int
        How many of the cabinets (the last ones) have serial lines instead of TCP.
    seed : int
        The same seed lays out the same city.
    """
    chance = random.Random(seed)
    columns = math.ceil(math.sqrt(cabinets))
    size = 520 * math.sqrt(max(luminaires, 12) / 60)
    patches = [
        _Patch(
            number=n,
            east=(n % columns - (columns - 1) / 2) * size,
            north=((columns - 1) / 2 - n // columns) * size * 0.85,
            size=size,
        )
        for n in range(cabinets)
    ]
    streets = [_streets(patch, chance) for patch in patches]
    made = tuple(
        _cabinet(
            patch,
            roads,
            luminaires,
            [g for g in range(gauges) if g % cabinets == patch.number],
            serial=patch.number >= cabinets - rtu,
        )
        for patch, roads in zip(patches, streets, strict=True)
    )
    flat = tuple(road.street for roads in streets for road in roads)
    return City("plzen", "Plzeň (simulated)", flat, made)


@dataclass(frozen=True, slots=True)
class _Patch:
    """The part of the plan that one cabinet feeds [m from the centre]."""

    number: int
    east: float
    north: float
    size: float


@dataclass(frozen=True, slots=True)
class _Road:
    street: Street
    metres: tuple[tuple[float, float], ...]


def _degrees(east: float, north: float) -> tuple[float, float]:
    """Longitude and latitude of a place in metres from the centre, plan turned."""
    x = east * math.cos(_TURN) - north * math.sin(_TURN)
    y = east * math.sin(_TURN) + north * math.cos(_TURN)
    latitude = PLZEN[0] + y / 111_200
    longitude = PLZEN[1] + x / (111_200 * math.cos(math.radians(PLZEN[0])))
    return round(longitude, 7), round(latitude, 7)


def _streets(patch: _Patch, chance: random.Random) -> list[_Road]:
    """A main street through the patch, side streets along it and across."""
    half, deep = patch.size / 2, patch.size * 0.85 / 2
    bend = chance.uniform(-0.05, 0.05) * patch.size
    roads = []
    for share in (0.0, -0.62, 0.62):
        north = patch.north + share * deep
        points = [
            (
                patch.east + half * x,
                north + (bend * math.cos(x * math.pi / 2) if share else 0.0),
            )
            for x in (-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1)
        ]
        roads.append(_road(patch, chance, points, main=share == 0.0))
    for share in (-0.66, -0.05, 0.58):
        east = patch.east + (share + chance.uniform(-0.06, 0.06)) * half
        points = [(east, patch.north + deep * y) for y in (-1, -0.5, 0, 0.5, 1)]
        roads.append(_road(patch, chance, points, main=False))
    return roads


def _road(
    patch: _Patch,
    chance: random.Random,
    points: list[tuple[float, float]],
    *,
    main: bool,
) -> _Road:
    name = (
        f"{_DISTRICTS[patch.number % len(_DISTRICTS)]} třída"
        if main
        else chance.choice(_STREETS)
    )
    line = tuple(_degrees(*point) for point in points)
    return _Road(Street(name, main, line), tuple(points))


def _along(roads: list[_Road], count: int) -> Iterator[tuple[int, float, float]]:
    """Road (by number) and place of `count` luminaires at even distances."""
    total = sum(_length(road) for road in roads)
    spacing = total / max(1, count)
    left = spacing / 2
    for number, road in enumerate(roads):
        for start, end in zip(road.metres, road.metres[1:], strict=False):
            length = math.dist(start, end)
            while left < length:
                share = left / length
                yield (
                    number,
                    start[0] + share * (end[0] - start[0]),
                    start[1] + share * (end[1] - start[1]),
                )
                left += spacing
            left -= length


def _length(road: _Road) -> float:
    return sum(
        math.dist(a, b) for a, b in zip(road.metres, road.metres[1:], strict=False)
    )


def _cabinet(
    patch: _Patch, roads: list[_Road], count: int, gauges: list[int], *, serial: bool
) -> Cabinet:
    name = f"RVO-{patch.number + 1:03d}"
    kind = "rtu" if serial else "tcp"
    lines = max(1, math.ceil(count / UNITS_OF_A_LINE))
    buses = tuple(Bus(f"line{n + 1}", kind) for n in range(lines))
    devices = []
    for number, (road, east, north) in enumerate(_along(roads, count)):
        longitude, latitude = _degrees(east, north)
        street = roads[road].street
        usual = "LED-62" if road % 2 else "LED-38"
        devices.append(
            Device(
                id=f"{name}-L{number + 1:03d}",
                kind="luminaire",
                profile="luminaire-generic",
                unit=number % UNITS_OF_A_LINE + 1,
                bus=buses[number // UNITS_OF_A_LINE].name,
                latitude=latitude,
                longitude=longitude,
                street=street.name,
                type="LED-85" if street.main else usual,
                feeder=f"F{road % FEEDERS + 1}",
                stretch=f"{name}-S{road + 1}",
            )
        )
    longitude, latitude = _degrees(patch.east + 8, patch.north + 12)
    devices.append(
        Device(
            f"{name}-E1", "meter", "eastron-sdm630", 240, "line1", latitude, longitude
        )
    )
    for turn, gauge in enumerate(gauges):
        shift = patch.size * (0.28 - 0.5 * turn)
        at = _degrees(patch.east + shift, patch.north - shift * 0.7)
        devices.append(
            Device(
                f"SR-{gauge + 1:02d}",
                "rain_gauge",
                "rain-gauge-generic",
                210 + turn,
                "line1",
                at[1],
                at[0],
            )
        )
    return Cabinet(
        name,
        _DISTRICTS[patch.number % len(_DISTRICTS)],
        latitude,
        longitude,
        buses,
        tuple(devices),
    )


def geojson(city: City) -> dict[str, Any]:
    """The city as a GeoJSON FeatureCollection, as the backend imports it."""
    features = [_street_feature(street) for street in city.streets]
    for cabinet in city.cabinets:
        features.append(
            _point(
                cabinet.longitude,
                cabinet.latitude,
                id=cabinet.id,
                kind="cabinet",
                district=cabinet.district,
            )
        )
        features += [
            _point(
                device.longitude,
                device.latitude,
                id=device.id,
                kind=device.kind,
                cabinet=cabinet.id,
                district=cabinet.district,
                street=device.street,
                type=device.type,
                feeder=device.feeder,
                stretch=device.stretch,
            )
            for device in cabinet.devices
        ]
    return {"type": "FeatureCollection", "name": city.name, "features": features}


def _street_feature(street: Street) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {
            "type": "LineString",
            "coordinates": [list(p) for p in street.line],
        },
        "properties": {"kind": "street", "name": street.name, "main": street.main},
    }


def _point(longitude: float, latitude: float, **properties: str) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [longitude, latitude]},
        "properties": properties,
    }
