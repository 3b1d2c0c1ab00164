"""A model that runs live: replayed after any death, looking ahead, saying what it cannot."""

import asyncio
import contextlib
import os

import numpy as np
import pytest

from duha_backend.drainage.process import Process
from duha_backend.drainage.runner import Runner, clock_offset_s
from duha_backend.errors import StoreDown
from duha_backend.lighting.inventory import Asset
from duha_backend.rain.areal import Field
from duha_backend.rain.events import DesignRain
from duha_backend.readings import QUARTER_MS, rows_of
from duha_backend.runoff.live import Place, SwmmModel, areal, rain_field
from duha_backend.runoff.watch import Watch
from duha_sim.sewer import sewer
from tests.backend.wet_city import GAUGES, MINUTE, T0, wet_city

pytestmark = pytest.mark.system

RAW = sewer(12, GAUGES[:3], "gardens").encode()
MODEL = SwmmModel("sewer", "Sewer", RAW, replay_days=1)
LEVEL = Watch(
    "W1", "Overflow chamber", "sewer", "node", "OVERFLOW", "depth_m", (0.3, 1.0, 1.8)
)
EXAMPLE = DesignRain(
    "city", "Example", (5, 15, 60, 1440), (2, 5, 10),
    ((6, 8.5, 10.2), (10.1, 14.6, 17.5), (14.8, 21.6, 26), (33, 45, 53)), "example, no city's",
)  # fmt: skip
RAIN = np.zeros((4, 300))
RAIN[:, 60:150] = np.random.default_rng(3).choice([0.0, 0.2, 0.4, 0.8], (4, 90))


