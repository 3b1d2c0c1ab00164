"""Storage of desired documents: the one in force and the last good one before it."""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from duha_contract.errors import ContractError, MessageError
from duha_contract.messages import Desired, decode, encode

log = logging.getLogger(__name__)

MOST_REJECTED = 5
"""Rejected documents that stay on disk for diagnosis."""


class Restored(NamedTuple):
    """Documents restored at start: the one to put in force and the one before it."""

    desired: Desired | None = None
    before: Desired | None = None


class DocumentStore:
    """Two files: ``desired.json`` and, beside it, ``desired.last.json``.

    Parameters
    ----------
    path : Path
        Where the document in force is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = path.with_suffix(f".last{path.suffix}")

    def store(self, desired: Desired) -> None:
        """Write a validated document to disk; the one before it becomes the last good one.

        Raises
        ------
        OSError
            The disk is full or read-only; the stored documents stay.
        """
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(encode(desired))
            file.flush()
            os.fsync(file.fileno())
        if self._path.exists():
            self._path.replace(self._last)
        new.replace(self._path)
        _sync(self._path.parent)

    def restore(self, usable: Callable[[Desired], None]) -> Restored:
        """Read both files; an unusable one is renamed and not read again.

        Parameters
        ----------
        usable : callable
            Raises ContractError for a document that cannot be in force.
        """
        current, last = (self._read(path, usable) for path in (self._path, self._last))
        return Restored(current, last) if current else Restored(last, None)

    def _read(self, path: Path, usable: Callable[[Desired], None]) -> Desired | None:
        try:
            if not path.exists():
                return None
            found = decode(path.read_bytes(), Desired)
            usable(found)
        except OSError as error:
            log.error("desired document %s cannot be read: %s", path, error)  # noqa: TRY400
            return None
        except (ContractError, MessageError) as error:
            self._reject(path, error)
            return None
        return found

    def _reject(self, path: Path, error: Exception) -> None:
        aside = self._path.with_name(f"{self._path.name}.rejected-{time.time_ns()}")
        log.error(
            "desired document %s cannot be used, set aside as %s: %s",
            path, aside.name, error,
        )  # fmt: skip
        with contextlib.suppress(OSError):
            path.replace(aside)
            for old in self.rejected[:-MOST_REJECTED]:
                old.unlink()

    @property
    def rejected(self) -> list[Path]:
        """Files of rejected documents, the oldest first."""
        return sorted(self._path.parent.glob(f"{self._path.name}.rejected-*"))


def _sync(folder: Path) -> None:
    """Flush the entries of a folder to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
