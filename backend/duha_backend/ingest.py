"""From messages to the store: validate, commit in groups, and only then acknowledge.

A message needs up to two sinks: the readings store, and the books for its events, for
what of it was refused and for the quarters that have to be rolled up. Each sink has a
queue and a back-off of its own: one that is down holds up only the messages that need it.
A message is acknowledged when all that it needs have committed.

What is shown is not what is stored: `Live` takes readings as they are examined, before
their commit. A commit that is refused is tried again when the edge sends them again, so
that the page may show for seconds, or while the store is away, what no store has yet.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

from duha_backend.acks import Acknowledge, Acks
from duha_backend.books import Bin, Books
from duha_backend.errors import StoreDown
from duha_backend.fair import FairQueue, Message, Strangers
from duha_backend.live import Live
from duha_backend.logs import Seldom
from duha_backend.readings import DAY_MS, QUARTER_MS, Readings
from duha_backend.replay import replayed
from duha_backend.sinks import GROUP, Part, Receipt, Sink
from duha_backend.validate import Examined, Reject, examine
from duha_contract.clock import Clock
from duha_contract.errors import ContractError
from duha_contract.messages import EARLIEST_MS, encode
from duha_contract.topics import Topic, parse
from duha_runtime.supervision import Supervisor, describe

log = logging.getLogger(__name__)
_quarantined = logging.getLogger(f"{__name__}.quarantine")
_quarantined.addFilter(Seldom())

GROUP_BYTES = 2 * 1024 * 1024
"""Bytes of messages beyond which a group is full."""
WAITING_BYTES = 32 * 1024 * 1024
"""Most bytes in memory; more are dropped, and the edge sends them again."""
WAITING_BYTES_EACH = 4 * 1024 * 1024
"""Most bytes in memory of one controller."""
LINGER_S = 0.05
BREATH_S = 0.01
"""How long readings are shown before others get a turn on the event loop [s]."""
LATE_MS = QUARTER_MS
"""A quarter that has been over for so long may have been rolled up already."""

LAGS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, float("inf"))


@dataclass
class Counts:
    """What has passed since the start."""

    messages: int = 0
    bytes: int = 0
    rows: int = 0
    rejected: int = 0
    dropped: int = 0
    strangers: int = 0
    """Messages of unregistered controllers that are too many to be taken."""
    commits: int = 0
    failed_commits: int = 0
    lag: dict[float, int] = field(default_factory=lambda: dict.fromkeys(LAGS_S, 0))
    """Messages by the time from their last reading to its commit [s], upper ends."""


class Ingest:
    """Takes messages by `offer`; its `parts` bring them into the store.

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
    keep_days : int, optional
        How long raw readings are kept [days]; older ones are refused, because a roll-up of
        what is left of their quarter would replace a better one. None: they are stored.
    supervisor : Supervisor, optional
        Is told of failures.
    """

    def __init__(
        self,
        store: Readings | None,
        books: Books | None,
        live: Live | None,
        owners: Callable[[], Mapping[str, str]],
        clock: Clock,
        acknowledge: Acknowledge,
        *,
        keep_days: int | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._store = store
        self._books = books
        self._live = live
        self._owners = owners
        self._clock = clock
        self._keep_ms = None if keep_days is None else keep_days * DAY_MS
        self._supervisor = supervisor or Supervisor()
        self._queue = FairQueue()
        self._strangers = Strangers()
        self._offered = asyncio.Event()
        self._registered: tuple[object, frozenset[str]] = (None, frozenset())
        self._marked: set[Bin] = set()
        self._acks = Acks(acknowledge, self._supervisor)
        self._counts = Counts()
        linger_s: float = getattr(store, "linger_s", LINGER_S) - LINGER_S
        self._stored = Sink(
            "store", self._keep, self._kept, self._refused, self._missed, self._acks.ask_again,
            max(0.0, linger_s),
        )  # fmt: skip
        self._booked = Sink(
            "books",
            self._book,
            self._advance,
            self._refused,
            self._missed,
            self._acks.ask_again,
        )

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the messages that wait."""
        return self._queue.bytes

    @property
    def counts(self) -> Counts:
        """What has passed since the start."""
        self._counts.failed_commits = self._stored.failed + self._booked.failed
        return self._counts

    @property
    def alarms(self) -> dict[str, str]:
        """What is wrong with each sink that is in trouble."""
        found = {"store": self._stored.alarm, "books": self._booked.alarm}
        return {name: alarm for name, alarm in found.items() if alarm}

    @property
    def parts(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What has to run, each part for itself, under a supervisor."""
        return {
            "ingest": self._examine_all,
            "ingest store": self._stored.run,
            "ingest books": self._booked.run,
            "ingest acknowledgements": self._acks.run,
        }

    async def run(self) -> None:
        """Run every part until cancelled."""
        async with Supervisor() as supervisor:
            for name, part in self.parts.items():
                supervisor.start(name, part)
            await supervisor.wait()

    # -- in --------------------------------------------------------------------------

    def offer(self, topic: str | Topic, payload: bytes) -> None:
        """Take a message; dropped when too much waits, which loses nothing."""
        try:
            where = topic if isinstance(topic, Topic) else parse(topic)
        except ContractError:
            self._counts.dropped += 1
            return
        name = where.controller
        if not (self._is_registered(name) or self._strangers.admit(name, monotonic())):
            self._counts.strangers += 1
            return
        message = (name, payload)
        dropped = self._queue.put(message, WAITING_BYTES, WAITING_BYTES_EACH)
        self._counts.dropped += len(dropped)
        self._offered.set()

    def _is_registered(self, controller: str) -> bool:
        owners = self._owners()
        if self._registered[0] is not owners:
            self._registered = (owners, frozenset(owners.values()))
        return controller in self._registered[1]

    async def _examine_all(self) -> None:
        """One group is examined while those before are stored."""
        while True:
            group = await self._group()
            now = self._clock.now_ms()
            examined = await asyncio.to_thread(self._examine, group, now)
            await self._show_all(examined)
            if self._store is None:
                self._counts.messages += len(examined)
                continue
            self._advance([self._received(message) for message in examined])

    async def _group(self) -> list[Message]:
        """Messages for one commit; a few that come close together share it."""
        for sink in (self._stored, self._booked):
            await sink.room()
        self._offered.clear()
        if not len(self._queue):
            await self._offered.wait()
        if len(self._queue) < GROUP:
            await asyncio.sleep(LINGER_S)
        return self._queue.take(GROUP, GROUP_BYTES)

    def _examine(self, group: list[Message], now: int) -> list[Examined]:
        owners = self._owners()
        oldest = EARLIEST_MS if self._keep_ms is None else now - self._keep_ms
        self._counts.bytes += sum(len(payload) for _, payload in group)
        return [
            examine(Topic("", controller, "data"), payload, now, owners, oldest)
            for controller, payload in group
        ]

    async def _show_all(self, examined: Sequence[Examined]) -> None:
        """Show what has come; others get a turn on the event loop in between."""
        begun = monotonic()
        for message in examined:
            with self._supervisor.barrier("live"):
                self._show(message)
            if monotonic() - begun > BREATH_S:
                await asyncio.sleep(0)
                begun = monotonic()

    def _show(self, message: Examined) -> None:
        if self._live is not None and message.batch is not None:
            self._live.take(message.controller, message.tables)
            self._live.reported(message.controller, message.batch.reports)

    def _received(self, message: Examined) -> Part:
        """Hand a message to the sinks that it needs; the part that needs none."""
        receipt = Receipt(message)
        found = [
            (sink, part)
            for sink, part in (
                (self._stored, message.tables),
                (self._booked, message.batch and message.batch.events),
            )
            if part
        ]
        receipt.left = len(found) + 1
        for sink, _ in found:
            # What is refused of it is written down later, and once.
            sink.put(Part(replace(message, rejects=[]), [receipt]))
        return Part(message, [receipt])

    # -- the sinks ---------------------------------------------------------------------

    async def _keep(self, parts: list[Part]) -> None:
        """Commit readings; what the store refused of them goes to quarantine."""
        assert self._store is not None  # noqa: S101 - without one nothing comes here
        messages = [part.message for part in parts]
        rejects = await self._store.write(messages, self._clock.now_ms())
        self._counts.commits += 1
        for reject in rejects:
            part = next((p for p in parts if p.message.controller == reject.controller), parts[0])  # fmt: skip
            part.receipts[0].message.rejects.append(reject)

    def _kept(self, parts: list[Part]) -> None:
        """Readings are on disk; their quarters must be marked before that is told.

        Marked afterwards, so that no roll-up comes between mark and commit.
        """
        now = self._clock.now_ms()
        bins = self._bins([part.message for part in parts], now)
        if bins:
            receipts = [receipt for part in parts for receipt in part.receipts]
            for receipt in receipts:
                receipt.left += 1
            self._booked.put(Part(Examined(""), receipts, bins))
        for part in parts:
            newest = max(int(t.values["ts"].max()) for t in part.message.tables)
            self._lagged((now - newest) / 1000)
        self._advance(parts)

    async def _book(self, parts: list[Part]) -> None:
        """Commit events, what was refused, and marks."""
        books, now = self._books, self._clock.now_ms()
        assert books is not None  # noqa: S101 - without them nothing comes here
        bins = set().union(*(part.bins for part in parts))
        messages = [part.message for part in parts]
        await asyncio.to_thread(books.mark, bins)
        await asyncio.to_thread(books.write, messages, now)
        self._marked |= bins

    def _bins(self, messages: Iterable[Examined], now: int) -> set[Bin]:
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

    def _refused(self, part: Part, error: Exception) -> None:
        """A part that no commit takes goes to quarantine, and its message is handled."""
        if part.bins:
            self._missed([part])
            return
        (receipt,) = part.receipts
        message, why = receipt.message, describe(error)
        if receipt.refused:
            log.error("quarantine: %s: cannot be kept: %s", message.controller, why)
        elif message.batch is not None:
            raw = encode(message.batch)
            reject = Reject(message.controller, f"could not be stored: {why}", raw)
            message.rejects.append(reject)
        self._advance([part])

    def _missed(self, parts: Sequence[Part]) -> None:
        """What a sink in trouble did not take is asked for when it works again."""
        for part in parts:
            for receipt in part.receipts:
                self._acks.missed(receipt.message.controller)

    def _advance(self, parts: Sequence[Part]) -> None:
        """Parts are done: their messages go on to quarantine, or are acknowledged.

        What was refused is written down last: a message that comes again is quarantined
        then, and only once.
        """
        for part in parts:
            for receipt in part.receipts:
                receipt.left -= 1
                if receipt.left:
                    continue
                message = receipt.message
                if message.rejects and not receipt.refused:
                    receipt.refused, receipt.left = True, 1
                    rejects = replace(message, batch=None, tables=[])
                    self._booked.put(Part(rejects, [receipt]))
                else:
                    self._handled(message)

    # -- out ---------------------------------------------------------------------------

    def _handled(self, message: Examined) -> None:
        """Count a message that is done with, and owe its acknowledgement."""
        self._counts.messages += 1
        self._counts.rows += sum(len(table) for table in message.tables)
        self._tell(message.rejects)
        identity = message.batch or message.envelope
        if identity is not None:
            self._acks.owe(message.controller, identity.outbox, identity.seq)

    def _tell(self, rejects: Sequence[Reject]) -> None:
        self._counts.rejected += len(rejects)
        for reject in rejects[:3]:
            who = reject.controller or "?"
            more = {"controller": reject.controller, "kind": reject.kind}
            _quarantined.warning("quarantine: %s: %s", who, reject.reason, extra=more)

    def _lagged(self, seconds: float) -> None:
        for upper in LAGS_S:
            if seconds <= upper:
                self._counts.lag[upper] += 1
                return

    # -- what was refused, once more -------------------------------------------------

    async def replay(self, numbers: Sequence[int]) -> dict[int, str]:
        """Examine refused things by the rules of now, and store what is fine.

        Returns
        -------
        dict of int to str
            Of each number: empty when it is stored now, else why it is still refused.
        """
        if self._store is None or self._books is None:
            return {}
        rows = await asyncio.to_thread(self._books.quarantined, numbers)
        now = self._clock.now_ms()
        owners = self._owners()
        results: dict[int, str] = {}
        for row in rows:
            message = replayed(row, now, owners)
            if not message.rejects:
                try:
                    message.rejects += await self._store_again(message, now)
                except StoreDown:
                    raise
                except Exception as error:  # noqa: BLE001 - it stays where it is
                    message.refuse(f"could not be stored: {describe(error)}", b"")
            results[row["id"]] = message.rejects[0].reason if message.rejects else ""
        done = [number for number, reason in results.items() if not reason]
        await asyncio.to_thread(self._books.replayed, done, now)
        return results

    async def _store_again(self, message: Examined, now: int) -> list[Reject]:
        """Store one message; what the store refused of it."""
        assert self._store is not None and self._books is not None  # noqa: S101, PT018
        rejects = await self._store.write([message], now)
        if not rejects:
            await asyncio.to_thread(self._books.mark, self._bins([message], now))
            await asyncio.to_thread(self._books.write, [message], now)
        return rejects
