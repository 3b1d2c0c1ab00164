"""The composition root of the backend: a supervisor holds every part."""

import asyncio
import contextlib
import functools
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import uvicorn

from duha_backend import executors
from duha_backend.alarms.deliver import Mail
from duha_backend.alarms.office import Office
from duha_backend.alarms.parts import Parts
from duha_backend.api.app import make_app
from duha_backend.api.limits import Limits
from duha_backend.api.server import configured, quiet
from duha_backend.api.services import Services
from duha_backend.books import Books
from duha_backend.control import Control
from duha_backend.drainage.office import Drainage
from duha_backend.duck import DuckReadings
from duha_backend.energy.settlement import Settlement
from duha_backend.errors import BackendError, Invalid
from duha_backend.influx import Influx, InfluxReadings
from duha_backend.ingest import Ingest
from duha_backend.keeper import Keeper
from duha_backend.leader import Leadership
from duha_backend.link import Broker, Link
from duha_backend.live import Live
from duha_backend.readings import DAY_MS, USUAL, Readings, Retention
from duha_backend.records import Records
from duha_backend.registry import Registry
from duha_contract.clock import Clock
from duha_contract.messages import Ack, Desired, Status
from duha_contract.programmes import Place
from duha_contract.quantities import KINDS
from duha_contract.topics import Topic
from duha_runtime.lag import LoopLag
from duha_runtime.supervision import Supervisor, describe

log = logging.getLogger(__name__)

