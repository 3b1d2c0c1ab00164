"""The rows of the outbox: what is asked of its tables, and what is done to them.

`batch` holds every batch as it was put. Each of them is either in `queue`, without a
number of the wire, or in `sent` with one; several of `sent` may have the same.
"""

import logging
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from duha_contract.errors import MessageError
from duha_contract.messages import Batch, decode, encode
from duha_edge.batches import Piece, moved, numbered

log = logging.getLogger(__name__)

MERGED_BYTES = 96 * 1024
"""Batches that wait are merged up to this size; the wire takes 128 KiB."""
SAME_SINCE_MS = 100
"""Beginnings of a boot that differ by so little, by a clock that is slewed, are one."""
PAGE_BYTES = 4096
"""A page of the file: SQLite's own since 3.12."""
REBASE_AT_ONCE = 200
MOVED_MS = 2000
"""A batch whose boot began by more than this at another time has wrong times."""

Name = tuple[str, int]
"""Outbox and number of a batch on the wire."""


class Row(NamedTuple):
    """A batch that waits for its number."""

    vital: int
    seq: int
    size: int
    boot: str
    since: int
    clock: str


class Group(NamedTuple):
    """Rows that are sent as one batch; a number is given to those that have none."""

    vital: int
    seqs: Sequence[int]
    live: bool
    name: Name | None = None


def meta(db: sqlite3.Connection) -> dict[str, str]:
    """What the file says of itself."""
    return dict(db.execute("SELECT name, value FROM meta").fetchall())


def count(db: sqlite3.Connection) -> int:
    """How many batches there are."""
    (found,) = db.execute("SELECT count(*) FROM batch").fetchone()
    return int(found)


def insert(db: sqlite3.Connection, piece: Piece, outbox: str, seq: int) -> None:
    """Put a batch at a place; it waits for its number."""
    clock, since = piece.stamp
    payload = numbered(piece.payload, piece.boot, outbox, seq)
    db.execute(
        "INSERT INTO batch (seq, vital, payload, boot, since, clock)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (seq, piece.vital, payload, piece.boot, since, clock),
    )
    db.execute(
        "INSERT INTO queue VALUES (?, ?, ?, ?, ?, ?)",
        (piece.vital, seq, len(payload), piece.boot, since, clock),
    )


def give_number(db: sqlite3.Connection, group: Group, name: Name) -> None:
    """Let a group of waiting batches be one on the wire."""
    rows = [(group.vital, seq) for seq in group.seqs]
    db.executemany("DELETE FROM queue WHERE vital = ? AND seq = ?", rows)
    db.executemany(
        "INSERT INTO sent VALUES (?, ?, ?, ?)", [(*row, *name) for row in rows]
    )


def take_back(db: sqlite3.Connection, outbox: str) -> None:
    """Let all that has numbers of an outbox wait for others."""
    db.execute(
        "INSERT INTO queue SELECT b.vital, b.seq, length(b.payload), b.boot, b.since,"
        " b.clock FROM batch b JOIN sent s ON s.vital = b.vital AND s.seq = b.seq"
        " WHERE s.outbox = ?",
        (outbox,),
    )
    db.execute("DELETE FROM sent WHERE outbox = ?", (outbox,))


def payloads(db: sqlite3.Connection, group: Group) -> list[tuple[str, bytes]]:
    """Boot and stored bytes of each row of a group."""
    return [
        db.execute("SELECT boot, payload FROM batch WHERE seq = ?", (seq,)).fetchone()
        for seq in group.seqs
    ]


def delete(db: sqlite3.Connection, name: Name) -> int:
    """Delete a batch by its number; returns how many rows it had."""
    rows = db.execute(
        "SELECT vital, seq FROM sent WHERE outbox = ? AND number = ?", name
    ).fetchall()
    db.executemany("DELETE FROM batch WHERE seq = ?", [(seq,) for _, seq in rows])
    db.executemany("DELETE FROM sent WHERE vital = ? AND seq = ?", rows)
    return len(rows)


