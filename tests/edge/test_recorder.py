"""What the recorder does while the outbox cannot be used, and with a clock that is set."""

import asyncio
import sqlite3
import time

from tests.edge.test_agent import cabinet

from duha_contract.clock import Clock
from duha_edge import outbox_file
from duha_edge.errors import OutboxError
from duha_edge.outbox import Outbox
from duha_edge.profiles import Counter
from duha_edge.recorder import Cycle, Recorder
from duha_edge.timekeeper import Timekeeper

LAMP = "RVO-001-L001"


async def until(so):
    async with asyncio.timeout(15):
        while not so():
            await asyncio.sleep(0.02)


async def test_an_agent_whose_outbox_is_locked_lights_and_loses_no_rain(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(outbox_file, "BUSY_S", 0.01)
    monkeypatch.setattr(outbox_file, "RETRY_S", 0.2)
    async with cabinet(tmp_path) as made:
        await until(lambda: made.rows("rain_gauge", "SR-01"))
        tips = made.city.gauges["SR-01"]._gauge.tips
    blocker = sqlite3.connect(tmp_path / "agent" / "outbox.db", isolation_level=None)
    blocker.execute("PRAGMA locking_mode = EXCLUSIVE")
    blocker.execute("BEGIN EXCLUSIVE")
    blocker.execute("UPDATE meta SET value = value")
    async with cabinet(tmp_path) as made:
        gauge = made.city.gauges["SR-01"]
        gauge._gauge = type(gauge._gauge)(tips=tips + 2)
        await until(lambda: made.agent.executor.commanded(LAMP) is not None)
        await until(lambda: any("locked" in a for a in made.agent.status().alarms))
        assert made.agent.status().backlog > 0  # in memory
        blocker.execute("COMMIT")
        blocker.close()
        await until(lambda: made.agent.status().alarms == ())
        await until(
            lambda: sum(r["counts"] or 0 for r in made.rows("rain_gauge", "SR-01")) == 2
        )
        await asyncio.sleep(0.3)
        assert sum(r["counts"] or 0 for r in made.rows("rain_gauge", "SR-01")) == 2
        lamps = made.rows("luminaire", LAMP)
        assert len({row["ts"] for row in lamps}) == len(lamps)


async def test_times_are_put_right_later_when_the_disk_refuses_it_now(tmp_path):
    outbox = Outbox(tmp_path / "o.db")
    recorder = Recorder(outbox, Clock(time.time), Timekeeper(), lambda: None)
    rebase, asked = outbox.rebase, []

    def refused(since):
        asked.append(since)
        if len(asked) == 1:
            raise OutboxError("disk full")
        return rebase(since)

    outbox.rebase = refused  # type: ignore[method-assign]
    await recorder.clock_set(3600.0)
    assert len(asked) == 1
    await recorder.cycle(Cycle())
    assert len(asked) == 2
    await recorder.cycle(Cycle())
    assert len(asked) == 2
    outbox.close()


async def test_events_are_bounded_in_number_and_length(tmp_path):
    outbox = Outbox(tmp_path / "o.db")
    recorder = Recorder(outbox, Clock(time.time), Timekeeper(), lambda: None)
    for n in range(3000):
        recorder.note("something", detail=f"{n} " + "x" * 10_000)
    await recorder.cycle(Cycle())
    assert len(outbox) == 10
    assert max(len(b.payload) for b in outbox.due((), 0, 100)) < 128 * 1024
    outbox.close()


async def test_a_count_that_no_integer_holds_is_no_rain(tmp_path):
    outbox = Outbox(tmp_path / "o.db")
    recorder = Recorder(outbox, Clock(time.time), Timekeeper(), lambda: None)
    counter = Counter("tips", 65_536, 0.2)
    for raw in (float("inf"), float("nan"), 1e300):
        cycle = Cycle()
        recorder.count("SR-01", counter, {"counter_raw": raw}, 1, cycle)
        await recorder.cycle(cycle)
    assert outbox.trouble == ""
    assert outbox.counters() == {}
    outbox.close()
