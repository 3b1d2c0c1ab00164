import asyncio
import json
import resource
import threading
import time
from pathlib import Path

import pytest

from duha_backend import latest as latest_module
from duha_backend import live as live_module
from duha_backend.latest import Latest
from duha_backend.lighting.inventory import Asset
from duha_backend.live import Live
from duha_backend.validate import Columns
from duha_contract.messages import Report, Status

T0 = 1_800_000_000_000


def city():
    return Live(
        [
            Asset("RVO-001", "cabinet", "", "", "", 49, 13),
            Asset("L1", "luminaire", "RVO-001", "", "", 49, 13),
            Asset("L2", "luminaire", "RVO-001", "", "", 49, 13),
            Asset("SR-01", "rain_gauge", "RVO-001", "", "", 49, 13),
        ]
    )


def readings(ts, level=60, quality="good", failure=0, devices=("L1", "L2")):
    n = len(devices)
    return Columns.of(
        "luminaire",
        {
            "device": list(devices), "ts": [ts] * n, "quality": [quality] * n,
            "level_actual_pct": [level] * n, "lamp_failure": [failure] * n,
        },
    )  # fmt: skip


def told(live, period_s=10.0):
    live.told("RVO-001", Status(1, online=True, period_s=period_s))


async def test_a_byte_for_each_luminaire():
    live = city()
    told(live)
    assert list(live.state) == [live_module.UNKNOWN] * 2
    live.take("RVO-001", [readings(T0)])
    await live.tick(T0)
    assert list(live.state) == [60, 60]
    assert live.tick_now.indexes == [0, 1]
    live.take("RVO-001", [readings(T0 + 1, failure=1, devices=("L2",))])
    await live.tick(T0 + 1)
    assert list(live.state) == [60, live_module.FAILURE]
    assert (live.tick_now.indexes, live.tick_now.states) == ([1], [live_module.FAILURE])


async def test_a_cabinet_is_stale_before_its_second_cycle_is_over_and_comes_back():
    live = city()
    told(live, period_s=10.0)
    live.take("RVO-001", [readings(T0)])
    live.told("RVO-001", Status(1, online=False))  # its last will
    await live.tick(T0)
    await live.tick(T0 + 16_500)
    assert live.figures(T0)["stale"] == []
    await live.tick(T0 + 16_501)
    assert list(live.state) == [live_module.STALE] * 2
    assert live.figures(T0)["stale"] == ["RVO-001"]
    live.take("RVO-001", [readings(T0 + 30_000)])
    await live.tick(T0 + 30_000)
    assert list(live.state) == [60, 60]


async def test_no_answer_and_divergence_are_told_apart():
    live = city()
    told(live)
    live.take(
        "RVO-001", [readings(T0), readings(T0 + 1, None, "no_answer", None, ("L1",))]
    )
    live.reported("RVO-001", [Report(T0, 1, "h", 1, ("L2",))])
    await live.tick(T0 + 1)
    assert list(live.state) == [live_module.NO_ANSWER, live_module.DIVERGED]
    assert (
        live.latest["luminaire"].reading("L1").values["level_actual_pct"] == 60
    )  # what it last said is kept
    live.reported("RVO-001", [Report(T0 - 5, 1, "h", 1, ("L1",))])  # an old report
    assert live.describe("L2") == "diverged"


async def test_old_and_repeated_readings_change_nothing():
    live = city()
    told(live)
    rain = Columns.of(
        "rain_gauge",
        {"device": ["SR-01"], "ts": [T0], "quality": ["good"], "rain_mm": [0.2]},
    )
    for _ in range(3):
        live.take("RVO-001", [readings(T0), rain])
    live.take("RVO-001", [readings(T0 - 60_000, level=5)])
    await live.tick(T0)
    assert list(live.state) == [60, 60]
    assert live.rain_since("SR-01", T0 - 1) == 0.2


async def test_ticks_are_numbered_and_wake_whoever_waits():
    live = city()
    waiting = asyncio.create_task(live.next_tick(0))
    await asyncio.sleep(0)
    await live.tick(T0)
    assert (await waiting).seq == 1
    await live.tick(T0 + 1)
    assert (await live.next_tick(0)).seq == 2


