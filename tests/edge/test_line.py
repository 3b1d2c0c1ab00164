"""A line keeps on with what is well when something on it is not."""

import asyncio
import contextlib
import math
import struct
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.edge.hosts import babble, server

from duha_contract.clock import Clock
from duha_contract.programmes import Place
from duha_edge import profiles
from duha_edge.errors import NotAllowed
from duha_edge.executor import Executor
from duha_edge.line import Line
from duha_edge.outbox import Outbox
from duha_edge.profiles import Counter, Point, Profile, Write
from duha_edge.pulse import Pulse
from duha_edge.recorder import Recorder
from duha_edge.site import BusConfig, DeviceConfig
from duha_edge.timekeeper import Timekeeper
from duha_edge.units import Device, LinePlan
from duha_runtime.waiting import ended
from duha_sim.modbus import TcpPort, answer

FLOAT_COUNTER = Profile(
    "float-gauge", "rain_gauge", "A gauge that counts in floats",
    (Point("counter_raw", 0, type="f32"),), counter=Counter("tips", 65536, 0.2),
)  # fmt: skip
HALF = Profile(
    "half-dark", "luminaire", "Gear that goes no lower than 10 %",
    (Point("level_in_effect_pct", 0, write=Write(10, 100)), Point("voltage_v", 1)),
)  # fmt: skip


class Registers:
    """Registers of a unit by address."""

    def __init__(self, words):
        self.words = dict(enumerate(words))

    def read(self, _table, address, count):
        return [self.words.get(address + i, 0) for i in range(count)]

    def write(self, address, words):
        self.words |= {address + i: word for i, word in enumerate(words)}


@dataclass
class Bench:
    line: Line
    recorder: Recorder
    executor: Executor
    units: dict[int, Registers]
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def of(self, device):
        return [row for row in self.rows if row[0] == device]


@contextlib.asynccontextmanager
async def line(tmp_path, *devices, period_s=0.1):
    """A line of devices (id, unit, profile, words), and what its cycles have brought."""
    units = {unit: Registers(words) for _, unit, _, words in devices}

    async def respond(unit, pdu):
        return answer(units[unit], pdu)

    port = TcpPort(respond, lambda _, frame: frame)
    await port.start()
    plan = LinePlan(
        BusConfig("line1", "tcp", "127.0.0.1", port.port, timeout_s=0.2),
        tuple(
            Device(
                DeviceConfig(name, "line1", unit, profile.name, ("level_in_effect_pct",)
                             if profile.kind == "luminaire" else ()), profile,
            )
            for name, unit, profile, _ in devices
        ), (), period_s, 900.0,
    )  # fmt: skip
    names = [d.id for d in plan.devices if d.dimmable]
    executor = Executor(names, Place(50, 14, "UTC"), tmp_path / "desired.json")
    outbox = Outbox(tmp_path / "outbox.db")
    recorder = Recorder(outbox, Clock(time.time), Timekeeper(), lambda: None)
    made = Line(plan, Clock(time.time), executor, recorder, Pulse())
    bench = Bench(made, recorder, executor, units)
    kept = recorder.cycle

    async def cycle(found):
        bench.rows += [row for rows in found.rows.values() for row in rows]
        await kept(found)

    monkey: Any = recorder
    monkey.cycle = cycle
    try:
        yield bench
    finally:
        made.bus._client.close()
        await port.close()
        outbox.close()
        await asyncio.sleep(0.02)


def words(value):
    return list(struct.unpack(">2H", struct.pack(">f", value)))


LAMP = profiles.load("luminaire-generic")


@pytest.mark.parametrize("count", [math.inf, -math.inf, math.nan, 1e30, -4.0])
async def test_a_count_that_no_counter_can_show_is_invalid_and_rain_goes_on(
    tmp_path, count
):
    gauge = ("SR-01", 9, FLOAT_COUNTER, words(count))
    async with line(tmp_path, gauge, ("L1", 1, LAMP, [50] * 20)) as bench:
        running = asyncio.create_task(bench.line.run())
        await _until(lambda: bench.of("SR-01") and bench.of("L1"))
        (_, _, quality, raw, counts, *_) = bench.of("SR-01")[0]
        assert quality == ("good" if math.isnan(count) else "invalid")
        assert raw is counts is None
        assert bench.of("L1")[0][2] == "good"
        for tips in (7.0, 8.0):
            bench.units[9].words |= dict(enumerate(words(tips)))
            await _until(lambda t=tips: bench.of("SR-01")[-1][3] == t)
        await _until(lambda: sum(r[4] or 0 for r in bench.of("SR-01")) == 1)
        assert not running.done()
        await ended([running])


