"""The HTTP API and the page. OpenAPI at ``/api/openapi.json``; errors are RFC 9457."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import (
    APIRouter,
    Cookie,
    Depends,
    FastAPI,
    Query,
    Request,
    Response,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from duha_backend.control import Control, TargetKind
from duha_backend.errors import BackendError, Forbidden, Invalid, NotFound
from duha_backend.ingest import Ingest
from duha_backend.live import Live, encode_tick, ms_of
from duha_backend.readings import Readings
from duha_backend.registry import Group, Registry, StoredOverride
from duha_contract.errors import ContractError
from duha_contract.lighting import Calendar, Override, Programme
from duha_contract.quantities import KINDS

T = TypeVar("T")
COOKIE = "duha_session"
SESSION_MS = 12 * 3_600_000
PAGE = Path(__file__).parent / "page"
_CSP = (
    "default-src 'self'; img-src 'self' data: blob:; worker-src 'self' blob:;"
    " style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
)
Limit = Annotated[int, Query(ge=1, le=5000, description="Most items of a page.")]


class TokenIn(BaseModel):
    """What somebody signs in with."""

    token: str


class TargetIn(BaseModel):
    """Whom an override is for."""

    kind: TargetKind
    id: str = Field("", description="Empty for the city.")


class OverrideIn(BaseModel):
    """A level by hand. It always ends: `until`, or `minutes` from now."""

    target: TargetIn
    level: float = Field(description="0 to 100 %", ge=0, le=100)
    until: dt.datetime | None = None
    minutes: float | None = Field(None, gt=0)
    reason: str = Field("", max_length=200)
    emergency: bool = False


class StepIn(BaseModel):
    """One step of a programme."""

    at: str = Field(description="22:30, sunset-10 or sunrise+5", examples=["sunset"])
    level: float = Field(ge=0, le=100)
    fade_s: float = Field(0, ge=0, le=3600)


class ProgrammeIn(BaseModel):
    """A programme of one night."""

    name: str
    steps: list[StepIn] = Field(min_length=1, max_length=50)
    wet_level: float | None = Field(None, ge=0, le=100)


class CalendarIn(BaseModel):
    """Which programme for which night."""

    name: str
    default: str
    rules: list[dict[str, Any]] = []


class AssignmentIn(BaseModel):
    """The calendar of a target; null takes it away."""

    calendar: str | None


class GroupIn(BaseModel):
    """A named list of luminaires."""

    name: str
    members: list[str] = Field(max_length=100_000)


class Services:
    """What the API serves; passed in by the composition root."""

    def __init__(
        self,
        registry: Registry,
        readings: Readings,
        live: Live,
        control: Control,
        ingest: Ingest,
        now_ms: Callable[[], int],
        real_ms: Callable[[], int],
        broker_connected: Callable[[], bool],
        city: str,
        name: str,
        rate: float,
    ) -> None:
        self.registry = registry
        self.readings = readings
        self.live = live
        self.control = control
        self.ingest = ingest
        self.now_ms = now_ms
        self.real_ms = real_ms
        self.broker_connected = broker_connected
        self.city = city
        self.name = name
        self.rate = rate


def make_app(services: Services) -> FastAPI:
    """The application over its services."""
    app = _routes()
    app.state.services = services
    app.add_middleware(GZipMiddleware, minimum_size=1000)
    app.add_middleware(SecurityHeaders)
    app.add_exception_handler(BackendError, _backend_error)
    app.add_exception_handler(ContractError, _contract_error)
    app.add_exception_handler(RequestValidationError, _request_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    return app


def describe() -> dict[str, Any]:
    """The API as an OpenAPI document, without running it."""
    return _routes().openapi()


def _routes() -> FastAPI:
    app = FastAPI(
        title="Duha",
        summary="Street lighting and rain sensing of a city.",
        version="1",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(_open)
    app.include_router(_api)
    return app


class SecurityHeaders:
    """Every answer says what a browser may do with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and add the headers."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [
                    (b"content-security-policy", _CSP.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, receive, with_headers)


# -- errors ----------------------------------------------------------------------------


