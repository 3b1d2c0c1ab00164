"""Outage drills with the agent as a process of its own: what the promises are worth."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import aiomqtt
import pytest

from duha_contract.clock import Clock, Timeline
from duha_contract.lighting import Sun
from duha_contract.messages import Ack, Batch, decode, encode
from duha_contract.quantities import KINDS
from duha_edge.agent import Agent
from duha_edge.site import parse
from duha_sim.city import SimulatedCity
from duha_sim.storm import Replay
from duha_sim.streets import generate
from duha_sim.trouble import Troubles
from tests.servers import mosquitto

pytestmark = [pytest.mark.drill, pytest.mark.system, pytest.mark.timeout(300)]

SITE = """
[site]
city = "plzen"
controller = "RVO-001"
latitude = 49.7475
longitude = 13.3776
zone = "Europe/Prague"
period_s = {period}
data = "{folder}"
[broker]
port = {broker}
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
id = "SR-01"
bus = "line1"
unit = 210
profile = "rain-gauge-generic"
"""
TIPS = KINDS["rain_gauge"]
COUNTS = 3 + [quantity.name for quantity in TIPS].index("counts")


async def collect(port, until):
    """A backend in miniature: keeps each batch once, acknowledges it; counts doubles."""
    kept: dict[int, Batch] = {}
    doubled = 0
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("duha/v1/plzen/+/data", qos=1)
        async for message in client.messages:
            batch = decode(message.payload, Batch)
            doubled += batch.seq in kept
            kept.setdefault(batch.seq, batch)
            ack = Ack(1, batch.outbox, ((batch.seq, batch.seq),))
            await client.publish("duha/v1/plzen/RVO-001/ack", encode(ack), qos=1)
            if until(kept):
                return kept, doubled
    raise AssertionError("the broker has gone")


def rows(kept, kind):
    return [
        row
        for batch in kept.values()
        for table in batch.tables
        if table.kind == kind
        for row in table.rows
    ]


def whole(kept, tips):
    """Whether no batch is missing and the rain up to the last tip is in."""
    fallen = sum(row[COUNTS] for row in rows(kept, "rain_gauge"))
    return fallen >= tips and set(kept) == set(range(1, max(kept) + 1))


class Devices:
    """Simulated devices on a thread of their own, so that killing the agent is harmless."""

    def __init__(self, folder, clock):
        self.loop = asyncio.new_event_loop()
        self.city = SimulatedCity(
            generate(1, 1, 1, rtu=0), clock, Replay((0.0,), (0.0,)),
            Troubles(folder / "trouble.json"), folder,
        )  # fmt: skip
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.city.start(), self.loop).result(10)

    def tip(self, count):
        gauge = self.city.gauges["SR-01"]
        gauge._gauge = type(gauge._gauge)(tips=gauge._gauge.tips + count)

    def close(self):
        asyncio.run_coroutine_threadsafe(self.city.close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture
def devices(tmp_path):
    made = Devices(tmp_path, Clock(time.time))
    yield made
    made.close()


def start(site, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "duha", "edge", "run", str(site)],
        stderr=subprocess.DEVNULL, env=os.environ | environment,
    )  # fmt: skip


def write_site(tmp_path, devices, broker, period=0.2):
    site = tmp_path / "site.toml"
    port = devices.city.ports["RVO-001", "line1"]
    text = SITE.format(
        folder=tmp_path / "data", port=port, broker=broker, period=period
    )
    site.write_text(text, "utf-8")
    return site


def test_fifty_kills_lose_no_batch_no_rain_and_no_lamp(tmp_path, devices, free_port):
    """`kill -9` at random instants, rain all the while; then a backend is there again."""
    site = write_site(tmp_path, devices, free_port)
    chance = random.Random(time.time_ns())
    first = start(site)
    outbox = tmp_path / "data" / "outbox.db"
    gauge_seen = "SELECT count(*) FROM counter"
    while not outbox.exists() or not ask(outbox, gauge_seen):
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    tips = 0
    for _ in range(50):
        agent = start(site)
        time.sleep(chance.uniform(0.1, 1.6))
        devices.tip(1)
        tips += 1
        agent.send_signal(signal.SIGKILL)
        agent.wait(10)
        assert ask(outbox, "PRAGMA integrity_check") == "ok"
    assert not list((tmp_path / "data").glob("*.corrupt-*"))
    with mosquitto(free_port, tmp_path):
        last = start(site)
        try:
            found = collect(free_port, lambda k: whole(k, tips))
            kept, _ = asyncio.run(asyncio.wait_for(found, 60))
        finally:
            last.terminate()
            last.wait(10)
    assert sum(row[COUNTS] for row in rows(kept, "rain_gauge")) == tips
    lamp = rows(kept, "luminaire")
    assert len({(row[0], row[1]) for row in lamp}) == len(lamp)
    sun = Sun(parse(site.read_text("utf-8")).site.place)
    night = sun.night(sun.date_of(time.time()))
    dark = night is not None and night.sunset <= time.time() < night.sunrise
    setpoint = devices.city.luminaires["RVO-001-L001"].lamp.setpoint
    assert setpoint == (1.0 if dark else 0.0)


def ask(path, query):
    """One value of an outbox, read beside the agent."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        ) as db:
            return db.execute(query).fetchone()[0]
    except (sqlite3.DatabaseError, TypeError):  # busy, or still the broken file
        return None


