"""The durable outbox: what this controller has seen and the backend has not yet kept.

One SQLite file. A poll cycle is one transaction, on disk when `put` returns
(``synchronous=FULL``). What the disk refuses waits in memory, within a bound, and goes to
disk with the next transaction that succeeds. A batch stays until the backend says that it
has committed it. The size is capped: the oldest telemetry goes first, rain, events and
reports last, and the loss is itself recorded.

A batch gets its number on the wire in the transaction before it is first sent, never
earlier: outbox, number and content are one for ever, and what has no number can still be
merged with its neighbours. So a backlog of small cycles leaves in few large batches. A
new name of the outbox begins with each boot and with each file that was put in place of
another: an older copy of the disk gives out no number twice.

Every error of the file is an `OutboxError`, and `trouble` says what it is. Only a broken
file is set aside and a new one begun; one that is locked, or a disk that is full, is tried
again.

Batches made before the clock was set wait until it is; then their times are put right
from the monotonic time of their boot. Those of an earlier boot, whose monotonic time
means nothing any more, are sent as they are and say so.
"""

import logging
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection
from typing import NamedTuple

from duha_edge import outbox_rows as rows
from duha_edge.batches import BELIEVED, Content, Piece, Stamp, merged, pieces
from duha_edge.errors import OutboxError
from duha_edge.outbox_file import OutboxFile
from duha_edge.outbox_rows import Group, Name
from duha_edge.timekeeper import boot_id

__all__ = ["Content", "CounterState", "Name", "Outbox", "Stamp", "Stored"]

log = logging.getLogger(__name__)

HELD_BYTES = 8 * 2**20
"""What may wait in memory while the disk takes nothing."""
FLUSH_BYTES = 2**20
"""What of it goes to disk at once."""
SETTLE_S = 0.5
SETTLE_MANY = 64
"""Acknowledged batches are deleted with what is written next, or after so long [s], or
when they are so many."""
INT64 = 2**63


class Stored(NamedTuple):
    """A batch to be sent; `live` says that it is of this connection's time."""

    seq: int
    payload: bytes
    outbox: str = ""
    live: bool = True

    @property
    def name(self) -> Name:
        """What names it on the wire."""
        return self.outbox, self.seq


class CounterState(NamedTuple):
    """Last raw reading of a counter and when it was made [ms]."""

    raw: int
    ts: int


