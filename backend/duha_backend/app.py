"""The composition root of the backend: one task group holds every task."""

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from duha_backend.alarms.deliver import Mail
from duha_backend.alarms.office import Office
from duha_backend.api.app import make_app
from duha_backend.api.services import Services
from duha_backend.books import Books
from duha_backend.control import Control
from duha_backend.drainage.office import Drainage
from duha_backend.duck import DuckReadings
from duha_backend.energy.settlement import Settlement
from duha_backend.errors import Invalid, StoreDown
from duha_backend.influx import Influx, InfluxReadings
from duha_backend.ingest import Ingest
from duha_backend.keeper import Keeper
from duha_backend.leader import Leadership
from duha_backend.link import Broker, Link
from duha_backend.live import Live
from duha_backend.readings import DAY_MS, USUAL, Readings, Retention
from duha_backend.registry import Registry
from duha_contract.clock import Clock
from duha_contract.messages import Ack, Desired, Status
from duha_contract.programmes import Place
from duha_contract.quantities import KINDS
from duha_contract.topics import Topic

log = logging.getLogger(__name__)

PLZEN = Place(49.7475, 13.3776, "Europe/Prague")
TICK_S = 1.0
TEND_S = 30.0
LOOK_BACK_MS = (20 * 60_000, DAY_MS)
"""How far back the last readings are looked for: first near, then a day."""


Role = Literal["ingest", "api", "control", "runoff"]
ROLES: tuple[Role, ...] = ("ingest", "api", "control", "runoff")


@dataclass(frozen=True)
class Settings:
    """How a backend runs.

    Attributes
    ----------
    roles : frozenset of str
        What this process does: takes readings in, serves page and API, controls, or
        looks after rain and runoff.
    registry : str
        URL of the registry's database; empty for SQLite in the data folder.
    influx : Influx or None
        Where the readings are; None for DuckDB in the data folder.
    scheduler : str
        Address of a dask scheduler for studies; empty for this machine.
    external_rain : tuple of str
        Files or addresses of others' rain.
    grafana : str
        Address of the Grafana that the page links to; empty for none.
    port : int or None
        Where page and API, or the figures of a worker, are served; None for nowhere.
    """

    data: Path
    broker: Broker
    city: str = "plzen"
    name: str = "Plzeň"
    place: Place = PLZEN
    host: str = "127.0.0.1"
    port: int | None = 8470
    roles: frozenset[Role] = frozenset(ROLES)
    registry: str = ""
    influx: Influx | None = None
    retention: Retention = USUAL
    mail: Mail | None = None
    memory_mib: int = 256
    scheduler: str = ""
    external_rain: tuple[str, ...] = ()
    grafana: str = ""

    @property
    def alone(self) -> bool:
        """Whether this one process holds every role."""
        return self.roles == frozenset(ROLES)


