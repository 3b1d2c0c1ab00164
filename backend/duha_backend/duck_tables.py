# ruff: noqa: S608 - tables and columns are those of the data dictionary, never given
"""Tables of the embedded store, and the queries that work one out of another."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np

from duha_backend.held import Line
from duha_backend.readings import Frame, merged
from duha_backend.validate import Array, Examined
from duha_contract.quantities import BY_NAME, DERIVED, KINDS, Quantity

_ORIGINAL = "device VARCHAR, ts TIMESTAMP, controller VARCHAR, quality VARCHAR"
_STEPPED = "device VARCHAR, ts TIMESTAMP, controller VARCHAR, n INTEGER"
_WHOLE = "controller VARCHAR, ts TIMESTAMP, devices INTEGER, answered INTEGER"
_HELD = (
    "CREATE TABLE IF NOT EXISTS held (controller VARCHAR, outbox VARCHAR,"
    " first BIGINT, last BIGINT, kind VARCHAR, newest BIGINT)"
)
_EARLIEST_MS, _LATEST_MS = -62_135_596_800_000, 253_402_300_799_000


def make_tables(db: duckdb.DuckDBPyConnection) -> None:
    """Make what is missing, and bring a file of an earlier version up to date."""
    for kind, quantities in KINDS.items():
        _drop_key(db, kind)
        shapes = {kind: _ORIGINAL, f"{kind}_15m": _STEPPED, f"{kind}_1d": _STEPPED}
        shapes |= {f"{kind}_cabinet_{step}": _WHOLE for step in ("15m", "1d")}
        for table, lead in shapes.items():
            _make_table(db, table, lead, quantities)
        for name in means(kind):
            _add_column(db, f"{kind}_15m", f"{name}_n INTEGER")
    for kind, quantities in DERIVED.items():
        _make_table(db, kind, _ORIGINAL, quantities)
    db.execute(_HELD)
    # Of a batch that was stored before, only its newest time is known.
    _add_column(db, "held", "oldest BIGINT DEFAULT 0")


def _make_table(
    db: duckdb.DuckDBPyConnection, table: str, lead: str, quantities: Sequence[Quantity]
) -> None:
    columns = ", ".join(f"{q.name} DOUBLE" for q in quantities)
    db.execute(f"CREATE TABLE IF NOT EXISTS {table} ({lead}, {columns})")
    # The data dictionary grows; what was stored before has no value there.
    for quantity in quantities:
        _add_column(db, table, f"{quantity.name} DOUBLE")


def _add_column(db: duckdb.DuckDBPyConnection, table: str, column: str) -> None:
    db.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column}")


def _drop_key(db: duckdb.DuckDBPyConnection, kind: str) -> None:
    """Bring a table of an earlier version, whose key was an index, to the present form."""
    keyed = db.execute(
        "SELECT 1 FROM duckdb_constraints() WHERE table_name = ?"
        " AND constraint_type = 'PRIMARY KEY'",
        [kind],
    ).fetchone()
    if keyed:
        db.execute("BEGIN")
        db.execute(f"CREATE TABLE {kind}_anew AS FROM {kind}")
        db.execute(f"DROP TABLE {kind}")
        db.execute(f"ALTER TABLE {kind}_anew RENAME TO {kind}")
        db.execute("COMMIT")


# -- writing -------------------------------------------------------------------------


def insert(db: duckdb.DuckDBPyConnection, kind: str, frame: Frame) -> None:
    """Append a frame."""
    batch = timed(frame)
    db.execute(f"INSERT INTO {kind} BY NAME SELECT * FROM batch")
    del batch


def insert_missing(
    db: duckdb.DuckDBPyConnection, messages: Sequence[Examined]
) -> set[int]:
    """Insert those readings of which the store has none, by device and time.

    Costs a look at the span of the messages, in little memory: what is kept in memory are
    the readings of the messages, not those of the store.

    Returns
    -------
    set of int
        Positions of the messages that brought something new.
    """
    new: set[int] = set()
    for kind, frame in merged(messages).items():
        batch = timed(frame) | {"message": _positions(messages, kind)}
        low, high = time_of(int(frame["ts"].min())), time_of(int(frame["ts"].max()))
        db.execute(
            "CREATE TEMP TABLE missing AS WITH stored AS MATERIALIZED"
            f" (SELECT t.device, t.ts FROM {kind} t SEMI JOIN batch"
            " ON t.device = batch.device AND t.ts = batch.ts"
            " WHERE t.ts >= ? AND t.ts <= ?)"
            " SELECT DISTINCT ON (device, ts) * FROM batch"
            " ANTI JOIN stored USING (device, ts) ORDER BY message",
            [low, high],
        )
        db.execute(
            f"INSERT INTO {kind} BY NAME SELECT * EXCLUDE (message) FROM missing"
        )
        found = db.execute("SELECT DISTINCT message FROM missing").fetchall()
        new |= {position for (position,) in found}
        db.execute("DROP TABLE missing")
        del batch
    return new


def _positions(messages: Sequence[Examined], kind: str) -> Array:
    """Of each row of merged messages, the position of its message."""
    lengths = [
        (n, len(table))
        for n, message in enumerate(messages)
        for table in message.tables
        if table.kind == kind
    ]
    positions, counts = zip(*lengths, strict=True)
    return np.repeat(np.array(positions, dtype=np.int64), counts)


def write_held(db: duckdb.DuckDBPyConnection, lines: Sequence[Line]) -> None:
    """Append to the book of batches; as columns, many times faster than line by line."""
    if not lines:
        return
    kinds: tuple[Any, ...] = (object, object, np.int64, np.int64, object, np.int64, np.int64)  # fmt: skip
    columns = zip(*lines, strict=True)
    book = {
        f"c{n}": np.array(column, dtype=kind)
        for n, (column, kind) in enumerate(zip(columns, kinds, strict=True))
    }
    db.execute("INSERT INTO held SELECT * FROM book")
    del book


def timed(frame: Frame) -> Frame:
    """A frame whose times DuckDB takes for times."""
    return frame | {"ts": frame["ts"].astype("datetime64[ms]")}


def time_of(ms: int) -> dt.datetime:
    """UTC without a zone, as the store keeps it; what no calendar has is cut off."""
    kept = min(max(ms, _EARLIEST_MS), _LATEST_MS)
    return dt.datetime.fromtimestamp(kept / 1000, dt.UTC).replace(tzinfo=None)


# -- longer steps --------------------------------------------------------------------


def names(kind: str) -> list[str]:
    """Quantities of a kind."""
    return list(BY_NAME[kind])


def means(kind: str) -> list[str]:
    """Quantities that become a mean; quarters count the values behind them.

    The count stands in a column ``<quantity>_n`` and is null where it is `n`, as nearly
    always: then it costs no room.
    """
    return [q.name for q in KINDS[kind] if q.over_time == "mean"]


# In every query below `t` is the table: `ts` alone would be the step's own start.
_OVER_TIME = {
    "mean": "avg({0})",
    "last": "arg_max({0}, t.ts)",
    "sum": "sum({0})",
    "max": "max({0})",
}
_OVER_DAY = _OVER_TIME | {
    "mean": "sum({0} * coalesce({0}_n, n)) FILTER ({0} IS NOT NULL)"
    " / nullif(sum(coalesce({0}_n, n)) FILTER ({0} IS NOT NULL), 0)",
}
_GOOD = "count(*) FILTER (quality = 'good')"


def _over(kind: str, ways: dict[str, str]) -> str:
    return ", ".join(
        f"{ways[q.over_time].format(q.name)} AS {q.name}" for q in KINDS[kind]
    )


def binned(kind: str, fresh: int | None = None) -> str:
    """Raw readings in quarters; those of two bounds, or those from a time on [ms]."""
    since = "?" if fresh is None else f"make_timestamp({fresh} * 1000)"
    until = "AND t.ts < ?" if fresh is None else ""
    quarter = "time_bucket(INTERVAL 15 MINUTE, t.ts)"
    behind = "".join(f", nullif(count({q}), {_GOOD}) AS {q}_n" for q in means(kind))
    return (
        f"SELECT device, {quarter} AS ts, any_value(controller) AS controller,"
        f" {_GOOD} AS n, {_over(kind, _OVER_TIME)}{behind}"
        f" FROM {kind} t WHERE t.ts >= {since} {until} GROUP BY device, {quarter}"
    )


def days_of(kind: str, table: str, *, bounded: bool = True) -> str:
    """Quarters in days; means are weighed by the values behind them."""
    where = "WHERE t.ts >= ? AND t.ts < ?" if bounded else ""
    day = "time_bucket(INTERVAL 1 DAY, t.ts)"
    return (
        f"SELECT device, {day} AS ts, any_value(controller) AS controller, sum(n) AS n,"
        f" {_over(kind, _OVER_DAY)} FROM {table} t {where} GROUP BY device, {day}"
    )


def across(quantities: Sequence[Quantity], weight: str) -> str:
    """Devices together: powers add up, levels have a mean."""
    ways = {
        "sum": "sum({0})",
        "mean": "sum({0} * {1}) FILTER ({0} IS NOT NULL)"
        " / nullif(sum({1}) FILTER ({0} IS NOT NULL), 0)",
    }
    return ", ".join(
        f"{ways[q.over_devices].format(q.name, weight)} AS {q.name}" for q in quantities
    )


def unmasked(column: Any) -> Array:
    """What DuckDB hands out, with NaN (or None) where there is no value."""
    if isinstance(column, np.ma.MaskedArray):
        if column.dtype.kind == "f":
            return column.filled(np.nan)
        if column.dtype.kind == "O":
            return column.filled(None)
        return column.filled(0)
    return np.asarray(column)
