"""Who may speak on a line: one at a time, the most urgent first."""

import asyncio
import enum
import heapq
import itertools


class Urgency(enum.IntEnum):
    """What goes first on the line."""

    COMMAND = 0
    VERIFY = 1
    POLL = 2


class Turns:
    """Lets one at a time on the line, the most urgent first."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._taken = False

    async def take(self, urgency: Urgency) -> None:
        """Wait for a turn; `give` passes it on."""
        if not self._taken:
            self._taken = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # it was ours already
            raise

    def give(self) -> None:
        """Pass the turn on."""
        while self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False
