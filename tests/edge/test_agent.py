"""The agent over real Modbus ports, with a clock that is set by hand and no broker."""

import asyncio
import contextlib
import time
from importlib import resources

import pytest

from duha_contract.clock import Clock
from duha_contract.lighting import Override
from duha_contract.messages import Batch, Desired, decode
from duha_contract.programmes import Calendar, Effect, Place, Programme, Step
from duha_contract.roads import Drying
from duha_edge import profiles
from duha_edge.agent import Agent
from duha_edge.errors import ConfigError, OutboxError
from duha_edge.site import Source, parse
from duha_sim.city import SimulatedCity
from duha_sim.devices import Gateway
from duha_sim.modbus import TcpPort, answer
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
async def cabinet(folder, weather=None, source=time.time, period_s=0.2):
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
    text = text.replace("period_s = 0.2", f"period_s = {period_s}")
    agent = Agent(parse(text), Clock(source))
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


async def test_rain_lights_the_cabinets_lamps_within_two_seconds_without_a_backend(
    tmp_path,
):
    """The period is a minute: it is the watch over the gauge that has seen the tip."""
    async with cabinet(tmp_path, period_s=60) as made:
        await asyncio.sleep(1.0)
        dim = Programme(
            "p",
            "P",
            (Step("12:00", 30), Step("11:59", 30)),
            effects=(Effect("wet_road"),),
        )
        document = Desired(
            1, 1, "x", 0, Place(49.7475, 13.3776, "Europe/Prague"), (dim,),
            (Calendar("c", "C", "p"),), {"*": "c"}, drying=Drying(),
        )  # fmt: skip
        made.agent._desired(document)
        lamp = made.city.luminaires["RVO-001-L001"]
        await _until(lambda: round(lamp.lamp.setpoint * 100) == 30)
        gauge = made.city.gauges["SR-01"]
        before = gauge._gauge
        tipped = time.monotonic()
        gauge._gauge = type(before)(tips=before.tips + 1)
        await _until(lambda: round(lamp.lamp.setpoint * 100) == 100)
        assert time.monotonic() - tipped <= 2.0
        (cause, *_) = made.agent.executor.decide("RVO-001-L001", time.time()).reason
        assert (cause.code, cause.name) == ("wet_road", "SR-01")
        assert sum(row["counts"] or 0 for row in made.rows("rain_gauge", "SR-01")) == 1


async def _until(so):
    async with asyncio.timeout(5):
        while not so():
            await asyncio.sleep(0.02)


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


GATEWAY = """
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
name = "dali"
type = "tcp"
host = "127.0.0.1"
port = {port}
"""
LAMP = """[[device]]
id = "L{n}"
bus = "dali"
unit = 1
profile = "bacmove-dalion"
at = {{ channel = 0, lamp = {n} }}
writes = ["level_in_effect_pct"]
"""
GROUP = """[[group]]
bus = "dali"
unit = 1
profile = "bacmove-dalion"
register = "{register}"
at = {{ channel = 0{more} }}
members = [{members}]
"""


@contextlib.asynccontextmanager
async def dali(folder, text):
    """Four lamps behind a gateway; lamps 0 and 1 are in DALI group 3."""
    places = [{"channel": 0, "lamp": n} for n in range(4)]
    groups = {
        ("broadcast", (("channel", 0),)): [0, 1, 2, 3],
        ("group", (("channel", 0), ("group", 3))): [0, 1],
    }
    gateway = Gateway(
        profiles.load("bacmove-dalion"), places, {"level_in_effect_pct": 0}, groups
    )

    async def respond(_unit, pdu):
        return answer(gateway, pdu)

    port = TcpPort(respond, lambda _, frame: frame)
    await port.start()
    lamps = "".join(LAMP.format(n=n) for n in range(4))
    site = GATEWAY.format(folder=folder / "agent", port=port.port) + lamps + text
    agent = Agent(parse(site), Clock(lambda: NIGHT))
    running = asyncio.create_task(agent.run())
    try:
        yield agent, gateway
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await port.close()
        await asyncio.sleep(0.02)


NIGHT = 1_795_561_200.0  # 2026-11-24 23:00 in Plzeň
ALL = GROUP.format(register="broadcast", more="", members='"L0", "L1", "L2", "L3"')
PAIR = GROUP.format(register="group", more=", group = 3", members='"L0", "L1"')


def writes(gateway):
    return [asked for asked in gateway.asked if asked[0] == "write"]


