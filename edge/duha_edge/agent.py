"""The composition root of the edge: one task group holds every task of the agent."""

import asyncio
import importlib.metadata
import logging
import math
import time
from pathlib import Path

from duha_contract.clock import Clock
from duha_contract.errors import ContractError
from duha_contract.messages import (
    EARLIEST_MS,
    LEAD_COLUMNS,
    ClockState,
    Desired,
    Event,
    Quality,
    Status,
    Table,
)
from duha_contract.quantities import KINDS
from duha_contract.rain import increment, possible_tips
from duha_edge import profiles
from duha_edge.bus import Bus, Urgency
from duha_edge.errors import BusError, OutboxError, Refused
from duha_edge.executor import Executor
from duha_edge.link import Link
from duha_edge.outbox import Content, CounterState, Outbox
from duha_edge.points import (
    MAX_WORDS,
    WORTH_READING,
    Block,
    blocks,
    decode,
    encode_write,
    holes,
    worth_reading,
)
from duha_edge.profiles import Counter, Point, Profile
from duha_edge.site import BusConfig, DeviceConfig, SiteFile

log = logging.getLogger(__name__)

LEVEL = "level_in_effect_pct"
CONTROL_S = 0.3
"""How often the programme is looked at, in real seconds."""

ILLEGAL_ADDRESS, ILLEGAL_VALUE = 2, 3
USUAL_TURNAROUND_S = 0.01
DAY_S = 86_400.0

Values = dict[str, float | None]
Row = tuple[object, ...]


class Device:
    """A configured device with its profile worked out."""

    def __init__(
        self, config: DeviceConfig, gap: int = WORTH_READING, slow_s: float = 900.0
    ) -> None:
        self.id = config.id
        self.unit = config.unit
        self.bus = config.bus
        self.profile: Profile = profiles.load(config.profile).placed(config.at)
        self.dimmable = LEVEL in config.writes
        self._gap = gap
        self._fences = self.profile.fence
        self._every = {"fast": 0.0, "slow": slow_s, "nightly": DAY_S, "once": math.inf}
        self._read_at: dict[str, float] = {}
        self._plans: dict[frozenset[str], tuple[Block, ...]] = {}

    def due(self, now: float) -> frozenset[str]:
        """Poll classes whose points are to be read at POSIX time `now` [s]."""
        return frozenset(
            name
            for name, every in self._every.items()
            if name not in self._read_at or now - self._read_at[name] >= every
        )

    def was_read(self, classes: frozenset[str], now: float) -> None:
        """The points of these classes have given an answer."""
        self._read_at |= dict.fromkeys(classes, now)

    def points(self, classes: frozenset[str]) -> list[Point]:
        """The points of some poll classes."""
        return [point for point in self.profile.point if point.poll in classes]

    def blocks(self, classes: frozenset[str]) -> tuple[Block, ...]:
        """The requests that read the points of some poll classes."""
        if classes not in self._plans:
            self._plans[classes] = blocks(
                self.points(classes),
                self._gap,
                fences=self._fences,
                alone=self.profile.alone,
                max_words=self.profile.max_words,
            )
        return self._plans[classes]

    def learn(self, refused: Block) -> bool:
        """Never again read along what a refused request did; False when it did nothing."""
        fences = holes(refused, self.profile.point)
        self._fences += fences
        self._plans.clear()
        return bool(fences)


