"""The way to the controllers and back. The only module of the backend that knows MQTT."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiomqtt
import msgspec

from duha_backend.logs import Seldom
from duha_backend.validate import is_text
from duha_contract.errors import ContractError, MessageError
from duha_contract.messages import Ack, Desired, Status, decode, encode
from duha_contract.topics import Leaf, Topic, build, parse, pattern
from duha_runtime.supervision import describe

log = logging.getLogger(__name__)

PUBLISH_S = 5.0
KEEPALIVE_S = 15
LONGEST_PAUSE_S = 10.0
MOST_INCOMING = 5000
"""Most messages that wait to be taken from the connection."""
MOST_INCOMING_BYTES = 32 * 1024 * 1024
MOST_OUTGOING = 10_000
DOCUMENTS_AT_ONCE = 20
_BREATH = 200
"""Messages that are taken before others get a turn on the event loop."""


_SELDOM = Seldom()
_refusals = logging.getLogger(f"{__name__}.refused")
_refusals.addFilter(_SELDOM)
_library = logging.getLogger(f"{__name__}.mqtt")
_library.addFilter(_SELDOM)


class Incoming(asyncio.Queue[aiomqtt.Message]):
    """Messages that have come over the connection, bounded in bytes, too."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self.bytes = 0

    def _put(self, item: aiomqtt.Message) -> None:
        self.bytes += _size(item)
        super()._put(item)

    def _get(self) -> aiomqtt.Message:
        item = super()._get()
        self.bytes -= _size(item)
        return item

    def full(self) -> bool:
        """Whether no more fits; what comes then is lost, and sent again by the edge."""
        return super().full() or self.bytes >= MOST_INCOMING_BYTES


def _size(message: aiomqtt.Message) -> int:
    return len(message.payload)


@dataclass(frozen=True)
class Broker:
    """Where the broker is."""

    host: str = "127.0.0.1"
    port: int = 1883
    username: str | None = None
    password: str | None = None


