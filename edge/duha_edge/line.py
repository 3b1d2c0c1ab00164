"""One line with its devices: polls them at a fixed rate, brings lamps to their levels."""

import asyncio
import logging
import math
import time
from collections.abc import Iterable
from typing import NamedTuple

from duha_contract.clock import Clock
from duha_contract.quantities import BY_NAME
from duha_edge.bus import Bus
from duha_edge.errors import BusError, NotAllowed, Refused
from duha_edge.executor import Executor, together
from duha_edge.parts import side_by_side
from duha_edge.points import Block, decode, register_write
from duha_edge.profiles import Point
from duha_edge.pulse import Pulse
from duha_edge.recorder import Cycle, Recorder, Values
from duha_edge.turns import Urgency
from duha_edge.units import LEVEL, Device, LinePlan, Readers, Unit, units_of

log = logging.getLogger(__name__)

ILLEGAL_ADDRESS, ILLEGAL_VALUE = 2, 3
SLOWEST_S = 60.0
"""Longest time that one step of a cycle may take before the line counts as stuck [s]."""
WATCH_S = 1.0
"""How often rain gauges are asked for their count, in real seconds: rain cannot wait."""
COUNT = "counter_raw"


class _Image:
    """Registers of a unit as they were read, and what could not be.

    `complete` says that every request got an answer, be it a refusal.
    """

    def __init__(self) -> None:
        self._words: dict[str, dict[int, int]] = {}
        self._times: list[tuple[Block, int]] = []
        self.refused = False
        self.complete = False

    def add(self, block: Block, found: dict[int, int], ts: int) -> None:
        self._times.append((block, ts))
        if block.table in self._words:
            self._words[block.table] |= found
        else:
            self._words[block.table] = found

    def words(self, table: str) -> dict[int, int]:
        return self._words.get(table, _NOTHING)

    def time_of(self, readers: Readers) -> int:
        """When the last of some points was answered [ms]; 0 when none was."""
        if len(self._times) == 1 and not self.refused and self.complete:
            return self._times[0][1]  # the usual case: one request tells it all
        return max(
            (
                ts
                for block, ts in self._times
                if any(
                    point.table == block.table
                    and 0 <= point.address - block.address < block.length
                    for point, *_ in readers
                )
            ),
            default=0,
        )


_NOTHING: dict[int, int] = {}


class _Answer(NamedTuple):
    """What a unit has said to the points of some poll classes."""

    unit: Unit
    classes: frozenset[str]
    image: _Image