def _problem(status: int, detail: str, **more: Any) -> JSONResponse:
    title = HTTPStatus(status).phrase
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": detail}
        | more,
        status_code=status,
        media_type="application/problem+json",
    )


async def _backend_error(_: Request, error: Exception) -> JSONResponse:
    return _problem(getattr(error, "status", 500), str(error))


async def _contract_error(_: Request, error: Exception) -> JSONResponse:
    return _problem(422, str(error))


async def _request_error(_: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    places = [
        {"field": ".".join(str(p) for p in e["loc"][1:]), "message": e["msg"]}
        for e in found
    ]
    detail = "; ".join(f"{p['field']}: {p['message']}" for p in places)
    return _problem(422, detail or "the request cannot be read", errors=places)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        return _problem(500, "internal error")
    return _problem(error.status_code, str(error.detail))


# -- who is there ------------------------------------------------------------------------


def _services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


S = Annotated[Services, Depends(_services)]


_bearer = HTTPBearer(
    auto_error=False, description="A token, as `duha backend token NAME` makes it."
)


async def _signed_in(
    services: S,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    duha_session: Annotated[str, Cookie(include_in_schema=False)] = "",
) -> str:
    """Name of whoever asks.

    A session is a cookie that browsers send from this site only (SameSite=Strict).
    """
    token = bearer.credentials if bearer else duha_session
    who = None
    if token:
        who = await asyncio.to_thread(services.registry.who, token, services.real_ms())
    if who is None:
        raise Forbidden("sign in, or send 'Authorization: Bearer <token>'")
    return who


Who = Annotated[str, Depends(_signed_in)]
_open = APIRouter(prefix="/api/v1")
_api = APIRouter(prefix="/api/v1", dependencies=[Depends(_signed_in)])


@_open.get("/health")
async def health() -> dict[str, str]:
    """Whether the process answers; needs no token and says nothing else."""
    return {"status": "ok"}


@_open.post("/session", status_code=204)
async def sign_in(
    body: TokenIn, response: Response, services: S, request: Request
) -> None:
    """Change a token for a session cookie."""
    now = services.real_ms()
    registry = services.registry
    who = await asyncio.to_thread(registry.who, body.token, now)
    if who is None:
        await asyncio.sleep(0.5)  # guessing shall be slow
        raise Forbidden("this token is not known")
    session = await asyncio.to_thread(registry.new_token, who, now + SESSION_MS)
    await asyncio.to_thread(registry.record, services.now_ms(), who, "sign_in", "", "")
    response.set_cookie(
        COOKIE,
        session,
        max_age=SESSION_MS // 1000,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


@_api.delete("/session", status_code=204)
async def sign_out(
    response: Response, services: S, duha_session: Annotated[str, Cookie()] = ""
) -> None:
    """End the session."""
    await asyncio.to_thread(services.registry.drop_token, duha_session)
    response.delete_cookie(COOKIE)


# -- the city now ------------------------------------------------------------------------


@_api.get("/city")
async def city(services: S, who: Who) -> dict[str, Any]:
    """Name, clock and map of the city: luminaires and gauges in columns.

    The order of luminaires is the order of the bytes of ``/state``.
    """
    live = services.live
    lamps = live.luminaires
    gauges = [a for a in live.assets.values() if a.kind == "rain_gauge"]
    return {
        "id": services.city,
        "name": services.name,
        "who": who,
        "now": services.now_ms(),
        "rate": services.rate,
        "zone": services.control.place.zone,
        "luminaires": {
            "id": [a.id for a in lamps],
            "longitude": [a.longitude for a in lamps],
            "latitude": [a.latitude for a in lamps],
            "cabinet": [a.cabinet for a in lamps],
            "street": [a.street for a in lamps],
        },
        "cabinets": [a._asdict() for a in live.assets.values() if a.kind == "cabinet"],
        "gauges": [a._asdict() for a in gauges],
    }


@_api.get("/streets")
async def streets(services: S) -> dict[str, Any]:
    """The street plan as GeoJSON."""
    found = await asyncio.to_thread(services.registry.streets)
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "LineString", "coordinates": street["line"]},
            "properties": {"name": street["name"], "main": street["main"]},
        }
        for street in found
    ]
    return {"type": "FeatureCollection", "features": features}


