"""Bodies of requests: how large, how deep, and of which text they may be."""

import asyncio
import contextlib
import json
import re
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Any

import numpy as np
from fastapi import Request
from starlette.types import Receive

from duha_backend.errors import Invalid, Slow, TooLarge

DEEPEST = 64
_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
# Possessive, and with its end left open: linear whatever comes.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_UNFIT = re.compile("[\x00\ud800-\udfff]")
_IN_THREAD = 1 << 16


async def whole(receive: Receive, most: int, idle_s: float) -> bytes:
    """Read a body.

    Raises
    ------
    TooLarge
        It has more than `most` bytes.
    Slow
        Nothing came for `idle_s`, or it took ten times as long [s].
    ConnectionError
        Who sends it has gone.
    """
    body = bytearray()
    more, until = True, asyncio.get_running_loop().time() + 10 * idle_s
    while more:
        message = await _next(receive, idle_s, until)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            raise TooLarge(most)
    return bytes(body)


def bounded(receive: Receive, most: int, idle_s: float) -> Receive:
    """A `receive` that counts bytes as they come, and waits for none longer than `idle_s`."""
    taken = 0
    until = asyncio.get_running_loop().time() + 3600.0

    async def counted() -> Any:
        nonlocal taken
        message = await _next(receive, idle_s, until)
        taken += len(message.get("body", b""))
        if taken > most:
            raise TooLarge(most)
        return message

    return counted


async def _next(receive: Receive, idle_s: float, until: float) -> Any:
    now = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(max(0.0, min(idle_s, until - now))):
            message = await receive()
    except TimeoutError:
        raise Slow("the body did not come in time") from None
    if message["type"] == "http.disconnect":
        raise ConnectionError("who asked has gone")
    return message


async def examine(body: bytes) -> None:
    """Refuse JSON that is too deep, or whose text cannot be stored.

    Raises
    ------
    Invalid
        Says which.
    """
    if len(body) > _IN_THREAD:
        await asyncio.to_thread(_examine, body)
    else:
        _examine(body)


def _examine(body: bytes) -> None:
    if depth(body) > DEEPEST:
        raise Invalid(f"the body is nested deeper than {DEEPEST}")
    if b"\x00" in body:
        raise Invalid("the body holds a NUL")
    if _SUSPECT.search(body):
        try:
            given = json.loads(body)
        except ValueError:
            return  # whoever reads it says what is wrong
        if _unfit(given):
            raise Invalid("the body's text holds a NUL or half of a character")


def depth(body: bytes) -> int:
    """How deep JSON is nested, without parsing it; of other text a bound."""
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return 0
    brackets = _TEXT.sub(b"", body).translate(None, _BRACKETS)
    steps = np.frombuffer(brackets, dtype=np.uint8)
    opened = np.where((steps == ord("[")) | (steps == ord("{")), 1, -1)
    return int(opened.cumsum().max(initial=0))


def _unfit(given: Any) -> bool:
    if isinstance(given, str):
        return _UNFIT.search(given) is not None
    if isinstance(given, dict):
        return any(_unfit(k) or _unfit(v) for k, v in given.items())
    return isinstance(given, list) and any(map(_unfit, given))


@contextlib.asynccontextmanager
async def uploaded(request: Request) -> AsyncIterator[IO[bytes]]:
    """The body of an upload as a file: what comes slowly holds no memory."""
    with tempfile.TemporaryFile(prefix="duha-") as file:
        async for chunk in request.stream():
            await asyncio.to_thread(file.write, chunk)
        file.seek(0)
        yield file
