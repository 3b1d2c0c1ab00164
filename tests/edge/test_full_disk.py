"""An agent on a disk that is really full: a small tmpfs, filled by another program."""

import asyncio
import contextlib
import os
import subprocess
import time

import pytest
from tests.edge.test_agent import SITE
from tests.edge.test_link import backend, until
from tests.servers import mosquitto

from duha_contract.clock import Clock
from duha_contract.lighting import Override
from duha_contract.messages import Desired, Event
from duha_contract.programmes import Place
from duha_edge.agent import Agent
from duha_edge.outbox import Content, Outbox
from duha_edge.site import parse
from duha_runtime.waiting import ended
from duha_sim.city import SimulatedCity
from duha_sim.storm import Replay
from duha_sim.streets import generate
from duha_sim.trouble import Troubles

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
LAMP = "RVO-001-L001"


@pytest.fixture
def disk(tmp_path):
    """A disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, check=False, capture_output=True)
    except OSError as error:
        pytest.skip(f"mounting is not possible here: {error}")
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Take all the room that is left."""
    with (folder / "filler").open("ab", buffering=0) as file:
        for size in (65_536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    free = os.statvfs(folder).f_bavail
    assert free == 0


@contextlib.asynccontextmanager
async def agent(folder, disk, broker):
    """An agent whose data lie on the disk; the readings that it has made."""
    clock = Clock(time.time)
    city = SimulatedCity(
        generate(1, 2, 1, rtu=0), clock, Replay((0.0,), (0.0,)),
        Troubles(folder / "trouble.json"), folder,
    )  # fmt: skip
    await city.start()
    text = SITE.format(folder=disk, port=city.ports["RVO-001", "line1"])
    text = text.replace("port = 1\n", f"port = {broker}\n", 1)
    made = Agent(parse(text), clock)
    readings: list[tuple[object, ...]] = []
    kept = made.recorder.cycle

    async def cycle(found):
        readings.extend(row for rows in found.rows.values() for row in rows)
        await kept(found)

    made.recorder.cycle = cycle  # type: ignore[method-assign]
    running = asyncio.create_task(made.run())
    try:
        yield made, city, readings
        assert not running.done()
    finally:
        await ended([running])
        await city.close()
        await asyncio.sleep(0.02)


async def test_nothing_is_lost_or_doubled_and_the_lights_obey(
    tmp_path, disk, free_port
):
    with mosquitto(free_port, tmp_path):
        async with (
            backend(free_port) as there,
            agent(tmp_path, disk, free_port) as (made, city, readings),
        ):
            await until(lambda: len(there.rows) > 20)
            there.answers = False
            await asyncio.sleep(1.0)  # batches wait for their acknowledgement
            fill(disk)
            await until(lambda: made.recorder.alarm)
            there.answers = True  # what was sent is acknowledged to a full disk
            now = round(made.clock.now() * 1000)
            for level in (30, 70):
                dim = Override("o", level, now - 1, now + 10**7, devices=(LAMP,))
                place = Place(49.7475, 13.3776, "Europe/Prague")
                made._desired(Desired(1, level, f"{level}", 0, place, overrides=(dim,)))
                lamp = city.luminaires[LAMP]
                await until(lambda w=level, n=lamp: round(n.lamp.setpoint * 100) == w)
            gauge = city.gauges["SR-01"]
            gauge._gauge = type(gauge._gauge)(tips=gauge._gauge.tips + 3)
            await asyncio.sleep(3)
            assert made.status().alarms
            made_while_full = len(readings)
            (disk / "filler").unlink()
            await until(lambda: not made.recorder.alarm)
            await until(lambda: len(there.rows) > made_while_full)
            seen = list(readings)
            await until(lambda: {r[:2] for r in seen} <= {r[:2] for r in there.rows})
            assert made.outbox.lost == 0
    names = [row[:2] for row in there.rows]
    assert len(names) == len(set(names))
    counts = [row[4] for row in there.rows if row[0] == "SR-01"]
    assert sum(count or 0 for count in counts) == 3


def test_an_outbox_that_is_opened_on_a_full_disk_is_not_set_aside(disk):
    first = Outbox(disk / "outbox.db")
    first.put([Content(True, events=(Event(1, "kept"),))])
    first.close()
    fill(disk)
    now = [0.0]
    second = Outbox(disk / "outbox.db", monotonic=lambda: now[0])
    assert not second.put([Content(True, events=(Event(1, "held"),))])
    assert second.trouble
    (disk / "filler").unlink()
    now[0] = 60.0
    assert second.put([])
    (batch,) = second.due((), 0, 10)
    assert b'"kept"' in batch.payload
    assert b'"held"' in batch.payload
    second.close()
    assert not list(disk.glob("*corrupt*"))
