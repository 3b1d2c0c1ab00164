"""From messages to the store: validate, commit in groups, and only then acknowledge.

A message needs up to two sinks: the readings store, and the books for its events and for
what of it was refused. It is acknowledged when all that it needs have committed; a sink
that is down holds up only the messages that need it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from duha_backend.books import Bin, Books
from duha_backend.errors import StoreDown
from duha_backend.live import Live
from duha_backend.readings import QUARTER_MS, Readings
from duha_backend.validate import Examined, Reject, examine
from duha_contract.clock import Clock
from duha_contract.messages import Ack, Batch, Table, encode
from duha_contract.topics import build

log = logging.getLogger(__name__)

GROUP = 256
"""Most messages in one commit."""
WAITING_BYTES = 32 * 1024 * 1024
"""Most bytes in memory; more are dropped, and the edge sends them again."""
LINGER_S = 0.05
LATE_MS = QUARTER_MS
"""A quarter that has been over for so long may have been rolled up already."""
_TROUBLE_S = 1.0

Acknowledge = Callable[[str, Ack], Awaitable[None]]
LAGS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, float("inf"))


@dataclass
class Counts:
    """What has passed since the start."""

    messages: int = 0
    bytes: int = 0
    rows: int = 0
    rejected: int = 0
    dropped: int = 0
    commits: int = 0
    failed_commits: int = 0
    lag: dict[float, int] = field(default_factory=lambda: dict.fromkeys(LAGS_S, 0))
    """Messages by the time from their last reading to its commit [s], upper ends."""


class Ingest:
    """Takes messages by `offer`; `run` brings them into the store.

    Parameters
    ----------
    store, books : Readings, Books, or None
        Where readings go, and events and what is refused. Without them messages are only
        looked at: a process that shows the city, but does not store it.
    live : Live or None
        Who shows them; a worker that only stores has none.
    owners : callable
        Controller of each registered device.
    acknowledge : callable
        Sends an acknowledgement to a controller.
    """

    def __init__(
        self,
        store: Readings | None,
        books: Books | None,
        live: Live | None,
        owners: Callable[[], Mapping[str, str]],
        clock: Clock,
        acknowledge: Acknowledge,
    ) -> None:
        self._store = store
        self._books = books
        self._live = live
        self._owners = owners
        self._clock = clock
        self._acknowledge = acknowledge
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        self._offered = asyncio.Event()
        self._again: dict[str, float] = {}
        self._owed: set[str] = set()
        self._marked: set[Bin] = set()
        self.alarms: dict[str, str] = {}
        self.counts = Counts()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the messages that wait."""
        return self._waiting_bytes

    def offer(self, topic: str, payload: bytes) -> None:
        """Take a message; dropped when too much waits, which loses nothing."""
        if self._waiting_bytes + len(payload) > WAITING_BYTES:
            self.counts.dropped += 1
            return
        self._waiting.append((topic, payload))
        self._waiting_bytes += len(payload)
        self._offered.set()

    async def run(self) -> None:
        """Serve until cancelled: one group is examined while the one before is stored."""
        storing: asyncio.Task[None] | None = None
        try:
            while True:
                group = await self._group()
                now = self._clock.now_ms()
                examined = await asyncio.to_thread(self._examine, group, now)
                if storing is not None:
                    await storing
                storing = asyncio.create_task(self._settle(examined), name="commit")
        finally:
            if storing is not None:
                storing.cancel()
                await asyncio.gather(storing, return_exceptions=True)

    async def _group(self) -> list[tuple[str, bytes]]:
        """Messages for one commit; a few that come close together share it."""
        self._offered.clear()
        if not self._waiting:
            await self._offered.wait()
        if len(self._waiting) < GROUP:
            await asyncio.sleep(self._store.linger_s if self._store else LINGER_S)
        group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
        self._waiting_bytes -= sum(len(payload) for _, payload in group)
        return group

    def _examine(self, group: list[tuple[str, bytes]], now: int) -> list[Examined]:
        owners = self._owners()
        self.counts.bytes += sum(len(payload) for _, payload in group)
        return [examine(topic, payload, now, owners) for topic, payload in group]

    async def _settle(self, examined: list[Examined]) -> None:
        """Show, store and acknowledge a group."""
        if self._live is not None:
            for message in examined:
                if message.batch is not None:
                    self._live.take(message.controller, message.tables)
                    self._live.reported(message.controller, message.batch.reports)
        if self._store is None or self._books is None:
            self.counts.messages += len(examined)
            return
        with_tables = [m for m in examined if m.tables]
        stored = await self._try("store", self._keep(with_tables), with_tables)
        # A message that will come again is booked then: quarantine counts things once.
        with_books = [
            m
            for m in examined
            if (m.rejects or (m.batch and m.batch.events)) and (stored or not m.tables)
        ]
        booked = await self._try("books", self._book(with_books), with_books)
        missed = ([] if booked else with_books) + ([] if stored else with_tables)
        lost = {id(message) for message in missed}
        done = [message for message in examined if id(message) not in lost]
        self._count(done)
        sending = (self._acknowledge(*ack) for ack in _acks(done))
        await asyncio.gather(*sending)

    async def _book(self, messages: list[Examined]) -> None:
        books, now = self._books, self._clock.now_ms()
        if messages and books is not None:
            await asyncio.to_thread(books.write, messages, now)

    async def _keep(self, messages: list[Examined]) -> None:
        store, books, now = self._store, self._books, self._clock.now_ms()
        if not messages or store is None or books is None:
            return
        bins = self._bins(messages, now)
        if bins:  # before the commit: a mark too many does no harm
            await asyncio.to_thread(books.mark, bins)
        rejects = await store.write(messages, now)
        self._marked |= bins
        if rejects:
            await asyncio.to_thread(books.refuse, rejects, now)
            self._tell(rejects)
        done = self._clock.now_ms()
        self.counts.commits += 1
        for message in messages:
            newest = max(int(table.values["ts"].max()) for table in message.tables)
            self._lagged((done - newest) / 1000)

    def _bins(self, messages: list[Examined], now: int) -> set[Bin]:
        """Quarters with new readings that are not marked yet, or may be rolled up already."""
        found: set[Bin] = set()
        for message in messages:
            for table in message.tables:
                times = table.values["ts"]
                first = int(times.min()) // QUARTER_MS
                last = int(times.max()) // QUARTER_MS
                if first == last:
                    found.add((table.kind, "15m", first * QUARTER_MS))
                else:
                    starts = set((times // QUARTER_MS).tolist())
                    found |= {(table.kind, "15m", n * QUARTER_MS) for n in starts}
        recent = now - QUARTER_MS - LATE_MS
        self._marked = {bin_ for bin_ in self._marked if bin_[2] > recent}
        return found - self._marked

    async def _try(
        self, sink: str, work: Any, messages: Sequence[Examined]
    ) -> bool:  # fmt: skip
        """Whether a sink has taken something; a sink in trouble is left alone for a while.

        Whatever the trouble is, the edge still has everything: without an acknowledgement
        it sends again. Going on is the safe answer.
        """
        if time.monotonic() < self._again.get(sink, 0.0):
            work.close()
            self._owed |= {m.controller for m in messages}
            return not messages
        try:
            await work
        except Exception as error:  # noqa: BLE001 - see above
            if sink not in self.alarms or self.alarms[sink] != str(error):
                _complain(sink, error)
            self.alarms[sink] = str(error)
            self.counts.failed_commits += 1
            pause = error.after_s if isinstance(error, StoreDown) else _TROUBLE_S
            self._again[sink] = time.monotonic() + pause
            self._owed |= {m.controller for m in messages}
            return False
        if messages and self.alarms.pop(sink, None) is not None:
            log.info("%s: works again", sink)
            await self._ask_again()
        return True

    async def _ask_again(self) -> None:
        """Ask for what could not be taken, instead of waiting until it comes by itself."""
        owed, self._owed = self._owed, set()
        for controller in owed:
            if controller:
                await self._acknowledge(controller, Ack(v=1, outbox="", resend=True))

    def _count(self, examined: list[Examined]) -> None:
        self.counts.messages += len(examined)
        self.counts.rows += sum(len(t) for m in examined for t in m.tables)
        self._tell([reject for message in examined for reject in message.rejects])

    def _tell(self, rejects: list[Reject]) -> None:
        self.counts.rejected += len(rejects)
        for reject in rejects[:3]:
            who = reject.controller or "?"
            more = {"controller": reject.controller, "kind": reject.kind}
            log.warning("quarantine: %s: %s", who, reject.reason, extra=more)

    def _lagged(self, seconds: float) -> None:
        for upper in LAGS_S:
            if seconds <= upper:
                self.counts.lag[upper] += 1
                return

    # -- what was refused, once more -------------------------------------------------

    async def replay(self, numbers: Sequence[int], city: str) -> dict[int, str]:
        """Examine refused things anew, and store what is fine now.

        Returns
        -------
        dict of int to str
            Of each number: empty when it is stored now, else why it is still refused.
        """
        if self._store is None or self._books is None:
            return {}
        rows = await asyncio.to_thread(self._books.quarantined, numbers)
        now = self._clock.now_ms()
        results: dict[int, str] = {}
        fine: list[Examined] = []
        for row in rows:
            message = self._once_more(row, city, now)
            results[row["id"]] = message.rejects[0].reason if message.rejects else ""
            if not message.rejects:
                fine.append(message)
        bins = self._bins(fine, now)
        await asyncio.to_thread(self._books.mark, bins)
        again = await self._store.write(fine, now)
        done = [number for number, reason in results.items() if not reason]
        if not again:
            await asyncio.to_thread(self._books.replayed, done, now)
            return results
        return results | dict.fromkeys(done, again[0].reason)

    def _once_more(self, row: Mapping[str, Any], city: str, now: int) -> Examined:
        """Examine one refused thing by the rules of now."""
        owners = self._owners()
        controller, raw = row["controller"], bytes(row["raw"])
        if not controller:
            return Examined("", rejects=[Reject("", row["reason"], raw)])
        topic = build(city, controller, "data")
        if not row["kind"]:
            return examine(topic, raw, now, owners)
        values = msgspec.json.decode(raw)
        lead = {name: values.pop(name, None) for name in ("device", "ts", "quality")}
        table = Table(
            row["kind"], (*lead, *values), ((*lead.values(), *values.values()),)
        )
        batch = Batch(1, "", "quarantine", row["id"], "trusted", (table,))
        return examine(topic, encode(batch), now, owners)


def _complain(sink: str, error: Exception) -> None:
    """Say what a sink's trouble is; where it is not foreseen, with all there is to know."""
    known = isinstance(error, StoreDown)
    log.log(logging.ERROR, "%s: %s", sink, error, exc_info=None if known else error)


def _acks(examined: list[Examined]) -> list[tuple[str, Ack]]:
    """One acknowledgement for each outbox."""
    found: dict[tuple[str, str], list[int]] = {}
    for message in examined:
        batch = message.batch
        if batch is not None:
            found.setdefault((message.controller, batch.outbox), []).append(batch.seq)
    return [
        (controller, Ack(v=1, outbox=outbox, ranges=ranges(seqs)))
        for (controller, outbox), seqs in found.items()
    ]


def ranges(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    """Numbers as inclusive ranges, in order."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)
