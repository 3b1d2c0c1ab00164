"""The way to the broker survives whatever is on it, and a broker that hangs."""

import asyncio
import contextlib
import logging
import signal
import time

import aiomqtt
import pytest

from duha_backend import link as link_module
from duha_backend.link import Broker, Incoming, Link
from duha_backend.logs import Seldom
from duha_contract.messages import Ack, Desired, Status, encode
from duha_contract.programmes import Place
from tests import servers

PLACE = Place(49.7, 13.4, "Europe/Prague")


def message(payload):
    return aiomqtt.Message("duha/v1/plzen/RVO-001/data", payload, 1, False, 1, None)


def test_what_comes_in_is_bounded_by_bytes(monkeypatch):
    monkeypatch.setattr(link_module, "MOST_INCOMING_BYTES", 1000)
    queue = Incoming(100)
    for _ in range(10):
        queue.put_nowait(message(b"x" * 100))
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(message(b"x"))
    queue.get_nowait()
    queue.put_nowait(message(b"x" * 50))
    assert queue.bytes == 950


def test_the_log_tells_of_a_flood_in_one_line(caplog):
    log = logging.getLogger("duha_test.seldom")
    log.addFilter(Seldom(0.05))
    for n in range(50):
        log.warning("queue is full: %d", n)
    log.warning("something else")
    time.sleep(0.06)
    log.warning("queue is full: %d", 50)
    assert [record.getMessage() for record in caplog.records] == [
        "queue is full: 0",
        "something else",
        "queue is full: 50 (49 lines like this left out)",
    ]


class Joined:
    """A link at a real broker, and what has come over it."""

    def __init__(self, port, documents=None):
        self.data = []
        self.statuses = []
        self.documents = documents or {}
        self.link = Link(
            "plzen", Broker("127.0.0.1", port), self.take, self.told, lambda: self.documents
        )  # fmt: skip

    def take(self, topic, payload):
        if payload == b"bug":
            raise LookupError("nobody foresaw this")
        self.data.append((topic.controller, payload))

    def told(self, controller, status, sent_now):
        self.statuses.append((controller, status.version, sent_now))


@contextlib.asynccontextmanager
async def joined(made):
    task = asyncio.create_task(made.link.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition, seconds=20):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def broker(tmp_path):
    port = servers.free_port()
    with servers.mosquitto(port, tmp_path) as process:
        yield port, process


def good(version="1"):
    return encode(Status(v=1, online=True, version=version))


@pytest.mark.system
async def test_retained_poison_and_a_handler_that_fails_stop_nothing(broker):
    port, _ = broker
    poison = (b'{"v":1,"x":' + b"[" * 60_000 + b"]" * 60_000 + b"}", b"\xff", b'{"v":1,"online":true,"ts":1e400}')  # fmt: skip
    async with aiomqtt.Client("127.0.0.1", port) as other:
        for n, payload in enumerate(poison):
            await other.publish(f"duha/v1/plzen/BAD-{n}/status", payload, 1, retain=True)  # fmt: skip
        await other.publish("duha/v1/plzen/a b/status", good(), 1, retain=True)
        await other.publish("duha/v1/plzen/NUL/status", good("a\0"), 1, retain=True)
        await other.publish("duha/v1/plzen/OLD/status", good("kept"), 1, retain=True)
        async with joined(Joined(port)) as made:
            await until(lambda: made.statuses)
            assert made.statuses == [("OLD", "kept", False)]
            await until(lambda: made.link.refused == 5)
            await other.publish("duha/v1/plzen/RVO-001/data", b"bug", 1)
            await other.publish("duha/v1/plzen/RVO-001/data", b"fine", 1)
            await other.publish("duha/v1/plzen/RVO-001/status", good(), 1)
            await until(lambda: len(made.statuses) == 2)
            assert made.data == [("RVO-001", b"fine")]
            assert made.statuses[-1] == ("RVO-001", "1", True)


@pytest.mark.system
async def test_messages_are_read_while_documents_are_sent(broker):
    port, _ = broker
    wanted = {f"RVO-{n:04d}": Desired(1, 1, "h", 1, PLACE) for n in range(2000)}
    made = Joined(port, {"": wanted["RVO-0000"]} | wanted)  # one has no controller
    sent: list[str] = []
    at_first: list[int] = []
    take = made.take

    class Counting(Link):
        async def desired(self, controller, document):
            await super().desired(controller, document)
            sent.append(controller)

    def taken(topic, payload):
        at_first.append(len(sent))
        take(topic, payload)

    made.link = Counting(
        "plzen", Broker("127.0.0.1", port), taken, made.told, lambda: made.documents
    )
    async with aiomqtt.Client("127.0.0.1", port) as other:
        await other.publish("duha/v1/plzen/RVO-001/data", b"kept", 1, retain=True)
        async with joined(made):
            await until(lambda: len(sent) == 2001)
            assert at_first[0] < 1000
            assert (
                made.link.refused == 2
            )  # a document and the wish to send again, for ""
            await other.subscribe("duha/v1/plzen/RVO-1999/desired")
            async with asyncio.timeout(5):
                assert (await anext(other.messages)).payload


@pytest.mark.system
async def test_a_broker_that_hangs_holds_nobody_up_and_is_found_again(
    broker, monkeypatch
):
    port, process = broker
    monkeypatch.setattr(link_module, "PUBLISH_S", 0.5)
    monkeypatch.setattr(link_module, "KEEPALIVE_S", 2)
    async with joined(Joined(port)) as made:
        await until(lambda: made.link.connected)
        process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            await made.link.acknowledge("RVO-001", Ack(v=1, outbox="o"))
            assert time.monotonic() - began < 3
            await until(lambda: not made.link.connected)
        finally:
            process.send_signal(signal.SIGCONT)
        await until(lambda: made.link.connected)
        async with aiomqtt.Client("127.0.0.1", port) as other:
            await other.publish("duha/v1/plzen/RVO-001/data", b"fine", 1)
        await until(lambda: made.data)