async def test_a_gateway_is_told_once_and_read_at_once(tmp_path):
    async with dali(tmp_path, ALL) as (agent, gateway):
        await asyncio.sleep(0.8)
        assert writes(gateway) == [("write", 80, 255)]
        assert {asked for asked in gateway.asked if asked[0] != "write"} == {
            ("holding", 0, 4)  # polls and read-back alike: one request for four lamps
        }
        assert [u.values()["level_in_effect_pct"] for u in gateway.units] == [
            pytest.approx(100)
        ] * 4
        report = agent.executor.report(0)
        assert report is None or report.diverged == ()


async def test_a_group_is_used_where_its_members_agree_and_nobody_else_is_touched(
    tmp_path,
):
    async with dali(tmp_path, ALL + PAIR) as (agent, gateway):
        await asyncio.sleep(0.6)
        gateway.asked.clear()
        start, end = round(NIGHT * 1000) - 1, round(NIGHT * 1000) + 10_000_000
        dim = Override("o", 50, start, end, devices=("L0", "L1"))
        place = Place(49.7475, 13.3776, "Europe/Prague")
        agent._desired(Desired(1, 1, "h", 0, place, overrides=(dim,)))
        await asyncio.sleep(0.8)
        assert writes(gateway) == [("write", 64 + 3, 128)]
        levels = [round(u.values()["level_in_effect_pct"]) for u in gateway.units]
        assert levels == [50, 50, 100, 100]


async def test_without_a_group_in_the_site_file_lamps_are_told_one_by_one(tmp_path):
    async with dali(tmp_path, "") as (_, gateway):
        await asyncio.sleep(0.6)
        assert writes(gateway) == [("write", n, 255) for n in range(4)]


def test_a_group_that_reaches_more_than_the_site_allows_is_refused():
    with pytest.raises(ConfigError, match="`L9` is no device of `dali`"):
        parse(
            GATEWAY.format(folder="x", port=1)
            + "".join(LAMP.format(n=n) for n in range(2))
            + GROUP.format(register="broadcast", more="", members='"L0", "L9"')
        )
    with pytest.raises(ConfigError, match="`L1` does not let"):
        parse(
            GATEWAY.format(folder="x", port=1)
            + LAMP.format(n=0)
            + LAMP.format(n=1).replace('writes = ["level_in_effect_pct"]', "")
            + GROUP.format(register="broadcast", more="", members='"L0", "L1"')
        )


# -- hot change ------------------------------------------------------------------


@contextlib.asynccontextmanager
async def two_lines(folder):
    """An agent that follows its site file, with two lines of two cities."""
    clock = Clock(time.time)
    dry = Replay((0.0,), (0.0,))
    cities = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        troubles = Troubles(folder / "trouble.json")
        city = SimulatedCity(
            generate(1, 2, 1, rtu=0), clock, dry, troubles, folder / name
        )
        await city.start()
        cities.append(city)
    ports = [city.ports["RVO-001", "line1"] for city in cities]
    path = folder / "site.toml"
    text = SITE.format(folder=folder / "agent", port=ports[0]) + SECOND.format(
        port=ports[1]
    )
    path.write_text(text, "utf-8")
    source = Source(path)
    agent = Agent(source.load(), clock, source)
    running = asyncio.create_task(agent.run())
    try:
        yield agent, path, text
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        for city in cities:
            await city.close()
        await asyncio.sleep(0.02)


SECOND = """
[[bus]]
name = "line2"
type = "tcp"
host = "127.0.0.1"
port = {port}
[[device]]
id = "L201"
bus = "line2"
unit = 1
profile = "luminaire-generic"
"""


async def looked(agent):
    agent.look_again()
    await asyncio.sleep(0.3)
    while agent._exchanged:  # a line takes a moment to stop
        await asyncio.sleep(0.02)


async def test_the_same_site_file_a_hundred_times_does_nothing(tmp_path):
    async with two_lines(tmp_path) as (agent, path, text):
        lines = dict(agent.lines)
        for _ in range(100):
            path.write_text(text, "utf-8")
            agent.look_again()
            await asyncio.sleep(0.01)
        await looked(agent)
        assert agent.lines == lines
        assert "site_applied" not in codes(agent)