async def test_a_week_without_a_broker(tmp_path, free_port):
    """Seven simulated days at hourly cycles, lamps by the programme, rain every hour.

    Then a real broker comes up and everything arrives once.
    """
    rate, week = 20_160.0, 7 * 86_400.0
    noon = 1_795_518_000.0 - 1_795_518_000.0 % 86_400 + 11 * 3600
    timeline = Timeline(time.time(), noon, rate)
    clock = Clock(time.time, timeline)
    city = SimulatedCity(
        generate(1, 1, 1, rtu=0), clock, Replay((0.0,), (0.0,)),
        Troubles(tmp_path / "trouble.json"), tmp_path,
    )  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        await city.start()
        stack.push_async_callback(asyncio.sleep, 0.05)
        stack.push_async_callback(city.close)
        text = SITE.format(
            folder=tmp_path / "data", port=city.ports["RVO-001", "line1"],
            broker=free_port, period=3600,
        ).replace("[broker]", "[outbox]\ndrain_per_s = 200\n[broker]")  # fmt: skip
        agent = Agent(parse(text), clock)
        running = asyncio.create_task(agent.run())
        stack.push_async_callback(ended, running)
        tips, backlog = await a_week(agent, city, clock, noon + week)
        assert backlog > 150
        with mosquitto(free_port, tmp_path):
            kept, _ = await asyncio.wait_for(
                collect(free_port, lambda _: len(agent.outbox) < 5), 60
            )
            await ended(running)
    assert sum(row[COUNTS] for row in rows(kept, "rain_gauge")) == tips
    assert len(kept) < backlog / 4  # small cycles leave together
    times = [row[1] for row in sorted(rows(kept, "luminaire"), key=lambda r: r[1])]
    assert len(set(times)) == len(times)
    assert times[-1] - times[0] >= (week - 8 * 3600) * 1000


async def ended(task):
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def a_week(agent, city, clock, end):
    """Let it rain and look at the lamp; returns the tips and the number of batches."""
    sun = Sun(agent.file.site.place)
    tips, wrong, looked = 0, [], 0
    await asyncio.sleep(0.5)
    while clock.now() < end:
        await asyncio.sleep(0.2)
        gauge = city.gauges["SR-01"]
        gauge._gauge = type(gauge._gauge)(tips=gauge._gauge.tips + 3)
        tips += 3
        now = clock.now()
        night = sun.night(sun.date_of(now))
        edge = night and min(abs(now - night.sunset), abs(now - night.sunrise))
        # Two looks of the control loop may pass after a switching.
        if night and edge and edge > 2 * 0.3 * clock.timeline.rate:
            dark = night.sunset <= now < night.sunrise
            level = city.luminaires["RVO-001-L001"].lamp.setpoint
            looked += 1
            wrong += [now] if level != (1.0 if dark else 0.0) else []
    await asyncio.sleep(0.5)
    assert looked > 50
    assert wrong == []
    return tips, agent.outbox.next_seq


def test_systemd_hears_from_the_agent_and_a_reload_is_followed(
    tmp_path, devices, free_port
):
    """READY, then WATCHDOG while lines make progress; SIGHUP reads the site file anew."""
    site = write_site(tmp_path, devices, free_port)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        agent = start(
            site, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000"
        )
        try:
            assert systemd.recv(100) == b"READY=1"
            assert [systemd.recv(100) for _ in range(4)] == [b"WATCHDOG=1"] * 4
            text = site.read_text("utf-8")
            site.write_text(text.replace("period_s = 0.2", "period_s = 0.3"), "utf-8")
            agent.send_signal(signal.SIGHUP)
            outbox = tmp_path / "data" / "outbox.db"
            query = "SELECT count(*) FROM batch WHERE instr(payload, 'site_applied')"
            for _ in range(100):
                if ask(outbox, query):
                    break
                time.sleep(0.05)
            assert ask(outbox, query) == 1
        finally:
            agent.terminate()
            assert agent.wait(10) == 0


def test_a_corrupt_outbox_and_a_corrupt_document_do_not_keep_the_agent_from_starting(
    tmp_path, devices, free_port
):
    site = write_site(tmp_path, devices, free_port)
    data = tmp_path / "data"
    data.mkdir()
    (data / "outbox.db").write_bytes(os.urandom(20_000))
    (data / "desired.json").write_bytes(b'{"v":1,"revi')
    agent = start(site)
    try:
        for _ in range(200):
            if ask(data / "outbox.db", "SELECT count(*) FROM batch"):
                break
            time.sleep(0.05)
        assert ask(data / "outbox.db", "SELECT count(*) FROM batch")
        assert len(list(data.glob("outbox.db.corrupt-*"))) == 1
    finally:
        agent.terminate()
        assert agent.wait(10) == 0
    assert json.loads(
        ask(data / "outbox.db", "SELECT payload FROM batch ORDER BY seq LIMIT 1")
    )["outbox"]
