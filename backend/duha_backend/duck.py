"""The embedded readings store: one DuckDB file. The only module that knows DuckDB.

For each kind of device there is one table as it was read (`luminaire`), one in quarters
of an hour and one in days of UTC (`luminaire_15m`, `luminaire_1d`), and the two of whole
cabinets (`luminaire_cabinet_15m`, `luminaire_cabinet_1d`). The columns are the data
dictionary; times are UTC.

No index keeps a reading from being written twice: an index over every reading of a city
would be larger than memory. Instead the store remembers, as few ranges, which batches it
holds, and looks a reading up only when it is not newer than what its controller has sent.
"""

import asyncio
import contextlib
import datetime as dt
import threading
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from duha_backend.errors import StoreDown
from duha_backend.readings import (
    DAY_MS,
    QUARTER_MS,
    Curve,
    Frame,
    Retention,
    Step,
    length,
    merged,
)
from duha_backend.validate import Array, Examined, Reject
from duha_contract.quantities import BY_NAME, DERIVED, KINDS, STORED, Quantity

_LEAD = ("device", "ts", "controller", "quality")
_MERGE_OVER = 20_000
"""Rows of the book of batches beyond which it is written anew, as few ranges."""
EXPORT_ROWS = 100_000
_HOUR_MS = 3_600_000
_GROUP_ROWS = 122_880
"""Rows that DuckDB keeps together, with the least and the greatest of each column."""
_MOST_SORTED = 5_000_000
"""Rows beyond which sorting a span would hold up what comes in for too long."""


