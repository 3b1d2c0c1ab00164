"""The way to the controllers and back. The only module of the backend that knows MQTT."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import aiomqtt
import msgspec

from duha_contract.errors import ContractError
from duha_contract.messages import Ack, Desired, Status, decode, encode
from duha_contract.topics import Leaf, build, parse, pattern

log = logging.getLogger(__name__)

PUBLISH_S = 5.0
LONGEST_PAUSE_S = 10.0


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
        Takes controller and status.
    documents : callable
        The desired documents of now; sent anew with each connection.
    name : str
        Tells the processes of a city apart at the broker.
    group : str
        Name of the shared subscription by which several workers share the data; empty
        when this process takes all of it.
    resend : bool
        Whether to ask the controllers for what was on its way when we went.
    """

    def __init__(
        self,
        city: str,
        broker: Broker,
        on_data: Callable[[str, bytes], None],
        on_status: Callable[[str, Status], None],
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
            except aiomqtt.MqttError as error:
                log.warning("link: %s; again in %.1f s", error, pause)
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
        client = aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            identifier=f"duha-{self._city}-{self._name}",
            username=self._broker.username,
            password=self._broker.password,
            keepalive=15,
            timeout=PUBLISH_S,
            max_queued_incoming_messages=5000,
        )
        # A commit acknowledges to hundreds of controllers at once; that is no trouble.
        client.pending_calls_threshold = 1000
        return client

    async def _converse(self, client: aiomqtt.Client) -> None:
        topics = (self._data_topic, pattern(self._city, "status"))
        await client.subscribe([(topic, 1) for topic in topics])
        self._client = client
        log.info("link: connected to %s:%d", self._broker.host, self._broker.port)
        for controller, document in list(self._documents().items()):
            await self.desired(controller, document)
            if self._resend:
                await self.acknowledge(controller, Ack(v=1, outbox="", resend=True))
        async for message in client.messages:
            self._receive(message.topic.value, message.payload)

    def _receive(self, topic: str, payload: object) -> None:
        if not isinstance(payload, bytes):
            return
        try:
            parsed = parse(topic)
            if parsed.leaf == "data":
                self._on_data(topic, payload)
            elif payload:
                self._on_status(parsed.controller, decode(payload, Status))
        except ContractError as error:
            log.warning("link: %s", error)

    async def _publish(
        self, controller: str, leaf: Leaf, message: msgspec.Struct, *, retain: bool
    ) -> None:
        client = self._client
        if client is None:
            return
        topic = build(self._city, controller, leaf)
        try:
            await client.publish(topic, encode(message), qos=1, retain=retain)
        except aiomqtt.MqttError as error:
            log.warning("link: %s to %s not sent: %s", leaf, controller, error)
