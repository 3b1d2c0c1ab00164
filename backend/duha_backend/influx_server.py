"""Requests to an InfluxDB: the only module that knows how it is spoken to.

A server that is there and does not answer (stopped, swapping, behind a dead link) must not
hold anybody up, and one that works on a long question must not be given up. So who has
waited for a while asks the server for a sign of life.
"""

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import aiohttp
import msgspec

from duha_backend.errors import StoreDown
from duha_backend.frames import One, Series
from duha_backend.readings import FRAME_ROWS, Step

log = logging.getLogger(__name__)

T = TypeVar("T")
TIMEOUT_S = 60.0
"""Longest time for one answer, or for the next part of one [s]."""
CONNECT_S = 3.0
PATIENCE_S = 2.0
"""After so long without an answer the server is asked for a sign of life [s]."""
PING_S = 3.0
_RETRY_S = 1.0
_ALARM_S = 30.0
_SAID_CHARS = 300
_INLINE_BYTES = 16_384
"""What is parsed at once; more goes to a thread."""


@dataclass(frozen=True)
class Influx:
    """Where an InfluxDB is.

    Attributes
    ----------
    token : str
        The token of 2.x and 3.x; ``user:password`` for 1.x; empty for none.
    """

    url: str
    token: str = ""
    org: str = "duha"
    database: str = "duha"

    def of(self, step: Step) -> str:
        """Database or bucket of a step."""
        return self.database if step == "raw" else f"{self.database}_{step}"


class Answer(NamedTuple):
    """What a server has answered; of an error, its sentence."""

    status: int
    text: str
    headers: dict[str, str]


