"""Keeps the store in order: works out quarters and days, deletes what is too old."""

import asyncio
import logging
from collections.abc import Callable

from duha_backend.books import Books
from duha_backend.errors import StoreDown
from duha_backend.readings import DAY_MS, LATE, STEP_MS, Readings, Retention
from duha_contract.clock import Clock

log = logging.getLogger(__name__)

AFTER_MS = 120_000
"""How long after its end a quarter or a day is worked out: the last readings take a while."""
EXPIRE_EVERY_S = 3600.0


class Keeper:
    """Does what is due at each `tend`.

    Parameters
    ----------
    store, books : Readings, Books
        Where readings are, and which of them are not rolled up.
    retention : Retention
        How long readings are kept.
    rolled : callable, optional
        Called with kind and start [ms] of each quarter that was rolled up, late ones too.
    """

    def __init__(
        self, store: Readings, books: Books, retention: Retention, clock: Clock,
        rolled: Callable[[str, int], None] | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._books = books
        self._retention = retention
        self._clock = clock
        self._rolled = rolled
        self._expired_at = float("-inf")

    async def tend(self) -> None:
        """Roll up what is over; once an hour delete what is too old."""
        now = self._clock.now_ms()
        try:
            for kind, step, start, mark in await asyncio.to_thread(self._books.marked):
                if step == LATE or start + STEP_MS[step] + AFTER_MS > now:
                    continue
                await self._store.roll(kind, step, start)
                if kind == "rain_gauge" and step == "15m":
                    await asyncio.to_thread(self._books.mark, [("rain", LATE, start)])
                if self._rolled is not None and step == "15m":
                    await asyncio.to_thread(self._rolled, kind, start)
                if step == "15m":
                    day = start // DAY_MS * DAY_MS
                    await asyncio.to_thread(self._books.mark, [(kind, "1d", day)])
                await asyncio.to_thread(self._books.unmark, kind, step, start, mark)
            if self._clock.source() >= self._expired_at + EXPIRE_EVERY_S:
                await self._store.expire(self._retention, now)
                self._expired_at = self._clock.source()
        except StoreDown as error:
            log.warning("keeper: %s", error)
