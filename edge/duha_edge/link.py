"""The way to the backend and back. The only module of the edge that knows MQTT."""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from typing import NamedTuple

import aiomqtt

from duha_contract.errors import MessageError
from duha_contract.messages import Ack, Desired, Status, decode, encode
from duha_contract.topics import build
from duha_edge.drain import Drain, Window, patience_s
from duha_edge.errors import OutboxError
from duha_edge.outbox import Name, Outbox, Stored
from duha_edge.parts import side_by_side
from duha_edge.site import Broker, Site
from duha_runtime.supervision import describe
from duha_runtime.waiting import heard

log = logging.getLogger(__name__)

WINDOW = 32
"""Batches that may be on their way without the backend's acknowledgement."""
KEPT_FREE = 8
"""Places of the window that a backlog leaves for what is new."""
RESEND_S = 10.0
LOOK_S = 0.5
"""How soon the outbox is looked at again while it has something to write itself."""
TROUBLE_S = 2.0
"""How soon after an error of the outbox it is asked again."""
STATUS_S = 10.0
PUBLISH_S = 3.0
LONGEST_PAUSE_S = 15.0


class _Flight(NamedTuple):
    """A batch on its way: when it is sent again [s], its bytes, whether it is live."""

    resend_at: float
    size: int
    live: bool


