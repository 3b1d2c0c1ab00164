"""Devices behind their units, and the requests that read them. Pure."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from duha_contract.quantities import BY_NAME
from duha_edge.points import WORTH_READING, Block, blocks, decoder, holes
from duha_edge.profiles import Point, Profile, TableName
from duha_edge.site import BusConfig, DeviceConfig, SiteFile

LEVEL = "level_in_effect_pct"
DAY_S = 86_400.0
_FAST = frozenset(("fast",))


class Reader(NamedTuple):
    """How the value of a point is got from registers, and its range [its unit]."""

    point: Point
    value: Callable[[Mapping[int, int]], float | None]
    low: float
    high: float


Readers = tuple[Reader, ...]


class Device(NamedTuple):
    """A configured device with the profile of its place."""

    config: DeviceConfig
    profile: Profile

    @property
    def id(self) -> str:
        """Its name."""
        return self.config.id

    @property
    def dimmable(self) -> bool:
        """Whether the site lets its level be written."""
        return LEVEL in self.config.writes


class GroupWrite(NamedTuple):
    """One write that reaches its members and nobody else."""

    unit: int
    profile: str
    point: Point
    members: frozenset[str]


class LinePlan(msgspec.Struct, frozen=True):
    """All that the site file and the profiles say about one line; equal plans are one."""

    bus: BusConfig
    devices: tuple[Device, ...]
    groups: tuple[GroupWrite, ...]
    period_s: float
    slow_s: float


def line_plans(file: SiteFile) -> dict[str, LinePlan]:
    """The plan of every line of a site file; raises ConfigError like `site.load`."""
    library = file.library
    devices: dict[str, list[Device]] = {bus.name: [] for bus in file.bus}
    groups: dict[str, list[GroupWrite]] = {bus.name: [] for bus in file.bus}
    for config in file.device:
        profile = library.load(config.profile).placed(config.at)
        devices[config.bus].append(Device(config, profile))
    for group in file.group:
        point = library.load(group.profile).group_point(group.register, group.at)
        groups[group.bus].append(
            GroupWrite(group.unit, group.profile, point, frozenset(group.members))
        )
    return {
        bus.name: LinePlan(
            bus,
            tuple(devices[bus.name]),
            tuple(groups[bus.name]),
            file.site.period_s,
            file.site.slow_s,
        )
        for bus in file.bus
    }


class Unit:
    """Everything behind one address of a line; a gateway has many devices there.

    Its devices are read together: a request may tell about several of them.
    """

    def __init__(
        self, number: int, devices: Iterable[Device], slow_s: float = 900.0
    ) -> None:
        self.number = number
        self.devices = tuple(devices)
        self._alone = any(device.profile.alone for device in self.devices)
        self._max_words = min(device.profile.max_words for device in self.devices)
        self._fences = tuple({f for d in self.devices for f in d.profile.fence})
        self._starts: set[tuple[TableName, int]] = set()
        self._every = {"fast": 0.0, "slow": slow_s, "nightly": DAY_S, "once": math.inf}
        self._every = {
            name: every
            for name, every in self._every.items()
            if any(p.poll == name for d in self.devices for p in d.profile.point)
        }
        self._slow = any(name != "fast" for name in self._every)
        self._read_at: dict[str, float] = {}
        self._gap = WORTH_READING
        self._plans: dict[frozenset[str], tuple[Block, ...]] = {}
        self._readers: dict[frozenset[str], tuple[tuple[Device, Readers], ...]] = {}

    def due(self, now: float) -> frozenset[str]:
        """Poll classes whose points are to be read at POSIX time `now` [s]."""
        read_at = self._read_at
        if not self._slow:
            return _FAST
        return frozenset(
            [
                name
                for name, every in self._every.items()
                if name not in read_at or not 0 <= now - read_at[name] < every
            ]
        )

    def was_read(self, classes: frozenset[str], now: float) -> None:
        """The points of these classes have given an answer."""
        if self._slow:
            self._read_at |= dict.fromkeys(classes, now)

    def readers(self, classes: frozenset[str]) -> tuple[tuple[Device, Readers], ...]:
        """How the points of some poll classes are read, device by device."""
        if classes not in self._readers:
            self._readers[classes] = tuple(
                (
                    device,
                    tuple(
                        _reader(device.profile.kind, point)
                        for point in device.profile.point
                        if point.poll in classes
                    ),
                )
                for device in self.devices
            )
        return self._readers[classes]

    def blocks(
        self, classes: frozenset[str], gap: int = WORTH_READING
    ) -> tuple[Block, ...]:
        """The requests that read the points of some poll classes of all its devices."""
        if gap != self._gap:
            self._gap = gap
            self._plans.clear()
        if classes not in self._plans:
            self._plans[classes] = self.plan(
                p for d in self.devices for p in d.profile.point if p.poll in classes
            )
        return self._plans[classes]

    def plan(self, points: Iterable[Point]) -> tuple[Block, ...]:
        """The requests that read some points, along what the unit is known to refuse."""
        return blocks(
            points,
            self._gap,
            fences=self._fences,
            alone=self._alone,
            max_words=self._max_words,
            starts=self._starts,
        )

    def learn(self, refused: Block) -> bool:
        """Ask for what a refused request covered in other parts from now on.

        First without the holes that it read along, then each point by itself.

        Returns
        -------
        bool
            False when the request cannot be parted: it is the point that is refused.
        """
        points = [point for device in self.devices for point in device.profile.point]
        fences = holes(refused, points)
        inside = {
            (point.table, point.address)
            for point in points
            if point.table == refused.table
            and refused.address < point.address < refused.address + refused.length
        }
        if fences:
            self._fences += fences
        elif inside - self._starts:
            self._starts |= inside
        else:
            return False
        self._plans.clear()
        return True


def _reader(kind: str, point: Point) -> Reader:
    quantity = BY_NAME[kind][point.quantity]
    return Reader(point, decoder(point), quantity.low, quantity.high)


def units_of(plan: LinePlan) -> list[Unit]:
    """The units of a line, in the order of the site file."""
    found: dict[int, list[Device]] = {}
    for device in plan.devices:
        found.setdefault(device.config.unit, []).append(device)
    return [Unit(number, devices, plan.slow_s) for number, devices in found.items()]
