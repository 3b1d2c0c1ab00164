"""What the API serves, who asks for it, and how it writes time."""

import asyncio
import datetime as dt
import functools
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import Cookie, Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

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
from duha_backend.live import Live
from duha_backend.readings import Readings
from duha_backend.registry import ROLES, Registry, Role

PREFIX = "/api/v1"
BACKUP_NAME = "%Y%m%dT%H%M%S%fZ"
Limit = Annotated[int, Query(ge=1, le=5000, description="Most items of a page.")]


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
    ) -> None:
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
    services: S,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    duha_session: Annotated[str, Cookie(include_in_schema=False)] = "",
) -> Asker:
    """Whoever asks.

    A session is a cookie that browsers send from this site only (SameSite=Strict).
    """
    token = bearer.credentials if bearer else duha_session
    who = None
    if token:
        who = await asyncio.to_thread(services.registry.who, token, services.real_ms())
    if who is None:
        raise Forbidden("sign in, or send 'Authorization: Bearer <token>'")
    return Asker(who.name, who.role, request.client.host if request.client else "")


Who = Annotated[Asker, Depends(_signed_in)]
SIGNED_IN = [Depends(_signed_in)]


def needs(role: Role) -> Any:
    """That whoever asks has a role, or one that may do more."""

    async def allowed(who: Who) -> None:
        if ROLES.index(who.role) < ROLES.index(role):
            raise NotAllowed(f"{who.name} is {who.role}; this needs {role}")

    return Depends(allowed)


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


def to_ms(moment: dt.datetime) -> int:
    """POSIX time [ms]; a time without a zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return round(aware.timestamp() * 1000)


def iso(ms: int) -> str:
    """A time [ms] as RFC 3339, in UTC."""
    moment = dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