class Backend:
    """The roles of one process, composed by hand."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self._check()
        settings.data.mkdir(parents=True, exist_ok=True)
        roles = settings.roles
        self.registry = (
            Registry(settings.registry)
            if settings.registry
            else Registry.in_folder(settings.data)
        )
        self.books = Books(self.registry.engine)
        self.readings: Readings = (
            InfluxReadings(settings.influx, settings.retention)
            if settings.influx
            else DuckReadings(settings.data / "readings.duckdb", settings.memory_mib)
        )
        self.live = Live([] if roles == {"ingest"} else self.registry.assets())
        self._owners = self.registry.owners()
        self._assets_seen = self.registry.change("assets")
        worker = "" if settings.alone else f"-{secrets.token_hex(4)}"
        self.link = Link(
            settings.city, settings.broker, self._data, self._status, self._documents,
            name=f"{'-'.join(sorted(roles)) if worker else 'backend'}{worker}",
            group="" if settings.alone or "ingest" not in roles else "duha-ingest",
            resend=settings.alone,
        )  # fmt: skip
        stores = "ingest" in roles
        self.ingest = Ingest(
            self.readings if stores else None,
            self.books if stores else None,
            None if roles == {"ingest"} else self.live,
            lambda: self._owners,
            clock,
            self._acknowledge,
            keep_days=settings.retention.raw,
        )
        self.control = Control(
            self.registry, self.live, clock, settings.place, self._desired
        )
        self.control.leading = False
        self.alarms = Office(
            self.registry, self.live, self.control.roads, self.control.desk.sun,
            lambda: self.control.desired, settings.mail, settings.name, time.time,
        )  # fmt: skip
        self.leadership = Leadership(self.registry.engine)
        self.drainage = Drainage(
            self.readings, self.registry, self.live, self.books, self.alarms, clock,
            settings.data / "studies", settings.scheduler, settings.external_rain,
        )  # fmt: skip
        self.drainage_leadership = Leadership(self.registry.engine, "runoff")
        self._drains = asyncio.Event()
        self.energy = Settlement(
            self.readings, self.registry, self.live, self.control.desk
        )
        self.keeper = Keeper(self.readings, self.books, settings.retention, clock)
        self.server = uvicorn.Server(self._http())

    def _check(self) -> None:
        """Say at once what cannot work together."""
        embedded = not (self.settings.registry and self.settings.influx)
        if embedded and not self.settings.alone and self.settings.roles != {"ingest"}:
            raise Invalid(
                "roles run apart only with --registry (PostgreSQL) and --influx: the"
                " embedded stores belong to one process"
            )

    async def run(self) -> None:
        """Serve until cancelled."""
        roles = self.settings.roles
        try:
            if roles != {"ingest"}:
                await self._restore()
            with contextlib.ExitStack() as stack:
                async with asyncio.TaskGroup() as group:
                    if self.settings.port is not None:
                        place = (self.settings.host, self.settings.port)
                        listening = stack.enter_context(_listening(*place))
                        group.create_task(self._serve(listening), name="http")
                    group.create_task(self.link.run(), name="link")
                    group.create_task(self.ingest.run(), name="ingest")
                    group.create_task(self._tick(), name="tick")
                    if "control" in roles:
                        group.create_task(self._tend(), name="keeper")
                        telling = self.alarms.deliveries.run(
                            lambda: self.control.leading
                        )
                        group.create_task(telling, name="deliveries")
                    if "runoff" in roles:
                        group.create_task(
                            self.drainage.run(self._drains), name="drainage"
                        )
        finally:
            self.leadership.close()
            self.drainage_leadership.close()
            self.registry.close()
            await self.readings.close()

    async def _serve(self, listening: socket.socket) -> None:
        # Uvicorn's own signal handlers would take Ctrl-C from the task group.
        self.server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        port = listening.getsockname()[1]
        what = "page and API" if "api" in self.settings.roles else "figures"
        log.info("%s: http://%s:%d/", what, self.settings.host, port)
        try:
            await self.server.serve(sockets=[listening])
        except asyncio.CancelledError:
            # Cancelled or not, connections are closed; a stream gets a second to end.
            if self.server.started:
                await self.server.shutdown(sockets=[listening])
            raise

    async def _tick(self) -> None:
        """Once a second: look at the registry, settle documents, and tell the pages."""
        while True:
            try:
                await self._look()
            except SQLAlchemyError as error:
                # The city goes on without its registry: nothing new is wanted meanwhile.
                log.warning("registry: %s", str(error).splitlines()[0])
            if self.settings.roles != {"ingest"}:
                elapsed_ms = time.monotonic() * 1000 * self.clock.timeline.rate
                await self.live.tick(self.clock.now_ms(), elapsed_ms=elapsed_ms)
            await asyncio.sleep(TICK_S)

    async def _look(self) -> None:
        number = await asyncio.to_thread(self.registry.change, "assets")
        if number != self._assets_seen:
            self._assets_seen = number
            self._owners = await asyncio.to_thread(self.registry.owners)
            if self.settings.roles != {"ingest"}:
                self.live.set_assets(await asyncio.to_thread(self.registry.assets))
                self.control.touch()
        if "control" in self.settings.roles:
            held = await asyncio.to_thread(self.leadership.ask)
            await self.control.lead(held)
        if "runoff" in self.settings.roles:
            held = await asyncio.to_thread(self.drainage_leadership.ask)
            (self._drains.set if held else self._drains.clear)()
        if self.settings.roles != {"ingest"}:
            await self.control.settle()
            leading = self.control.leading
            await self.alarms.tick(self.clock.now_ms(), leading=leading)

    async def _tend(self) -> None:
        """Every half minute: keep the store in order, where this process leads."""
        while True:
            await asyncio.sleep(TEND_S)
            if self.control.leading:
                try:
                    await self.keeper.tend()
                    await self.energy.tend(self.clock.now_ms())
                except SQLAlchemyError as error:
                    log.warning("keeper: %s", str(error).splitlines()[0])

    def _http(self) -> uvicorn.Config:
        services = Services(
            registry=self.registry,
            readings=self.readings,
            live=self.live,
            control=self.control,
            alarms=self.alarms,
            energy=self.energy,
            drainage=self.drainage,
            ingest=self.ingest,
            now_ms=self.clock.now_ms,
            real_ms=lambda: round(time.time() * 1000),
            broker_connected=lambda: self.link.connected,
            books=self.books,
            data=self.settings.data,
            roles=self.settings.roles,
            city=self.settings.city,
            name=self.settings.name,
            rate=self.clock.timeline.rate,
            grafana=self.settings.grafana,
        )
        return uvicorn.Config(
            make_app(services, whole="api" in self.settings.roles),
            access_log=False,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )

    async def _restore(self) -> None:
        """Know at once what was known before the restart."""
        now = self.clock.now_ms()
        try:
            for kind in KINDS:
                for back in LOOK_BACK_MS:
                    self.live.restore(
                        kind, await self.readings.latest(kind, now - back)
                    )
                    if kind != "luminaire" or self.live.mostly_known():
                        break
            rain = await self.readings.rain_readings(now - DAY_MS)
            self.live.restore_rain(rain)
        except StoreDown as error:
            log.warning("store: %s; the city is shown as it reports", error)

    def _data(self, topic: Topic, payload: bytes) -> None:
        self.ingest.offer(topic, payload)

    def _status(self, controller: str, status: Status, sent_now: bool) -> None:
        # A delay of the network is no skew: in a faster time it would look like one.
        dated = sent_now and self.clock.timeline.rate == 1
        self.live.told(controller, status, self.clock.now_ms() if dated else None)

    def _documents(self) -> dict[str, Desired]:
        return self.control.desired if self.control.leading else {}

    async def _acknowledge(self, controller: str, ack: Ack) -> None:
        await self.link.acknowledge(controller, ack)

    async def _desired(self, controller: str, document: Desired) -> None:
        await self.link.desired(controller, document)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; a port that is taken is named before anything starts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as made:
        # What it accepts inherits this. asyncio sets it only for sockets that it makes
        # itself; without it a small answer waits 40 ms for a delayed acknowledgement.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        yield made
