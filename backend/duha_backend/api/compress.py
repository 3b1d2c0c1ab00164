"""Answers that whoever asks takes compressed, packed away from the event loop."""

import asyncio
import gzip

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SMALLEST = 1000
_INLINE = 1 << 15
LEVEL = 5


class Compress:
    """Packs answers that come in one piece; streams go as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and pack what comes back."""
        if "gzip" not in Headers(scope=scope).get("accept-encoding", ""):
            await self._app(scope, receive, send)
            return
        start: Message = {}

        async def packing(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start:
                message = await _packed(start, message)
                await send(start)
                start = {}
            await send(message)

        await self._app(scope, receive, packing)


async def _packed(start: Message, message: Message) -> Message:
    """A whole body, compressed, and its headers changed; else the message as it is."""
    headers = MutableHeaders(raw=start["headers"])
    body: bytes = message.get("body", b"")
    whole = not message.get("more_body", False)
    if not whole or len(body) < SMALLEST or "content-encoding" in headers:
        return message
    large = len(body) > _INLINE
    packed = await asyncio.to_thread(_pack, body) if large else _pack(body)
    headers["Content-Encoding"] = "gzip"
    headers["Content-Length"] = str(len(packed))
    headers.add_vary_header("Accept-Encoding")
    start["headers"] = headers.raw
    return {**message, "body": packed}


def _pack(body: bytes) -> bytes:
    return gzip.compress(body, LEVEL, mtime=0)
