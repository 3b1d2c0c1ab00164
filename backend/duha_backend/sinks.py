"""A sink commits parts of messages in groups, with a queue and a back-off of its own.

Nothing here drops a reading for good: a part that a sink in trouble does not take is
missed, its message is not acknowledged, and the edge sends it again.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from duha_backend.books import Bin
from duha_backend.errors import StoreDown
from duha_backend.validate import Examined
from duha_runtime.supervision import describe
from duha_runtime.waiting import heard

log = logging.getLogger(__name__)

GROUP = 256
"""Most messages in one commit."""
MOST_WAITING = 4 * GROUP
STUCK_S = 2.0
"""How long the examination of messages waits for a sink that is behind [s]."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 5.0
MOST_REMEMBERED = 1000
MOST_SUSPECTS = 8
"""Parts that fail alone, while none succeeds, before the sink is held to be broken."""


@dataclass(eq=False, slots=True)
class Receipt:
    """A message, and how many commits it waits for before it is acknowledged."""

    message: Examined
    left: int = 0
    refused: bool = False
    """Whether what was refused of it is on its way to quarantine."""


@dataclass(eq=False, slots=True)
class Part:
    """What one sink has to take of a message, or marks of many messages."""

    message: Examined
    receipts: Sequence[Receipt]
    bins: set[Bin] = field(default_factory=set)


class Sink:
    """One place where parts of messages are committed.

    An error that is `StoreDown` or of the operating system means that the sink is away:
    it is left alone for a while. Any other error may be the fault of one part: the group
    is tried in halves until that part stands alone, and the others are committed. A part
    is held guilty only when it fails again after another has succeeded, now or when it is
    sent again: when nothing succeeds, the sink is broken.

    Parameters
    ----------
    name : str
        Its name in alarms.
    commit : callable
        Commits parts together, or raises.
    settled : callable
        Takes parts that have been committed.
    poisoned : callable
        Takes a part that can never be committed, and why.
    missed : callable
        Takes parts that the sink in trouble has not looked at.
    works : callable
        Called when the sink works again.
    linger_s : float, optional
        How long parts are gathered for one commit [s], unless they are many.
    """

    def __init__(
        self,
        name: str,
        commit: Callable[[list[Part]], Awaitable[None]],
        settled: Callable[[list[Part]], None],
        poisoned: Callable[[Part, Exception], None],
        missed: Callable[[Sequence[Part]], None],
        works: Callable[[], None],
        linger_s: float = 0.0,
    ) -> None:
        self._linger_s = linger_s
        self._name = name
        self._commit = commit
        self._settled = settled
        self._poisoned = poisoned
        self._missed = missed
        self._works = works
        self._waiting: deque[Part] = deque()
        self._filled = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._stuck = False
        self._again = float("-inf")
        self._commits = 0
        self._suspects: dict[tuple[str, bytes], int] = {}
        self._pause = FIRST_PAUSE_S
        self.alarm = ""
        self.failed = 0

    def put(self, part: Part) -> None:
        """Take a part; missed while the sink is in trouble or too far behind."""
        if self._rests() or len(self._waiting) >= MOST_WAITING:
            self._missed([part])
            return
        self._waiting.append(part)
        self._filled.set()
        if len(self._waiting) >= GROUP:
            self._full.set()
            self._room.clear()

    async def room(self) -> None:
        """Wait while the sink is behind; not for one that hangs."""
        if not self._stuck and not await heard(self._room, STUCK_S):
            self._stuck = True

    async def run(self) -> None:
        """Commit what comes until cancelled."""
        while True:
            await self._filled.wait()
            if self._linger_s and len(self._waiting) < GROUP:
                await heard(self._full, self._linger_s)
            group = [self._waiting.popleft() for _ in islice(range(GROUP), len(self._waiting))]  # fmt: skip
            self._full.clear()
            if not self._waiting:
                self._filled.clear()
            try:
                if group:
                    await self._take(group)
            finally:
                self._stuck = False
                self._room.set()

    async def _take(self, group: list[Part]) -> None:
        error = await self._tried(group)
        if error is not None:
            await self._sift(group, error)

    async def _tried(self, parts: list[Part]) -> Exception | None:
        """Commit parts; what speaks against one of them, when that fails."""
        try:
            await self._commit(parts)
        except (StoreDown, OSError, MemoryError) as error:
            self._trouble(error, parts)
        except Exception as error:  # noqa: BLE001 - perhaps the fault of one part
            return error
        else:
            self._proven()
            self._settled(parts)
        return None

    async def _sift(self, group: list[Part], error: Exception) -> None:
        """Commit the good parts of a group that has failed, and judge the others."""
        failed, alone, before = [(group, error)], [], self._commits
        while failed:
            parts, error = failed.pop()
            if len(parts) == 1:
                alone.append((parts[0], error))
                self._suspects.setdefault(_key(parts[0]), before)
            if self._is_broken():
                left = [part for parts, _ in failed for part in parts]
                self._trouble(error, [*left, *(part for part, _ in alone)])
                return
            for half in _halves(parts) if len(parts) > 1 else ():
                again = None if self._rests() else await self._tried(half)
                if again is not None:
                    failed.append((half, again))
                elif self._rests():
                    self._missed(half)
        for part, why in alone:
            await self._judge(part, why)

    async def _judge(self, part: Part, error: Exception) -> None:
        """Hold a part guilty that fails once more after others have succeeded."""
        if self._rests():
            self._missed([part])
            return
        if self._suspects.get(_key(part), self._commits) < self._commits:
            again = await self._tried([part])
            self._suspects.pop(_key(part), None)
            if again is not None:
                self._poisoned(part, again)
            return
        self._say(error)
        self._missed([part])

    def _rests(self) -> bool:
        """Whether the sink is left alone now."""
        return time.monotonic() < self._again

    def _is_broken(self) -> bool:
        """Whether so many have failed, and none has succeeded since, that all would."""
        while len(self._suspects) > MOST_REMEMBERED:
            del self._suspects[next(iter(self._suspects))]
        alone = sum(commits == self._commits for commits in self._suspects.values())
        return alone >= MOST_SUSPECTS

    def _proven(self) -> None:
        self._commits += 1
        self._pause = FIRST_PAUSE_S
        if self.alarm:
            log.info("%s: works again", self._name)
            self.alarm = ""
            self._works()

    def _trouble(self, error: Exception, group: Sequence[Part]) -> None:
        """Leave the sink alone for a while; what it should have taken comes again."""
        self._say(error)
        after = error.after_s if isinstance(error, StoreDown) else 0.0
        pause = min(max(self._pause, after), LONGEST_PAUSE_S)
        self._again = time.monotonic() + pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE_S)
        self._missed([*group, *self._waiting])
        self._waiting.clear()
        self._suspects.clear()

    def _say(self, error: Exception) -> None:
        """Raise the alarm of this sink."""
        known = isinstance(error, StoreDown)
        said = str(error) if known else describe(error)
        if said != self.alarm:
            log.error("%s: %s", self._name, said, exc_info=None if known else error)
        self.alarm = said
        self.failed += 1


def _key(part: Part) -> tuple[str, bytes]:
    """What stands for a part when it is sent again."""
    message = part.message
    return message.controller, message.digest + bytes([bool(message.rejects)])


def _halves(group: list[Part]) -> list[list[Part]]:
    middle = len(group) // 2
    return [group[middle:], group[:middle]]