async def test_a_change_of_one_line_leaves_the_other_alone(tmp_path):
    async with two_lines(tmp_path) as (agent, path, text):
        await asyncio.sleep(0.3)
        untouched = agent.lines["line1"]
        asked = agent.parts._tasks["line line1"]
        more = text + SECOND.split("[[device]]")[1].join(["[[device]]", ""]).replace(
            "L201", "L202"
        ).replace("unit = 1", "unit = 2")
        path.write_text(more, "utf-8")
        await looked(agent)
        assert agent.lines["line1"] is untouched
        assert agent.parts._tasks["line line1"] is asked
        assert not asked.done()
        await asyncio.sleep(0.5)
        found = Cabinet(agent, None, tmp_path).rows("luminaire", "L202")
        assert found[-1]["quality"] == "good"
        assert "site_applied" in codes(agent)
        path.write_text(text.split('[[bus]]\nname = "line2"')[0], "utf-8")
        await looked(agent)
        assert set(agent.lines) == {"line1"}
        assert agent.lines["line1"] is untouched


async def test_a_bad_site_file_is_refused_with_the_reason_and_the_old_one_goes_on(
    tmp_path,
):
    async with two_lines(tmp_path) as (agent, path, text):
        lines = dict(agent.lines)
        for bad, reason in (
            (text.replace("unit = 210", "unit = 1"), "used twice"),
            (text + "[[", "site.toml"),
            (text.replace('city = "plzen"', 'city = "brno"'), "needs a restart"),
        ):
            path.write_text(bad, "utf-8")
            await looked(agent)
            assert reason in agent.status().site_error
            assert agent.lines == lines
        path.write_text(text, "utf-8")
        await looked(agent)
        assert agent.status().site_error == ""
        await asyncio.sleep(0.3)
        assert codes(agent).count("site_refused") == 3


async def test_a_profile_of_ones_own_is_followed_too(tmp_path):
    own = tmp_path / "profiles"
    own.mkdir()
    async with two_lines(tmp_path) as (agent, path, text):
        shipped = (
            resources.files(profiles)
            .joinpath("luminaire-generic.toml")
            .read_text("utf-8")
        )
        mine = shipped.replace('"luminaire-generic"', '"my-lamp"')
        (own / "my-lamp.toml").write_text(mine, "utf-8")
        lamp = text.replace('data = "', 'profiles = "profiles"\ndata = "')
        head, tail = lamp.rsplit("luminaire-generic", 1)
        path.write_text(f"{head}my-lamp{tail}", "utf-8")
        await looked(agent)
        assert agent.status().site_error == ""
        one, two = agent.lines["line1"], agent.lines["line2"]
        assert two.plan.devices[0].profile.name == "my-lamp"
        (own / "my-lamp.toml").write_text(
            mine.replace("scale = 0.1", "scale = 0.2", 1), "utf-8"
        )
        await looked(agent)
        assert agent.lines["line1"] is one
        assert agent.lines["line2"] is not two


def codes(agent):
    batches = Cabinet(agent, None, None).batches()
    return [event.code for batch in batches for event in batch.events]


# -- time and disk -----------------------------------------------------------------


async def test_a_controller_that_boots_in_1970_lights_and_dates_its_readings_later(
    tmp_path,
):
    wall = [time.time()]
    wrong = wall[0] - 5.0  # the clock stands at five seconds after 1970
    async with cabinet(tmp_path, source=lambda: time.time() - wrong) as made:
        await asyncio.sleep(0.7)
        assert made.agent.status().clock == "unset"
        assert made.agent.executor.commanded("RVO-001-L001") == 100
        assert made.batches() == []  # nothing is sent with such a date
        assert len(made.agent.outbox) > 1
        wrong = 0.0
        await asyncio.sleep(0.8)
        assert made.agent.status().clock == "trusted"
        rows = made.rows("luminaire", "RVO-001-L001")
        times = [row["ts"] / 1000 for row in rows]
        assert times == sorted(times)
        assert all(wall[0] - 1 <= t <= time.time() for t in times)
        assert {b.clock for b in made.batches()} == {"rebased", "trusted"}
        assert "clock_set" in codes(made.agent)


@pytest.mark.system  # real seconds of waiting
async def test_a_full_disk_is_an_alarm_and_ends_by_itself(tmp_path):
    async with cabinet(tmp_path) as made:
        await asyncio.sleep(0.4)
        database = made.agent.outbox._file.opened()
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own full disk
        wanted = made.agent.executor
        await asyncio.sleep(2.5)
        assert any("full" in alarm for alarm in made.agent.status().alarms)
        assert wanted.commanded("RVO-001-L001") is not None
        database.execute("PRAGMA max_page_count = 1073741823")
        await asyncio.sleep(0.7)
        assert made.agent.status().alarms == ()
        assert "outbox_recovered" in codes(made.agent)
