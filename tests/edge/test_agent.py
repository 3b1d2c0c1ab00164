"""The agent over real Modbus ports, with a clock that is set by hand and no broker."""

import asyncio
import contextlib
import time

from duha_contract.clock import Clock
from duha_contract.messages import Batch, decode
from duha_edge.agent import Agent
from duha_edge.errors import OutboxError
from duha_edge.site import parse
from duha_sim.city import SimulatedCity
from duha_sim.storm import Replay
from duha_sim.streets import generate
from duha_sim.trouble import Troubles, change

SITE = """
[site]
city = "plzen"
controller = "RVO-001"
latitude = 49.7475
longitude = 13.3776
zone = "Europe/Prague"
period_s = 0.2
data = "{folder}"
[broker]
port = 1
[[bus]]
name = "line1"
type = "tcp"
host = "127.0.0.1"
port = {port}
[[device]]
id = "RVO-001-L001"
bus = "line1"
unit = 1
profile = "luminaire-generic"
writes = ["level_in_effect_pct"]
[[device]]
id = "RVO-001-L002"
bus = "line1"
unit = 2
profile = "luminaire-generic"
[[device]]
id = "SR-01"
bus = "line1"
unit = 210
profile = "rain-gauge-generic"
"""


class Cabinet:
    def __init__(self, agent, city, folder):
        self.agent = agent
        self.city = city
        self.folder = folder

    def batches(self):
        return [decode(b.payload, Batch) for b in self.agent.outbox.due((), 0, 10_000)]

    def rows(self, kind, device):
        return [
            dict(zip(table.columns, row, strict=True))
            for batch in self.batches()
            for table in batch.tables
            if table.kind == kind
            for row in table.rows
            if row[0] == device
        ]


@contextlib.asynccontextmanager
async def cabinet(folder, weather=None):
    dry = Replay((0.0,), (0.0,))
    clock = Clock(time.time)
    city = SimulatedCity(
        generate(1, 2, 1, rtu=0),
        clock,
        weather or dry,
        Troubles(folder / "trouble.json"),
        folder,
    )
    await city.start()
    text = SITE.format(folder=folder / "agent", port=city.ports["RVO-001", "line1"])
    agent = Agent(parse(text), clock)
    running = asyncio.create_task(agent.run())
    try:
        yield Cabinet(agent, city, folder)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await city.close()
        await asyncio.sleep(0.02)


async def test_a_cycle_is_stored_with_the_time_of_each_answer(tmp_path):
    async with cabinet(tmp_path) as made:
        await asyncio.sleep(0.7)
        rows = made.rows("luminaire", "RVO-001-L001")
        assert len(rows) >= 2
        assert all(row["quality"] == "good" for row in rows)
        assert rows[0]["voltage_v"] == 230.4
        assert rows[0]["ts"] < rows[1]["ts"]
        assert [
            batch.seq for batch in sorted(made.batches(), key=lambda b: b.seq)
        ] == list(range(1, len(made.batches()) + 1))


async def test_only_what_the_site_allows_is_written(tmp_path):
    async with cabinet(tmp_path) as made:
        await asyncio.sleep(0.8)
        wanted = round(made.agent.executor.decide("RVO-001-L001", time.time()).level)
        assert made.agent.executor.commanded("RVO-001-L001") == wanted
        assert made.city.luminaires["RVO-001-L001"].lamp.setpoint * 100 == wanted
        assert made.agent.executor.commanded("RVO-001-L002") is None
        assert made.city.luminaires["RVO-001-L002"].lamp.setpoint == 0


async def test_a_dead_device_is_a_row_without_values(tmp_path):
    change(tmp_path / "trouble.json", "RVO-001-L002", "dead")
    async with cabinet(tmp_path) as made:
        made.city.apply_troubles()
        await asyncio.sleep(1.5)
        last = made.rows("luminaire", "RVO-001-L002")[-1]
        assert last["quality"] == "no_answer"
        assert last["power_w"] is None
        assert made.rows("luminaire", "RVO-001-L001")[-1]["quality"] == "good"


async def test_rain_is_counted_from_the_last_reading_that_was_kept(tmp_path):
    """A cycle that the disk refused costs no rain: the next one counts it again."""
    async with cabinet(tmp_path) as made:
        await asyncio.sleep(0.5)
        made.agent.executor.report(0)
        refused = made.agent.outbox.put

        def full(*_arguments, **_named):
            raise OutboxError("disk full")

        made.agent.outbox.put = full  # the disk is full now
        gauge = made.city.gauges["SR-01"]
        before = gauge._gauge
        gauge._gauge = type(before)(tips=before.tips + 1)
        await asyncio.sleep(0.5)
        made.agent.outbox.put = refused
        await asyncio.sleep(0.5)
        assert sum(row["counts"] or 0 for row in made.rows("rain_gauge", "SR-01")) == 1


async def test_the_first_reading_of_a_gauge_is_no_rain_and_a_restart_loses_none(
    tmp_path,
):
    async with cabinet(tmp_path) as made:
        await asyncio.sleep(0.5)
        tips = made.city.gauges["SR-01"]._gauge.tips
        assert sum(row["counts"] for row in made.rows("rain_gauge", "SR-01")) == 0
    async with cabinet(tmp_path) as made:
        gauge = made.city.gauges["SR-01"]
        gauge._gauge = type(gauge._gauge)(
            tips=tips + 1
        )  # it tipped while the agent was gone
        await asyncio.sleep(0.6)
        assert sum(row["counts"] for row in made.rows("rain_gauge", "SR-01")) == 1
