import asyncio
import json

from duha_backend import live as live_module
from duha_backend.lighting.inventory import Asset
from duha_backend.live import Latest, Live
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
    monkeypatch.setattr(live_module, "MOST_STRANGERS", 50)
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
