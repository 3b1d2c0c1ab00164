"""The durable outbox: what this controller has seen and the backend has not yet kept.

One SQLite file. A poll cycle is one transaction, on disk when `put` returns
(``synchronous=FULL``). A batch stays until the backend says that it has committed
it. The size is capped: the oldest telemetry goes first, rain, events and reports
last, and the loss is itself recorded. A corrupt file is set aside and a new one is
begun: a controller that measures is worth more than one that mourns.

Batches made before the clock was set wait until it is; then their times are put right
from the monotonic time of their boot. Those of an earlier boot, whose monotonic time
means nothing any more, are sent as they are and say so.
"""

import logging
import sqlite3
import threading
import uuid
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from duha_contract.messages import (
    Batch,
    ClockState,
    Event,
    Report,
    Table,
    decode,
    encode,
)
from duha_edge.errors import OutboxError
from duha_edge.timekeeper import boot_id

log = logging.getLogger(__name__)

_MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS batch (
        seq INTEGER PRIMARY KEY, vital INTEGER NOT NULL, payload BLOB NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS batch_by_class ON batch (vital, seq);
    CREATE TABLE IF NOT EXISTS counter (
        device TEXT PRIMARY KEY, raw INTEGER NOT NULL, ts INTEGER NOT NULL) STRICT;
    """,
    """
    ALTER TABLE batch ADD COLUMN boot TEXT NOT NULL DEFAULT '';
    ALTER TABLE batch ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE batch ADD COLUMN clock TEXT NOT NULL DEFAULT 'trusted';
    """,
)
"""One script for each version of the schema, ever; a file says which it has."""
CHUNK_ROWS = 400
"""Rows of a batch: with every column of the dictionary it stays under 128 KiB."""
REBASE_AT_ONCE = 200
MOVED_MS = 2000
"""A batch whose boot began by more than this at another time has wrong times."""


class Stamp(NamedTuple):
    """What the clock is worth: its state, and when its boot began [ms]."""

    clock: ClockState = "trusted"
    since: int = 0


BELIEVED = Stamp()


class Content(NamedTuple):
    """What goes into a batch; vital content is the last to be dropped."""

    vital: bool
    tables: tuple[Table, ...] = ()
    events: tuple[Event, ...] = ()
    reports: tuple[Report, ...] = ()


class Stored(NamedTuple):
    """A batch as it lies in the outbox."""

    seq: int
    payload: bytes


class CounterState(NamedTuple):
    """Last raw reading of a counter and when it was made [ms]."""

    raw: int
    ts: int


class Outbox:
    """Put, look at what is due, acknowledge. Safe to call from threads."""

    def __init__(self, path: Path, max_bytes: int = 256 * 2**20) -> None:
        self.path = path
        self.boot = boot_id()
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._db = _open(path)
        (self._page,) = self._db.execute("PRAGMA page_size").fetchone()
        self.id = self._meta("id", uuid.uuid4().hex[:12])
        self._next = int(self._meta("next", "1"))
        self.lost = int(self._meta("lost", "0"))
        self._told = int(self._meta("told", str(self.lost)))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def put(
        self,
        contents: Iterable[Content],
        stamp: Stamp = BELIEVED,
        counters: dict[str, CounterState] | None = None,
    ) -> None:
        """Store batches and counter readings in one transaction.

        Raises
        ------
        OutboxError
            Nothing was stored; the next attempt may succeed.
        """
        with self._lock:
            before = self._next, self.lost
            try:
                with self._db:
                    self._put(contents, stamp, counters or {})
            except sqlite3.Error as error:
                self._next, self.lost = before
                raise OutboxError(f"outbox {self.path}: {error}") from error

    def _put(
        self,
        contents: Iterable[Content],
        stamp: Stamp,
        counters: dict[str, CounterState],
    ) -> None:
        for content in contents:
            for piece in _chunks(content):
                self._insert(piece, stamp)
        self._db.executemany(
            "INSERT OR REPLACE INTO counter VALUES (?, ?, ?)",
            [(device, *state) for device, state in counters.items()],
        )
        self._make_room()
        self._keep("next", self._next)
        self._keep("lost", self.lost)

    def due(
        self,
        in_flight: Collection[int],
        live_from: int,
        limit: int,
        backlog: int | None = None,
    ) -> list[Stored]:
        """Batches to send next.

        What has come since `live_from` goes first, then what waits from before, at most
        `backlog` of it; within each vital batches go before telemetry. Batches of this
        boot from before its clock was set wait.
        """
        live = self._due(in_flight, "seq >= ?", live_from, limit)
        rest = limit - len(live)
        if backlog is not None:
            rest = min(rest, backlog)
        return live + self._due(in_flight, "seq < ?", live_from, rest)

    def _due(
        self, in_flight: Collection[int], rule: str, live_from: int, limit: int
    ) -> list[Stored]:
        found: list[Stored] = []
        for vital in (1, 0):
            if limit <= len(found):
                break
            with self._lock:
                rows = self._db.execute(
                    f"SELECT seq, payload FROM batch WHERE vital = ? AND {rule}"  # noqa: S608
                    " AND (clock <> 'unset' OR boot <> ?) ORDER BY seq LIMIT ?",
                    (vital, live_from, self.boot, limit + len(in_flight)),
                ).fetchall()
            found += [Stored(*row) for row in rows if row[0] not in in_flight]
        return found[:limit]

    def acknowledge(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Delete what the backend has committed; both ends of a range included."""
        with self._lock, self._db:
            for first, last in ranges:
                self._db.execute(
                    "DELETE FROM batch WHERE seq BETWEEN ? AND ?", (first, last)
                )

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._db.execute("SELECT count(*) FROM batch").fetchone()
        return int(count)

    @property
    def next_seq(self) -> int:
        """The number that the next batch gets."""
        return self._next

    def counters(self) -> dict[str, CounterState]:
        """The last reading of every counter."""
        with self._lock:
            rows = self._db.execute("SELECT device, raw, ts FROM counter").fetchall()
        return {device: CounterState(raw, ts) for device, raw, ts in rows}

    def newest_ms(self) -> int:
        """Time of the newest batch that was made by a clock that was trusted; 0 for none."""
        return int(self._meta("newest", "0"))

    def rebase(self, since: int) -> int:
        """Put the times of this boot's batches right, for a clock that has been set.

        Parameters
        ----------
        since : int
            When this boot began [ms], by the clock that is now believed.

        Returns
        -------
        int
            How many batches were moved.
        """
        moved = 0
        while found := self._misdated(since):
            with self._lock, self._db:
                for seq, payload, old in found:
                    batch = _moved(decode(payload, Batch), since - old)
                    self._replace(seq, batch)
            moved += len(found)
        return moved

    def _misdated(self, since: int) -> list[tuple[int, bytes, int]]:
        """Some batches of this boot that were dated by a clock that was wrong."""
        with self._lock:
            return self._db.execute(
                "SELECT seq, payload, since FROM batch WHERE boot = ? AND since <> 0"
                " AND (clock = 'unset' OR abs(since - ?) > ?) LIMIT ?",
                (self.boot, since, MOVED_MS, REBASE_AT_ONCE),
            ).fetchall()

    def _replace(self, seq: int, batch: Batch) -> None:
        payload = encode(batch)
        self._db.execute(
            "UPDATE batch SET payload = ?, since = ?, clock = ? WHERE seq = ?",
            (payload, batch.since, batch.clock, seq),
        )

    def _insert(self, content: Content, stamp: Stamp) -> None:
        batch = Batch(
            v=1, boot=self.boot, outbox=self.id, seq=self._next, clock=stamp.clock,
            since=stamp.since, tables=content.tables, events=content.events, reports=content.reports,
        )  # fmt: skip
        payload = encode(batch)
        self._db.execute(
            "INSERT INTO batch (seq, vital, payload, boot, since, clock)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (self._next, content.vital, payload, self.boot, stamp.since, stamp.clock),
        )
        newest = max(
            (row[1] for table in content.tables for row in table.rows), default=0
        )
        if newest and stamp.clock == "trusted":
            self._keep("newest", newest)
        self._next += 1

    def _make_room(self) -> None:
        """Drop the oldest batches, telemetry first, while the file is over its cap."""
        while self._used() > self._max_bytes:
            oldest = self._db.execute(
                "SELECT seq FROM batch ORDER BY vital, seq LIMIT 1"
            ).fetchone()
            if oldest is None:
                return
            self._db.execute("DELETE FROM batch WHERE seq = ?", oldest)
            self.lost += 1

    def _used(self) -> int:
        """Bytes of the file that hold something; the rest is used again."""
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        used: int = (pages - free) * self._page
        return used

    def take_lost(self) -> int:
        """Batches dropped since the last call that was kept; restarts do not forget it.

        Raises
        ------
        OutboxError
            The file cannot be written; ask again later.
        """
        lost = self.lost - self._told
        if lost:
            try:
                with self._lock, self._db:
                    self._keep("told", self.lost)
            except sqlite3.Error as error:
                raise OutboxError(f"outbox {self.path}: {error}") from error
            self._told = self.lost
        return lost

    def _keep(self, name: str, value: int) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(value))
        )

    def _meta(self, name: str, default: str) -> str:
        with self._db:
            self._db.execute(
                "INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, default)
            )
        (value,) = self._db.execute(
            "SELECT value FROM meta WHERE name = ?", (name,)
        ).fetchone()
        return str(value)


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        aside = path.with_name(f"{path.name}.corrupt-{uuid.uuid4().hex[:6]}")
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        log.error("outbox %s is corrupt (%s); set aside as %s", path, error, aside.name)  # noqa: TRY400
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        _migrate(db)
        (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError:
        db.close()
        raise
    if state != "ok":
        db.close()
        raise sqlite3.DatabaseError(state)
    return db


def _migrate(db: sqlite3.Connection) -> None:
    """Bring a file of any earlier version to this one, a version a transaction."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(_MIGRATIONS[version:], version + 1):
        db.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")


def _moved(batch: Batch, ms: int) -> Batch:
    """A batch with every time in it moved by `ms`."""
    replace: Callable[..., Any] = msgspec.structs.replace
    return Batch(
        **{name: getattr(batch, name) for name in ("v", "boot", "outbox", "seq")},
        clock="rebased",
        since=batch.since + ms,
        tables=tuple(
            replace(t, rows=tuple((r[0], r[1] + ms, *r[2:]) for r in t.rows))
            for t in batch.tables
        ),
        events=tuple(replace(e, ts=e.ts + ms) for e in batch.events),
        reports=tuple(replace(r, ts=r.ts + ms) for r in batch.reports),
    )


def _chunks(content: Content) -> Iterable[Content]:
    """Split a large table, so that a batch keeps to the size limit of the wire."""
    rows = sum(len(table.rows) for table in content.tables)
    if rows <= CHUNK_ROWS:
        yield content
        return
    rest = content._replace(tables=())
    for table in content.tables:
        for start in range(0, len(table.rows), CHUNK_ROWS):
            piece = Table(
                table.kind, table.columns, table.rows[start : start + CHUNK_ROWS]
            )
            yield rest._replace(tables=(piece,))
            rest = Content(content.vital)
