"""The HTTP server: how many connections there may be, and how long each may take.

Uvicorn waits for ever for a request's header, for its body, and for whoever reads its
answer. Here each has its time, and where there are too many connections those that have
asked for nothing yet are closed first, the oldest before the others, so that a newcomer
is served however many half-sent requests there are.
"""

import asyncio
import logging
import resource
import time
from collections import OrderedDict
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from duha_backend.api.border import whose
from duha_backend.api.limits import Limits

log = logging.getLogger(__name__)

FILES = 65_536
"""Open files wanted; the system may allow fewer."""
_LARGEST_HEADER = 65_536
_MOST_DISCARDED = 8 << 20
_LOG_EVERY_S = 10.0


def configured(app: ASGIApp, limits: Limits | None = None) -> uvicorn.Config:
    """How an application is served, within limits."""
    limits = limits or Limits()
    waiting = Waiting(limits, _raise_files())
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return uvicorn.Config(
        app,
        http=type("Http", (BoundedHttp,), {"limits": limits, "waiting": waiting}),
        ws="none",
        access_log=False,
        log_config=None,
        lifespan="off",
        server_header=False,
        proxy_headers=bool(limits.trusted_proxies),
        forwarded_allow_ips=list(limits.trusted_proxies),
        limit_concurrency=2 * limits.connections,
        timeout_graceful_shutdown=1,
    )


def _raise_files() -> int:
    """Allow this process as many open files as it may have; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return FILES if soft == resource.RLIM_INFINITY else soft


def quiet(loop: asyncio.AbstractEventLoop) -> None:
    """Log accepts that failed for want of files in one line, now and then.

    asyncio calls for help once a try, some thousand times a second.
    """
    before = loop.get_exception_handler()
    logged = 0.0

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal logged
        if not str(context.get("message", "")).startswith("socket.accept()"):
            (before or type(loop).default_exception_handler)(loop, context)
        elif time.monotonic() > logged + _LOG_EVERY_S:
            logged = time.monotonic()
            log.warning("no connection can be accepted: %s", context.get("exception"))

    loop.set_exception_handler(handle)


class Waiting:
    """Connections, and which of them have asked for nothing yet, the oldest first.

    Parameters
    ----------
    limits : Limits
        How many there may be.
    files : int
        How many files the process may open; a quarter of them is for other things.
    """

    def __init__(self, limits: Limits, files: int) -> None:
        self._most = min(limits.connections, files * 3 // 4)
        self._most_of_address = limits.waiting
        self._trusted = frozenset(limits.trusted_proxies)
        self._open = 0
        self._of: dict[str, OrderedDict[BoundedHttp, None]] = {}

    def opened(self, connection: "BoundedHttp") -> None:
        """Take a connection, and close what there is no room for."""
        self._open += 1
        self.add(connection)
        mine = self._of[connection.address]
        if (
            len(mine) > self._most_of_address
            and connection.address not in self._trusted
        ):
            next(iter(mine)).drop()
        elif self._open > self._most:
            largest = max(self._of.values(), key=len)
            next(iter(largest)).drop()

    def closed(self, connection: "BoundedHttp") -> None:
        """Forget a connection."""
        self._open -= 1
        self.remove(connection)

    def add(self, connection: "BoundedHttp") -> None:
        """Note that a connection waits for a request."""
        self._of.setdefault(connection.address, OrderedDict())[connection] = None

    def remove(self, connection: "BoundedHttp") -> None:
        """Note that one has come."""
        mine = self._of.get(connection.address)
        if mine is not None:
            mine.pop(connection, None)
            if not mine:
                del self._of[connection.address]


class BoundedHttp(HttpToolsProtocol):
    """HTTP whose header, discarded bodies and unread answers have their time."""

    limits: Limits
    waiting: Waiting
    address = ""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_due: asyncio.TimerHandle | None = None
        self._write_due: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._idle_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.address = whose(self.client[0]) if self.client else ""
        self._wait()
        self.waiting.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was waited for."""
        self._asked()
        self.resume_writing()
        self.waiting.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; what comes between requests, or instead of one, has its limits."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            self._wait()
            self._idle_bytes += len(data)
            most = _LARGEST_HEADER if cycle is None else _MOST_DISCARDED
            if self._idle_bytes - len(data) > most:
                self.drop()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin to count a header."""
        super().on_message_begin()
        self._header_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer, while there are not too many."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _LARGEST_HEADER:
            self.drop()
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._asked()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.cycle.response_complete:
            self.waiting.add(self)

    def pause_writing(self) -> None:
        """Give whoever reads the answer a while."""
        super().pause_writing()
        self._write_due = self.loop.call_later(self.limits.write_s, self.drop)

    def resume_writing(self) -> None:
        """Write on."""
        if self._write_due is not None:
            self._write_due.cancel()
            self._write_due = None
        super().resume_writing()

    def drop(self) -> None:
        """Close at once, whatever is not sent yet."""
        if self.transport is not None:
            self.transport.abort()

    def _wait(self) -> None:
        if self._head_due is None:
            self._head_due = self.loop.call_later(self.limits.header_s, self.drop)
            self.waiting.add(self)

    def _asked(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None
        self._idle_bytes = 0
        self.waiting.remove(self)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: strangers do not fill the log."""