class Outbox:
    """Put, look at what is due, acknowledge. Safe to call from threads.

    Parameters
    ----------
    path : Path
        The file; its folder is locked, so that no second agent uses it.
    max_bytes : int
        Cap of the file [bytes].

    Raises
    ------
    ConfigError
        Another agent has the folder.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int = 256 * 2**20,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.boot = boot_id()
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._notes = threading.Lock()
        self._held: deque[Piece] = deque()
        self._held_bytes = 0
        self._dropped = 0
        self._counters: dict[str, CounterState] = {}
        self._out: dict[str, set[int]] = {}
        self._acknowledged: set[Name] = set()
        self._settle_at = 0.0
        self._overtaken = False
        self._file = OutboxFile(path, self.boot, monotonic)
        try:
            self._file.opened()
        except OutboxError as error:
            log.error("%s; it is tried again", error)  # noqa: TRY400

    # -- what it is now; never raises, reads no disk -----------------------------------

    def __len__(self) -> int:
        return self._file.state.count + len(self._held)

    @property
    def id(self) -> str:
        """Name that batches which are numbered now get; empty before the file is open."""
        return self._file.state.id

    @property
    def lost(self) -> int:
        """Batches that were dropped, ever."""
        return self._file.state.lost + self._dropped

    @property
    def unreported(self) -> int:
        """Of those, how many `take_lost` has not told."""
        return self._file.state.lost - self._file.state.told

    @property
    def next_seq(self) -> int:
        """The place in this file that the next batch gets."""
        return self._file.state.next

    @property
    def trouble(self) -> str:
        """Why the file takes nothing; empty when it does."""
        return self._file.trouble

    @property
    def unsettled(self) -> bool:
        """Whether something acknowledged is still to be deleted."""
        return bool(self._acknowledged) or self._overtaken

    def newest_ms(self) -> int:
        """Time of the newest batch that was made by a clock that was trusted; 0 for none."""
        return self._file.state.newest

    def close(self) -> None:
        """Put what is held on disk, if it takes it, and close the file."""
        with self._lock:
            if self._held or self.unsettled:
                self._flush()
            self._file.close()

    # -- keeping -----------------------------------------------------------------------

    def put(
        self,
        contents: Iterable[Content],
        stamp: Stamp = BELIEVED,
        counters: dict[str, CounterState] | None = None,
    ) -> bool:
        """Store batches and counter readings in one transaction.

        Returns
        -------
        bool
            Whether they are on disk. If not, they wait in memory for the next transaction
            and `trouble` says why.
        """
        made = [p for content in contents for p in pieces(content, self.boot, stamp)]
        fit = {n: c for n, c in (counters or {}).items() if -INT64 <= c.raw < INT64}
        with self._lock:
            self._hold(made)
            self._counters |= fit
            return self._flush()

    def _hold(self, made: list[Piece]) -> None:
        """Take pieces into memory; over the bound the oldest go, telemetry first."""
        self._held.extend(made)
        self._held_bytes += sum(len(piece.payload) for piece in made)
        while self._held_bytes > HELD_BYTES:
            place = next((i for i, p in enumerate(self._held) if not p.vital), 0)
            self._held_bytes -= len(self._held[place].payload)
            del self._held[place]
            self._dropped += 1

    def _flush(self) -> bool:
        """Put on disk what is held, and all else that waits for that; the lock is ours."""
        while True:
            some = self._first()
            try:
                names = self._write(some)
            except OutboxError:
                return False
            self._forgotten(names)
            for piece in some:
                self._held.popleft()
                self._held_bytes -= len(piece.payload)
            self._dropped = 0
            if not self._held:
                self._counters = {}
                self._file.trouble = ""
                return True

    def _first(self) -> list[Piece]:
        """What goes into one transaction: a disk with little room takes little."""
        some: list[Piece] = []
        size = 0
        for piece in self._held:
            size += len(piece.payload)
            if some and size > FLUSH_BYTES:
                break
            some.append(piece)
        return some

    def _write(self, some: list[Piece]) -> set[Name]:
        """One transaction; the counters go with the last of what they have counted."""
        file = self._file
        counters = self._counters if len(some) == len(self._held) else {}
        with file.transaction() as db:
            names = self._forget(db)
            for piece in some:
                rows.insert(db, piece, file.state.id, file.state.next)
                if piece.newest and piece.stamp.clock == "trusted":
                    file.state.newest = piece.newest
                file.state.next += 1
                file.state.count += 1
            db.executemany(
                "INSERT OR REPLACE INTO counter VALUES (?, ?, ?)",
                [(name, *state) for name, state in counters.items()],
            )
            lost = file.state.lost
            file.state.lost += self._dropped
            self._make_room(db)
            file.keep(db, "next", "newest")
            if file.state.lost != lost:
                file.keep(db, "lost")
        return names

    def _make_room(self, db: Connection) -> None:
        """Drop the oldest batches, telemetry first, while the file is over its cap."""
        while rows.used_pages(db) * rows.PAGE_BYTES > self._max_bytes:
            gone = rows.drop_oldest(db)
            if not gone:
                return
            self._file.state.lost += gone
            self._file.state.count -= gone

    # -- sending -----------------------------------------------------------------------

    def due(
        self,
        in_flight: Collection[Name],
        live_from: int,
        limit: int,
        backlog: int | None = None,
    ) -> list[Stored]:
        """Batches to send next; their numbers are on disk, what was acknowledged is gone.

        What has come since `live_from` goes first, then what waits from before, at most
        `backlog` of it; within each vital batches go before telemetry. What waits together
        and has no number is merged. Batches of this boot from before its clock was set
        wait.

        Raises
        ------
        OutboxError
            The file cannot be read.
        """
        with self._lock:
            if self._held or self._overtaken:
                self._flush()
            with self._file.reading() as db:
                groups = self._chosen(db, in_flight, live_from, limit, backlog)
            groups = self._numbered(groups)
            with self._file.reading() as db:
                return [self._stored(db, group) for group in groups]

    def _chosen(
        self,
        db: Connection,
        in_flight: Collection[Name],
        live_from: int,
        limit: int,
        backlog: int | None,
    ) -> list[Group]:
        with self._notes:
            skip = {*in_flight, *self._acknowledged}
        live = self._some(db, (live_from, INT64 - 1), skip, limit, live=True)
        rest = limit - len(live)
        if backlog is not None:
            rest = min(rest, backlog)
        return live + self._some(db, (0, live_from - 1), skip, rest, live=False)

    def _some(
        self,
        db: Connection,
        span: tuple[int, int],
        skip: set[Name],
        limit: int,
        *,
        live: bool,
    ) -> list[Group]:
        """The first groups in a span of places: vital ones first, sent ones first."""
        found: list[Group] = []
        for vital in (1, 0):
            for groups in (
                rows.sent(db, vital, span, skip, live=live),
                rows.waiting(db, vital, span, self.boot, live=live),
            ):
                with closing(groups):
                    while len(found) < limit and (group := next(groups, None)):
                        found.append(group)
        return found

    def _numbered(self, groups: list[Group]) -> list[Group]:
        """Give numbers, on disk; while it refuses, only what has one can be sent."""
        fresh = sum(group.name is None for group in groups)
        if not fresh and not self._settles():
            return groups
        file, named = self._file, []
        try:
            with file.transaction() as db:
                names = self._forget(db)
                for group in groups:
                    name = group.name
                    if name is None:
                        name = file.state.id, file.state.number
                        rows.give_number(db, group, name)
                        file.state.number += 1
                    named.append(group._replace(name=name))
                file.keep(db, "number")
        except OutboxError:
            return [group for group in groups if group.name is not None]
        self._forgotten(names)
        return named

    def _settles(self) -> bool:
        """Whether what was acknowledged is to be deleted now, for itself."""
        many = len(self._acknowledged) >= SETTLE_MANY
        return many or (self.unsettled and self._monotonic() >= self._settle_at)

    def _stored(self, db: Connection, group: Group) -> Stored:
        outbox, number = name = group.name or ("", 0)
        found = rows.payloads(db, group)
        if len(found) == 1:
            payload = rows.single(*found[0], name)
        else:
            payload, unreadable = merged((p for _, p in found), outbox, number)
            if unreadable:
                log.error("outbox %s: %d batches cannot be read", self.path, unreadable)
        with self._notes:
            self._out.setdefault(outbox, set()).add(number)
        return Stored(number, payload, outbox, group.live)

    # -- acknowledgements --------------------------------------------------------------

    def acknowledge(self, outbox: str, ranges: Iterable[tuple[int, int]]) -> set[Name]:
        """Take note of what the backend has committed; both ends of a range included.

        It is deleted with what is written next. What was not handed out by `due` since the
        process began is not deleted: an acknowledgement for it is not for us. One for a
        number that was never given tells that this file is an older copy of the one that
        gave it: then a new name begins, and all that is not yet acknowledged gets numbers
        of that.

        Returns
        -------
        set of (str, int)
            The batches that need not be sent again.
        """
        spans = _disjoint(ranges)
        with self._notes:
            given = self._file.state.number
            if outbox == self.id and spans and spans[-1][1] >= given:
                self._overtaken = True
                return set()
            out = self._out.get(outbox, set())
            numbers = {number for number in out if _within(number, spans)}
            out -= numbers
            if numbers and not self._acknowledged:
                self._settle_at = self._monotonic() + SETTLE_S
            names = {(outbox, number) for number in numbers}
            self._acknowledged |= names
        return names

    def _forget(self, db: Connection) -> set[Name]:
        """Delete what was acknowledged; begin a new name if that is needed."""
        if self._overtaken:
            self._begin_name(db)
        with self._notes:
            names = self._acknowledged.copy()
        self._file.state.count -= sum(rows.delete(db, name) for name in names)
        return names

    def _forgotten(self, names: set[Name]) -> None:
        """It is on disk that these are gone, and that a new name has begun."""
        with self._notes:
            self._acknowledged -= names
            self._overtaken = False

    def _begin_name(self, db: Connection) -> None:
        """Take the numbers of the present name back."""
        old = self.id
        rows.take_back(db, old)
        with self._notes:
            self._acknowledged = {n for n in self._acknowledged if n[0] != old}
            self._out.pop(old, None)
        self._file.begin_name(db)
        log.warning(
            "outbox %s: numbers of %s were acknowledged that it has not given: the file is"
            " an older copy; it goes on as %s",
            self.path, old, self.id,
        )  # fmt: skip

    # -- the rest ----------------------------------------------------------------------

    def counters(self) -> dict[str, CounterState]:
        """The last reading of every counter.

        Raises
        ------
        OutboxError
            The file cannot be read.
        """
        with self._lock, self._file.reading() as db:
            found = db.execute("SELECT device, raw, ts FROM counter").fetchall()
            kept = {device: CounterState(raw, ts) for device, raw, ts in found}
            return kept | self._counters

    def take_lost(self) -> int:
        """Batches dropped since the last call that was kept; restarts do not forget it.

        Raises
        ------
        OutboxError
            The file cannot be written; ask again later.
        """
        with self._lock:
            state = self._file.state
            lost = state.lost - state.told
            if lost:
                with self._file.transaction() as db:
                    self._file.state.told = state.lost
                    self._file.keep(db, "told")
            return lost

    def rebase(self, since: int) -> int:
        """Put the times of this boot's batches right, for a clock that has been set.

        What was sent already stays as it was: its number stands for its content.

        Parameters
        ----------
        since : int
            When this boot began [ms], by the clock that is now believed.

        Returns
        -------
        int
            How many batches were moved.

        Raises
        ------
        OutboxError
            The file cannot be written; some may have been moved.
        """
        moved = 0
        while True:
            with self._lock:
                if self._held and not self._flush():
                    raise OutboxError(self.trouble)
                with self._file.transaction() as db:
                    found = rows.redate(db, self.boot, since)
            if not found:
                return moved
            moved += found


def _disjoint(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges, both ends included, in order and without overlap."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(last, found[-1][1])
        elif first <= last:
            found.append((first, last))
    return found


def _within(number: int, spans: list[tuple[int, int]]) -> bool:
    place = bisect_right(spans, number, key=lambda span: span[0]) - 1
    return place >= 0 and number <= spans[place][1]