class Link:
    """Sends what is due in the outbox until it is acknowledged; hands desired documents on.

    Parameters
    ----------
    site, broker : Site, Broker
        Who this controller is and where the broker is.
    outbox : Outbox
        What there is to send.
    status : callable
        Makes the status message of now.
    desired : callable
        Takes a desired document.
    drain_per_s : float
        How fast a backlog is sent [full batches/s]; what is new is never held up.
    """

    def __init__(
        self,
        site: Site,
        broker: Broker,
        outbox: Outbox,
        status: Callable[[], Status],
        desired: Callable[[Desired], None],
        drain_per_s: float = 50.0,
    ) -> None:
        self._site = site
        self._broker = broker
        self._outbox = outbox
        self._status = status
        self._desired = desired
        self._in_flight: dict[Name, _Flight] = {}
        self._live_from = 0
        self._drain = Drain(drain_per_s)
        self._window = Window()
        self._work = asyncio.Event()
        self._news = asyncio.Event()
        self.connected = False

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._work.set()

    def tell(self) -> None:
        """The status has changed; say so now."""
        self._news.set()

    async def run(self) -> None:
        """Stay connected until cancelled.

        What a network, a broker or the outbox may do wrong ends a connection, and another
        is made; any other error is left to the supervisor of the agent.
        """
        pause = 0.5
        while True:
            try:
                secrets = await asyncio.to_thread(_secrets, self._broker)
                async with self._client(*secrets) as client:
                    pause = 0.5
                    await self._converse(client)
            except* (aiomqtt.MqttError, OSError, OutboxError) as group:
                log.warning("link: %s; again in %.1f s", describe(group), pause)
            finally:
                self.connected = False
                if self._in_flight:
                    self._window.late()
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311
            pause = min(LONGEST_PAUSE_S, pause * 2)

    def _client(
        self, password: str | None, tls: ssl.SSLContext | None
    ) -> aiomqtt.Client:
        site, broker = self._site, self._broker
        gone = encode(Status(v=1, online=False))
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            identifier=f"duha-{site.city}-{site.controller}",
            username=broker.username,
            password=password,
            tls_context=tls,
            will=aiomqtt.Will(self._topic("status"), gone, qos=1, retain=True),
            keepalive=15,
            timeout=PUBLISH_S,
            max_queued_incoming_messages=1000,
        )
        client.pending_calls_threshold = 2 * WINDOW  # a full window is no trouble
        return client

    async def _converse(self, client: aiomqtt.Client) -> None:
        await client.subscribe([(self._topic("ack"), 1), (self._topic("desired"), 1)])
        self._in_flight.clear()
        self._live_from = self._outbox.next_seq
        self._work.set()
        self.connected = True
        log.info("link: connected, %d batches wait", len(self._outbox))
        try:
            # Whichever breaks first ends the others: a publish that hangs on a dead
            # connection must not delay the next one.
            await side_by_side(
                {
                    "link listen": self._listen(client),
                    "link send": self._send(client),
                    "link status": self._tell(client),
                }
            )
        except asyncio.CancelledError:
            await self._say_goodbye(client)
            raise

    async def _say_goodbye(self, client: aiomqtt.Client) -> None:
        gone = encode(Status(v=1, online=False))
        try:
            await client.publish(self._topic("status"), gone, qos=1, retain=True)
        except aiomqtt.MqttError as error:
            log.warning("link: could not say goodbye: %s", error)

    async def _tell(self, client: aiomqtt.Client) -> None:
        while True:
            message = encode(self._status())
            await client.publish(
                self._topic("status"), message, qos=1, retain=True,
                timeout=PUBLISH_S + patience_s(self._on_the_way()),
            )  # fmt: skip
            self._news.clear()
            await heard(self._news, STATUS_S)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            leaf = message.topic.value.rsplit("/", 1)[-1]
            payload = message.payload
            if not payload or not isinstance(payload, bytes):
                continue
            try:
                self._heard(leaf, payload)
            except MessageError as error:
                log.warning("link: %s refused: %s", leaf, error)
            except Exception:  # one message must not cost the connection
                log.exception("link: %s could not be taken", leaf)

    def _heard(self, leaf: str, payload: bytes) -> None:
        if leaf == "ack":
            self._acknowledged(decode(payload, Ack))
        elif leaf == "desired":
            self._desired(decode(payload, Desired))

    def _acknowledged(self, ack: Ack) -> None:
        for name in self._outbox.acknowledge(ack.outbox, ack.ranges):
            if flight := self._in_flight.pop(name, None):
                self._window.acknowledged(flight.size)
        if ack.resend:
            self._in_flight.clear()
        self._work.set()

    async def _send(self, client: aiomqtt.Client) -> None:
        """Keep the window full; each batch is published by a task of its own."""
        async with asyncio.TaskGroup() as publishing:
            while True:
                self._work.clear()
                now = asyncio.get_running_loop().time()
                try:
                    due = await self._due(now)
                except OutboxError as error:
                    log.debug("link: %s", error)
                    await heard(self._work, TROUBLE_S)
                    await asyncio.sleep(LOOK_S)
                    continue
                for batch in due:
                    self._takes_off(batch, now)
                    publishing.create_task(self._publish(client, batch))
                if not due:
                    await heard(self._work, self._pause(now))

    async def _due(self, now: float) -> list[Stored]:
        """What to send now, as far as window and drain let it."""
        late = [n for n, flight in self._in_flight.items() if flight.resend_at <= now]
        for name in late:
            del self._in_flight[name]
        if late:
            self._window.late()
        places = WINDOW - len(self._in_flight)
        old = sum(not flight.live for flight in self._in_flight.values())
        backlog = min(
            self._drain.allows(now),
            WINDOW - KEPT_FREE - old,
            self._window.room(self._on_the_way()),
        )
        if places <= 0 and not self._outbox.unsettled:
            return []
        return await asyncio.to_thread(
            self._outbox.due,
            tuple(self._in_flight),
            self._live_from,
            places,
            max(0, backlog),
        )

    def _on_the_way(self) -> int:
        """Bytes that were sent and are not acknowledged."""
        return sum(flight.size for flight in self._in_flight.values())

    def _pause(self, now: float) -> float | None:
        """Seconds until something may be due without news; None when nothing waits."""
        waits = []
        if self._in_flight:
            first = min(flight.resend_at for flight in self._in_flight.values())
            waits.append(max(0.1, first - now))
        if drain := self._drain.wait_s(now):
            waits.append(max(0.01, drain))
        if self._outbox.unsettled or self._outbox.trouble:
            waits.append(LOOK_S)
        return min(waits, default=None)

    def _takes_off(self, batch: Stored, now: float) -> None:
        size = len(batch.payload)
        if not batch.live:
            self._drain.took(size, now)
        resend_at = now + RESEND_S + patience_s(self._on_the_way())
        self._in_flight[batch.name] = _Flight(resend_at, size, batch.live)

    async def _publish(self, client: aiomqtt.Client, batch: Stored) -> None:
        await client.publish(
            self._topic("data"), batch.payload, qos=1,
            timeout=PUBLISH_S + patience_s(self._on_the_way()),
        )  # fmt: skip

    def _topic(self, leaf: str) -> str:
        return build(self._site.city, self._site.controller, leaf)  # type: ignore[arg-type]


def _secrets(broker: Broker) -> tuple[str | None, ssl.SSLContext | None]:
    """Read password and certificates; blocks where their file system hangs."""
    return broker.password(), broker.tls()
