"""What goes into the outbox and over the wire: contents, pieces, merged batches. Pure."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from duha_contract.messages import Batch, ClockState, Event, Report, Table, encode

CHUNK_ROWS = 400
"""Rows of a batch: with every column of the dictionary it stays under 128 KiB."""
CHUNK_EVENTS = 100


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


class Piece(NamedTuple):
    """An encoded batch that has no number yet; `newest` is its latest reading [ms]."""

    vital: bool
    payload: bytes
    boot: str
    stamp: Stamp
    newest: int


class _RawTable(msgspec.Struct):
    kind: str
    columns: tuple[str, ...]
    rows: msgspec.Raw


class _RawBatch(msgspec.Struct):
    """A batch whose rows are left as they are written."""

    boot: str
    clock: ClockState
    tables: tuple[_RawTable, ...] = ()
    events: tuple[msgspec.Raw, ...] = ()
    reports: tuple[msgspec.Raw, ...] = ()
    since: int = 0


class _RawMessage(msgspec.Struct):
    """What a merged batch looks like on the wire: fields and order of `Batch`."""

    v: int
    boot: str
    outbox: str
    seq: int
    clock: ClockState
    tables: tuple[_RawTable, ...]
    events: tuple[msgspec.Raw, ...]
    reports: tuple[msgspec.Raw, ...]
    since: int


_read = msgspec.json.Decoder(_RawBatch).decode


def pieces(content: Content, boot: str, stamp: Stamp) -> Iterable[Piece]:
    """Encode a content in batches that keep to the size limit of the wire."""
    for part in _chunks(content):
        batch = Batch(
            v=1, boot=boot, outbox="", seq=1, clock=stamp.clock, since=stamp.since,
            tables=part.tables, events=part.events, reports=part.reports,
        )  # fmt: skip
        newest = max((row[1] for table in part.tables for row in table.rows), default=0)
        yield Piece(content.vital, encode(batch), boot, stamp, newest)


def numbered(payload: bytes, boot: str, outbox: str, number: int) -> bytes:
    """Put another outbox and number into an encoded batch."""
    rest = payload[payload.index(b',"clock":') :]
    return b'{"v":1,"boot":"%s","outbox":"%s","seq":%d%s' % (
        boot.encode(), outbox.encode(), number, rest,
    )  # fmt: skip


def merged(payloads: Iterable[bytes], outbox: str, number: int) -> tuple[bytes, int]:
    """One encoded batch with the content of several of one boot and clock.

    Returns
    -------
    bytes, int
        The batch; and how many of them could not be read and are left out.
    """
    found: list[_RawBatch] = []
    unreadable = 0
    for payload in payloads:
        try:
            found.append(_read(payload))
        except (msgspec.MsgspecError, ValueError):
            unreadable += 1
    rows: dict[tuple[str, tuple[str, ...]], list[bytes]] = {}
    for table in (table for batch in found for table in batch.tables):
        rows.setdefault((table.kind, table.columns), []).append(bytes(table.rows)[1:-1])
    first = found[0] if found else _RawBatch("", "trusted")
    message = _RawMessage(
        1, first.boot, outbox, number, first.clock,
        tuple(
            _RawTable(kind, columns, msgspec.Raw(b"[%s]" % b",".join(filter(None, parts))))
            for (kind, columns), parts in rows.items()
        ),
        tuple(event for batch in found for event in batch.events),
        tuple(report for batch in found for report in batch.reports),
        first.since,
    )  # fmt: skip
    return msgspec.json.encode(message), unreadable


def moved(batch: Batch, ms: int) -> Batch:
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
    """Split large tables and long lists of events."""
    rows = sum(len(table.rows) for table in content.tables)
    if rows <= CHUNK_ROWS and len(content.events) <= CHUNK_EVENTS:
        yield content
        return
    rest = content._replace(tables=(), events=content.events[:CHUNK_EVENTS])
    for table in content.tables:
        for start in range(0, len(table.rows), CHUNK_ROWS):
            piece = Table(
                table.kind, table.columns, table.rows[start : start + CHUNK_ROWS]
            )
            yield rest._replace(tables=(piece,))
            rest = Content(content.vital)
    if rest != Content(content.vital):
        yield rest
    for start in range(CHUNK_EVENTS, len(content.events), CHUNK_EVENTS):
        yield Content(
            content.vital, events=content.events[start : start + CHUNK_EVENTS]
        )
