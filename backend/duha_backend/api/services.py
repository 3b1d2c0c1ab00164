"""What the API serves, who asks for it, and how it writes time."""

import asyncio
import datetime as dt
import functools
import importlib.metadata
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import Depends, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from duha_backend import backups
from duha_backend.alarms.office import Office
from duha_backend.api.packed import Packed
from duha_backend.books import Books
from duha_backend.control import Control
from duha_backend.drainage.office import Drainage
from duha_backend.drainage.turns import Turns
from duha_backend.energy.settlement import Settlement
from duha_backend.errors import Forbidden, NotAllowed
from duha_backend.headline import Headline
from duha_backend.ingest import Ingest
from duha_backend.keeper import Keeper
from duha_backend.live import Live
from duha_backend.readings import Readings
from duha_backend.registry import ROLES, Registry, Role
from duha_runtime.lag import LoopLag
from duha_runtime.supervision import Supervisor

PREFIX = "/api/v1"
COOKIE = "duha_session"
Limit = Annotated[int, Query(ge=1, le=5000, description="Most items of a page.")]


class Counted:
    """Numbers of rows; counted again after a hundred times as long as counting took.

    Parameters
    ----------
    count : callable
        Counts them, in a thread.
    """

    def __init__(self, count: Callable[[], dict[str, int]]) -> None:
        self._count = count
        self._lock = asyncio.Lock()
        self._found: dict[str, int] = {}
        self._until = float("-inf")

    async def now(self) -> dict[str, int]:
        """The numbers, as they were not long ago."""
        async with self._lock:  # who comes meanwhile waits instead of counting, too
            begun = time.monotonic()
            if begun > self._until:
                self._found = await asyncio.to_thread(self._count)
                self._until = begun + 100 * (time.monotonic() - begun)
        return self._found


class Services:
    """What the API serves; passed in by the composition root."""

    def __init__(
        self,
        registry: Registry,
        readings: Readings,
        live: Live,
        control: Control,
        alarms: Office,
        energy: Settlement,
        drainage: Drainage,
        ingest: Ingest,
        now_ms: Callable[[], int],
        real_ms: Callable[[], int],
        broker_connected: Callable[[], bool],
        books: Books,
        data: Path,
        roles: frozenset[str],
        city: str,
        name: str,
        rate: float,
        grafana: str = "",
        parts: Supervisor | None = None,
        *,
        keeper: Keeper,
        lag: LoopLag,
    ) -> None:
        self.parts = parts or Supervisor()
        self.keeper = keeper
        self.lag = lag
        self.books = books
        self.data = data
        self.roles = roles
        self.version = importlib.metadata.version("duha")
        self.registry = registry
        self.readings = readings
        self.live = live
        self.control = control
        self.desk = control.desk
        self.alarms = alarms
        self.energy = energy
        self.rainfall = drainage.rainfall
        self.runs = drainage.runs
        self.trials = Turns()
        self.ingest = ingest
        self.now_ms = now_ms
        self.real_ms = real_ms
        self.broker_connected = broker_connected
        self.city = city
        self.name = name
        self.rate = rate
        self.grafana = grafana
        self.headline = Headline(live, registry, alarms.book, energy.book)
        self.counted = Counted(books.count)
        self.failed_sign_ins = 0
        self.importing = asyncio.Lock()
        self.backing_up = asyncio.Lock()
        backups.clean(data / "backups")
        self.lamps = Packed()
        self.streets = Packed()


def _services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


S = Annotated[Services, Depends(_services)]


_bearer = HTTPBearer(
    auto_error=False, description="A token, as `duha backend token NAME` makes it."
)


class Asker(NamedTuple):
    """Who asks, in which role, and from where."""

    name: str
    role: Role
    source: str


async def _signed_in(
    request: Request,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Asker:
    """Whoever asks: the border has found out before it let the request in."""
    asker: Asker | None = request.scope.get("asker")
    if asker is None:
        raise Forbidden("sign in, or send 'Authorization: Bearer <token>'")
    return asker


Who = Annotated[Asker, Depends(_signed_in)]
SIGNED_IN = [Depends(_signed_in)]


def needs(role: Role) -> Any:
    """That whoever asks has a role, or one that may do more."""

    async def allowed(who: Who) -> None:
        permit(who.name, who.role, role)

    return Depends(allowed)


def permit(name: str, role: Role, needed: Role) -> None:
    """Raise NotAllowed where a role may do less than what is needed."""
    if ROLES.index(role) < ROLES.index(needed):
        raise NotAllowed(f"{name} is {role}; this needs {needed}")


async def record(
    services: Services, who: Asker, action: str, target: str, detail: str, **more: str
) -> None:
    """Write a line of the audit log; `more`: before, after, why."""
    await asyncio.to_thread(
        functools.partial(
            services.registry.record,
            services.now_ms(), who.name, action, target, detail,
            source=who.source, **more,
        )
    )  # fmt: skip


async def encoded(found: Any) -> Response:
    """JSON of what may be large, made away from the event loop; NaN is null."""
    body = await asyncio.to_thread(msgspec.json.encode, found)
    return Response(body, media_type="application/json")


def to_ms(moment: dt.datetime) -> int:
    """POSIX time [ms]; a time without a zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return round(aware.timestamp() * 1000)


def iso(ms: int) -> str:
    """A time [ms] as RFC 3339, in UTC."""
    moment = dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
