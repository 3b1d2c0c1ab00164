"""The application: the API's rooms, the page, and the headers of every answer.

The OpenAPI document is at ``/api/openapi.json``.
"""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from duha_backend.api import (
    alarms,
    documents,
    energy,
    figures,
    kept,
    models,
    nights,
    now,
    overrides,
    plans,
    problems,
    rain,
    runoff,
    sessions,
    stock,
)
from duha_backend.api.border import Border
from duha_backend.api.compress import Compress
from duha_backend.api.limits import Limits
from duha_backend.api.packed import Files
from duha_backend.api.services import PREFIX, SIGNED_IN, Services
from duha_backend.errors import NotFound

PAGE = Path(__file__).parent.parent / "page"
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; worker-src 'self'; object-src 'none';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_nothing = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)


def make_app(
    services: Services, *, whole: bool = True, limits: Limits | None = None
) -> FastAPI:
    """The application over its services; a worker's has only its health and figures."""
    app = _routes(whole=whole)
    app.state.services = services
    app.add_middleware(Compress)
    app.add_middleware(Border, services=services, limits=limits or Limits())
    app.add_middleware(SecurityHeaders)
    problems.install(app)
    if whole:
        app.mount("/", Files(PAGE), name="page")
    return app


def describe() -> dict[str, Any]:
    """The API as an OpenAPI document, without running it."""
    return _routes().openapi()


def _routes(*, whole: bool = True) -> FastAPI:
    app = FastAPI(
        title="Duha",
        summary="Street lighting and rain sensing of a city.",
        version="1",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    rooms = [sessions.router, figures.router]
    if whole:
        rooms += [now.router, kept.router, stock.router]
        rooms += [overrides.router, nights.router, alarms.router, energy.router]
        rooms += [
            documents.router,
            plans.router,
            rain.router,
            runoff.router,
            models.router,
        ]
    for room in (*rooms, _nothing):
        app.include_router(room)
    return app


class SecurityHeaders:
    """Every answer says what a browser may do with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and add the headers."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
                if scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = "max-age=31536000"
                message["headers"] = headers.raw
            await send(message)

        await self._app(scope, receive, with_headers)


@_nothing.api_route(
    "/{anything:path}",
    methods=["GET", "POST", "PUT", "DELETE"],
    include_in_schema=False,
)
async def nothing(anything: str) -> None:
    """Say that there is no such thing, instead of handing out the page."""
    raise NotFound(f"no /api/v1/{anything}")
