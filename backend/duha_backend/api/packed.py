"""Bodies that are made and compressed once, then handed out until they change."""

import asyncio
import gzip
import hashlib
import logging
import mimetypes
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

log = logging.getLogger(__name__)
LEVEL = 6


class Packed:
    """The newest body of one answer, compressed."""

    def __init__(self) -> None:
        self._version: Hashable = None
        self._body = b""
        self._lock = asyncio.Lock()

    async def answer(
        self, version: Hashable, make: Callable[[], bytes], accepted: str, media: str
    ) -> Response:
        """The body of a version, made anew if the kept one is of another.

        Parameters
        ----------
        version : hashable
            What the body depends on.
        make : callable
            Makes it, in a thread.
        accepted : str
            Encodings that whoever asks takes.
        media : str
            Its type.
        """
        async with self._lock:  # who comes meanwhile waits instead of making it, too
            if self._version != version:
                self._body = await asyncio.to_thread(lambda: _pack(make()))
                self._version = version
        return await _unless_refused(self._body, accepted, media, {})


class Kept(NamedTuple):
    """A file as it was when it was last read."""

    stamp: tuple[int, int]
    etag: str
    media: str
    packed: bytes


class Files:
    """The files of a folder, kept in memory; browsers ask each time for changes.

    What is not there when the application is made is not there at all; what goes away
    later, while another version is installed, is served as it was.

    Parameters
    ----------
    folder : Path
        Its files, those of folders in it too, are served by their relative path.
    """

    def __init__(self, folder: Path) -> None:
        found = (path for path in folder.rglob("*") if path.is_file())
        self._paths = {str(path.relative_to(folder)): path for path in found}
        self._kept: dict[str, Kept] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for one of them."""
        asked = Request(scope)
        name = scope["path"].lstrip("/") or "index.html"
        if asked.method not in {"GET", "HEAD"} or name not in self._paths:
            await PlainTextResponse("not found", 404)(scope, receive, send)
            return
        kept = await self._file(name)
        if kept is None:
            await PlainTextResponse("not found", 404)(scope, receive, send)
            return
        headers = {"ETag": kept.etag, "Cache-Control": "no-cache"}
        if asked.headers.get("if-none-match") == kept.etag:
            await Response(None, 304, headers)(scope, receive, send)
            return
        accepted = asked.headers.get("accept-encoding", "")
        answer = await _unless_refused(kept.packed, accepted, kept.media, headers)
        await answer(scope, receive, send)

    async def _file(self, name: str) -> Kept | None:
        """A file as it is, read and compressed anew when it has changed; or as it was."""
        path, kept = self._paths[name], self._kept.get(name)
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if kept is None or kept.stamp != stamp:
                packed = await asyncio.to_thread(lambda: _pack(path.read_bytes()))
                kept = self._kept[name] = Kept(
                    stamp, _etag(packed), _media(path), packed
                )
        except OSError as error:
            log.warning("%s: %s", name, error)
        return kept


def _etag(packed: bytes) -> str:
    return f'"{hashlib.sha256(packed).hexdigest()[:20]}"'


def _media(path: Path) -> str:
    guessed = _MEDIA.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    return guessed or "application/octet-stream"


_MEDIA = {
    ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
    ".ftl": "text/plain; charset=utf-8", ".ttf": "font/ttf",
}  # fmt: skip
"""Types that machines name differently."""


def _pack(body: bytes) -> bytes:
    return gzip.compress(body, LEVEL, mtime=0)


async def _unless_refused(
    packed: bytes, accepted: str, media: str, headers: dict[str, str]
) -> Response:
    headers = {"Vary": "Accept-Encoding", **headers}
    if "gzip" in accepted:
        return Response(packed, media_type=media, headers={"Content-Encoding": "gzip", **headers})  # fmt: skip
    plain = await asyncio.to_thread(gzip.decompress, packed)
    return Response(plain, media_type=media, headers=headers)