@_api.get("/state")
async def state(services: S) -> Response:
    """One byte for each luminaire, and in ``X-Seq`` the tick that it belongs to."""
    live = services.live
    headers = {"X-Seq": str(live.tick_now.seq), "Cache-Control": "no-store"}
    return Response(
        bytes(live.state), media_type="application/octet-stream", headers=headers
    )


@_api.get("/events", response_class=EventSourceResponse)
async def events(services: S) -> AsyncIterator[ServerSentEvent]:
    """What changes, tick by tick: columns `i`, `s` and the figures.

    Who misses a `seq` fetches ``/state`` anew.
    """
    seen = services.live.tick_now.seq
    while True:
        tick = await services.live.next_tick(seen)
        seen = tick.seq
        yield ServerSentEvent(raw_data=encode_tick(tick), event="tick", id=str(seen))


@_api.get("/controllers")
async def controllers(services: S) -> list[dict[str, Any]]:
    """Every controller: whether it is there, how old its data is, what it carries out."""
    now = services.now_ms()
    found = []
    for known in services.live.controllers.values():
        desired = services.control.desired.get(known.id)
        report = known.report
        last = known.last_batch_ms
        found.append(
            {
                "id": known.id,
                "stale": known.stale,
                "age_s": None if last is None else (now - last) / 1000,
                "desired_revision": desired.revision if desired else None,
                "reported_revision": report.revision if report else None,
                "diverged": list(report.diverged) if report else [],
                "wet_road": [msgspec.to_builtins(c) for c in desired.conditions]
                if desired
                else [],
                "status": msgspec.to_builtins(known.status) if known.status else None,
            }
        )
    return found


@_api.get("/luminaires/{device}")
async def luminaire(device: str, services: S) -> dict[str, Any]:
    """One luminaire: commanded, in effect, actual, and the chain of reasons."""
    live = services.live
    if device not in live.index:
        raise NotFound(f"no luminaire {device!r}")
    asset = live.assets[device]
    reading = live.latest.get(device)
    values = reading.values if reading else {}
    decision = services.control.decision(device, services.now_ms() / 1000)
    return {
        **asset._asdict(),
        "state": live.describe(device),
        "commanded": values.get("level_commanded_pct"),
        "in_effect": values.get("level_in_effect_pct"),
        "actual": values.get("level_actual_pct"),
        "wanted": decision.level,
        "reason": msgspec.to_builtins(decision.reason),
        "values": values,
        "quality": reading.quality if reading else None,
        "at": _iso(reading.ts) if reading else None,
        "age_s": (services.now_ms() - reading.ts) / 1000 if reading else None,
    }


@_api.get("/system")
async def system(services: S) -> dict[str, Any]:
    """How the backend is: broker, store, what was counted since the start."""
    return {
        "broker_connected": services.broker_connected(),
        "ingest": vars(services.ingest.counts),
        "stored": await asyncio.to_thread(services.readings.counts),
        "figures": services.live.figures(services.now_ms()),
    }


# -- what there is -----------------------------------------------------------------------


@_api.get("/assets")
async def assets(
    services: S,
    kind: str | None = None,
    cabinet: str | None = None,
    cursor: str = "",
    limit: Limit = 500,
) -> dict[str, Any]:
    """Assets by id, page by page: ask again with `cursor` until it is null."""
    rows = await asyncio.to_thread(
        services.registry.asset_page, kind, cabinet, cursor, limit + 1
    )
    more = len(rows) > limit
    items = [asset._asdict() for asset in rows[:limit]]
    return {"items": items, "cursor": items[-1]["id"] if more else None}


@_api.get("/readings/{kind}/{device}")
async def readings(
    kind: str,
    device: str,
    services: S,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    cursor: str | None = None,
    limit: Limit = 1000,
) -> dict[str, Any]:
    """Readings of a device, oldest first; the last hour when no span is given."""
    if kind not in KINDS:
        raise NotFound(f"no kind {kind!r}; there are {', '.join(KINDS)}")
    end = _ms(until) if until else services.now_ms() + 1
    start = _ms(since) if since else end - 3_600_000
    if cursor is not None:
        _checked_time(cursor)
    page = await asyncio.to_thread(
        services.readings.window, kind, device, start, end, cursor, limit
    )
    items = [row | {"ts": _iso(ms_of(row["ts"]))} for row in page.rows]
    return {"items": items, "cursor": page.cursor}