async def test_a_value_out_of_range_is_left_out_and_the_others_stay(tmp_path):
    async with line(tmp_path, ("L1", 1, HALF, [40, 60_000])) as bench:
        await bench.line.cycle()
    columns = ("device", "ts", "quality", *(q for q in _columns()))
    row = dict(zip(columns, bench.rows[0], strict=True))
    assert row["quality"] == "invalid"
    assert row["voltage_v"] is None
    assert row["level_in_effect_pct"] == 40


def _columns():
    from duha_contract.quantities import KINDS

    return [quantity.name for quantity in KINDS["luminaire"]]


async def test_an_answer_that_cannot_be_worked_out_costs_no_other_unit_its_reading(
    tmp_path, caplog
):
    lamps = [(f"L{n}", n, LAMP, [50] * 20) for n in (1, 2, 3)]
    async with line(tmp_path, *lamps) as bench:
        saw = bench.executor.saw

        def trouble(device, level):
            if device == "L2":
                raise ZeroDivisionError("no such thing")
            saw(device, level)

        bench.executor.saw = trouble
        for _ in range(3):
            await bench.line.cycle()
    found = {name: {row[2] for row in bench.of(name)} for name in ("L1", "L2", "L3")}
    assert found == {"L1": {"good"}, "L2": {"invalid"}, "L3": {"good"}}
    assert len(bench.rows) == 9
    assert caplog.text.count("L2: its answer cannot be worked out") == 1


async def test_a_level_outside_the_range_of_the_gear_is_diverged_with_its_reason(
    tmp_path,
):
    dark = ("L1", 1, HALF, [0, 2300])
    async with line(tmp_path, dark, ("L2", 2, LAMP, [50] * 20)) as bench:
        for _ in range(2):
            await bench.line.write({"L1": 0, "L2": 0})
        assert bench.executor.report(0).diverged == ("L1",)
        assert bench.units[2].words[0] == 0
        notes = [(e.code, e.device) for e in bench.recorder._events]
        assert notes == [("level_refused", "L1")]
        assert "outside 10" in bench.recorder._events[0].detail
        await bench.line.write({"L1": 10})
        assert bench.units[1].words[0] == 10


async def test_whatever_ends_a_part_of_a_line_ends_the_line_and_leaves_no_task(
    tmp_path,
):
    gauge = ("SR-01", 9, FLOAT_COUNTER, words(1.0))
    for part in ("_watch_rain", "_poll"):
        async with line(tmp_path, gauge, ("L1", 1, LAMP, [50] * 20)) as bench:

            async def fails():
                raise NotAllowed("no reason")

            setattr(bench.line, part, fails)
            with pytest.raises(NotAllowed):
                await asyncio.wait_for(bench.line.run(), 5)
            delattr(bench.line, part)
            again = asyncio.create_task(bench.line.run())  # as its supervisor does
            await _until(lambda bench=bench: bench.of("L1") and bench.of("SR-01"))
            await ended([again])


async def test_a_line_that_babbles_leaves_the_others_alone(tmp_path):
    async with (
        server(babble) as port,
        line(tmp_path, ("L1", 1, LAMP, [50] * 20)) as bench,
    ):
        bus = BusConfig("line2", "rtu-over-tcp", "127.0.0.1", port, timeout_s=0.1)
        device = Device(DeviceConfig("L9", "line2", 1, LAMP.name), LAMP)
        bad = Line(
            LinePlan(bus, (device,), (), 0.1, 900.0),
            Clock(time.time), bench.executor, bench.recorder, Pulse(),
        )  # fmt: skip
        tasks = [asyncio.create_task(each.run()) for each in (bench.line, bad)]
        await _until(lambda: bad.alarms)
        await _until(lambda: [r for r in bench.rows if r[0] == "L9"])
        assert bench.line.alarms == []
        assert {row[2] for row in bench.of("L1")} == {"good"}
        assert {row[2] for row in bench.of("L9")} == {"no_answer"}
        await ended(tasks)


async def _until(so):
    async with asyncio.timeout(10):
        while not so():
            await asyncio.sleep(0.02)
