"""The composition root of the backend: one task group holds every task."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from duha_backend.api.app import make_app
from duha_backend.api.services import Services
from duha_backend.control import Control
from duha_backend.ingest import Ingest
from duha_backend.link import Broker, Link
from duha_backend.live import Live
from duha_backend.readings import Readings
from duha_backend.registry import Registry
from duha_contract.clock import Clock
from duha_contract.lighting import Place
from duha_contract.messages import Ack, Desired, Status
from duha_contract.quantities import KINDS

log = logging.getLogger(__name__)

PLZEN = Place(49.7475, 13.3776, "Europe/Prague")
TICK_S = 1.0
LOOK_BACK_MS = 24 * 3_600_000


@dataclass(frozen=True)
class Settings:
    """How a backend runs."""

    data: Path
    broker: Broker
    city: str = "plzen"
    name: str = "Plzeň"
    place: Place = PLZEN
    host: str = "127.0.0.1"
    port: int = 8470


class Backend:
    """Ingest, stores, control, API and page in one process."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        settings.data.mkdir(parents=True, exist_ok=True)
        self.registry = Registry.in_folder(settings.data)
        self.readings = Readings(settings.data / "readings.duckdb")
        self.live = Live(self.registry.assets())
        self._restore()
        self.link = Link(
            settings.city, settings.broker, self._data, self._status, self._documents
        )
        self.ingest = Ingest(self.readings, self.live, clock, self._acknowledge)
        self.control = Control(
            self.registry, self.live, clock, settings.place, self._desired
        )
        self.server = uvicorn.Server(self._http())

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            with _listening(self.settings.host, self.settings.port) as listening:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.link.run(), name="link")
                    group.create_task(self.ingest.run(), name="ingest")
                    group.create_task(self._tick(), name="tick")
                    group.create_task(self._serve(listening), name="http")
        finally:
            self.registry.close()
            self.readings.close()

    async def _serve(self, listening: socket.socket) -> None:
        # Uvicorn's own signal handlers would take Ctrl-C from the task group.
        self.server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        port = listening.getsockname()[1]
        log.info("page and API: http://%s:%d/", self.settings.host, port)
        try:
            await self.server.serve(sockets=[listening])
        except asyncio.CancelledError:
            # Cancelled or not, connections are closed; a stream gets a second to end.
            if self.server.started:
                await self.server.shutdown(sockets=[listening])
            raise

    async def _tick(self) -> None:
        """Once a second: settle documents, and tell the pages."""
        while True:
            await self.control.settle()
            await self.live.tick(self.clock.now_ms())
            await asyncio.sleep(TICK_S)

    def _http(self) -> uvicorn.Config:
        services = Services(
            registry=self.registry,
            readings=self.readings,
            live=self.live,
            control=self.control,
            ingest=self.ingest,
            now_ms=self.clock.now_ms,
            real_ms=lambda: round(time.time() * 1000),
            broker_connected=lambda: self.link.connected,
            city=self.settings.city,
            name=self.settings.name,
            rate=self.clock.timeline.rate,
        )
        return uvicorn.Config(
            make_app(services),
            access_log=False,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )

    def _restore(self) -> None:
        """Know at once what was known before the restart."""
        since = self.clock.now_ms() - LOOK_BACK_MS
        for kind in KINDS:
            self.live.restore(kind, self.readings.latest(kind, since))
        self.live.restore_rain(self.readings.rain_readings(since))

    def _data(self, topic: str, payload: bytes) -> None:
        self.ingest.offer(topic, payload)

    def _status(self, controller: str, status: Status) -> None:
        self.live.told(controller, status)

    def _documents(self) -> dict[str, Desired]:
        return self.control.desired

    async def _acknowledge(self, controller: str, ack: Ack) -> None:
        await self.link.acknowledge(controller, ack)

    async def _desired(self, controller: str, document: Desired) -> None:
        await self.link.desired(controller, document)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; a port that is taken is named before anything starts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as made:
        made.setblocking(False)
        yield made
