"""Keeps the store in order: works out quarters and days, deletes what is too old.

The newest come first, so that the present is never held up by a past that came late. A
step that cannot be worked out holds up no other, and is set aside when it goes on failing
while others succeed: what is wrong is then the step, not the store.
"""

import asyncio
import logging
from collections.abc import Callable

from duha_backend.books import Books, Marked
from duha_backend.errors import StoreDown
from duha_backend.readings import DAY_MS, LATE, STEP_MS, Readings, Retention, Step
from duha_contract.clock import Clock

log = logging.getLogger(__name__)

AFTER_MS = 120_000
"""How long after its end a quarter or a day is worked out: the last readings take a while."""
EXPIRE_EVERY_S = 3600.0
TEND_S = 20.0
"""Longest time of one round [s]; what is left has its turn after what is new by then."""
ATTEMPTS = 5
"""Failures of a step, with successes of others between them, after which it is set aside."""
_IN_A_ROW = 3
"""Failures in a row after which the store is taken to be down."""

Mark = tuple[str, Step, int, str]
"""Kind, step, start [ms] and token of a step with new readings."""


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

    Attributes
    ----------
    failures : int
        Attempts to work out a step that failed.
    aside : set of Mark
        Steps that are not tried any more, until they have new readings or the process is
        started again.
    waiting : int
        Steps that were due and had no turn in the last round.
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
        self._done = 0
        self._failed: dict[Mark, tuple[int, int]] = {}
        """Of a step that failed, how often, and the successes of others until then."""
        self.failures = 0
        self.aside: set[Mark] = set()
        self.waiting = 0

    async def tend(self) -> None:
        """Roll up what is over; once an hour delete what is too old."""
        now = self._clock.now_ms()
        await self._roll_up(now)
        if self._clock.source() >= self._expired_at + EXPIRE_EVERY_S:
            try:
                await self._store.expire(self._retention, now)
                self._expired_at = self._clock.source()
            except StoreDown as error:
                log.warning("keeper: %s", error)

    async def _roll_up(self, now: int) -> None:
        marked = await asyncio.to_thread(self._books.marked)
        due = _due(marked, now)
        self.aside &= set(due)
        self._failed = {
            mark: self._failed[mark] for mark in due if mark in self._failed
        }
        due = [mark for mark in due if mark not in self.aside]
        due.sort(key=self._failed.__contains__)  # those that never failed go first
        until = asyncio.get_running_loop().time() + TEND_S
        renewed: set[tuple[str, int]] = set()
        in_a_row = 0
        for n, mark in enumerate(due):
            self.waiting = len(due) - n
            late = asyncio.get_running_loop().time() > until
            if late or in_a_row >= _IN_A_ROW:
                return
            kind, step, start, _ = mark
            if step == "1d" and (kind, start) in renewed:
                continue  # its quarters have changed: it is marked again
            if not await self._attempt(mark):
                in_a_row += 1
                continue
            in_a_row = 0
            if step == "15m":
                renewed.add((kind, start // DAY_MS * DAY_MS))
        self.waiting = 0

    async def _attempt(self, mark: Mark) -> bool:
        """Work a step out; whatever goes wrong holds up no other."""
        kind, step, start, token = mark
        try:
            await self._store.roll(kind, step, start)
            if self._rolled is not None and step == "15m":
                await asyncio.to_thread(self._rolled, kind, start)
        except Exception as error:  # noqa: BLE001 - one step must not stop the others
            self._note(mark, error)
            return False
        self._done += 1
        self._failed.pop(mark, None)
        if kind == "rain_gauge" and step == "15m":
            await asyncio.to_thread(self._books.mark, [("rain", LATE, start)])
        if step == "15m":
            day = start // DAY_MS * DAY_MS
            await asyncio.to_thread(self._books.mark, [(kind, "1d", day)])
        await asyncio.to_thread(self._books.unmark, kind, step, start, token)
        return True

    def _note(self, mark: Mark, error: Exception) -> None:
        """Count a failure, where others have succeeded since the last one."""
        self.failures += 1
        count, done = self._failed.get(mark, (0, -1))
        if done != self._done:
            count += 1
        self._failed[mark] = (count, self._done)
        known = isinstance(error, StoreDown)
        what = f"{mark[0]} {mark[1]} {mark[2]}"
        log.warning("keeper: %s: %s", what, error, exc_info=None if known else error)
        if count >= ATTEMPTS:
            del self._failed[mark]
            self.aside.add(mark)
            log.error("keeper: %s is set aside after %d attempts", what, count)


def _due(marked: list[tuple[str, Marked, int, str]], now: int) -> list[Mark]:
    """Steps that are over: the newest first, a day after its quarters."""
    due: list[Mark] = [
        (kind, step, start, token)
        for kind, step, start, token in marked
        if step in ("15m", "1d") and start + STEP_MS[step] + AFTER_MS <= now
    ]
    return sorted(due, key=lambda mark: (-mark[2], mark[1]))