@_api.get("/rain")
async def rain(
    services: S,
    hours: Annotated[float, Query(gt=0, le=24 * 31)] = 3,
    bin_minutes: Annotated[int, Query(ge=1, le=1440)] = 5,
) -> dict[str, Any]:
    """Rain of every gauge in bins [mm]; a bin without an entry had none."""
    now = services.now_ms()
    width = bin_minutes * 60_000
    start = (now - round(hours * 3_600_000)) // width * width
    rows = await asyncio.to_thread(
        services.readings.rain, start, now + 1, width // 1000
    )
    gauges: dict[str, list[list[float]]] = {gauge: [] for gauge in services.live.rain}
    for row in rows:
        gauges.setdefault(row["device"], []).append(
            [ms_of(row["start"]), row["rain_mm"]]
        )
    ages = {gauge: services.live.age_ms(gauge, now) for gauge in gauges}
    return {
        "start": start,
        "end": now,
        "bin_ms": width,
        "gauges": gauges,
        "age_ms": ages,
    }


@_api.get("/quarantine")
async def quarantine(
    services: S, cursor: str | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """What was refused, newest first: reason and bytes."""
    if cursor is not None and not cursor.isdigit():
        raise Invalid(f"{cursor!r} is no cursor")
    page = await asyncio.to_thread(services.readings.quarantine, cursor, limit)
    items = [
        row
        | {
            "received": _iso(ms_of(row["received"])),
            "raw": bytes(row["raw"]).decode(errors="backslashreplace"),
        }
        for row in page.rows
    ]
    return {"items": items, "cursor": page.cursor}


@_api.get("/audit")
async def audit(
    services: S, cursor: int | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """Who did what, newest first."""
    rows = await asyncio.to_thread(services.registry.audit_page, cursor, limit + 1)
    more = len(rows) > limit
    items = [row | {"at": _iso(row["ts"])} for row in rows[:limit]]
    return {"items": items, "cursor": items[-1]["id"] if more else None}


# -- what is wanted ----------------------------------------------------------------------


@_api.get("/overrides")
async def overrides(services: S) -> list[dict[str, Any]]:
    """Overrides of the last day, newest first, each with how far it has got."""
    since = services.now_ms() - 24 * 3_600_000
    found = await asyncio.to_thread(services.registry.overrides, since)
    return [_override_out(services, stored) for stored in found]


@_api.post("/overrides", status_code=201)
async def add_override(body: OverrideIn, services: S, who: Who) -> dict[str, Any]:
    """Give a luminaire, street, group, cabinet or the city a level until a time."""
    now = services.now_ms()
    if (body.until is None) == (body.minutes is None):
        raise Invalid("say either 'until' or 'minutes': an override always ends")
    end = _ms(body.until) if body.until else now + round((body.minutes or 0) * 60_000)
    override = Override(
        id="", level=body.level, start=now, end=end, reason=body.reason, who=who,
        emergency=body.emergency,
    )  # fmt: skip
    target = body.target
    stored = await asyncio.to_thread(
        services.control.add_override, target.kind, target.id, override
    )
    detail = f"{body.level:g} % until {_iso(end)}: {body.reason}"
    await _record(services, who, "override", f"{target.kind} {target.id}", detail)
    await services.control.settle()
    return _override_out(services, stored)


@_api.delete("/overrides/{name}", status_code=204)
async def cancel_override(name: str, services: S, who: Who) -> None:
    """End an override now."""
    await asyncio.to_thread(services.registry.cancel_override, name, services.now_ms())
    await _record(services, who, "cancel_override", name, "")
    services.control.touch()
    await services.control.settle()


@_api.get("/programmes")
async def programmes(services: S) -> list[dict[str, Any]]:
    """All programmes."""
    found = await asyncio.to_thread(services.registry.programmes)
    return [msgspec.to_builtins(programme) for programme in found]


@_api.put("/programmes/{name}")
async def put_programme(
    name: str, body: ProgrammeIn, services: S, who: Who
) -> dict[str, Any]:
    """Store a programme; one that cannot be evaluated is refused."""
    programme = _converted({"id": name, **body.model_dump()}, Programme)
    await asyncio.to_thread(services.control.save_programme, programme)
    await _record(services, who, "programme", name, body.name)
    await services.control.settle()
    return body.model_dump()


@_api.get("/calendars")
async def calendars(services: S) -> list[dict[str, Any]]:
    """All calendars."""
    found = await asyncio.to_thread(services.registry.calendars)
    return [msgspec.to_builtins(calendar) for calendar in found]


@_api.put("/calendars/{name}")
async def put_calendar(
    name: str, body: CalendarIn, services: S, who: Who
) -> dict[str, Any]:
    """Store a calendar; the programmes that it names must be there."""
    calendar = _converted({"id": name, **body.model_dump()}, Calendar)
    await asyncio.to_thread(services.control.save_calendar, calendar)
    await _record(services, who, "calendar", name, body.name)
    await services.control.settle()
    return body.model_dump()


@_api.get("/assignments")
async def assignments(services: S) -> dict[str, str]:
    """Calendar by luminaire, cabinet or "*"."""
    return await asyncio.to_thread(services.registry.assignments)


@_api.put("/assignments/{target}")
async def put_assignment(
    target: str, body: AssignmentIn, services: S, who: Who
) -> dict[str, str | None]:
    """Assign a calendar to a luminaire, a cabinet or "*", the whole city."""
    await asyncio.to_thread(services.control.assign, target, body.calendar)
    await _record(services, who, "assign", target, body.calendar or "none")
    await services.control.settle()
    return {"target": target, "calendar": body.calendar}


@_api.get("/groups")
async def groups(services: S) -> list[dict[str, Any]]:
    """All groups."""
    found = await asyncio.to_thread(services.registry.groups)
    return [msgspec.to_builtins(group) for group in found]


@_api.put("/groups/{name}")
async def put_group(name: str, body: GroupIn, services: S, who: Who) -> dict[str, Any]:
    """Store a group of luminaires."""
    group = Group(name, body.name, tuple(body.members))
    await asyncio.to_thread(services.control.save_group, group)
    await _record(services, who, "group", name, f"{len(body.members)} luminaires")
    await services.control.settle()
    return msgspec.to_builtins(group)  # type: ignore[no-any-return]


@_api.api_route(
    "/{anything:path}",
    methods=["GET", "POST", "PUT", "DELETE"],
    include_in_schema=False,
)
async def nothing(anything: str) -> None:
    """Say that there is no such thing, instead of handing out the page."""
    raise NotFound(f"no /api/v1/{anything}")


# -- help --------------------------------------------------------------------------------


def _override_out(services: Services, stored: StoredOverride) -> dict[str, Any]:
    override = stored.override
    kind: Literal["luminaire", "street", "group", "cabinet", "city"]
    kind = stored.target_kind  # type: ignore[assignment]
    members = services.control.members(kind, stored.target)
    return {
        "id": override.id,
        "target": {"kind": kind, "id": stored.target},
        "level": override.level,
        "start": _iso(override.start),
        "end": _iso(override.end),
        "reason": override.reason,
        "who": override.who,
        "emergency": override.emergency,
        "state": services.control.state_of(stored),
        "luminaires": len(members),
        "diverged": services.control.diverged(members),
    }


async def _record(
    services: Services, who: str, action: str, target: str, detail: str
) -> None:
    now = services.now_ms()
    await asyncio.to_thread(services.registry.record, now, who, action, target, detail)


def _converted(raw: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from None


def _checked_time(text: str) -> None:
    try:
        dt.datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{text!r} is no cursor") from None


def _ms(moment: dt.datetime) -> int:
    """POSIX time [ms]; a time without a zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return round(aware.timestamp() * 1000)


def _iso(ms: int) -> str:
    moment = dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
