"""Turns: a few at once, some wait, and more than that are refused."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from duha_backend.errors import BackendError

MOST_WAITING = 20


class Busy(BackendError):  # noqa: N818 - reads as what it is
    """Too much is under way already: ask again later."""

    status = 429

    def __init__(self, message: str, after_s: float = 10.0) -> None:
        super().__init__(message)
        self.after_s = after_s


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Turns:
    """Turns of work that takes a processor for a while.

    Parameters
    ----------
    at_once : int, optional
        How many work at the same time; as many as there are processors.
    waiting : int
        How many may wait for their turn.
    """

    def __init__(self, at_once: int | None = None, waiting: int = MOST_WAITING) -> None:
        self._free = asyncio.Semaphore(at_once or cores())
        self._most = waiting
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Work, once it is one's turn.

        Raises
        ------
        Busy
            Too many wait already.
        """
        if self._waiting >= self._most:
            raise Busy("too many models are being tried already: try again later")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