@pytest.fixture
async def city(tmp_path):
    async with wet_city(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def running(city, model=MODEL, rainfall=None, watches=(LEVEL,), design=None):
    runner = Runner(
        model, rainfall or city.rainfall, city.readings, city.runs, lambda: watches,
        lambda: design, lambda: city.now,
    )  # fmt: skip
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def at(runner, minutes, limit=30):
    """Wait until a model has come so far, and has told of it."""
    t = T0 + minutes * MINUTE
    async with asyncio.timeout(limit):
        while True:
            if runner.standing.t >= t:
                run = runner._runs.find(runner.standing.run)
                if run.t0 >= t:
                    return
            await asyncio.sleep(0.02)


async def kept(city, kind="node", device="sewer.OVERFLOW"):
    return rows_of(
        await city.readings.window(kind, device, T0 - 2 * 86_400_000, T0 + 86_400_000)
    )


async def test_after_kill_9_the_hydrograph_is_that_of_an_undisturbed_run(
    city, tmp_path
):
    await city.rain(RAIN)
    for half in range(5, 301, 5):
        await city.until(half)
    async with running(city) as runner:
        await at(runner, 300)
    undisturbed = await kept(city)
    async with wet_city(tmp_path / "other") as other:
        await other.rain(RAIN)
        await other.until(100)
        async with running(other) as runner:
            await at(runner, 100)
            os.kill(runner.process.pid, 9)  # in mid-storm
            await other.until(120)
            await at(runner, 120)
        # ... and now the backend too: nothing is left but the stores.
        again = other.new_rainfall()
        await other.until(130, again)
        async with running(other, rainfall=again) as runner:
            await at(runner, 130)
            for minutes in range(135, 301, 5):
                await other.until(minutes, again)
            await at(runner, 300)
        disturbed = await kept(other)
        states = [run.state for run in other.runs.page("live")]
    assert max(row["depth_m"] for row in undisturbed) > 0.3
    assert disturbed == undisturbed, "to the last bit"
    assert states.count("failed") >= 1
    assert len(states) == 3


async def test_wet_weather_has_a_forecast_every_five_minutes(city):
    await city.rain(RAIN)
    design = (EXAMPLE.idf, 5.0)
    async with running(city, design=design) as runner:
        for minutes in range(5, 126, 5):
            await city.until(minutes)
            if minutes >= 100:
                await at(runner, minutes)
        standing = runner.standing
    made = city.runs.page("forecast", "sewer", 100)
    wet = [run for run in made if run.t0 >= T0 + 100 * MINUTE]
    assert [run.t0 - T0 for run in reversed(wet)] == [
        m * MINUTE for m in range(100, 126, 5)
    ]
    assert {run.state for run in wet} == {"complete"}
    told = city.runs.result(wet[0].id)
    assert told["members"] == ["design", "dry", "more", "persistence"]
    courses = told["watches"]["W1"]["courses"]
    assert len(courses["dry"]) == 36
    assert max(courses["more"]) >= max(courses["persistence"]) > max(courses["dry"][6:])
    low, high = told["watches"]["W1"]["band"]
    assert all(a <= b for a, b in zip(low, high, strict=True))
    assert standing.stages["W1"]["value"] > 0
    stages = [one["stage"] for one in standing.stages["W1"]["ahead"]]
    assert stages == sorted(stages)


async def test_results_are_kept_with_the_model_as_their_owner(city):
    await city.rain(RAIN)
    await city.until(300)
    async with running(city) as runner:
        await at(runner, 300)
    whole = await kept(city, "model", "sewer")
    assert sum(row["rain_mm"] for row in whole) == pytest.approx(
        runner._runs.result(runner.standing.run)["injected_mm"]
    )
    assert {row["controller"] for row in whole} == {"sewer"}
    flow = await kept(city, "conduit", "sewer.THROTTLE")
    assert max(row["flow_l_s"] for row in flow) > 1
    lid = await kept(city, "lid", "sewer.S0000.0")
    assert lid[-1]["inflow_mm"] > 10


async def test_a_model_without_any_lid_runs_as_well(city):
    await city.rain(RAIN)
    await city.until(300)
    plain = SwmmModel("plain", "Plain", sewer(12, GAUGES[:3]).encode(), replay_days=1)
    async with running(city, plain, watches=()) as runner:
        await at(runner, 300)
        assert runner.standing.problem == ""
    assert (
        max(row["depth_m"] for row in await kept(city, device="plain.OVERFLOW")) > 0.3
    )


async def test_a_run_that_has_grown_long_is_begun_anew_in_dry_weather(
    city, monkeypatch
):
    await city.rain(RAIN)
    await city.until(300)
    monkeypatch.setattr("duha_backend.drainage.runner.RETRY_S", (0.01,))
    async with running(city) as runner:
        await at(runner, 300)
        first = runner.standing.start
        await city.until(300 + 3 * 24 * 60)
        await at(runner, 300 + 3 * 24 * 60)
        async with asyncio.timeout(20):
            while runner.standing.start == first:
                await asyncio.sleep(0.05)
    states = {run.start: run.state for run in city.runs.page("live")}
    assert states[first] == "complete"


async def test_a_gauge_without_data_is_counted_and_not_made_up(city):
    model = SwmmModel(
        "sewer", "Sewer", RAW, {GAUGES[0]: Place(GAUGES[0])}, replay_days=1
    )
    await city.until(60)
    async with running(city, model) as runner:
        await at(runner, 60)
        assert runner.standing.missing > 0
        assert runner.standing.problem == ""


async def test_a_gauge_that_the_city_does_not_have_is_said(city):
    model = SwmmModel(
        "sewer", "Sewer", RAW, {GAUGES[0]: Place("NOWHERE")}, replay_days=1
    )
    await city.until(60)
    async with running(city, model) as runner:
        async with asyncio.timeout(20):
            while not runner.standing.problem:
                await asyncio.sleep(0.02)
        assert "the city has no gauge 'NOWHERE'" in runner.standing.problem


async def test_a_model_that_swmm_refuses_is_said_and_the_others_go_on(city):
    await city.rain(RAIN)
    await city.until(60)
    bad = SwmmModel(
        "bad", "Bad", RAW.replace(b"K0003 CIRCULAR", b"K0003 TRIANGEL"), replay_days=1
    )
    async with running(city, bad) as broken, running(city) as good:
        await at(good, 60)
        async with asyncio.timeout(20):
            while not broken.standing.problem:
                await asyncio.sleep(0.02)
    assert "TRIANGEL" in broken.standing.problem
    assert good.standing.problem == ""


async def test_another_version_of_a_model_begins_cold(city):
    await city.rain(RAIN)
    await city.until(60)
    async with running(city) as runner:
        await at(runner, 60)
        first = runner.standing.start
    other = SwmmModel("sewer", "Sewer", RAW.replace(b"0.013", b"0.015"), replay_days=1)
    await city.until(65)
    async with running(city, other) as runner:
        await at(runner, 65)
        assert runner.standing.start == first, "whole days"
    marks = {run.id.split("-")[0] for run in city.runs.page("live")}
    assert len(marks) == 2


async def test_a_failing_model_is_an_alarm_until_it_is_mended(city):
    import time

    from duha_backend.alarms.office import Office
    from duha_backend.drainage.office import Drainage
    from duha_backend.lighting.roads import Roads
    from duha_contract.clock import Clock
    from duha_contract.lighting import Sun
    from duha_contract.programmes import Place as Where

    await city.rain(RAIN)
    bad = RAW.replace(b"K0003 CIRCULAR", b"K0003 TRIANGEL")
    city.registry.save(SwmmModel("sewer", "Sewer", bad, replay_days=1))
    sun = Sun(Where(49.75, 13.38, "Europe/Prague"))
    office = Office(
        city.registry, city.live, Roads(city.live), sun, dict, None, "x", time.time
    )
    clock = Clock(lambda: T0 / 1000 + 300 * 60)
    drainage = Drainage(
        city.readings,
        city.registry,
        city.live,
        city.books,
        office,
        clock,
        city.folder / "studies",
    )
    task = asyncio.create_task(drainage.run())

    async def standing(wanted):
        async with asyncio.timeout(30):
            while wanted != (("modelFailure", "sewer") in office.book.standing()):
                await asyncio.sleep(0.1)

    try:
        await standing(True)
        (alarm,) = office.book.page(T0)
        assert "TRIANGEL" in alarm["detail"]
        city.registry.save(MODEL)
        await standing(False)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_store_that_is_away_makes_the_model_wait_and_not_begin_again(city):
    await city.rain(RAIN)
    await city.until(60)
    put, away = city.readings.put, True

    async def refused(kind, frame):
        if away and kind in ("node", "model"):
            raise StoreDown("the disk is full", after_s=0.05)
        await put(kind, frame)

    city.readings.put = refused
    async with running(city) as runner:
        async with asyncio.timeout(20):
            while runner.standing.problem != "the disk is full":
                await asyncio.sleep(0.02)
        pid = runner.process.pid
        away = False
        await at(runner, 60)
        assert runner.process.pid == pid
        assert runner.standing.problem == ""
    assert len(city.runs.page("live")) == 1


async def test_a_gauge_that_is_added_feeds_the_model_that_runs(city):
    await city.rain(RAIN)
    await city.until(60)
    async with running(city) as runner:
        await at(runner, 60)
        pid = runner.process.pid
        more = Asset("A-new", "rain_gauge", "R1", "", "", 49.76, 13.36)
        city.registry.put_assets([more])
        city.live.set_assets(city.registry.assets())
        for minutes in range(65, 100, 5):
            await city.until(minutes)
        await at(runner, 95)
        assert runner.process.pid == pid
        assert runner.standing.problem == ""


async def test_what_a_forecast_has_said_stands_until_the_next_one(city):
    await city.rain(np.zeros(300))
    await city.until(60)
    soon = Watch(
        "W1", "Chamber", "sewer", "node", "OVERFLOW", "depth_m", (0.3, 1.0, 1.8)
    )
    async with running(city, watches=(soon,), design=(EXAMPLE.idf, 5.0)) as runner:
        await at(runner, 60)
        first = runner.standing.stages["W1"]["ahead"]
        await city.until(65)
        await at(runner, 65)
        later = runner.standing.stages["W1"]["ahead"]
    assert len(city.runs.page("forecast")) == 1, "dry: one an hour"
    assert first
    assert {one["minutes"] for one in later} == {
        one["minutes"] - 5 for one in first if one["minutes"] > 5
    }


async def test_after_late_rain_and_a_replay_the_history_is_that_of_the_model(city):
    await city.rain(RAIN[:, :60])
    await city.rain(RAIN[:, 120:], T0 + 120 * MINUTE)
    await city.until(300)
    async with running(city) as runner:
        await at(runner, 300)
    before = await kept(city)
    await city.rain(RAIN[:, 60:120], T0 + 60 * MINUTE)
    city.books.mark([("rain", "late", T0 + k * QUARTER_MS) for k in range(4, 8)])
    again = city.rainfall
    await city.until(310)
    async with running(city) as runner:
        await at(runner, 310)
        result = city.runs.result(runner.standing.run)
        start = runner.standing.start
        rain, _ = await again.minutes(start, T0 + 310 * MINUTE)
    now, whole = await kept(city), await kept(city, "model", "sewer")
    assert len(now) == len(before) + 2, "each time once"
    assert sum(row["rain_mm"] for row in whole) == pytest.approx(result["injected_mm"])
    assert whole[-1]["stored_m3"] == pytest.approx(result["stored_m3"])
    # What is stored is what a model gives that has had all of this rain from its start.
    alone = Process()
    try:
        opened = await alone.open(RAW, start / 1000)
        course = Field(again.places, rain_field(MODEL, opened.gauges, again.gauges))
        fed = np.nan_to_num(areal(course, rain).T * 60)
        rows = await alone.run(fed, 5, 60)
    finally:
        await alone.close()
    chamber = opened.nodes.index("OVERFLOW")
    depths = [row.nodes[0, chamber] for row in rows]
    assert [row["depth_m"] for row in now] == pytest.approx(depths, abs=1e-9)
    late = [row["depth_m"] for row in before]
    assert np.abs(np.array(depths[: len(late)]) - late).max() > 0.05


async def test_a_replay_with_the_same_rain_writes_nothing_again(city):
    await city.rain(RAIN)
    await city.until(300)
    async with running(city) as runner:
        await at(runner, 300)
    put, written = city.readings.put, []

    async def counted(kind, frame):
        written.append((kind, int(frame["ts"].min())))
        await put(kind, frame)

    city.readings.put = counted
    async with running(city) as runner:
        await at(runner, 300)
        await city.until(305)
        await at(runner, 305)
    mine = {ts for kind, ts in written if kind in ("node", "model")}
    assert mine == {T0 + 305 * MINUTE}


async def test_a_model_runs_by_the_clock_of_its_city(city):
    assert clock_offset_s("Europe/Prague", T0) == 2 * 3600
    assert clock_offset_s("Europe/Prague", T0 + 180 * 86_400_000) == 3600
    assert clock_offset_s("Asia/Kathmandu", T0) == 5.75 * 3600
    hours = [
        " ".join("10" if n + k == 0 else "0" for k in range(6)) for n in range(0, 24, 6)
    ]
    lines = "\n".join(
        f"D {'HOURLY' if n == 0 else ''} {h}" for n, h in enumerate(hours)
    )
    text = RAW.decode().replace("FLOW 0.3", "FLOW 0.3 D") + f"\n[PATTERNS]\n{lines}\n"
    model = SwmmModel("sewer", "Sewer", text.encode(), replay_days=1)
    await city.until(300)
    runner = Runner(
        model, city.rainfall, city.readings, city.runs, lambda: (), lambda: None,
        lambda: city.now, "Europe/Prague",
    )  # fmt: skip
    task = asyncio.create_task(runner.run())
    try:
        await at(runner, 300)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    rows = await kept(city, device="sewer.N0011")
    day = T0 - 86_400_000
    wet = [(row["ts"] - day) / 3.6e6 for row in rows if row["inflow_l_s"] > 1]
    assert 22 <= min(t for t in wet if t > 3) <= 22.3, "midnight in Prague is 22:00 UTC"
    assert max(wet) <= 23.3
    result = city.runs.result(runner.standing.run)
    assert any("clock of the city" in c and "Prague" in c for c in result["changes"])


async def test_a_model_that_hangs_is_ended_and_begins_again_and_the_others_go_on(
    city, monkeypatch
):
    import signal

    monkeypatch.setattr("duha_backend.drainage.runner.MINUTE_LIMIT_S", 2.0)
    monkeypatch.setattr("duha_backend.drainage.runner.RETRY_S", (0.5,))
    await city.rain(RAIN)
    await city.until(60)
    second = SwmmModel("second", "Second", RAW, replay_days=1)
    async with running(city) as hung, running(city, second, watches=()) as good:
        await at(hung, 60)
        await at(good, 60)
        pid = hung.process.pid
        os.kill(pid, signal.SIGSTOP)
        await city.until(65)
        await at(good, 65)
        assert hung.process.pid == pid, "the other did not wait for it"
        async with asyncio.timeout(20):
            while "has not answered" not in hung.standing.problem:
                await asyncio.sleep(0.02)
        await at(hung, 65)
        assert hung.process.pid not in (None, pid)
        assert hung.standing.problem == ""


async def test_one_part_of_rain_that_fails_does_not_take_the_others_with_it(
    city, monkeypatch
):
    import time

    from duha_backend.alarms.office import Office
    from duha_backend.drainage.office import Drainage
    from duha_backend.lighting.roads import Roads
    from duha_contract.clock import Clock
    from duha_contract.lighting import Sun
    from duha_contract.programmes import Place as Where

    monkeypatch.setattr("duha_backend.drainage.office.TICK_S", 0.05)
    await city.rain(RAIN)
    await city.until(60)
    bad = RAW.replace(b"K0003 CIRCULAR", b"K0003 TRIANGEL")
    city.registry.save(SwmmModel("bad", "Bad", bad, replay_days=1))
    city.registry.save(MODEL)
    sun = Sun(Where(49.75, 13.38, "Europe/Prague"))
    office = Office(
        city.registry, city.live, Roads(city.live), sun, dict, None, "x", time.time
    )
    clock = Clock(lambda: T0 / 1000 + 300 * 60)
    drainage = Drainage(
        city.readings, city.registry, city.live, city.books, office, clock,
        city.folder / "studies",
    )  # fmt: skip

    async def broken(*_):
        raise ZeroDivisionError("whatever it is")

    monkeypatch.setattr(drainage._external, "take", broken)
    monkeypatch.setattr(drainage._studies, "tend", broken)
    task = asyncio.create_task(drainage.run())
    try:
        async with asyncio.timeout(30):
            while ("modelFailure", "bad") not in office.book.standing():
                await asyncio.sleep(0.05)
            while not any(r.standing.warm for r in drainage.runners):
                await asyncio.sleep(0.05)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert ("modelFailure", "sewer") not in office.book.standing()
    assert {"external rain", "studies"} <= drainage.parts.failures.keys()
    assert drainage.parts.failures.keys() <= {"external rain", "studies"}