class DuckReadings:
    """Readings in a DuckDB file.

    Parameters
    ----------
    path : Path
        The file; made when it is not there.
    memory_mib, threads : int
        What DuckDB may use.
    """

    def __init__(self, path: Path, memory_mib: int = 256, threads: int = 2) -> None:
        self._path = path
        self._options = (f"{memory_mib}MiB", threads)
        self._deciding = threading.Lock()
        """What is new is decided, and stored, by one writer at a time."""
        self._writing = threading.Lock()
        self._open()

    def _open(self) -> None:
        """Open the file and learn what it holds."""
        memory, threads = self._options
        self._db = duckdb.connect(str(self._path))
        self._db.execute("SET TimeZone = 'UTC'")
        self._db.execute(f"SET memory_limit = '{memory}'")
        self._db.execute(f"SET threads = {threads}")
        for kind, quantities in KINDS.items():
            _make_tables(self._db, kind, quantities)
        for kind, quantities in DERIVED.items():
            _make_table(self._db, kind, _ORIGINAL, quantities)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS held (controller VARCHAR, outbox VARCHAR,"
            " first BIGINT, last BIGINT, kind VARCHAR, newest BIGINT)"
        )
        self._held = _Held(self._ask("SELECT * FROM held", []))
        self._rolled = {kind: self._rolled_until(kind) for kind in KINDS}

    @contextlib.contextmanager
    def _changing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction, one at a time.

        When a full disk keeps DuckDB from a checkpoint, it declares the whole database
        invalid: the file is opened anew, and what it holds is learnt anew too, because the
        transaction may be in its log all the same.
        """
        with self._writing:
            try:
                with self._db.cursor() as db:
                    db.execute("BEGIN")
                    try:
                        yield db
                        db.execute("COMMIT")
                    except BaseException:
                        _roll_back(db)
                        raise
            except (duckdb.FatalException, duckdb.ConnectionException):
                with contextlib.suppress(duckdb.Error):
                    self._db.close()
                self._open()
                raise

    # -- writing -----------------------------------------------------------------

    async def write(
        self, messages: Sequence[Examined], received_ms: int
    ) -> list[Reject]:
        """Store the readings of messages in one transaction; on disk when this returns."""
        del received_ms
        await asyncio.to_thread(self._write, messages)
        return []

    def _write(self, messages: Sequence[Examined]) -> None:
        with self._deciding:
            fresh, known = self._sorted(messages)
            lines = _lines(fresh + known)
            if not lines:
                return
            with self._changing() as db:
                for kind, frame in merged(fresh).items():
                    _insert(db, kind, frame)
                for kind, frame in merged(known).items():
                    _insert_missing(db, kind, frame)
                _write_held(db, lines)
            self._held.add(lines)

    def _sorted(
        self, messages: Sequence[Examined]
    ) -> tuple[list[Examined], list[Examined]]:
        """Batches that are not held: those newer than all before, and the others."""
        fresh: list[Examined] = []
        known: list[Examined] = []
        seen: set[tuple[str, str, int]] = set()
        newest = self._held.newest.copy() if len(messages) > 1 else self._held.newest
        for message in messages:
            batch = message.batch
            if batch is None or not message.tables:
                continue
            name = (message.controller, batch.outbox, batch.seq)
            if name in seen or self._held.has(*name):
                continue
            seen.add(name)
            new = True
            for table in message.tables:
                key = (message.controller, table.kind)
                times = table.values["ts"]
                new &= int(times.min()) > newest.get(key, -1) and _distinct(
                    table.values
                )
                if newest is not self._held.newest:
                    newest[key] = max(newest.get(key, -1), int(times.max()))
            (fresh if new else known).append(message)
        return fresh, known

    async def put(self, kind: str, frame: Frame) -> None:
        """Store what was worked out; the last that is put stands.

        Raises
        ------
        StoreDown
            The disk is full, or broken.
        """
        if not length(frame):
            return
        try:
            await asyncio.to_thread(self._replace, kind, frame)
        except duckdb.Error as error:
            raise StoreDown(str(error)) from error

    def _replace(self, kind: str, frame: Frame) -> None:
        span = [_time(int(frame["ts"].min())), _time(int(frame["ts"].max()))]
        devices = list(dict.fromkeys(frame["device"].tolist()))
        with self._changing() as db:
            db.execute(
                f"DELETE FROM {kind} WHERE ts >= ? AND ts <= ?"
                " AND device IN (SELECT unnest(?::VARCHAR[]))",
                [*span, devices],
            )
            _insert(db, kind, frame)

    # -- reading -----------------------------------------------------------------

    async def latest(self, kind: str, since_ms: int) -> Frame:
        """The last reading of every device of a kind since a time [ms]."""
        names = ", ".join(_names(kind))
        return await self._frame(
            f"WITH newest AS (SELECT device, max(ts) AS ts FROM {kind} WHERE ts >= ?"
            f" GROUP BY device) SELECT DISTINCT ON (device) device, epoch_ms(ts) AS ts,"
            f" controller, quality, {names} FROM {kind} SEMI JOIN newest USING (device, ts)"
            " WHERE ts >= ?",
            [_time(since_ms)] * 2,
        )

    async def window(
        self, kind: str, device: str, since_ms: int, until_ms: int,
        step: Step = "raw", limit: int | None = None,
    ) -> Frame:  # fmt: skip
        """Readings of a device in a span [ms), oldest first."""
        names = ", ".join(_names(kind))
        bounds = [device, _time(since_ms), _time(until_ms)]
        where = "WHERE device = ? AND ts >= ? AND ts < ?"
        last = " ORDER BY ts" + (f" LIMIT {int(limit)}" if limit is not None else "")
        if step == "raw":
            return await self._frame(
                f"SELECT device, epoch_ms(ts) AS ts, controller, quality, {names}"
                f" FROM {kind} {where}{last}",
                bounds,
            )
        quarters = self._quarters(kind, since_ms)
        source = quarters if step == "15m" else self._days(kind, quarters, since_ms)
        return await self._frame(
            f"SELECT device, epoch_ms(ts) AS ts, controller, n, {names}"
            f" FROM ({source}) {where}{last}",
            bounds,
        )

    async def curve(
        self, curve: Curve, since_ms: int, until_ms: int, step: Step
    ) -> Frame:
        """Readings of many devices together, step by step."""
        step = "15m" if step == "raw" else step
        known = BY_NAME[curve.kind]
        sums = _across([known[name] for name in curve.quantities], "devices")
        whose = "AND controller = ?" if curve.cabinet else ""
        bounds = [_time(since_ms), _time(until_ms)]
        return await self._frame(
            f"SELECT epoch_ms(ts) AS ts, sum(devices) AS devices,"
            f" sum(answered) AS answered, {sums} FROM {curve.kind}_cabinet_{step}"
            f" WHERE ts >= ? AND ts < ? {whose} GROUP BY ts ORDER BY ts",
            bounds + ([curve.cabinet] if curve.cabinet else []),
        )

    async def rain(
        self, since_ms: int, until_ms: int, bin_ms: int, kind: str = "rain_gauge"
    ) -> Frame:
        """Rain of every device in bins that have any."""
        return await self._frame(
            "SELECT device, epoch_ms(ts) // ? * ? AS ts, sum(rain_mm) AS rain_mm"
            f" FROM {kind} WHERE ts >= ? AND ts < ? AND rain_mm > 0"
            " GROUP BY ALL ORDER BY ALL",
            [bin_ms, bin_ms, _time(since_ms), _time(until_ms)],
        )

    async def rain_readings(self, since_ms: int) -> Frame:
        """Every reading with rain since a time [ms], oldest first."""
        return await self._frame(
            "SELECT device, epoch_ms(ts) AS ts, rain_mm FROM rain_gauge"
            " WHERE ts >= ? AND rain_mm > 0 ORDER BY ts",
            [_time(since_ms)],
        )

    async def export(
        self, kind: str, since_ms: int, until_ms: int, devices: Sequence[str] = ()
    ) -> AsyncIterator[Frame]:
        """All readings of a span, in frames of bounded size, by time."""
        # Span by span, so that nothing larger than a span has to be sorted.
        step = DAY_MS if devices or kind != "luminaire" else DAY_MS // 24
        for start in range(since_ms, until_ms, step):
            end = min(until_ms, start + step)
            async for frame in self._export(kind, start, end, devices):
                yield frame

    async def quarters(
        self, kind: str, since_ms: int, until_ms: int
    ) -> AsyncIterator[Frame]:
        """Quarters of every device that are worked out, by time."""
        names = ", ".join(_names(kind))
        query = (
            f"SELECT device, epoch_ms(ts) AS ts, controller, n, {names} FROM {kind}_15m"
            " WHERE ts >= ? AND ts < ? ORDER BY ts"
        )
        for start in range(since_ms, until_ms, _HOUR_MS):
            end = min(until_ms, start + _HOUR_MS)
            frame = await self._frame(query, [_time(start), _time(end)])
            if length(frame):
                yield frame

    async def _export(
        self, kind: str, since_ms: int, until_ms: int, devices: Sequence[str]
    ) -> AsyncIterator[Frame]:
        names = ", ".join(_names(kind))
        whose = "AND device IN (SELECT unnest(?::VARCHAR[]))" if devices else ""
        query = (
            f"SELECT device, epoch_ms(ts) AS ts, controller, quality, {names} FROM {kind}"
            f" WHERE ts >= ? AND ts < ? {whose} ORDER BY ts, device"
        )
        bounds: list[Any] = [_time(since_ms), _time(until_ms)]
        if devices:
            bounds.append(list(devices))
        with self._db.cursor() as db:
            found = await _whole(db, db.execute, query, bounds)
            known = [column[0] for column in found.description or ()]
            while chunk := await _whole(db, found.fetchmany, EXPORT_ROWS):
                yield _columns(known, chunk)

    async def counts(self) -> dict[str, int]:
        """How many rows each kind holds, as DuckDB keeps account of it."""
        found = await self._frame(
            "SELECT table_name AS name, estimated_size AS n FROM duckdb_tables()", []
        )
        sizes = dict(zip(found["name"], found["n"].tolist(), strict=True))
        return {kind: sizes[kind] for kind in STORED}

    # -- keeping house -------------------------------------------------------------

    async def roll(self, kind: str, step: Step, start_ms: int) -> None:
        """Work out a quarter from the raw readings, or a day from its quarters."""
        await asyncio.to_thread(self._roll, kind, step, start_ms)

    def _roll(self, kind: str, step: Step, start_ms: int) -> None:
        width = QUARTER_MS if step == "15m" else DAY_MS
        bounds = [_time(start_ms), _time(start_ms + width)]
        source = _binned(kind) if step == "15m" else _days_of(kind, f"{kind}_15m")
        cabinets = _across(KINDS[kind], "answered")
        with self._changing() as db:
            for table in (f"{kind}_{step}", f"{kind}_cabinet_{step}"):
                db.execute(f"DELETE FROM {table} WHERE ts = ?", bounds[:1])
            db.execute(
                f"INSERT INTO {kind}_{step} BY NAME SELECT * FROM ({source})"
                " ORDER BY device",
                bounds,
            )
            db.execute(
                f"INSERT INTO {kind}_cabinet_{step} BY NAME SELECT controller, ts,"
                " count(*) AS devices, count(*) FILTER (n > 0) AS answered,"
                f" {cabinets} FROM (SELECT *, 1 AS answered FROM {kind}_{step}"
                " WHERE ts = ?) GROUP BY controller, ts",
                bounds[:1],
            )
        end = start_ms + width
        if step == "15m":
            self._rolled[kind] = max(self._rolled[kind], end)
            if end % _HOUR_MS == 0:
                self._sort(kind, end - _HOUR_MS, end)
        else:
            self._sort(f"{kind}_15m", start_ms, end)

    def _sort(self, table: str, since_ms: int, until_ms: int) -> None:
        """Lay a finished span of a table down anew, by device.

        Readings come by time; who asks for one device would have to look through those of
        all. Laid down by device, nearly every group of rows can be passed over.
        """
        bounds = [_time(since_ms), _time(until_ms)]
        where = "WHERE ts >= ? AND ts < ?"
        (n,) = self._ask(f"SELECT count(*) FROM {table} {where}", bounds)[0]
        if not _GROUP_ROWS < n <= _MOST_SORTED:
            return
        with self._changing() as db:
            db.execute(
                f"CREATE TEMP TABLE span AS FROM {table} {where} ORDER BY device, ts",
                bounds,
            )
            db.execute(f"DELETE FROM {table} {where}", bounds)
            db.execute(f"INSERT INTO {table} FROM span")
            db.execute("DROP TABLE span")

    async def expire(self, retention: Retention, now_ms: int) -> None:
        """Delete what is older than it is kept; its blocks are used again."""
        await asyncio.to_thread(self._expire, retention, now_ms)

    def _expire(self, retention: Retention, now_ms: int) -> None:
        kept = {"": retention.raw, "_15m": retention.quarters, "_1d": retention.days}
        kept |= {"_cabinet_15m": retention.quarters, "_cabinet_1d": retention.days}
        with self._changing() as db:
            for kind in KINDS:
                for suffix, days in kept.items():
                    if days is not None:
                        before = _time(now_ms - days * DAY_MS)
                        db.execute(f"DELETE FROM {kind}{suffix} WHERE ts < ?", [before])
            for kind in DERIVED:
                days = retention.of(kind)
                if days is not None:
                    before = _time(now_ms - days * DAY_MS)
                    db.execute(f"DELETE FROM {kind} WHERE ts < ?", [before])
            if self._held.written > _MERGE_OVER:
                lines = self._held.merged()
                db.execute("DELETE FROM held")
                _write_held(db, lines)
                self._held = _Held(lines)
        with self._writing, self._db.cursor() as db:
            db.execute("CHECKPOINT")

    async def backup(self, folder: Path) -> str | None:
        """Copy the store into a folder while it runs; returns the file's name."""
        target = folder / self._path.name
        await asyncio.to_thread(self._backup, target)
        return target.name

    def _backup(self, target: Path) -> None:
        name = str(target).replace("'", "''")
        with self._db.cursor() as db:
            home = db.execute("SELECT current_database()").fetchall()[0][0]
            db.execute(f"ATTACH '{name}' AS copy_of_it")
            try:
                db.execute(f'COPY FROM DATABASE "{home}" TO copy_of_it')
            finally:
                db.execute("DETACH copy_of_it")

    async def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- help ----------------------------------------------------------------------

    def _rolled_until(self, kind: str) -> int:
        """End of the newest quarter that was worked out [ms]."""
        rows = self._ask(f"SELECT epoch_ms(max(ts)) FROM {kind}_15m", [])
        return int(rows[0][0]) + QUARTER_MS if rows[0][0] is not None else 0

    def _quarters(self, kind: str, since_ms: int) -> str:
        """Quarters, with those that are not worked out yet from the raw readings."""
        fresh = max(self._rolled[kind], since_ms // QUARTER_MS * QUARTER_MS)
        return f"SELECT * FROM {kind}_15m UNION ALL BY NAME {_binned(kind, fresh)}"

    def _days(self, kind: str, quarters: str, since_ms: int) -> str:
        """Days, with those that are not over yet from their quarters."""
        today = max(self._rolled[kind] - QUARTER_MS, since_ms) // DAY_MS * DAY_MS
        limit = f"ts >= make_timestamp({today} * 1000)"
        rest = f"SELECT * FROM ({quarters}) WHERE {limit}"
        return (
            f"SELECT * FROM {kind}_1d WHERE NOT ({limit})"
            f" UNION ALL BY NAME {_days_of(kind, f'({rest})', bounded=False)}"
        )

    async def _frame(self, query: str, parameters: Sequence[Any]) -> Frame:
        return await asyncio.to_thread(self._fetch, query, parameters)

    def _fetch(self, query: str, parameters: Sequence[Any]) -> Frame:
        with self._db.cursor() as db:
            found = db.execute(query, parameters).fetchnumpy()
        return {name: _unmasked(column) for name, column in found.items()}

    def _ask(self, query: str, parameters: Sequence[Any]) -> list[Any]:
        with self._db.cursor() as db:
            return db.execute(query, parameters).fetchall()


class ParquetFile:
    """Gathers frames, on disk and not in memory, and writes them as one Parquet file."""

    def __init__(self, folder: Path) -> None:
        self._db = duckdb.connect(str(folder / "frames.duckdb"))
        self._db.execute("SET TimeZone = 'UTC'")
        self._db.execute("SET memory_limit = '256MiB'")
        self._begun = False

    def add(self, frame: Frame) -> None:
        """Add the rows of a frame."""
        batch = _timed(frame)
        if self._begun:
            self._db.execute(
                "INSERT INTO frames SELECT * REPLACE (ts::TIMESTAMP AS ts) FROM batch"
            )
        else:
            self._db.execute(
                "CREATE TABLE frames AS SELECT * REPLACE (ts::TIMESTAMP AS ts) FROM batch"
            )
            self._begun = True
        del batch

    def write(self, path: Path) -> None:
        """Write everything, `ts` as a time in UTC; without any row the columns alone."""
        if not self._begun:
            self._db.execute("CREATE TABLE frames (device VARCHAR, ts TIMESTAMP)")
        name = str(path).replace("'", "''")
        self._db.execute(
            "COPY (SELECT * REPLACE (ts AT TIME ZONE 'UTC' AS ts) FROM frames)"
            f" TO '{name}' (FORMAT parquet, COMPRESSION zstd)"
        )

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


class _Held:
    """Which batches the store holds: ranges of numbers for each outbox; newest times."""

    def __init__(self, lines: Iterable[Sequence[Any]]) -> None:
        self._ranges: dict[tuple[str, str], list[list[int]]] = {}
        self.newest: dict[tuple[str, str], int] = {}
        self.written = 0
        self.add(sorted(lines, key=lambda line: line[2]))

    def add(self, lines: Iterable[Sequence[Any]]) -> None:
        """Take down batches."""
        for controller, outbox, first, last, kind, newest in lines:
            self.written += 1
            _include(self._ranges.setdefault((controller, outbox), []), first, last)
            if kind:
                key = (controller, kind)
                self.newest[key] = max(self.newest.get(key, -1), newest)

    def has(self, controller: str, outbox: str, seq: int) -> bool:
        """Whether a batch is held."""
        ranges = self._ranges.get((controller, outbox), [])
        i = bisect_right(ranges, seq, key=lambda r: r[0]) - 1
        return i >= 0 and seq <= ranges[i][1]

    def merged(self) -> list[tuple[Any, ...]]:
        """The same, in as few lines as it takes."""
        ranges = [
            (controller, outbox, first, last, "", -1)
            for (controller, outbox), found in self._ranges.items()
            for first, last in found
        ]
        return ranges + [(c, "", 0, -1, k, at) for (c, k), at in self.newest.items()]


async def _whole(
    db: duckdb.DuckDBPyConnection, call: Callable[..., Any], *given: Any
) -> Any:
    """A call in a thread that is over when this returns, even when it is cancelled.

    A connection must not be closed while a thread still works with it.
    """
    work = asyncio.ensure_future(asyncio.to_thread(call, *given))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        db.interrupt()
        await asyncio.wait([work])
        work.exception()
        raise


def _include(ranges: list[list[int]], first: int, last: int) -> None:
    """Add a range to ascending, disjoint ones, joining neighbours."""
    if last < first:
        return
    i = bisect_right(ranges, first, key=lambda r: r[0])
    if i and ranges[i - 1][1] >= first - 1:
        i -= 1
        ranges[i][1] = max(ranges[i][1], last)
    else:
        ranges.insert(i, [first, last])
    while i + 1 < len(ranges) and ranges[i + 1][0] <= ranges[i][1] + 1:
        ranges[i][1] = max(ranges[i][1], ranges.pop(i + 1)[1])


def _lines(messages: Sequence[Examined]) -> list[tuple[Any, ...]]:
    """Lines of the book of batches, one for each batch and kind."""
    return [
        (m.controller, m.batch.outbox, m.batch.seq, m.batch.seq, t.kind, int(t.values["ts"].max()))
        for m in messages
        if m.batch is not None
        for t in m.tables
    ]  # fmt: skip


def _write_held(db: duckdb.DuckDBPyConnection, lines: Sequence[Sequence[Any]]) -> None:
    """Append to the book of batches; as columns, many times faster than line by line."""
    kinds: tuple[Any, ...] = (object, object, np.int64, np.int64, object, np.int64)
    columns = zip(*lines, strict=True)
    book = {
        f"c{n}": np.array(column, dtype=kind)
        for n, (column, kind) in enumerate(zip(columns, kinds, strict=True))
    }
    db.execute("INSERT INTO held SELECT * FROM book")
    del book


def _distinct(values: Frame) -> bool:
    return len(set(values["device"])) == length(values)


_ORIGINAL = "device VARCHAR, ts TIMESTAMP, controller VARCHAR, quality VARCHAR"


def _make_tables(
    db: duckdb.DuckDBPyConnection, kind: str, quantities: Sequence[Quantity]
) -> None:
    shapes = {
        kind: _ORIGINAL,
        f"{kind}_15m": "device VARCHAR, ts TIMESTAMP, controller VARCHAR, n INTEGER",
        f"{kind}_1d": "device VARCHAR, ts TIMESTAMP, controller VARCHAR, n INTEGER",
    }
    whole = "controller VARCHAR, ts TIMESTAMP, devices INTEGER, answered INTEGER"
    shapes |= {f"{kind}_cabinet_{step}": whole for step in ("15m", "1d")}
    _drop_key(db, kind)
    for table, lead in shapes.items():
        _make_table(db, table, lead, quantities)


def _make_table(
    db: duckdb.DuckDBPyConnection, table: str, lead: str, quantities: Sequence[Quantity]
) -> None:
    columns = ", ".join(f"{q.name} DOUBLE" for q in quantities)
    db.execute(f"CREATE TABLE IF NOT EXISTS {table} ({lead}, {columns})")
    # The data dictionary grows; what was stored before has no value there.
    for quantity in quantities:
        db.execute(
            f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {quantity.name} DOUBLE"
        )


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


def _insert(db: duckdb.DuckDBPyConnection, kind: str, frame: Frame) -> None:
    batch = _timed(frame)
    db.execute(f"INSERT INTO {kind} BY NAME SELECT * FROM batch")
    del batch


def _insert_missing(db: duckdb.DuckDBPyConnection, kind: str, frame: Frame) -> None:
    """Insert those readings of which the store has none; costs a look at their span."""
    batch = _timed(frame)
    low, high = _time(int(frame["ts"].min())), _time(int(frame["ts"].max()))
    db.execute(
        f"INSERT INTO {kind} BY NAME SELECT DISTINCT ON (device, ts) * FROM batch"
        f" WHERE (device, ts) NOT IN (SELECT (device, ts) FROM {kind}"
        " WHERE ts >= ? AND ts <= ?)",
        [low, high],
    )
    del batch


def _timed(frame: Frame) -> Frame:
    return frame | {"ts": frame["ts"].astype("datetime64[ms]")}


def _names(kind: str) -> list[str]:
    return list(BY_NAME[kind])


# In every query below `t` is the table: `ts` alone would be the step's own start.
_OVER_TIME = {
    "mean": "avg({0})",
    "last": "arg_max({0}, t.ts)",
    "sum": "sum({0})",
    "max": "max({0})",
}
_OVER_DAY = _OVER_TIME | {
    "mean": "sum({0} * n) FILTER ({0} IS NOT NULL)"
    " / nullif(sum(n) FILTER ({0} IS NOT NULL), 0)",
}


def _over(kind: str, ways: dict[str, str]) -> str:
    return ", ".join(
        f"{ways[q.over_time].format(q.name)} AS {q.name}" for q in KINDS[kind]
    )


def _binned(kind: str, fresh: int | None = None) -> str:
    """Raw readings in quarters; those of two bounds, or those from a time on [ms]."""
    since = "?" if fresh is None else f"make_timestamp({fresh} * 1000)"
    until = "AND t.ts < ?" if fresh is None else ""
    quarter = "time_bucket(INTERVAL 15 MINUTE, t.ts)"
    return (
        f"SELECT device, {quarter} AS ts, any_value(controller) AS controller,"
        f" count(*) FILTER (quality = 'good') AS n, {_over(kind, _OVER_TIME)}"
        f" FROM {kind} t WHERE t.ts >= {since} {until} GROUP BY device, {quarter}"
    )


def _days_of(kind: str, table: str, *, bounded: bool = True) -> str:
    """Quarters in days; means are weighed by the readings behind them."""
    where = "WHERE t.ts >= ? AND t.ts < ?" if bounded else ""
    day = "time_bucket(INTERVAL 1 DAY, t.ts)"
    return (
        f"SELECT device, {day} AS ts, any_value(controller) AS controller, sum(n) AS n,"
        f" {_over(kind, _OVER_DAY)} FROM {table} t {where} GROUP BY device, {day}"
    )


def _across(quantities: Sequence[Quantity], weight: str) -> str:
    """Devices together: powers add up, levels have a mean."""
    ways = {
        "sum": "sum({0})",
        "mean": "sum({0} * {1}) FILTER ({0} IS NOT NULL)"
        " / nullif(sum({1}) FILTER ({0} IS NOT NULL), 0)",
    }
    return ", ".join(
        f"{ways[q.over_devices].format(q.name, weight)} AS {q.name}" for q in quantities
    )


def _roll_back(db: duckdb.DuckDBPyConnection) -> None:
    """Give a transaction up; one whose commit failed is given up already."""
    with contextlib.suppress(duckdb.TransactionException):
        db.execute("ROLLBACK")


def _unmasked(column: Any) -> Array:
    """What DuckDB hands out, with NaN (or None) where there is no value."""
    if isinstance(column, np.ma.MaskedArray):
        if column.dtype.kind == "f":
            return column.filled(np.nan)
        if column.dtype.kind == "O":
            return column.filled(None)
        return column.filled(0)
    return np.asarray(column)


def _columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Frame:
    text = ("device", "controller", "quality")
    kinds: dict[str, Any] = {"ts": np.int64} | dict.fromkeys(text, object)
    return {
        name: np.array(column, dtype=kinds.get(name, np.float64))
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def _time(ms: int) -> dt.datetime:
    """UTC without a zone, as the store keeps it."""
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).replace(tzinfo=None)
