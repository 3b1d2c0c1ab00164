"""The border of the API: what a request must pass before anything of it is read.

Head, who asks, how often and in which role are looked at first; only then its body is
taken, within limits. Whatever goes wrong behind it is answered as a problem document.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import re
import urllib.parse
from collections.abc import Iterator
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from duha_backend.api import bodies, problems
from duha_backend.api.limits import Buckets, Limits, Slots
from duha_backend.api.services import COOKIE, PREFIX, Asker, Services, permit
from duha_backend.errors import (
    BadRequest,
    Forbidden,
    NotAllowed,
    RegistryDown,
    TooLarge,
)
from duha_backend.executors import SIGN_IN
from duha_backend.registry import Role

log = logging.getLogger(__name__)

AUTHENTICATION_S = 4.0
"""How long the registry may take to say who asks [s]."""
_PUBLIC = (f"{PREFIX}/health", "/api/openapi.json")
_SIGN_IN = f"{PREFIX}/session"
_STREAM = f"{PREFIX}/events"
_EXPORTS = re.compile(
    rf"{PREFIX}/(download/|rain/export\.|models/[^/]+/export\.|\w+\.(csv|geojson|pdf)$"
    rf"|alarms/orders\.csv$|studies/[^/]+/report\.pdf$)"
)
_SAFE = ("GET", "HEAD", "OPTIONS")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_LONGEST_PATH = 1024
_LONGEST_QUERY = 8192


class Upload(NamedTuple):
    """A call that takes more than others: of whom, how much, and whether as it comes."""

    path: re.Pattern[str]
    bytes: int
    role: Role
    streamed: bool


UPLOADS = (
    Upload(re.compile(rf"{PREFIX}/assets/import"), 256 << 20, "engineer", True),
    Upload(re.compile(rf"{PREFIX}/rain/import"), 96 << 20, "engineer", True),
    Upload(re.compile(rf"{PREFIX}/models/[^/]+"), 16 << 20, "engineer", False),
    Upload(re.compile(rf"{PREFIX}/groups/[^/]+"), 8 << 20, "engineer", False),
)


class Border:
    """Lets requests through that may come in.

    Parameters
    ----------
    app : ASGIApp
        What is behind it.
    services : Services
        Whose registry says who asks.
    limits : Limits
        How much whoever asks may take.
    """

    def __init__(self, app: ASGIApp, services: Services, limits: Limits) -> None:
        self._app = app
        self._services = services
        self._limits = limits
        self._requests = Buckets(limits.requests_per_s, limits.burst)
        self._failed = Buckets(limits.failed_sign_ins / 60, limits.failed_sign_ins)
        self._exports = Slots("exports", 20)
        self._streams = Slots("event streams", limits.all_streams)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; every error is a problem document."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._pass(scope, receive, noting)
        except (ConnectionError, ClientDisconnect):
            pass  # who asked has gone
        except Exception as error:  # noqa: BLE001 - the last barrier before the server
            answer = problems.of(error)
            if not begun:
                await answer(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        _check_head(scope)
        path, headers = scope["path"], Headers(scope=scope)
        api = path.startswith(("/api/", "/metrics"))
        if not api or path in _PUBLIC:
            await self._app(scope, receive, send)
            return
        address = whose(_source(scope))
        bearer, session = _credentials(headers)
        if scope["method"] not in _SAFE and not bearer and not same_origin(headers):
            raise NotAllowed("a page of another origin may not ask for this")
        if path == _SIGN_IN and scope["method"] == "POST":
            await self._sign_in(scope, receive, send, address)
            return
        key = _key(bearer or session) if bearer or session else address
        self._requests.take(key)
        asker = await self._who(bearer or session, _source(scope))
        scope["asker"] = asker
        upload = _upload(scope)
        if upload is not None:
            permit(asker.name, asker.role, upload.role)
        most = upload.bytes if upload else self._limits.body_bytes
        _check_length(headers, most)
        if upload is not None and upload.streamed:
            receive = bodies.bounded(receive, most, self._limits.body_s)
        elif scope["method"] not in _SAFE:
            receive = await self._taken(receive, most)
        with self._place(path, key, is_session=not bearer):
            await self._app(scope, receive, send)

    async def _sign_in(
        self, scope: Scope, receive: Receive, send: Send, address: str
    ) -> None:
        """Let somebody sign in; who fails often waits."""
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self._requests.take(address)
        if wait := self._failed.wait_s(address):
            raise problems.too_often(wait)
        _check_length(Headers(scope=scope), 4096)
        receive = await self._taken(receive, 4096)
        await self._app(scope, receive, noting)
        if status == 401:
            self._failed.take(address)
            log.warning("sign-in failed, from %s", address)

    async def _taken(self, receive: Receive, most: int) -> Receive:
        """The body, read and examined; then what `receive` says."""
        body = await bodies.whole(receive, most, self._limits.body_s)
        await bodies.examine(body)
        told = False

        async def again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again

    async def _who(self, token: str, source: str) -> Asker:
        who = None
        if token:
            services = self._services
            asked = SIGN_IN.run(services.registry.who, token, services.real_ms())
            try:
                who = await asyncio.wait_for(asked, AUTHENTICATION_S)
            except TimeoutError:
                raise RegistryDown("the registry does not answer") from None
        if who is None:
            raise Forbidden("sign in, or send 'Authorization: Bearer <token>'")
        return Asker(who.name, who.role, source)

    @contextlib.contextmanager
    def _place(self, path: str, key: str, *, is_session: bool) -> Iterator[None]:
        """A place among those that take a while, where one is needed."""
        if path == _STREAM:
            most = self._limits.streams if is_session else self._limits.all_streams
            with self._streams.taken(key, most):
                yield
        elif _EXPORTS.match(path):
            with self._exports.taken(key, self._limits.exports):
                yield
        else:
            yield


def same_origin(headers: Headers) -> bool:
    """Whether no page of another origin sends this.

    SameSite does not part the ports of a host, so that browsers are taken at their word:
    Sec-Fetch-Site, or Origin where there is none. Programs send neither.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return True
    host = headers.get("host", "")
    return bool(host) and origin.partition("://")[2] == host


def _check_head(scope: Scope) -> None:
    query = scope["query_string"]
    if len(scope["raw_path"]) > _LONGEST_PATH or len(query) > _LONGEST_QUERY:
        raise BadRequest("the address is too long")
    asked = urllib.parse.unquote_plus(query.decode("latin-1"), errors="surrogateescape")
    path = urllib.parse.unquote(scope["raw_path"].decode("latin-1"), errors="surrogateescape")  # fmt: skip
    if _CONTROL.search(path) or _CONTROL.search(asked):
        raise BadRequest("the address holds a control character, or no UTF-8")


def _check_length(headers: Headers, most: int) -> None:
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        raise TooLarge(most)


def _upload(scope: Scope) -> Upload | None:
    if scope["method"] in _SAFE:
        return None
    return next((u for u in UPLOADS if u.path.fullmatch(scope["path"])), None)


def _credentials(headers: Headers) -> tuple[str, str]:
    """The bearer token, and the session of the cookie."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if kind.lower() == "bearer" else ""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        found = None
    return bearer, found.value if found else ""


def _key(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()[:32]


def _source(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0])[:64] if client else ""


def whose(source: str) -> str:
    """Who is behind an address: of IPv6 the network of a site."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return source
