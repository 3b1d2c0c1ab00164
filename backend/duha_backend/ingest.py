"""From messages to the store: validate, commit in groups, and only then acknowledge."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from duha_backend.live import Live
from duha_backend.readings import Readings
from duha_backend.validate import Examined, examine
from duha_contract.clock import Clock
from duha_contract.messages import Ack, Batch

log = logging.getLogger(__name__)

GROUP = 256
"""Most messages in one commit."""
WAITING = 2000
"""Most messages in memory; more are dropped, and the edge sends them again."""
LINGER_S = 0.05

Acknowledge = Callable[[str, Ack], Awaitable[None]]


@dataclass
class Counts:
    """What has passed since the start."""

    messages: int = 0
    rows: int = 0
    rejected: int = 0
    dropped: int = 0
    failed_commits: int = 0


class Ingest:
    """Takes messages by `offer`; `run` brings them into the store.

    Parameters
    ----------
    store, live, clock : Readings, Live, Clock
        Where readings go, who shows them, and what time it is.
    acknowledge : callable
        Sends an acknowledgement to a controller.
    """

    def __init__(
        self, store: Readings, live: Live, clock: Clock, acknowledge: Acknowledge
    ) -> None:
        self._store = store
        self._live = live
        self._clock = clock
        self._acknowledge = acknowledge
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(WAITING)
        self.counts = Counts()

    def offer(self, topic: str, payload: bytes) -> None:
        """Take a message; dropped when too many wait, which loses nothing."""
        try:
            self._waiting.put_nowait((topic, payload))
        except asyncio.QueueFull:
            self.counts.dropped += 1

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            group = [await self._waiting.get()]
            await asyncio.sleep(LINGER_S)
            while len(group) < GROUP and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            await self._commit(group)

    async def _commit(self, group: list[tuple[str, bytes]]) -> None:
        now = self._clock.now_ms()
        owners = self._live.owners
        examined = [examine(topic, payload, now, owners) for topic, payload in group]
        try:
            await asyncio.to_thread(self._store.write, examined, now)
        except Exception:
            # Whatever the store's trouble is, the edge still has everything: without
            # an acknowledgement it sends again. Going on is the safe answer.
            log.exception("store: a commit of %d messages failed", len(group))
            self.counts.failed_commits += 1
            await asyncio.sleep(1.0)
            return
        self._count(examined)
        for message in examined:
            if message.batch is not None:
                self._live.take(message.controller, message.tables)
                self._live.reported(message.controller, message.batch.reports)
        for (controller, outbox), seqs in _by_outbox(examined).items():
            await self._acknowledge(
                controller, Ack(v=1, outbox=outbox, ranges=ranges(seqs))
            )

    def _count(self, examined: list[Examined]) -> None:
        self.counts.messages += len(examined)
        self.counts.rows += sum(len(t) for m in examined for t in m.tables)
        rejects = [reject for message in examined for reject in message.rejects]
        self.counts.rejected += len(rejects)
        for reject in rejects[:5]:
            log.warning("quarantine: %s: %s", reject.controller or "?", reject.reason)


def _by_outbox(examined: list[Examined]) -> dict[tuple[str, str], list[int]]:
    """Committed batch numbers of each controller's outbox."""
    found: dict[tuple[str, str], list[int]] = {}
    for message in examined:
        batch: Batch | None = message.batch
        if batch is not None:
            found.setdefault((message.controller, batch.outbox), []).append(batch.seq)
    return found


def ranges(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    """Numbers as inclusive ranges, in order."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)