async def test_an_import_keeps_what_is_known_and_tells_the_pages():
    live = city()
    told(live)
    live.take("RVO-001", [readings(T0)])
    await live.tick(T0)
    before = live.tick_now.assets
    more = [*live.assets.values(), Asset("A0", "luminaire", "RVO-001", "", "", 49, 13)]
    more.append(Asset("Z9", "luminaire", "", "", "", 49, 13, networked=False))
    live.set_assets(sorted(more))
    await live.tick(T0)
    assert live.tick_now.assets == before + 1
    assert [a.id for a in live.luminaires] == ["A0", "L1", "L2", "Z9"]
    unknown = (live_module.UNKNOWN, live_module.NOT_NETWORKED)
    assert live.state.tolist() == [unknown[0], 60, 60, unknown[1]]
    assert live.figures(T0)["faults"] == 0


def test_the_latest_of_everything_in_columns():
    live = city()
    live.take("RVO-001", [readings(T0, devices=("L2",)), readings(T0, devices=("X1",))])
    found = json.loads(live.latest["luminaire"].encode(["level_actual_pct", "power_w"]))
    columns = found["columns"]
    assert columns["device"] == ["L1", "L2", "X1"]
    assert columns["ts"] == [0, T0, T0]
    assert columns["level_actual_pct"] == [None, 60, 60]
    assert columns["power_w"] == [None] * 3


def test_devices_that_nobody_knows_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(latest_module, "MOST_STRANGERS_EACH", 50)
    known = Latest("luminaire", ["L1"])
    for n in range(0, 300, 20):
        names = [f"X{i}" for i in range(n, n + 20)]
        known.take(readings(n + 1, devices=(*names, "L1")).values)
    assert len(known.index) == 51
    last = known.reading("L1")
    assert last is not None
    assert last.ts == 281
    assert known.reading("X49") is not None
    assert known.reading("X50") is None


async def test_a_slow_clock_of_a_controller_makes_it_not_stale():
    live = city()
    told(live)
    for second in range(0, 60, 10):
        live.take("RVO-001", [readings(T0 + second * 1000 - 3_600_000)])
        await live.tick(T0 + second * 1000, elapsed_ms=second * 1000)
        assert live.figures(T0)["stale"] == []
    known = live.controllers["RVO-001"]
    assert known.last_batch_ms == T0 + 50_000 - 3_600_000  # the age of its data is said


async def test_a_jump_of_the_backends_clock_makes_nothing_stale():
    live = city()
    told(live)
    live.take("RVO-001", [readings(T0)])
    await live.tick(T0, elapsed_ms=0)
    await live.tick(T0 + 3_600_000, elapsed_ms=1000)
    assert live.figures(T0)["stale"] == []
    await live.tick(T0 - 3_600_000, elapsed_ms=16_501)
    assert live.figures(T0)["stale"] == ["RVO-001"]


async def test_what_is_known_from_the_store_counts_by_its_age():
    live = city()
    frame = readings(T0).values | {"controller": ["RVO-001"] * 2}
    live.restore("luminaire", frame)
    await live.tick(T0 + 60_000, elapsed_ms=5)
    assert live.figures(T0)["stale"] == ["RVO-001"]


def test_the_clock_skew_of_a_controller_is_known_from_its_live_status():
    live = city()
    known = live.controllers["RVO-001"]
    live.told("RVO-001", Status(1, online=True, ts=T0 - 10**7))  # kept by the broker
    assert known.clock_skew_s is None
    live.told("RVO-001", Status(1, online=True, ts=T0 - 17_000), T0)
    assert known.clock_skew_s == -17.0
    live.told("RVO-001", Status(1, online=False), T0 + 5)  # its last will has no time
    assert known.clock_skew_s == -17.0
    live.told("RVO-001", Status(1, online=True, ts=T0 + 7_200_000), T0)
    assert known.clock_skew_s == 7200.0


def rain(device, times, mm=0.2):
    n = len(times)
    columns = {"device": [device] * n, "ts": times, "quality": ["good"] * n, "rain_mm": [mm] * n}  # fmt: skip
    return Columns.of("rain_gauge", columns)


async def test_a_long_backlog_of_rain_is_taken_at_once_and_each_reading_counts_once():
    live = city()
    times = list(range(T0 - 40_000_000, T0, 1000))
    began = time.process_time()
    for _ in range(2):
        for start in range(0, len(times), 2500):
            live.take("RVO-001", [rain("SR-01", times[start : start + 2500])])
            live.figures(T0)
    assert time.process_time() - began < 2.0  # quadratic it was a minute
    assert live.rain_since("SR-01", 0) == pytest.approx(8000)
    assert live.rain_since("SR-01", T0 - 10_000) == pytest.approx(2.0)
    assert live.rain["SR-01"].after(T0 - 2000) == [(T0 - 1000, 0.2)]
    await live.tick(T0 + live_module.RAIN_KEPT_MS - 10_000)
    assert live.rain_since("SR-01", 0) == pytest.approx(2.0)


