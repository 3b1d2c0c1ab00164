"""Copies of the embedded stores, each in a folder with the time of its beginning.

A copy is made under another name and gets its own when it is whole: what has a name and a
manifest counts, nothing else.
"""

import asyncio
import contextlib
import datetime as dt
import hashlib
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from duha_backend.errors import Conflict, StoreDown

MANIFEST = "manifest.json"
_NAME = "%Y%m%dT%H%M%S%fZ"
_PART = ".part"
Copy = Callable[[Path], Awaitable[str | None]]
"""Copies a store into a folder; returns the file's name, or None for a server's store."""


async def make(
    home: Path, begun: dt.datetime, copies: Sequence[Copy]
) -> tuple[Path, list[str]]:
    """Copy stores; returns the folder of the copy and its files.

    Raises
    ------
    Conflict
        There is nothing to copy, or another copy is being made.
    StoreDown
        There is no room; nothing of it is left.
    """
    folder = home / begun.strftime(_NAME)
    part = folder.with_name(folder.name + _PART)
    if any(home.glob(f"*{_PART}")):
        raise Conflict("another backup is being made")
    try:
        await asyncio.to_thread(part.mkdir, parents=True)
        files = [name for copy in copies if (name := await copy(part))]
        if not files:
            raise Conflict(
                "there is nothing to copy: servers have backups of their own"
            )
        await asyncio.to_thread(_finish, part, folder, begun, files)
    except OSError as error:
        raise StoreDown(
            f"the backup was not written: {error.strerror or error}"
        ) from None
    finally:
        await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)
    return folder, files


def clean(home: Path) -> None:
    """Take away what a process left that ended while it made a copy."""
    for part in home.glob(f"*{_PART}"):
        shutil.rmtree(part, ignore_errors=True)


def last(home: Path) -> dt.datetime | None:
    """When the newest whole copy was begun."""
    found = []
    for path in home.iterdir() if home.is_dir() else ():
        with contextlib.suppress(ValueError):  # something else lies there, too
            begun = dt.datetime.strptime(f"{path.name}+0000", f"{_NAME}%z")
            if (path / MANIFEST).is_file():
                found.append(begun)
    return max(found, default=None)


def _finish(part: Path, folder: Path, begun: dt.datetime, files: Sequence[str]) -> None:
    """Write down what a copy holds, and give it its name."""
    told = {name: _sealed(part / name) for name in files}
    text = json.dumps({"begun": begun.isoformat(), "files": told}, indent=2)
    (part / MANIFEST).write_text(text, "utf-8")
    _sync(part / MANIFEST)
    part.rename(folder)
    _sync(folder.parent)


def _sealed(file: Path) -> dict[str, int | str]:
    """Size and digest of a file that is safely on disk."""
    _sync(file)
    with file.open("rb") as copy:
        digest = hashlib.file_digest(copy, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