class Agent:
    """Polls, stores, sends, and keeps the lights as the desired document says."""

    def __init__(self, file: SiteFile, clock: Clock) -> None:
        self.file = file
        self.clock = clock
        folder = Path(file.site.data)
        folder.mkdir(parents=True, exist_ok=True)
        self.outbox = Outbox(folder / "outbox.db", int(file.outbox.max_mib * 2**20))
        gaps = {bus.name: gap_of(bus) for bus in file.bus}
        self.devices = {
            c.id: Device(c, gaps[c.bus], file.site.slow_s) for c in file.device
        }
        self.buses = {config.name: Bus(config) for config in file.bus}
        self.executor = Executor(
            [device.id for device in self.devices.values() if device.dimmable],
            file.site.place,
            folder / "desired.json",
        )
        self.link = Link(
            file.site, file.broker, self.outbox, self.status, self._desired
        )
        self._counters = self.outbox.counters()
        self._missed = 0
        self._events: list[Event] = []

    async def run(self) -> None:
        """Run until cancelled."""
        log.info(
            "controller %s: %d devices on %d lines, outbox %s",
            self.file.site.controller,
            len(self.devices),
            len(self.buses),
            self.outbox.path,
        )
        try:
            async with asyncio.TaskGroup() as group:
                for name, bus in self.buses.items():
                    group.create_task(bus.run(), name=f"bus {name}")
                    group.create_task(self._poll(name), name=f"poll {name}")
                group.create_task(self._control(), name="control")
                group.create_task(self.link.run(), name="link")
        finally:
            self.outbox.close()

    def status(self) -> Status:
        """The state of this controller."""
        return Status(
            v=1,
            online=True,
            ts=self.clock.now_ms(),
            version=importlib.metadata.version("duha"),
            boot=self.outbox.boot,
            clock=self._clock_state(),
            period_s=self.file.site.period_s,
            backlog=len(self.outbox),
            missed_cycles=self._missed,
            silent_units=sum(bus.silent_units for bus in self.buses.values()),
        )

    def _clock_state(self) -> ClockState:
        return "trusted" if self.clock.now_ms() >= EARLIEST_MS else "unset"

    def _desired(self, desired: Desired) -> None:
        try:
            if self.executor.accept(desired):
                log.info("desired revision %d is in force", desired.revision)
        except ContractError as error:
            log.warning("desired revision %d refused: %s", desired.revision, error)
            event = Event(self.clock.now_ms(), "desired_refused", detail=str(error))
            self._events.append(event)

    # -- polling ---------------------------------------------------------------

    async def _poll(self, bus: str) -> None:
        """Read every device of a line at a fixed rate; a late cycle skips, never piles."""
        devices = [device for device in self.devices.values() if device.bus == bus]
        period = self.clock.real_seconds(self.file.site.period_s)
        due = time.monotonic()
        while True:
            await self._cycle(devices)
            due += period
            late = time.monotonic() - due
            if late > 0:
                skipped = int(late // period) + 1
                self._missed += skipped
                due += skipped * period
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _cycle(self, devices: list[Device]) -> None:
        rows: dict[str, list[Row]] = {}
        counters: dict[str, CounterState] = {}
        events: list[Event] = []
        for device in devices:
            values, quality = await self._read(device)
            ts = self.clock.now_ms()
            if device.profile.counter is not None and quality == "good":
                event = self._count(
                    device, device.profile.counter, values, ts, counters
                )
                events += [event] if event else []
            columns = [values.get(q.name) for q in KINDS[device.profile.kind]]
            rows.setdefault(device.profile.kind, []).append(
                (device.id, ts, quality, *columns)
            )
        await self._store(rows, events, counters)

    async def _read(self, device: Device) -> tuple[Values, Quality]:
        """Values of a device by quantity; all missing when it gives no good answer."""
        bus = self.buses[device.bus]
        now = self.clock.now()
        classes = device.due(now)
        words: dict[str, dict[int, int]] = {}
        for block in device.blocks(classes):
            try:
                found = await bus.read(device.unit, block)
            except Refused as error:
                if error.code in {ILLEGAL_ADDRESS, ILLEGAL_VALUE} and device.learn(
                    block
                ):
                    log.info("%s: %s; read in parts from now on", device.id, error)
                    return await self._read(device)
                log.debug("%s: %s", device.id, error)
                return self._with_command(device, {}), "invalid"
            except BusError as error:
                log.debug("%s: %s", device.id, error)
                self.executor.saw(device.id, None)
                return self._with_command(device, {}), "no_answer"
            words.setdefault(block.table, {}).update(found)
        device.was_read(classes, now)
        values: Values = {}
        for point in device.points(classes):
            values[point.quantity] = decode(point, words[point.table])
        if LEVEL in values:
            self.executor.saw(device.id, values[LEVEL])
        return self._with_command(device, values), "good"

    def _with_command(self, device: Device, values: Values) -> Values:
        if device.dimmable:
            values["level_commanded_pct"] = self.executor.commanded(device.id)
        return values

    def _count(
        self,
        device: Device,
        counter: Counter,
        values: Values,
        ts: int,
        counters: dict[str, CounterState],
    ) -> Event | None:
        """Turn a raw counter into tips and rain since the last reading."""
        total = values.get("counter_raw")
        if total is None:
            return None
        before = self._counters.get(device.id)
        seconds = (ts - before.ts) / 1000 if before else 0.0
        found = increment(
            before.raw if before else None,
            int(total),
            modulus=counter.modulus,
            most=possible_tips(seconds, counter.mm_per_count),
        )
        values["counts"] = found.tips
        values["rain_mm"] = round(found.tips * counter.mm_per_count, 4)
        values["interval_s"] = round(max(0.0, seconds), 3)
        counters[device.id] = CounterState(int(total), ts)
        if found.event == "reset":
            detail = f"{before.raw if before else ''} -> {int(total)}"
            return Event(ts, "counter_reset", device.id, detail)
        return None

    async def _store(
        self,
        rows: dict[str, list[Row]],
        events: list[Event],
        counters: dict[str, CounterState],
    ) -> None:
        """Put a poll cycle into the outbox: rain and events apart from telemetry."""
        rain = tuple(_table(k, r) for k, r in rows.items() if k == "rain_gauge")
        other = tuple(_table(k, r) for k, r in rows.items() if k != "rain_gauge")
        events += self._events
        self._events = []
        if lost := self.outbox.take_lost():
            now = self.clock.now_ms()
            events.append(Event(now, "outbox_full", detail=f"{lost} batches dropped"))
        contents = []
        if rain or events:
            contents.append(Content(vital=True, tables=rain, events=tuple(events)))
        if other:
            contents.append(Content(vital=False, tables=other))
        if await self._put(contents, counters):
            self._counters |= counters

    async def _put(
        self, contents: list[Content], counters: dict[str, CounterState] | None = None
    ) -> bool:
        """Put something into the outbox; False, and said so, when that fails.

        A controller whose disk is full goes on measuring and dimming; a rain counter
        that could not be kept is counted again from its last kept state.
        """
        try:
            clock = self._clock_state()
            await asyncio.to_thread(self.outbox.put, contents, clock, counters)
        except OutboxError as error:
            log.error("%s", error)  # noqa: TRY400 - the sentence says it all
            return False
        self.link.wake()
        return True

    # -- lights ----------------------------------------------------------------

    async def _control(self) -> None:
        """Look at the programme several times a second; write what has changed.

        Each line is written by a task of its own: a line full of dead units must not
        keep the others from obeying.
        """
        writing: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                revision = self.executor.revision
                for bus, orders in self._due().items():
                    if bus not in writing or writing[bus].done():
                        task = group.create_task(
                            self._write(orders), name=f"write {bus}"
                        )
                        writing[bus] = task
                await asyncio.sleep(CONTROL_S)
                idle = all(task.done() for task in writing.values())
                if idle and revision == self.executor.revision:
                    await self._report()

    def _due(self) -> dict[str, list[tuple[Device, int]]]:
        """Levels to write now, by line."""
        due = self.executor.to_write(self.clock.now(), time.monotonic())
        by_bus: dict[str, list[tuple[Device, int]]] = {}
        for name, level in due.items():
            device = self.devices[name]
            by_bus.setdefault(device.bus, []).append((device, level))
        return by_bus

    async def _report(self) -> None:
        report = self.executor.report(self.clock.now_ms())
        if report is not None:
            await self._put([Content(vital=True, reports=(report,))])

    async def _write(self, orders: list[tuple[Device, int]]) -> None:
        """Write levels on one line; all are queued at once, so that no poll comes between."""
        async with asyncio.TaskGroup() as group:
            for device, level in orders:
                group.create_task(
                    self._write_one(device, level), name=f"dim {device.id}"
                )

    async def _write_one(self, device: Device, level: int) -> None:
        """Write a level and read it back."""
        bus = self.buses[device.bus]
        address, word = encode_write(device.profile, LEVEL, level)
        self.executor.told(device.id, level, time.monotonic())
        try:
            await bus.write(device.unit, address, word)
            words = await bus.read(
                device.unit, Block("holding", address, 1), Urgency.VERIFY
            )
        except BusError as error:
            log.debug("%s: %s", device.id, error)
            self.executor.saw(device.id, None)
            return
        point = device.profile.point_of(LEVEL)
        self.executor.saw(device.id, decode(point, words) if point else None)


def gap_of(bus: BusConfig) -> int:
    """Largest hole that is read along on a line, from its speed."""
    if bus.type == "tcp":
        return MAX_WORDS  # a round trip costs more than any hole
    bits = 10 if bus.format == "8N1" else 11
    return worth_reading(bus.baud, USUAL_TURNAROUND_S, bits)


def _table(kind: str, rows: list[Row]) -> Table:
    columns = (*LEAD_COLUMNS, *(quantity.name for quantity in KINDS[kind]))
    return Table(kind, columns, tuple(rows))