class Server:
    """An InfluxDB of 1.x, 2.x or 3.x. Every call raises StoreDown, and nothing else."""

    def __init__(self, place: Influx) -> None:
        self.place = place
        self._session: aiohttp.ClientSession | None = None
        self._old: bool | None = None

    async def is_old(self) -> bool:
        """Whether this is a 1.x, which says so itself."""
        if self._old is None:
            status, _, headers = await self.ask("GET", "/ping")
            if status >= 500:
                raise self.down(str(status))
            version = headers.get("x-influxdb-version", "").lstrip("v")
            self._old = version.startswith("1.")
            log.info("store: InfluxDB %s at %s", version or "2 or 3", self.place.url)
        return self._old

    async def ask(
        self, method: str, path: str, parameters: dict[str, str] | None = None,
        body: bytes | None = None, headers: dict[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """Make one request."""

        async def asked() -> Answer:
            request = self._opened(method, path, parameters, body, headers)
            async with request as answer:
                return _answer(answer, await answer.read())

        return await self._patiently(asked())

    async def series(self, database: str, query: str) -> Series:
        """All series of an InfluxQL query."""
        return [one async for some in self.stream(database, query) for one in some]

    async def stream(self, database: str, query: str) -> AsyncIterator[Series]:
        """Series of an InfluxQL query, as they come; a long one comes in parts."""
        parameters = {
            "q": query, "epoch": "ms", "chunked": "true", "chunk_size": str(FRAME_ROWS),
        }  # fmt: skip
        parameters |= {"db": database} if database else {}
        method = "GET" if query.startswith(("SELECT", "SHOW")) else "POST"
        answer = await self._patiently(self._opened(method, "/query", parameters))
        async with answer:
            if answer.status >= 300:
                said = await self._patiently(answer.read())
                raise self.refused(_answer(answer, said))
            rest = b""
            while part := await self._patiently(answer.content.readany()):
                if b"\n" not in part:
                    rest += part
                    continue
                whole, rest = (rest + part).rsplit(b"\n", 1)
                if found := await self._parsed(whole):
                    yield found
            if found := await self._parsed(rest):
                yield found

    async def json(
        self, method: str, path: str, parameters: dict[str, str], body: Any = None
    ) -> dict[str, Any]:
        """Answer of the API of 2.x; a thing that is not there is an empty one."""
        raw = None if body is None else json.dumps(body).encode()
        answer = await self.ask(method, path, parameters, raw)
        if answer.status == 404:
            return {}
        if answer.status >= 300:
            raise StoreDown(f"InfluxDB: {method} {path}: {answer.status} {answer.text}")
        try:
            found = json.loads(answer.text or "{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self.down(f"{path}: what it says is no document")
        return found

    async def close(self) -> None:
        """Close every connection; who waits for an answer gets StoreDown."""
        if self._session is not None:
            await self._session.close()

    def refused(self, answer: Answer) -> StoreDown:
        """What to say, and how long to wait, when a request was refused."""
        status, said, headers = answer
        hint = _hint(self.place, status, said) or said or "no answer"
        told = headers.get("retry-after", "")
        after_s = _ALARM_S if status in (401, 403, 404) else _RETRY_S
        after_s = float(told) if told.isdigit() else after_s
        url = self.place.url
        return StoreDown(f"InfluxDB at {url}: {status}: {hint}", after_s=after_s)

    def down(self, why: str) -> StoreDown:
        """What to say when there is no answer, or none that makes sense."""
        return StoreDown(f"InfluxDB at {self.place.url}: {why}")

    async def worked(self, call: Callable[..., T], *given: Any) -> T:
        """Work an answer up, in a thread."""
        try:
            return await asyncio.to_thread(call, *given)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise self.down("what it says is no result of a query") from error

    async def _parsed(self, text: bytes) -> Series:
        try:
            if len(text) <= _INLINE_BYTES:
                return _series(text.splitlines())
            return await asyncio.to_thread(_series, text.splitlines())
        except ValueError as error:
            raise self.down("what it says is no result of a query") from error

    def _opened(
        self, method: str, path: str, parameters: dict[str, str] | None = None,
        body: bytes | None = None, headers: dict[str, str] | None = None,
    ) -> Any:  # fmt: skip
        """Make a request: to be awaited, or entered, for its answer."""
        if self._session is None:
            limits = aiohttp.ClientTimeout(None, sock_connect=CONNECT_S)
            self._session = aiohttp.ClientSession(
                timeout=limits, headers=_credentials(self.place.token)
            )
        url = self.place.url.rstrip("/") + path
        return self._session.request(
            method, url, params=parameters, data=body, headers=headers
        )

    async def _patiently(self, waited: Awaitable[T]) -> T:
        """Wait as long as the server lives."""
        work = asyncio.ensure_future(waited)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while not (await asyncio.wait([work], timeout=PATIENCE_S))[0]:
                    await self._ping()
            return work.result()
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            raise self.down(str(error) or "it does not answer") from None
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])

    async def _ping(self) -> None:
        assert self._session is not None  # noqa: S101 - somebody waits for its answer
        url = self.place.url.rstrip("/") + "/ping"
        limits = aiohttp.ClientTimeout(PING_S)
        with contextlib.suppress(aiohttp.ClientResponseError):
            async with self._session.get(url, timeout=limits):
                pass


def _answer(answer: aiohttp.ClientResponse, body: bytes) -> Answer:
    text = body.decode("utf-8", "replace")
    headers = {name.lower(): value for name, value in answer.headers.items()}
    said = _said(text) if answer.status >= 300 else text
    return Answer(answer.status, said, headers)


def _credentials(token: str) -> dict[str, str]:
    if not token:
        return {}
    if ":" in token:
        basic = base64.b64encode(token.encode()).decode()
        return {"Authorization": f"Basic {basic}"}
    return {"Authorization": f"Token {token}"}


class _Result(msgspec.Struct, frozen=True):
    """Answer to one statement, or a part of it."""

    series: list[One] = []
    error: str = ""


class _Document(msgspec.Struct, frozen=True):
    """Answer of ``/query``, or a part of it."""

    results: list[_Result] = []
    error: str = ""


_documents = msgspec.json.Decoder(_Document)


def _series(documents: Iterable[bytes]) -> Series:
    """Series of the documents of an answer."""
    found: Series = []
    for document in documents:
        if not document.strip():
            continue
        said = _documents.decode(document)
        for error in (said.error, *(result.error for result in said.results)):
            if error:
                raise StoreDown(f"InfluxDB: {error}")
        for result in said.results:
            found += result.series
    return found


def _said(body: str) -> str:
    """The sentence in an error document."""
    try:
        found = json.loads(body)
        said = str(found.get("message") or found.get("error") or body)
    except (ValueError, AttributeError):
        said = body.strip()
    return said if len(said) <= _SAID_CHARS else said[:_SAID_CHARS] + " …"


def _hint(place: Influx, status: int, said: str) -> str:
    """What an operator can do about an answer."""
    if status == 404 and "organization" in said:
        return f"there is no organisation {place.org!r}: give --influx-org"
    if status == 401:
        return "the token or password is not accepted"
    if status == 403:
        return "the token may not do this"
    if status == 404:
        return "there is no such database or bucket: run `duha backend init-influx`"
    return ""