def test_a_gauge_that_nobody_has_registered_makes_no_rain():
    live = city()
    live.take("RVO-001", [rain("FORGED", [T0], 400.0), rain("SR-01", [T0], 0.4)])
    assert live.figures(T0)["rain_1h_mm"] == 0.4
    assert list(live.rain) == ["SR-01"]


def test_a_meter_that_nobody_has_registered_takes_no_power():
    live = city()
    live.set_assets([*live.assets.values(), Asset("E1", "meter", "RVO-001", "", "", 49, 13)])  # fmt: skip
    columns: dict[str, list[object]] = {"device": ["E1", "X9"], "ts": [T0] * 2, "quality": ["good"] * 2, "power_w": [900.0, 5000.0]}  # fmt: skip
    live.take("RVO-001", [Columns.of("meter", columns)])
    assert live.figures(T0)["power_kw"] == 0.9


async def test_a_hundred_thousand_unknown_controllers_cost_next_to_nothing():
    live = city()
    live.take("RVO-001", [readings(T0)])
    before = resident_mib()
    for n in range(100_000):
        live.told(f"X-{n}", Status(1, online=True))
    for n in range(3000):
        live.take(f"X-{n}", [readings(T0, devices=(f"X-{n}-L1",))])
    await live.tick(T0)
    assert resident_mib() - before < 100
    figures = live.tick_now.figures
    assert (figures["controllers"], figures["unregistered"]) == (1, 1000)
    assert figures["stale"] == []
    assert len(live.tick_now.event) < 4096
    assert len(live.latest["luminaire"].index) <= 2 + 1000


def resident_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def test_what_nobody_has_registered_is_forgotten_after_a_day():
    live = city()
    names = tuple(f"X{i}" for i in range(150))
    live.watch(["luminaire", "meter"])
    live.take("STRANGE", [readings(T0, devices=(*names, "L1"))])
    live.take("RVO-001", [readings(T0 + 1, devices=("Y1",))])
    await live.tick(T0)
    lamps = live.latest["luminaire"]
    assert len(lamps.index) == 2 + 100 + 1
    assert list(live.unregistered) == ["STRANGE"]
    day = live_module.FORGOTTEN_MS
    live.take("RVO-001", [readings(T0 + day, devices=("L2",))])
    await live.tick(T0 + day + 1000)
    assert live.unregistered == {}
    assert list(live.latest["luminaire"].index) == ["L1", "L2"]
    last = live.latest["luminaire"].reading("L1")
    assert last is not None
    assert last.ts == T0


async def test_a_stranger_is_no_stranger_once_it_is_registered():
    live = city()
    live.take("NEW", [readings(T0, devices=("N1",))])
    more = [Asset("NEW", "cabinet", "", "", "", 49, 13), Asset("N1", "luminaire", "NEW", "", "", 49, 13)]  # fmt: skip
    live.set_assets([*live.assets.values(), *more])
    assert live.unregistered == {}
    assert live.controllers["NEW"].last_batch_ms == T0
    assert live.latest["luminaire"].strangers == {}
    await live.tick(T0)
    assert live.state[live.index["N1"]] == 60


def test_no_thread_sees_columns_of_two_lengths_during_an_import():
    live = city()
    assets = list(live.assets.values())
    stop = threading.Event()
    wrong: list[object] = []

    def read():
        while not stop.is_set():
            try:
                found = json.loads(live.latest["luminaire"].encode(["power_w"]))
                lengths = {len(column) for column in found["columns"].values()}
                city = live.city
                lengths_too = {len(city.state), len(city.luminaires), len(city.index)}
                city.state[list(city.index.values())]
                live.lamps()
                if len(lengths) > 1 or len(lengths_too) > 1:
                    wrong.append((lengths, lengths_too))
            except Exception as error:
                wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(60):
        added = [Asset(f"A{i}", "luminaire", "RVO-001", "", "", 49, 13) for i in range(n * 7 % 50)]  # fmt: skip
        live.set_assets([*assets, *added])
        live.take("RVO-001", [readings(T0 + n, devices=(f"S{n}", "L1"))])
        time.sleep(0.002)
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