class Link:
    """Receives data and status of every controller of a city; sends acks and documents.

    Parameters
    ----------
    city : str
        Id of the city.
    broker : Broker
        Where the broker is.
    on_data : callable
        Takes topic and payload of a batch.
    on_status : callable
        Takes controller, status, and whether it was sent just now: not kept by the broker.
    documents : callable
        The desired documents of now; sent with each connection.
    name : str
        Tells the processes of a city apart at the broker.
    group : str
        Name of the shared subscription by which several workers share the data; empty
        when this process takes all of it.
    resend : bool
        Whether to ask the controllers for what was on its way when we went.

    Attributes
    ----------
    refused : int
        Messages that were neither a batch nor a status, or could not be sent.
    """

    def __init__(
        self,
        city: str,
        broker: Broker,
        on_data: Callable[[Topic, bytes], None],
        on_status: Callable[[str, Status, bool], None],
        documents: Callable[[], dict[str, Desired]],
        *,
        name: str = "backend",
        group: str = "",
        resend: bool = True,
    ) -> None:
        self._name = name
        self._data_topic = pattern(city, "data")
        if group:
            self._data_topic = f"$share/{group}/{self._data_topic}"
        self._resend = resend
        self._city = city
        self._broker = broker
        self._on_data = on_data
        self._on_status = on_status
        self._documents = documents
        self._client: aiomqtt.Client | None = None
        self._incoming = Incoming()
        self.refused = 0

    @property
    def connected(self) -> bool:
        """Whether there is a broker now."""
        return self._client is not None

    async def run(self) -> None:
        """Stay connected until cancelled."""
        pause = 0.3
        while True:
            try:
                async with self._new_client() as client:
                    pause = 0.3
                    await self._converse(client)
            except* (aiomqtt.MqttError, OSError) as group:
                log.warning("link: %s; again in %.1f s", describe(group), pause)
            finally:
                self._client = None
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_S, pause * 2)

    async def acknowledge(self, controller: str, ack: Ack) -> None:
        """Send an acknowledgement; one that is lost is made up for by the next."""
        await self._publish(controller, "ack", ack, retain=False)

    async def desired(self, controller: str, document: Desired) -> None:
        """Send a desired document; without a broker it goes with the next connection."""
        await self._publish(controller, "desired", document, retain=True)

    def _new_client(self) -> aiomqtt.Client:
        incoming = self._incoming = Incoming(MOST_INCOMING)
        factory: Any = lambda maxsize: incoming  # noqa: ARG005, E731 - the library makes it
        client = aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            identifier=f"duha-{self._city}-{self._name}",
            username=self._broker.username,
            password=self._broker.password,
            keepalive=KEEPALIVE_S,
            timeout=PUBLISH_S,
            queue_type=factory,
            max_queued_incoming_messages=MOST_INCOMING,
            max_queued_outgoing_messages=MOST_OUTGOING,
            logger=_library,
        )
        # A commit acknowledges to hundreds of controllers at once; that is no trouble.
        client.pending_calls_threshold = 1000
        return client

    async def _converse(self, client: aiomqtt.Client) -> None:
        topics = (self._data_topic, pattern(self._city, "status"))
        await client.subscribe([(topic, 1) for topic in topics])
        self._client = client
        log.info("link: connected to %s:%d", self._broker.host, self._broker.port)
        # What comes is read while documents are sent: there may be hundreds.
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(client), name="link listen")
            group.create_task(self._tell(), name="link documents")

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            self._receive(message)
            for _ in range(min(_BREATH, self._incoming.qsize())):
                self._receive(self._incoming.get_nowait())
            await asyncio.sleep(0)

    async def _tell(self) -> None:
        """Send every desired document, a few at a time."""
        documents = list(self._documents().items())
        for n in range(0, len(documents), DOCUMENTS_AT_ONCE):
            some = documents[n : n + DOCUMENTS_AT_ONCE]
            await asyncio.gather(*(self._tell_one(*one) for one in some))

    async def _tell_one(self, controller: str, document: Desired) -> None:
        await self.desired(controller, document)
        if self._resend:
            await self.acknowledge(controller, Ack(v=1, outbox="", resend=True))

    def _receive(self, message: aiomqtt.Message) -> None:
        """Hand a message on; whatever is wrong with it is its own affair."""
        name, payload = message.topic.value, message.payload
        try:
            if isinstance(payload, bytes):
                self._hand_on(parse(name), payload, sent_now=not message.retain)
        except ContractError as error:
            self.refused += 1
            _refusals.warning("link: a message is refused: %s", error)
        except Exception:  # noqa: BLE001 - one message ends no connection
            self.refused += 1
            _refusals.exception("link: a message could not be handed on")

    def _hand_on(self, topic: Topic, payload: bytes, *, sent_now: bool) -> None:
        if topic.leaf == "data":
            self._on_data(topic, payload)
        elif payload:
            status = decode(payload, Status)
            _check(status)
            self._on_status(topic.controller, status, sent_now)

    async def _publish(
        self, controller: str, leaf: Leaf, message: msgspec.Struct, *, retain: bool
    ) -> None:
        client = self._client
        if client is None:
            return
        try:
            topic = build(self._city, controller, leaf)
            await client.publish(topic, encode(message), qos=1, retain=retain)
        except (ContractError, aiomqtt.MqttError) as error:
            self.refused += 1
            _refusals.warning(
                "link: a message is not sent: %s to %r: %s", leaf, controller, error
            )


def _check(status: Status) -> None:
    """Refuse a status that not every store could hold.

    Raises
    ------
    MessageError
        A text has control characters, or a time is impossible.
    """
    texts = (status.version, status.boot, status.site, status.site_error)
    if not all(map(is_text, (*texts, *status.alarms))):
        raise MessageError("no status: a text has control characters")
    if not 0 <= status.ts < 2**53:
        raise MessageError(f"no status: time {status.ts} is impossible")