def drop_oldest(db: sqlite3.Connection) -> int:
    """Delete the oldest batch, telemetry first; returns how many rows went.

    One that was merged goes whole: its number stands for all of it.
    """
    oldest = db.execute(
        "SELECT * FROM (SELECT vital, seq FROM queue ORDER BY 1, 2 LIMIT 1)"
        " UNION ALL"
        " SELECT * FROM (SELECT vital, seq FROM sent ORDER BY 1, 2 LIMIT 1)"
        " ORDER BY 1, 2 LIMIT 1"
    ).fetchone()
    if oldest is None:
        return 0
    name = db.execute(
        "SELECT outbox, number FROM sent WHERE vital = ? AND seq = ?", oldest
    ).fetchone()
    if name is not None:
        return delete(db, name)
    db.execute("DELETE FROM queue WHERE vital = ? AND seq = ?", oldest)
    db.execute("DELETE FROM batch WHERE seq = ?", oldest[1:])
    return 1


def used_pages(db: sqlite3.Connection) -> int:
    """Pages of the file that hold something; the rest is used again."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    return int(pages - free)


def redate(db: sqlite3.Connection, boot: str, since: int) -> int:
    """Move some waiting batches that a wrong clock has dated; returns how many."""
    rows = db.execute(
        "SELECT q.vital, q.seq, b.payload, q.since FROM queue q JOIN batch b"
        " ON b.seq = q.seq WHERE q.boot = ? AND q.since <> 0"
        " AND (q.clock = 'unset' OR abs(q.since - ?) > ?) LIMIT ?",
        (boot, since, MOVED_MS, REBASE_AT_ONCE),
    ).fetchall()
    for vital, seq, payload, old in rows:
        new = _redated(payload, since - old)
        db.execute(
            "UPDATE batch SET payload = ?, since = ?, clock = 'rebased' WHERE seq = ?",
            (new, since, seq),
        )
        db.execute(
            "UPDATE queue SET size = ?, since = ?, clock = 'rebased'"
            " WHERE vital = ? AND seq = ?",
            (len(new), since, vital, seq),
        )
    return len(rows)


def write(db: sqlite3.Connection, values: Mapping[str, object]) -> None:
    """Keep what the file says of itself."""
    db.executemany(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)",
        [(name, str(value)) for name, value in values.items()],
    )


def sent(
    db: sqlite3.Connection,
    vital: int,
    span: tuple[int, int],
    skip: set[Name],
    *,
    live: bool,
) -> Generator[Group, None, None]:
    """Batches that were sent before and are not acknowledged."""
    seen = set(skip)
    for outbox, number in db.execute(
        "SELECT outbox, number FROM sent WHERE vital = ? AND seq BETWEEN ? AND ?"
        " ORDER BY seq",
        (vital, *span),
    ):
        name = (outbox, number)
        if name in seen:
            continue
        seen.add(name)
        rows = db.execute(
            "SELECT seq FROM sent WHERE outbox = ? AND number = ? ORDER BY seq", name
        )
        yield Group(vital, [seq for (seq,) in rows], live, name)


def waiting(
    db: sqlite3.Connection, vital: int, span: tuple[int, int], boot: str, *, live: bool
) -> Generator[Group, None, None]:
    """Batches that have no number, merged with the next of the same boot and clock."""
    rows: list[Row] = []
    size = 0
    for row in map(Row._make, db.execute(
        "SELECT * FROM queue WHERE vital = ? AND seq BETWEEN ? AND ?"
        " AND (clock <> 'unset' OR boot <> ?) ORDER BY seq",
        (vital, *span, boot),
    )):  # fmt: skip
        if rows and (size + row.size > MERGED_BYTES or not _alike(rows[0], row)):
            yield Group(vital, [r.seq for r in rows], live)
            rows, size = [], 0
        rows.append(row)
        size += row.size
    if rows:
        yield Group(vital, [r.seq for r in rows], live)


def _alike(first: Row, row: Row) -> bool:
    """Whether the times of two batches are worth the same."""
    near = abs(first.since - row.since) <= SAME_SINCE_MS
    return near and (first.boot, first.clock) == (row.boot, row.clock)


def single(boot: str, payload: bytes, name: Name) -> bytes:
    """The batch of one row with its name on the wire."""
    outbox, number = name
    if b'"outbox":"%s","seq":%d,' % (outbox.encode(), number) in payload[:200]:
        return payload
    try:
        return numbered(payload, boot, outbox, number)
    except ValueError:  # it cannot be read; the backend says so
        return payload


def _redated(payload: bytes, ms: int) -> bytes:
    """A batch with its times moved; one that cannot be read stays as it is."""
    try:
        return encode(moved(decode(payload, Batch), ms))
    except MessageError as error:
        log.error("a batch of the outbox cannot be read: %s", error)  # noqa: TRY400
        return payload
