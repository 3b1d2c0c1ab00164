"""The readings store: one DuckDB file. The only module that knows DuckDB.

One table for each kind of device, its columns the data dictionary; times are UTC.
Writing the same reading twice changes nothing: device and time are the key.
"""

import datetime as dt
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from duha_backend.validate import Examined
from duha_contract.quantities import BY_NAME, KINDS

_BOOKS = """
CREATE TABLE IF NOT EXISTS batch (
    controller VARCHAR, outbox VARCHAR, seq BIGINT, boot VARCHAR,
    received TIMESTAMP, row_count INTEGER, rejected INTEGER,
    PRIMARY KEY (controller, outbox, seq));
CREATE TABLE IF NOT EXISTS event (
    controller VARCHAR, ts TIMESTAMP, code VARCHAR, device VARCHAR, detail VARCHAR,
    PRIMARY KEY (controller, ts, code, device));
CREATE SEQUENCE IF NOT EXISTS quarantine_id;
CREATE TABLE IF NOT EXISTS quarantine (
    id BIGINT PRIMARY KEY DEFAULT nextval('quarantine_id'),
    received TIMESTAMP, controller VARCHAR, reason VARCHAR, raw BLOB);
"""


_LEAD = ("device", "ts", "quality", "controller")


class Page(NamedTuple):
    """Rows of a listing and where it goes on; None at its end."""

    rows: list[dict[str, Any]]
    cursor: str | None


