"""The link over a real broker that stops, hangs or is slow, with an outbox that fails."""

import asyncio
import contextlib
import logging
import signal
import sqlite3
import time
from typing import Any

import aiomqtt
import pytest
from tests.servers import mosquitto

from duha_contract.messages import (
    Ack,
    Batch,
    Desired,
    Event,
    Status,
    Table,
    decode,
    encode,
)
from duha_contract.programmes import Place
from duha_edge.link import Link
from duha_edge.outbox import Content, Outbox
from duha_edge.site import Broker, Site
from duha_runtime.waiting import ended

SITE = Site("plzen", "RVO-001", 49.7, 13.3, "Europe/Prague")


def cycle(n, count=25):
    rows = tuple((f"L{i}", 1_800_000_000_000 + n, "good") for i in range(count))
    return Content(False, (Table("luminaire", ("device", "ts", "quality"), rows),))


@contextlib.asynccontextmanager
async def linked(tmp_path, port, desired=lambda _: None):
    outbox = Outbox(tmp_path / "outbox.db")
    status = Status(v=1, online=True)
    link = Link(SITE, Broker(port=port), outbox, lambda: status, desired)
    running = asyncio.create_task(link.run())
    try:
        yield link, outbox
    finally:
        await ended([running])
        outbox.close()


class Backend:
    """Keeps what comes, once, and acknowledges it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.kept: dict[tuple[str, int], Batch] = {}
        self.doubled = 0
        self.answers = True

    @property
    def rows(self) -> list[Any]:
        return [row for b in self.kept.values() for t in b.tables for row in t.rows]

    async def run(self) -> None:
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._serve()
            await asyncio.sleep(0.1)

    async def _serve(self) -> None:
        async with aiomqtt.Client("127.0.0.1", self.port, timeout=2) as client:
            await client.subscribe("duha/v1/plzen/+/data", qos=1)
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                batch = decode(message.payload, Batch)
                name = (batch.outbox, batch.seq)
                self.doubled += name in self.kept
                assert self.kept.setdefault(name, batch) == batch
                if self.answers:
                    ack = Ack(1, batch.outbox, ((batch.seq, batch.seq),))
                    topic = "duha/v1/plzen/RVO-001/ack"
                    await client.publish(topic, encode(ack), qos=1)


@contextlib.asynccontextmanager
async def backend(port):
    made = Backend(port)
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        await ended([running])


async def until(so, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not so():
            await asyncio.sleep(0.02)


@pytest.mark.system
async def test_a_backlog_leaves_in_large_batches_the_new_first_and_without_warnings(
    tmp_path, free_port, caplog
):
    outbox = Outbox(tmp_path / "outbox.db")
    for n in range(400):
        outbox.put([cycle(n)])
    outbox.close()
    with mosquitto(free_port, tmp_path), caplog.at_level(logging.WARNING):
        async with (
            backend(free_port) as there,
            linked(tmp_path, free_port) as (link, outbox),
        ):
            await until(lambda: link.connected)
            outbox.put([Content(True, events=(Event(1, "new"),))])
            link.wake()
            await until(lambda: len(outbox) == 0)
    assert len(there.rows) == len(set(there.rows)) == 10_000
    assert len(there.kept) < 30
    place = [bool(b.events) for b in there.kept.values()].index(True)
    assert place <= 4  # what is new did not wait for the backlog
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.system
async def test_a_broker_that_hangs_is_left_and_found_again(tmp_path, free_port):
    with mosquitto(free_port, tmp_path) as broker:
        async with (
            backend(free_port) as there,
            linked(tmp_path, free_port) as (link, outbox),
        ):
            outbox.put([cycle(0)])
            link.wake()
            await until(lambda: there.kept and len(outbox) == 0)
            broker.send_signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                for n in range(1, 50):
                    outbox.put([cycle(n)])
                    link.wake()
                    await asyncio.sleep(0.05)
                await until(lambda: not link.connected, 30)
                assert time.monotonic() - began < 30
            finally:
                broker.send_signal(signal.SIGCONT)
            await until(lambda: len(outbox) == 0, 60)
            assert len(there.rows) == len(set(there.rows)) == 50 * 25


@pytest.mark.system
async def test_a_slow_uplink_is_given_no_more_than_it_bears(tmp_path, free_port):
    """64 kbit/s: large batches need longer than a small one's patience."""
    outbox = Outbox(tmp_path / "outbox.db")
    for n in range(120):
        outbox.put([cycle(n)])
    outbox.close()

    async def slowly(reader, writer):
        there, out = await asyncio.open_connection("127.0.0.1", free_port)

        async def pump(source, sink, rate):
            with contextlib.suppress(ConnectionError):
                while data := await source.read(2048):
                    sink.write(data)
                    await sink.drain()
                    await asyncio.sleep(len(data) / rate)
            sink.close()

        await asyncio.gather(pump(reader, out, 16_000), pump(there, writer, 1e9))

    with mosquitto(free_port, tmp_path):
        slow = await asyncio.start_server(slowly, "127.0.0.1", 0, limit=4096)
        port = slow.sockets[0].getsockname()[1]
        async with (
            backend(free_port) as there,
            linked(tmp_path, port) as (_, outbox),
        ):
            await until(lambda: len(outbox) == 0, 90)
            assert len(there.rows) == len(set(there.rows)) == 120 * 25
            assert there.doubled <= 2
        slow.close()
        await asyncio.sleep(0.3)


@pytest.mark.system
async def test_a_handler_or_an_outbox_that_fails_does_not_end_the_link(
    tmp_path, free_port, caplog
):
    def trouble(_desired):
        raise ZeroDivisionError("no such thing")

    document = Desired(1, 1, "h", 0, Place(49.7, 13.3, "Europe/Prague"))
    topic = "duha/v1/plzen/RVO-001/"
    with mosquitto(free_port, tmp_path):
        async with (
            backend(free_port) as there,
            linked(tmp_path, free_port, trouble) as (link, outbox),
            aiomqtt.Client("127.0.0.1", free_port) as city,
        ):
            await until(lambda: link.connected)
            await city.publish(topic + "desired", encode(document), qos=1)
            await until(lambda: "desired could not be taken" in caplog.text)
            for payload in (
                b"[" * 50_000,
                b"\xff",
                b'{"v":1,"outbox":"x","ranges":[[1]]}',
            ):
                await city.publish(topic + "ack", payload, qos=1)
            with outbox._file.reading() as db:
                db.execute("PRAGMA busy_timeout = 1")
            blocker = sqlite3.connect(outbox.path, isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")
            assert not outbox.put([cycle(1)])
            link.wake()
            await asyncio.sleep(0.3)
            assert there.rows == []
            blocker.execute("COMMIT")
            blocker.close()
            await until(lambda: len(outbox) == 0 and len(there.rows) == 25)
            assert link.connected
