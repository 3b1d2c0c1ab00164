"""The application: the API's rooms, the page, and the headers of every answer.

The OpenAPI document is at ``/api/openapi.json``.
"""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.middleware.gzip import GZipMiddleware
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
from duha_backend.api.packed import Files
from duha_backend.api.services import PREFIX, SIGNED_IN, Services
from duha_backend.errors import NotFound

PAGE = Path(__file__).parent.parent / "page"
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; worker-src 'self'; object-src 'none';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_nothing = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)


def make_app(services: Services, *, whole: bool = True) -> FastAPI:
    """The application over its services; a worker's has only its health and figures."""
    app = _routes(whole=whole)
    app.state.services = services
    app.add_middleware(GZipMiddleware, minimum_size=1000)
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
                message["headers"] += [
                    (b"content-security-policy", _CSP.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
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