PLZEN = Place(49.7475, 13.3776, "Europe/Prague")
TICK_S = 1.0
TEND_S = 30.0
RESTORE_S = 30.0
"""Longest wait for the last readings of the store at start [s]."""
CLOSE_S = 2.0
"""Longest wait for each thing that is closed at the end [s]."""
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
    limits : Limits
        What those who ask over HTTP may take.
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
    limits: Limits = field(default_factory=Limits)

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
        self.supervisor = Supervisor()
        self.lag = LoopLag()
        self.registry = (
            Registry(settings.registry)
            if settings.registry
            else Registry.in_folder(settings.data)
        )
        try:
            assets = [] if roles == {"ingest"} else self.registry.assets()
            self._owners = self.registry.owners()
            self._assets_seen = self.registry.change("assets")
        except BackendError:
            self.registry.close()
            raise
        self.books = Books(self.registry.engine)
        self.readings: Readings = (
            InfluxReadings(settings.influx, settings.retention)
            if settings.influx
            else DuckReadings(settings.data / "readings.duckdb", settings.memory_mib)
        )
        self.live = Live(assets)
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
            supervisor=self.supervisor,
        )
        self.leadership = Leadership(self.registry.engine)
        self.control = Control(
            self.registry, self.live, clock, settings.place, self._desired,
            lambda: not self.leadership.held,
        )  # fmt: skip
        self.control.leading = False
        self.alarms = Office(
            self.registry, self.live, self.control.roads, self.control.desk.sun,
            lambda: self.control.desired, settings.mail, settings.name, time.time,
            self.supervisor.barrier,
        )  # fmt: skip
        self.parts = Parts(
            self.alarms,
            "backend" if settings.alone else "-".join(sorted(roles)),
            lambda: self.supervisor.failing,
            lambda: self.registry.set_aside,
            lambda: self.control.problems,
        )
        self.drainage = Drainage(
            self.readings, self.registry, self.live, self.books, self.alarms, clock,
            settings.data / "studies", settings.scheduler, settings.external_rain,
            settings.place.zone, self.supervisor,
        )  # fmt: skip
        self.drainage_leadership = Leadership(self.registry.engine, "runoff")
        self._drains = asyncio.Event()
        self.energy = Settlement(
            self.readings, self.registry, self.live, self.control.desk, self.supervisor
        )
        self.keeper = Keeper(
            self.readings, self.books, settings.retention, clock, self.energy.rolled
        )
        self.records = Records(self.registry.engine)
        self._config = self._http()

    def _check(self) -> None:
        """Say at once what cannot work together."""
        embedded = not (self.settings.registry and self.settings.influx)
        if embedded and not self.settings.alone and self.settings.roles != {"ingest"}:
            raise Invalid(
                "roles run apart only with --registry (PostgreSQL) and --influx: the"
                " embedded stores belong to one process"
            )

    async def run(self) -> None:
        """Serve until cancelled; a part that fails is restarted and ends nothing else.

        Raises
        ------
        Fatal, OSError
            A setting that cannot work, such as a port that is taken.
        """
        executors.install()
        try:
            with contextlib.ExitStack() as stack:
                listening = None
                if self.settings.port is not None:
                    place = (self.settings.host, self.settings.port)
                    listening = stack.enter_context(_listening(*place))
                async with self.supervisor:
                    if self.settings.roles != {"ingest"}:
                        await self._restore()
                    if "control" in self.settings.roles:  # who is alone leads at once
                        with self.supervisor.barrier("leadership"):
                            await self._lead()
                    self._start(listening)
                    await self.supervisor.wait()
        finally:
            await self._close()

    def _start(self, listening: socket.socket | None) -> None:
        """Start every part that the roles of this process need."""
        start, roles = self.supervisor.start, self.settings.roles
        if listening is not None:
            start("http", functools.partial(self._serve, listening))
        start("link", self.link.run)
        start("loop lag", self.lag.run)
        for part, run in self.ingest.parts.items():
            start(part, run)
        self._every("registry", TICK_S, self._look)
        if roles != {"ingest"}:
            self._every("page", TICK_S, self._tick)
            self._every("lights", TICK_S, self.control.settle)
            self._every("alarms", TICK_S, self._alarms)
        if "api" in roles:
            self._every("overrides", TICK_S, self.control.overrides.refresh)
        self._every("parts", TICK_S, self._parts)
        if "control" in roles:
            self._every("leadership", TICK_S, self._lead)
            self._every("keeper", TEND_S, self._led(self.keeper.tend))
            self._every("energy", TEND_S, self._led(self._settle_energy))
            self._every("records", TEND_S, self._led(self._tend_records))
            start("deliveries", self._deliver)
        if "runoff" in roles:
            self._every("runoff leadership", TICK_S, self._lead_runoff)
            start("drainage", lambda: self.drainage.run(self._drains))

    def _every(
        self, part: str, pause_s: float, job: Callable[[], Awaitable[object]]
    ) -> None:
        """Do a job again and again; a time that fails is reported, and it goes on."""

        async def again() -> None:
            while True:
                with self.supervisor.barrier(part):
                    await job()
                await asyncio.sleep(pause_s)

        self.supervisor.start(part, again)

    def _led(self, job: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """A job that only the process that leads has to do."""

        async def led() -> None:
            if self.control.leading:
                await job()

        return led

    async def _close(self) -> None:
        """Resign, then close the stores; what hangs is left behind."""
        resign = (self.leadership.close, self.drainage_leadership.close)
        close = self._bounded
        await asyncio.gather(*(close(asyncio.to_thread(one)) for one in resign))
        await asyncio.gather(
            close(asyncio.to_thread(self.registry.close)), close(self.readings.close())
        )

    @staticmethod
    async def _bounded(closing: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await closing
        except Exception as error:  # noqa: BLE001 - the process ends in any case
            log.warning("close: %s", describe(error))

    async def _serve(self, listening: socket.socket) -> None:
        server = uvicorn.Server(self._config)
        # Uvicorn's own signal handlers would take Ctrl-C from the supervisor.
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        quiet(asyncio.get_running_loop())
        port = listening.getsockname()[1]
        what = "page and API" if "api" in self.settings.roles else "figures"
        log.info("%s: http://%s:%d/", what, self.settings.host, port)
        mine = (
            listening.dup()
        )  # Uvicorn closes what it is given; a restart needs it again
        try:
            await server.serve(sockets=[mine])
        except asyncio.CancelledError:
            # Cancelled or not, connections are closed; a stream gets a second to end.
            if server.started:
                await server.shutdown(sockets=[mine])
            raise
        finally:
            mine.close()

    async def _tick(self) -> None:
        """Tell the pages what has changed; nothing of this waits for a store."""
        elapsed_ms = time.monotonic() * 1000 * self.clock.timeline.rate
        number = self.control.overrides.number
        await self.live.tick(self.clock.now_ms(), number, elapsed_ms=elapsed_ms)

    async def _look(self) -> None:
        """Take other assets when there are."""
        number = await asyncio.to_thread(self.registry.change, "assets")
        if number == self._assets_seen:
            return
        self._owners = await asyncio.to_thread(self.registry.owners)
        if self.settings.roles != {"ingest"}:
            self.live.set_assets(await asyncio.to_thread(self.registry.assets))
            self.control.touch()
        self._assets_seen = number

    async def _lead(self) -> None:
        try:
            await asyncio.to_thread(self.leadership.ask)
        finally:
            held = self.leadership.held
            await self.control.lead(held, self.leadership.term)

    async def _lead_runoff(self) -> None:
        try:
            await asyncio.to_thread(self.drainage_leadership.ask)
        finally:
            held = self.drainage_leadership.held
            (self._drains.set if held else self._drains.clear)()

    async def _alarms(self) -> None:
        leading = self.control.leading
        await self.alarms.tick(self.clock.now_ms(), leading=leading)

    async def _deliver(self) -> None:
        barrier = self.supervisor.barrier
        await self.alarms.deliveries.run(lambda: self.control.leading, barrier)

    async def _parts(self) -> None:
        await self.parts.tick(self.clock.now_ms())

    async def _settle_energy(self) -> None:
        await self.energy.tend(self.clock.now_ms())

    async def _tend_records(self) -> None:
        await asyncio.to_thread(self.records.tend, self.clock.now_ms())

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
            parts=self.supervisor,
            keeper=self.keeper,
            lag=self.lag,
        )
        limits = self.settings.limits
        app = make_app(services, whole="api" in self.settings.roles, limits=limits)
        return configured(app, limits)

    async def _restore(self) -> None:
        """Know at once what was known before the restart, if the store answers soon."""
        with self.supervisor.barrier("restore"):
            async with asyncio.timeout(RESTORE_S):
                await self._restore_all()
        self.supervisor.succeeded("restore")  # readings that come make up for it

    async def _restore_all(self) -> None:
        now = self.clock.now_ms()
        for kind in KINDS:
            for back in LOOK_BACK_MS:
                self.live.restore(kind, await self.readings.latest(kind, now - back))
                if kind != "luminaire" or self.live.mostly_known():
                    break
        self.live.restore_rain(await self.readings.rain_readings(now - DAY_MS))

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
