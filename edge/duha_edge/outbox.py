"""The durable outbox: what this controller has seen and the backend has not yet kept.

One SQLite file. A poll cycle is one transaction, on disk when `put` returns
(``synchronous=FULL``). A batch stays until the backend says that it has committed
it. The size is capped: the oldest telemetry goes first, rain, events and reports
last, and the loss is itself recorded. A corrupt file is set aside and a new one is
begun: a controller that measures is worth more than one that mourns.
"""

import logging
import sqlite3
import threading
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from duha_contract.messages import Batch, ClockState, Event, Report, Table, encode
from duha_edge.errors import OutboxError

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS batch (
    seq INTEGER PRIMARY KEY, vital INTEGER NOT NULL, payload BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS batch_by_class ON batch (vital, seq);
CREATE TABLE IF NOT EXISTS counter (
    device TEXT PRIMARY KEY, raw INTEGER NOT NULL, ts INTEGER NOT NULL) STRICT;
PRAGMA user_version = 1;
"""
CHUNK_ROWS = 400
"""Rows of a batch: with every column of the dictionary it stays under 128 KiB."""


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
        self.boot = uuid.uuid4().hex[:12]
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._db = _open(path)
        self.id = self._meta("id", uuid.uuid4().hex[:12])
        self._next = int(self._meta("next", "1"))
        (self._bytes,) = self._db.execute(
            "SELECT coalesce(sum(length(payload)), 0) FROM batch"
        ).fetchone()
        self._lost = 0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def put(
        self,
        contents: Iterable[Content],
        clock: ClockState = "trusted",
        counters: dict[str, CounterState] | None = None,
    ) -> None:
        """Store batches and counter readings in one transaction.

        Raises
        ------
        OutboxError
            Nothing was stored; the next attempt may succeed.
        """
        with self._lock:
            before = self._next, self._bytes, self._lost
            try:
                with self._db:
                    self._put(contents, clock, counters or {})
            except sqlite3.Error as error:
                self._next, self._bytes, self._lost = before
                raise OutboxError(f"outbox {self.path}: {error}") from error

    def _put(
        self,
        contents: Iterable[Content],
        clock: ClockState,
        counters: dict[str, CounterState],
    ) -> None:
        for content in contents:
            for piece in _chunks(content):
                self._insert(piece, clock)
        self._db.executemany(
            "INSERT OR REPLACE INTO counter VALUES (?, ?, ?)",
            [(device, *state) for device, state in counters.items()],
        )
        self._db.execute(
            "UPDATE meta SET value = ? WHERE name = 'next'", (str(self._next),)
        )
        self._make_room()

    def due(
        self, in_flight: Collection[int], live_from: int, limit: int
    ) -> list[Stored]:
        """Batches to send next: vital ones, then live telemetry, then the backlog."""
        found: list[Stored] = []
        wanted = limit + len(in_flight)
        with self._lock:
            for rule in ("vital = 1 AND seq >= 0", f"vital = 0 AND seq >= {live_from:d}",
                         f"vital = 0 AND seq < {live_from:d}"):  # fmt: skip
                rows = self._db.execute(
                    f"SELECT seq, payload FROM batch WHERE {rule} ORDER BY seq LIMIT ?",  # noqa: S608
                    (wanted,),
                )
                found += [Stored(*row) for row in rows if row[0] not in in_flight]
        return found[:limit]

    def acknowledge(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Delete what the backend has committed; both ends of a range included."""
        with self._lock, self._db:
            for first, last in ranges:
                (freed,) = self._db.execute(
                    "SELECT coalesce(sum(length(payload)), 0) FROM batch"
                    " WHERE seq BETWEEN ? AND ?",
                    (first, last),
                ).fetchone()
                self._db.execute(
                    "DELETE FROM batch WHERE seq BETWEEN ? AND ?", (first, last)
                )
                self._bytes -= freed

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

    def _insert(self, content: Content, clock: ClockState) -> None:
        batch = Batch(
            v=1, boot=self.boot, outbox=self.id, seq=self._next, clock=clock,
            tables=content.tables, events=content.events, reports=content.reports,
        )  # fmt: skip
        payload = encode(batch)
        self._db.execute(
            "INSERT INTO batch VALUES (?, ?, ?)", (self._next, content.vital, payload)
        )
        self._next += 1
        self._bytes += len(payload)

    def _make_room(self) -> None:
        """Drop the oldest batches, telemetry first, while the cap is exceeded."""
        while self._bytes > self._max_bytes:
            seq, size = self._db.execute(
                "SELECT seq, length(payload) FROM batch ORDER BY vital, seq LIMIT 1"
            ).fetchone()
            self._db.execute("DELETE FROM batch WHERE seq = ?", (seq,))
            self._bytes -= size
            self._lost += 1

    def take_lost(self) -> int:
        """Batches dropped since the last call."""
        lost, self._lost = self._lost, 0
        return lost

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
        db.executescript(_SCHEMA)
        (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError:
        db.close()
        raise
    if state != "ok":
        db.close()
        raise sqlite3.DatabaseError(state)
    return db


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