class Readings:
    """The store. Calls block; an async caller uses threads."""

    def __init__(self, path: Path | str) -> None:
        self._db = duckdb.connect(str(path))
        self._writing = threading.Lock()
        self._db.execute("SET TimeZone = 'UTC'")
        self._db.execute(_BOOKS)
        for kind, quantities in KINDS.items():
            columns = ", ".join(f"{q.name} DOUBLE" for q in quantities)
            self._db.execute(
                f"CREATE TABLE IF NOT EXISTS {kind} (device VARCHAR, ts TIMESTAMP,"
                f" controller VARCHAR, quality VARCHAR, {columns},"
                " PRIMARY KEY (device, ts))"
            )
            # The data dictionary grows; what was stored before has no value there.
            for quantity in quantities:
                self._db.execute(
                    f"ALTER TABLE {kind} ADD COLUMN IF NOT EXISTS {quantity.name} DOUBLE"
                )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def write(self, messages: Iterable[Examined], received_ms: int) -> None:
        """Store messages in one transaction; on disk when this returns."""
        messages = list(messages)
        with self._writing, self._db.cursor() as db:
            db.execute("BEGIN")
            try:
                for kind, values in _merged(messages):
                    self._write_columns(db, kind, values)
                for message in messages:
                    self._write_books(db, message, _time(received_ms))
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise

    @staticmethod
    def _write_books(
        db: duckdb.DuckDBPyConnection, message: Examined, received: dt.datetime
    ) -> None:
        """What is not a reading: refused rows, events, the number of the batch."""
        if message.rejects:
            db.executemany(
                "INSERT INTO quarantine (received, controller, reason, raw) VALUES (?, ?, ?, ?)",
                [(received, r.controller, r.reason, r.raw) for r in message.rejects],
            )
        batch = message.batch
        if batch is None:
            return
        who = message.controller
        for e in batch.events:
            row = [who, _time(e.ts), e.code, e.device or "", e.detail]
            db.execute("INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?)", row)
        stored = sum(len(table) for table in message.tables)
        refused = len(message.rejects)
        db.execute(
            "INSERT OR IGNORE INTO batch VALUES (?, ?, ?, ?, ?, ?, ?)",
            [who, batch.outbox, batch.seq, batch.boot, received, stored, refused],
        )

    @staticmethod
    def _write_columns(
        db: duckdb.DuckDBPyConnection, kind: str, values: dict[str, list[Any]]
    ) -> None:
        names = [name for name in values if name not in _LEAD]
        into = ", ".join((*_LEAD, *names))
        given = "".join(f", unnest(?::DOUBLE[]) AS {name}" for name in names)
        db.execute(
            f"INSERT OR IGNORE INTO {kind} ({into})"
            " SELECT unnest(?::VARCHAR[]), make_timestamp(1000 * unnest(?::BIGINT[])),"
            f" unnest(?::VARCHAR[]), unnest(?::VARCHAR[]){given}",
            [values[name] for name in (*_LEAD, *names)],
        )

    def latest(self, kind: str, since_ms: int) -> list[dict[str, Any]]:
        """The last reading of every device of a kind since a time [ms]."""
        return self._ask(
            f"SELECT * EXCLUDE (place) FROM (SELECT *, row_number() OVER"
            f" (PARTITION BY device ORDER BY ts DESC) AS place FROM {_kind(kind)}"
            " WHERE ts >= ?) WHERE place = 1",
            [_time(since_ms)],
        )

    def window(
        self, kind: str, device: str, since_ms: int, until_ms: int, after: str | None, limit: int
    ) -> Page:  # fmt: skip
        """Readings of a device in a span of time [ms], oldest first, page by page."""
        start = dt.datetime.fromisoformat(after) if after else _time(since_ms)
        comparison = ">" if after else ">="
        rows = self._ask(
            f"SELECT * FROM {_kind(kind)} WHERE device = ? AND ts {comparison} ? AND ts < ?"
            " ORDER BY ts LIMIT ?",
            [device, start, _time(until_ms), limit + 1],
        )
        return _page(rows, limit, lambda row: row["ts"].isoformat())

    def rain(self, since_ms: int, until_ms: int, bin_s: int) -> list[dict[str, Any]]:
        """Rain of every gauge in bins: device, start of the bin, depth [mm]."""
        return self._ask(
            "SELECT device, time_bucket(to_seconds(?), ts) AS start, sum(rain_mm) AS rain_mm"
            " FROM rain_gauge WHERE ts >= ? AND ts < ? AND rain_mm > 0"
            " GROUP BY ALL ORDER BY ALL",
            [bin_s, _time(since_ms), _time(until_ms)],
        )

    def rain_readings(self, since_ms: int) -> list[dict[str, Any]]:
        """Every reading with rain since a time [ms], oldest first."""
        return self._ask(
            "SELECT device, ts, rain_mm FROM rain_gauge WHERE ts >= ? AND rain_mm > 0"
            " ORDER BY ts",
            [_time(since_ms)],
        )

    def quarantine(self, after: str | None, limit: int) -> Page:
        """What was refused, newest first, page by page."""
        rows = self._ask(
            "SELECT * FROM quarantine WHERE id < ? ORDER BY id DESC LIMIT ?",
            [int(after) if after else 2**62, limit + 1],
        )
        return _page(rows, limit, lambda row: str(row["id"]))

    def counts(self) -> dict[str, int]:
        """How many rows each table holds."""
        tables = (*KINDS, "batch", "event", "quarantine")
        return {
            table: self._ask(f"SELECT count(*) AS n FROM {table}", [])[0]["n"]
            for table in tables
        }

    def _ask(self, query: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        with self._db.cursor() as db:
            found = db.execute(query, parameters)
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _merged(messages: list[Examined]) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    """Tables of one kind and the same columns as one: few long INSERTs are fast ones."""
    found: dict[tuple[str, ...], dict[str, list[Any]]] = {}
    for message in messages:
        for table in message.tables:
            key = (table.kind, *table.values)
            into = found.setdefault(
                key, {name: [] for name in (*table.values, "controller")}
            )
            for name, column in table.values.items():
                into[name] += column
            into["controller"] += [message.controller] * len(table)
    for (kind, *_), values in found.items():
        yield kind, values


def _kind(name: str) -> str:
    """A kind that may stand in a query."""
    if name not in BY_NAME:
        raise KeyError(name)
    return name


def _time(ms: int) -> dt.datetime:
    """UTC without a zone, as the store keeps it."""
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).replace(tzinfo=None)


def _page(rows: list[dict[str, Any]], limit: int, key: Any) -> Page:
    more = len(rows) > limit
    kept = rows[:limit]
    return Page(kept, key(kept[-1]) if more else None)
