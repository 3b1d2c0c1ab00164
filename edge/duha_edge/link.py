"""The way to the backend and back. The only module of the edge that knows MQTT."""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable

import aiomqtt

from duha_contract.errors import MessageError
from duha_contract.messages import Ack, Desired, Status, decode, encode
from duha_contract.topics import build
from duha_edge.outbox import Outbox, Stored
from duha_edge.site import Broker, Site
from duha_runtime.waiting import heard

log = logging.getLogger(__name__)

WINDOW = 16
"""Batches that may be on their way without the backend's acknowledgement."""
RESEND_S = 10.0
STATUS_S = 10.0
PUBLISH_S = 3.0
LONGEST_PAUSE_S = 15.0


class Drain:
    """Lets a backlog through at a steady rate: so many batches a second, never a burst."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._free_at = 0.0

    def allows(self, now: float) -> int:
        """How many batches may go at an instant [s]: none or one second's worth at most."""
        return max(0, min(WINDOW, int((now - self._free_at) * self._per_s) + 1))

    def took(self, count: int, now: float) -> None:
        """So many have gone."""
        window = WINDOW / self._per_s
        self._free_at = max(self._free_at, now - window) + count / self._per_s

    def wait_s(self, now: float) -> float:
        """Until the next one may go [s]."""
        return max(0.0, self._free_at - now)


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
        How fast a backlog is sent [batches/s]; what is new is never held up.
    """

    def __init__(
        self,
        site: Site,
        broker: Broker,
        outbox: Outbox,
        status: Callable[[], Status],
        desired: Callable[[Desired], None],
        drain_per_s: float = 20.0,
    ) -> None:
        self._site = site
        self._broker = broker
        self._outbox = outbox
        self._status = status
        self._desired = desired
        self._in_flight: dict[int, float] = {}
        self._live_from = 0
        self._drain = Drain(drain_per_s)
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
        """Stay connected until cancelled."""
        pause = 0.5
        while True:
            try:
                secrets = await asyncio.to_thread(_secrets, self._broker)
                async with self._client(*secrets) as client:
                    pause = 0.5
                    await self._converse(client)
            except* (aiomqtt.MqttError, TimeoutError) as group:
                log.warning("link: %s; again in %.1f s", group.exceptions[0], pause)
            self.connected = False
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311
            pause = min(LONGEST_PAUSE_S, pause * 2)

    def _client(
        self, password: str | None, tls: ssl.SSLContext | None
    ) -> aiomqtt.Client:
        site, broker = self._site, self._broker
        gone = encode(Status(v=1, online=False))
        return aiomqtt.Client(
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
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(client), name="link listen")
                group.create_task(self._send(client), name="link send")
                group.create_task(self._tell(client), name="link status")
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
            await client.publish(self._topic("status"), message, qos=1, retain=True)
            self._news.clear()
            await heard(self._news, STATUS_S)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            leaf = message.topic.value.rsplit("/", 1)[-1]
            payload = message.payload
            if not payload:
                continue
            try:
                if leaf == "ack":
                    await self._acknowledged(decode(payload, Ack))
                elif leaf == "desired":
                    self._desired(decode(payload, Desired))
            except MessageError as error:
                log.warning("link: %s refused: %s", leaf, error)

    async def _acknowledged(self, ack: Ack) -> None:
        if ack.resend:
            self._in_flight.clear()
        if ack.outbox == self._outbox.id:
            await asyncio.to_thread(self._outbox.acknowledge, ack.ranges)
            for first, last in ack.ranges:
                for seq in range(first, min(last, self._outbox.next_seq) + 1):
                    self._in_flight.pop(seq, None)
        self._work.set()

    async def _send(self, client: aiomqtt.Client) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._work.clear()
            now = loop.time()
            self._in_flight = {s: t for s, t in self._in_flight.items() if t > now}
            due = await asyncio.to_thread(
                self._outbox.due,
                tuple(self._in_flight),
                self._live_from,
                WINDOW - len(self._in_flight),
                self._drain.allows(now),
            )
            if due:
                old = sum(batch.seq < self._live_from for batch in due)
                self._drain.took(old, now)
                await self._publish(client, due, now + RESEND_S)
                continue
            await heard(self._work, self._pause(now))

    def _pause(self, now: float) -> float | None:
        """Seconds until something may be due without news; None when nothing waits."""
        waits = []
        if self._in_flight:
            waits.append(max(0.1, min(self._in_flight.values()) - now))
        if drain := self._drain.wait_s(now):
            waits.append(max(0.01, drain))
        return min(waits, default=None)

    async def _publish(
        self, client: aiomqtt.Client, due: list[Stored], resend_at: float
    ) -> None:
        topic = self._topic("data")
        for batch in due:
            self._in_flight[batch.seq] = resend_at
        async with asyncio.TaskGroup() as group:
            for batch in due:
                group.create_task(client.publish(topic, batch.payload, qos=1))

    def _topic(self, leaf: str) -> str:
        return build(self._site.city, self._site.controller, leaf)  # type: ignore[arg-type]


def _secrets(broker: Broker) -> tuple[str | None, ssl.SSLContext | None]:
    """Read password and certificates; blocks where their file system hangs."""
    return broker.password(), broker.tls()