class Line:
    """Serves one line until cancelled.

    Parameters
    ----------
    plan : LinePlan
        What hangs on it.
    clock, executor, recorder, pulse : Clock, Executor, Recorder, Pulse
        Time, wanted levels, where readings go, and who is told of progress.
    """

    def __init__(
        self,
        plan: LinePlan,
        clock: Clock,
        executor: Executor,
        recorder: Recorder,
        pulse: Pulse,
    ) -> None:
        self.plan = plan
        self.bus = Bus(plan.bus)
        self.missed_cycles = 0
        self._clock = clock
        self._executor = executor
        self._recorder = recorder
        self._pulse = pulse
        units = units_of(plan)
        self._gauges = [unit for unit in units if _counts_rain(unit)]
        self._units = [unit for unit in units if unit not in self._gauges]
        self._counts: dict[str, float | None] = {}
        self._failed: dict[str, str] = {}
        self._refusals: dict[str, str] = {}
        self._devices = {device.id: device for device in plan.devices}
        self._name = plan.bus.name

    @property
    def alarms(self) -> list[str]:
        """What is wrong with the line as a whole now, in sentences."""
        return [self.bus.trouble] if self.bus.trouble else []

    async def run(self) -> None:
        """Serve the line until cancelled; an error in any part of it ends all of it."""
        name = self._name
        parts = {f"bus {name}": self.bus.run(), f"poll {name}": self._poll()}
        if self._gauges:
            parts[f"rain {name}"] = self._watch_rain()
        try:
            await side_by_side(parts)
        finally:
            self._pulse.forget(name)
            self._pulse.forget(f"rain on {name}")

    async def _poll(self) -> None:
        """Read every device at a fixed rate; a late cycle skips, never piles."""
        period = self._clock.real_seconds(self.plan.period_s)
        due = time.monotonic()
        while True:
            await self.cycle()
            due += period
            late = time.monotonic() - due
            if late > 0:
                skipped = int(late // period) + 1
                self.missed_cycles += skipped
                due += skipped * period
            rest = max(0.0, due - time.monotonic())
            self._pulse.beat(self._name, rest + SLOWEST_S)
            await asyncio.sleep(rest)

    async def _watch_rain(self) -> None:
        """Look at the counters of gauges every second; a tip is taken down at once."""
        period = self._clock.real_seconds(self.plan.period_s)
        every = min(WATCH_S, period)
        due = -math.inf
        while True:
            began = time.monotonic()
            self._pulse.beat(f"rain on {self._name}", SLOWEST_S)
            whole = began - due >= period - every / 2
            due = began if whole else due
            cycle = Cycle()
            for unit in self._gauges:
                if whole or await self._tipped(unit):
                    now, gap = self._clock.now(), self.bus.gap
                    self._take_down(await self._ask(unit, now, gap), cycle)
            if cycle.rows:
                await self._recorder.cycle(cycle)
            await asyncio.sleep(max(0.05, every - (time.monotonic() - began)))

    async def _tipped(self, unit: Unit) -> bool:
        """Whether a counter stands elsewhere than when its gauge was last read."""
        counters = {d.id: p for d in unit.devices if (p := d.profile.point_of(COUNT))}
        image = await self._image(unit, unit.plan(counters.values()))
        return image.complete and any(
            _count(point, image) != self._counts.get(name)
            for name, point in counters.items()
        )

    async def cycle(self) -> None:
        """Ask every unit but rain gauges once, and keep what it says."""
        began = time.monotonic()
        cycle = Cycle()
        now, gap = self._clock.now(), self.bus.gap
        for unit in self._units:
            self._pulse.beat(self._name, SLOWEST_S)
            self._take_down(await self._ask(unit, now, gap), cycle)
        await self._recorder.cycle(cycle)
        told = ", ".join(f"{n} {what}" for what, n in sorted(cycle.tally.items()))
        told = told or "no device but rain gauges"
        log.info("%s: %s in %.2f s", self._name, told, time.monotonic() - began)

    async def _ask(self, unit: Unit, now: float, gap: int) -> _Answer:
        """Read a unit."""
        classes = unit.due(now)
        image = await self._image(unit, unit.blocks(classes, gap))
        if image.complete:
            unit.was_read(classes, now)
        return _Answer(unit, classes, image)

    async def _image(self, unit: Unit, wanted: Iterable[Block]) -> _Image:
        """Read blocks; a unit that does not answer one is not asked for the next."""
        image = _Image()
        parts = list(wanted)
        while parts:
            block = parts.pop(0)
            try:
                found = await self.bus.read(unit.number, block)
            except Refused as error:
                image.refused = True
                hole = error.code in {ILLEGAL_ADDRESS, ILLEGAL_VALUE}
                if hole and unit.learn(block):
                    log.info("%s; read in parts from now on", error)
                    parts = _parts(unit, block) + parts
            except BusError as error:
                log.debug("%s", error)
                return image
            else:
                image.add(block, found, self._clock.now_ms())
        image.complete = True
        return image

    def _take_down(self, answer: _Answer, cycle: Cycle) -> None:
        """Take down what each device of a unit has said.

        A device whose answer cannot be worked out is `invalid`, and costs no other device
        its reading.
        """
        for device, readers in answer.unit.readers(answer.classes):
            try:
                self._note(device, readers, answer.image, cycle)
            except Exception as error:  # the barrier between devices
                if self._failed.get(device.id) != repr(error):
                    self._failed[device.id] = repr(error)
                    log.exception("%s: its answer cannot be worked out", device.id)
                ts = self._clock.now_ms()
                cycle.add(device.profile.kind, device.id, ts, "invalid", {})

    def _note(
        self, device: Device, readers: Readers, image: _Image, cycle: Cycle
    ) -> None:
        """Values of a device by quantity; all missing when it gave no good answer.

        A value outside its range is left out, and the reading is `invalid`.
        """
        values: Values = {}
        answered = image.time_of(readers)
        quality = "good"
        if answered:
            for point, read, low, high in readers:
                value = read(image.words(point.table))
                if value is not None and not low <= value <= high:
                    value, quality = None, "invalid"
                values[point.quantity] = value
        else:
            quality = "invalid" if image.refused else "no_answer"
        if answered and device.profile.counter is not None:
            counter = device.profile.counter
            self._counts[device.id] = values.get(COUNT)
            self._recorder.count(device.id, counter, values, answered, cycle)
            fallen = values.get("rain_mm") or 0.0
            self._executor.rained(device.id, fallen, self._clock.now())
        if device.profile.kind == "lux" and answered:
            lux = values.get("illuminance_lx")
            self._executor.bright(lux, time.monotonic(), self._clock.now())
        if device.dimmable:
            if LEVEL in values or not answered:
                self._executor.saw(device.id, values.get(LEVEL))
            values["level_commanded_pct"] = self._executor.commanded(device.id)
        ts = answered or self._clock.now_ms()
        cycle.add(device.profile.kind, device.id, ts, quality, values)

    # -- lights ----------------------------------------------------------------

    async def write(self, levels: dict[str, int]) -> None:
        """Bring lamps to their levels [%]; all is queued at once, no poll comes between.

        Lamps that a group or broadcast reaches, and nobody else, are told by one write.
        """
        commanded = {name: self._executor.commanded(name) for name in self._devices}
        wanted = commanded | levels
        members = {group: group.members for group in self.plan.groups}
        chosen, single = together(levels, wanted, members)
        for name, level in levels.items():
            self._executor.told(name, level, time.monotonic())
        async with asyncio.TaskGroup() as tasks:
            for group, told in chosen:
                level = levels[next(iter(told))]
                dimming = self._dim(
                    group.unit, group.point, group.profile, level, sorted(told)
                )
                tasks.create_task(dimming, name=f"dim group on {self._name}")
            for name in single:
                device = self._devices[name]
                point = device.profile.point_of(LEVEL)
                dimming = self._dim(
                    device.config.unit, point, device.profile.name, levels[name], [name]
                )
                tasks.create_task(dimming, name=f"dim {name}")

    async def _dim(
        self, unit: int, point: Point | None, profile: str, level: int, told: list[str]
    ) -> None:
        """Write a level and read back whom it was for."""
        try:
            write = register_write(point, profile, LEVEL, level)
            await self.bus.write(unit, write.address, write.word, write.function)
        except NotAllowed as error:
            self._not_dimmed(told, str(error))
            return
        except BusError as error:
            log.debug("%s", error)
            for name in told:
                self._executor.saw(name, None)
            return
        for name in told:
            self._refusals.pop(name, None)
        if not write.verify:
            for name in told:
                self._executor.saw(name, float(level))
            return
        if write.fade_s:
            await asyncio.sleep(write.fade_s)
        await self._read_back(told)

    def _not_dimmed(self, told: list[str], reason: str) -> None:
        """Lamps that may not be brought to a level have diverged; say why, once."""
        for name in told:
            self._executor.saw(name, None)
            if self._refusals.get(name) != reason:
                self._refusals[name] = reason
                self._recorder.note("level_refused", name, reason)

    async def _read_back(self, names: list[str]) -> None:
        """Look at the set-points of some lamps, those of a unit together."""
        for unit in self._units:
            mine = [device for device in unit.devices if device.id in names]
            points = [p for d in mine if (p := d.profile.point_of(LEVEL))]
            words: dict[int, int] = {}
            for block in unit.plan(points):
                try:
                    words |= await self.bus.read(unit.number, block, Urgency.VERIFY)
                except BusError as error:
                    log.debug("%s", error)
            for device, point in zip(mine, points, strict=True):
                self._executor.saw(device.id, decode(point, words))


def _counts_rain(unit: Unit) -> bool:
    """Whether nothing but counting rain gauges is behind a unit."""
    return all(device.profile.counter is not None for device in unit.devices)


def _count(point: Point, image: _Image) -> float | None:
    """What a rain counter shows; None when it shows nothing that a counter can."""
    value = decode(point, image.words(point.table))
    known = BY_NAME["rain_gauge"][COUNT]
    return value if value is not None and known.low <= value <= known.high else None


def _parts(unit: Unit, refused: Block) -> list[Block]:
    """The requests that now stand for a refused one."""
    end = refused.address + refused.length
    return list(
        unit.plan(
            point
            for device in unit.devices
            for point in device.profile.point
            if point.table == refused.table and refused.address <= point.address < end
        )
    )
