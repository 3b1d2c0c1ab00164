"""The embedded readings store: one DuckDB file.

For each kind of device there is one table as it was read (`luminaire`), one in quarters
of an hour and one in days of UTC (`luminaire_15m`, `luminaire_1d`), and the two of whole
cabinets (`luminaire_cabinet_15m`, `luminaire_cabinet_1d`). The columns are the data
dictionary; times are UTC.

No index keeps a reading from being written twice: an index over every reading of a city
would be larger than memory. Instead the store remembers, as a few spans, which times of
each controller it holds, and looks a reading up only when it falls into one of them.

Every public call raises StoreDown, and nothing else, when DuckDB or the disk cannot do it.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from duha_backend.duck_tables import (
    across,
    binned,
    days_of,
    insert,
    insert_missing,
    make_tables,
    names,
    time_of,
    unmasked,
    write_held,
)
from duha_backend.errors import Invalid, StoreDown
from duha_backend.held import Held
from duha_backend.readings import (
    DAY_MS,
    FRAME_ROWS,
    QUARTER_MS,
    Curve,
    Frame,
    Retention,
    Step,
    length,
    merged,
    slices,
)
from duha_backend.validate import Examined, Reject
from duha_contract.quantities import BY_NAME, DERIVED, KINDS, STORED

log = logging.getLogger(__name__)

T = TypeVar("T")
_MERGE_OVER = 20_000
"""Rows of the book of batches beyond which it is written anew, as few lines."""
_MOST_NAMED = 1000
"""Controllers that are named as using numbers of batches again."""
_HOUR_MS = 3_600_000
_GROUP_ROWS = 122_880
"""Rows that DuckDB keeps together, with the least and the greatest of each column."""
_MOST_SORTED = 5_000_000
"""Rows beyond which sorting a span would hold up what comes in for too long."""
_CLOSE_S = 5.0
"""Time that running queries have to end when the store is closed [s]."""
_BROKEN = (duckdb.FatalException, duckdb.ConnectionException)
"""What DuckDB says when it has given its database up."""
_TROUBLE = (duckdb.Error, OSError, MemoryError)
_DATA = (duckdb.DataError, duckdb.IntegrityError)
"""Values that the store cannot keep; ingest finds the message that has them."""


class DuckReadings:
    """Readings in a DuckDB file.

    Parameters
    ----------
    path : Path
        The file; made when it is not there.
    memory_mib, threads : int
        What DuckDB may use.

    Attributes
    ----------
    reused : Counter
        Of each controller, batches whose number had stood for other content; stored all
        the same.
    unsorted : int
        Finished spans that were not laid down by device, for want of memory or disk.
    linger_s : float
        How long messages are gathered for one commit [s].

    Raises
    ------
    StoreDown
        The file cannot be opened: another process has it, or the disk is full.
    """

    linger_s = 0.05

    def __init__(self, path: Path, memory_mib: int = 256, threads: int = 2) -> None:
        self._path = path
        self._options = (f"{memory_mib}MiB", threads)
        self.reused: Counter[str] = Counter()
        self.unsorted = 0
        self._deciding = threading.Lock()
        """What is new is decided, and stored, by one writer at a time."""
        self._writing = threading.Lock()
        self._opening = threading.Lock()
        self._active: set[duckdb.DuckDBPyConnection] = set()
        self._closing = False
        # Long questions take no thread from what comes in.
        self._changes = ThreadPoolExecutor(4, "store-write")
        self._asks = ThreadPoolExecutor(4, "store-read")
        try:
            self._open()
        except _TROUBLE as error:
            raise StoreDown(f"{path}: {error}") from error

    def _open(self) -> None:
        """Open the file and learn what it holds."""
        memory, threads = self._options
        db = duckdb.connect(str(self._path))
        try:
            db.execute("SET TimeZone = 'UTC'")
            db.execute(f"SET memory_limit = '{memory}'")
            db.execute(f"SET threads = {threads}")
            make_tables(db)
            held = Held(db.execute("SELECT * FROM held").fetchall())
            rolled = {kind: _rolled_until(db, kind) for kind in KINDS}
        except BaseException:
            db.close()
            raise
        self._db, self._held, self._rolled = db, held, rolled

    def _reopen(self, broken: duckdb.DuckDBPyConnection) -> None:
        """Open a database that has declared itself invalid, unless that is done.

        What it holds is learnt again too, because the last transaction may be in its log
        all the same.
        """
        with self._opening:
            if self._db is not broken or self._closing:
                return
            self._interrupt(
                time.monotonic() + 1.0
            )  # as long as one is open, it stays invalid
            with contextlib.suppress(duckdb.Error):
                broken.close()
            try:
                self._open()
                log.warning("store: %s had to be opened again", self._path)
            except _TROUBLE as error:
                log.warning("store: %s cannot be opened: %s", self._path, error)

    # -- how every call is made --------------------------------------------------------

    async def _change(self, call: Callable[..., T], *given: Any) -> T:
        """A call that writes, in a thread."""
        return await self._run(self._changes, call, *given)

    async def _run(
        self, pool: ThreadPoolExecutor, call: Callable[..., T], *given: Any
    ) -> T:
        if self._closing:
            raise StoreDown("the store is closed")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(pool, call, *given)
        except _TROUBLE as error:
            if pool is self._changes and isinstance(error, _DATA):
                raise Invalid(f"DuckDB cannot keep this: {error}") from error
            raise StoreDown(f"DuckDB: {error}") from error

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own for one call; a broken database is opened again."""
        home = self._db
        try:
            with home.cursor() as db:
                self._active.add(db)
                try:
                    if self._closing:
                        raise StoreDown("the store is closed")
                    yield db
                finally:
                    self._active.discard(db)
        except _BROKEN:
            self._reopen(home)
            raise

    @contextlib.contextmanager
    def _changing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction, one at a time."""
        with self._writing, self._cursor() as db:
            db.execute("BEGIN")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                _roll_back(db)
                raise

    # -- writing -----------------------------------------------------------------------

    async def write(
        self, messages: Sequence[Examined], received_ms: int
    ) -> list[Reject]:
        """Store the readings of messages in one transaction; on disk when this returns."""
        del received_ms
        await self._change(self._write, messages)
        return []

    def _write(self, messages: Sequence[Examined]) -> None:
        with self._deciding:
            found = self._held.sort(messages)
            if not found.lines:
                return
            with self._changing() as db:
                for kind, frame in merged(found.fresh).items():
                    insert(db, kind, frame)
                new = insert_missing(db, found.known)
                write_held(db, found.lines)
            self._held.keep(found)
        again = [found.known[n].controller for n in sorted(found.repeated & new)]
        self._note_reused([*found.reused, *again])

    def _note_reused(self, controllers: list[str]) -> None:
        """Count batches whose number had stood for other content."""
        for controller in controllers:
            if controller not in self.reused:
                if len(self.reused) >= _MOST_NAMED:
                    continue
                log.warning("store: %s uses numbers of batches again", controller)
            self.reused[controller] += 1

    async def put(self, kind: str, frame: Frame) -> None:
        """Store what was worked out; the last that is put stands."""
        if length(frame):
            await self._change(self._replace, kind, frame)

    def _replace(self, kind: str, frame: Frame) -> None:
        span = [time_of(int(frame["ts"].min())), time_of(int(frame["ts"].max()))]
        devices = list(dict.fromkeys(frame["device"].tolist()))
        with self._changing() as db:
            db.execute(
                f"DELETE FROM {kind} WHERE ts >= ? AND ts <= ?"
                " AND device IN (SELECT unnest(?::VARCHAR[]))",
                [*span, devices],
            )
            insert(db, kind, frame)

    # -- reading -----------------------------------------------------------------------

    async def latest(self, kind: str, since_ms: int) -> Frame:
        """The last reading of every device of a kind since a time [ms]."""
        columns = ", ".join(names(kind))
        return await self._frame(
            f"WITH newest AS (SELECT device, max(ts) AS ts FROM {kind} WHERE ts >= ?"
            f" GROUP BY device) SELECT DISTINCT ON (device) device, epoch_ms(ts) AS ts,"
            f" controller, quality, {columns} FROM {kind} SEMI JOIN newest USING (device, ts)"
            " WHERE ts >= ?",
            [time_of(since_ms)] * 2,
        )

    async def window(
        self, kind: str, device: str, since_ms: int, until_ms: int,
        step: Step = "raw", limit: int | None = None,
    ) -> Frame:  # fmt: skip
        """Readings of a device in a span [ms), oldest first."""
        columns = ", ".join(names(kind))
        bounds = [device, time_of(since_ms), time_of(until_ms)]
        where = "WHERE device = ? AND ts >= ? AND ts < ?"
        last = " ORDER BY ts" + (f" LIMIT {int(limit)}" if limit is not None else "")
        if step == "raw":
            return await self._frame(
                f"SELECT device, epoch_ms(ts) AS ts, controller, quality, {columns}"
                f" FROM {kind} {where}{last}",
                bounds,
            )
        quarters = self._quarters(kind, since_ms)
        source = quarters if step == "15m" else self._days(kind, quarters, since_ms)
        return await self._frame(
            f"SELECT device, epoch_ms(ts) AS ts, controller, n, {columns}"
            f" FROM ({source}) {where}{last}",
            bounds,
        )

    async def curve(
        self, curve: Curve, since_ms: int, until_ms: int, step: Step
    ) -> Frame:
        """Readings of many devices together, step by step."""
        step = "15m" if step == "raw" else step
        known = BY_NAME[curve.kind]
        sums = across([known[name] for name in curve.quantities], "devices")
        whose = "AND controller = ?" if curve.cabinet else ""
        bounds = [time_of(since_ms), time_of(until_ms)]
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
            [bin_ms, bin_ms, time_of(since_ms), time_of(until_ms)],
        )

    async def rain_readings(self, since_ms: int) -> Frame:
        """Every reading with rain since a time [ms], oldest first."""
        return await self._frame(
            "SELECT device, epoch_ms(ts) AS ts, rain_mm FROM rain_gauge"
            " WHERE ts >= ? AND rain_mm > 0 ORDER BY ts",
            [time_of(since_ms)],
        )

    async def export(
        self, kind: str, since_ms: int, until_ms: int, devices: Sequence[str] = ()
    ) -> AsyncIterator[Frame]:
        """All readings of a span, in frames of bounded size, by time."""
        lead = ("controller", "quality")
        async for frame in self._pages(kind, lead, kind, since_ms, until_ms, devices):
            yield frame

    async def quarters(
        self, kind: str, since_ms: int, until_ms: int
    ) -> AsyncIterator[Frame]:
        """Quarters of every device that are worked out, in frames of bounded size."""
        table, lead = f"{kind}_15m", ("controller", "n")
        async for frame in self._pages(table, lead, kind, since_ms, until_ms):
            yield frame

    async def _pages(
        self, table: str, lead: Sequence[str], kind: str, since_ms: int, until_ms: int,
        devices: Sequence[str] = (),
    ) -> AsyncIterator[Frame]:  # fmt: skip
        """Rows of a table by time and device; every page is a question of its own.

        So a slow reader holds nothing of the database, and nothing larger than a page is
        sorted.
        """
        whose = " AND device IN (SELECT unnest(?::VARCHAR[]))" if devices else ""
        more: list[Any] = [list(devices)] if devices else []
        columns = ", ".join((*lead, *names(kind)))
        query = (
            f"SELECT device, epoch_ms(ts) AS ts, {columns} FROM {table} WHERE ts >= ?"
            f" AND ts < ?{whose} AND (ts > ? OR device > ?) ORDER BY ts, device"
            f" LIMIT {FRAME_ROWS}"
        )
        for start in range(since_ms, until_ms, DAY_MS):
            end = min(until_ms, start + DAY_MS)
            counted = await self._frame(
                f"SELECT epoch_ms(ts) // 10000 * 10000 AS ts, count(*) AS n FROM {table}"
                f" WHERE ts >= ? AND ts < ?{whose} GROUP BY 1 ORDER BY 1",
                [time_of(start), time_of(end), *more],
            )
            for first, last in slices(counted, start, end):
                after, device = first, ""
                while True:
                    bounds = [
                        time_of(after),
                        time_of(last),
                        *more,
                        time_of(after),
                        device,
                    ]
                    frame = await self._frame(query, bounds)
                    if length(frame):
                        yield frame
                    if length(frame) < FRAME_ROWS:
                        break
                    after, device = int(frame["ts"][-1]), frame["device"][-1]

    async def counts(self) -> dict[str, int]:
        """How many rows each kind holds, as DuckDB keeps account of it."""
        found = await self._frame(
            "SELECT table_name AS name, estimated_size AS n FROM duckdb_tables()", []
        )
        sizes = dict(zip(found["name"], found["n"].tolist(), strict=True))
        return {kind: sizes[kind] for kind in STORED}

    # -- keeping house -----------------------------------------------------------------

    async def roll(self, kind: str, step: Step, start_ms: int) -> None:
        """Work out a quarter from the raw readings, or a day from its quarters."""
        await self._change(self._roll, kind, step, start_ms)

    def _roll(self, kind: str, step: Step, start_ms: int) -> None:
        width = QUARTER_MS if step == "15m" else DAY_MS
        bounds = [time_of(start_ms), time_of(start_ms + width)]
        source = binned(kind) if step == "15m" else days_of(kind, f"{kind}_15m")
        cabinets = across(KINDS[kind], "answered")
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
        all. Laid down by device, nearly every group of rows can be passed over. It is a
        matter of speed alone: where memory or disk do not suffice, the span stays.
        """
        bounds = [time_of(since_ms), time_of(until_ms)]
        where = "WHERE ts >= ? AND ts < ?"
        try:
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
        except _TROUBLE as error:
            self.unsorted += 1
            log.warning("store: %s stays in the order of time: %s", table, error)

    async def expire(self, retention: Retention, now_ms: int) -> None:
        """Delete what is older than it is kept; its blocks are used again."""
        await self._change(self._expire, retention, now_ms)

    def _expire(self, retention: Retention, now_ms: int) -> None:
        kept = {"": retention.raw, "_15m": retention.quarters, "_1d": retention.days}
        kept |= {"_cabinet_15m": retention.quarters, "_cabinet_1d": retention.days}
        tables = {
            f"{kind}{suffix}": days for kind in KINDS for suffix, days in kept.items()
        }
        tables |= {kind: retention.of(kind) for kind in DERIVED}
        with self._changing() as db:
            for table, days in tables.items():
                if days is not None:
                    before = time_of(now_ms - days * DAY_MS)
                    db.execute(f"DELETE FROM {table} WHERE ts < ?", [before])
        self._merge_held()
        with self._writing, self._cursor() as db:
            db.execute("CHECKPOINT")

    def _merge_held(self) -> None:
        """Write the book of batches anew; no batch is decided on meanwhile."""
        with self._deciding:
            if self._held.written <= _MERGE_OVER:
                return
            lines = self._held.lines()
            with self._changing() as db:
                db.execute("DELETE FROM held")
                write_held(db, lines)
            self._held.written = len(lines)

    async def backup(self, folder: Path) -> str | None:
        """Copy the store into a folder while it runs; returns the file's name."""
        target = folder / self._path.name
        await self._run(self._asks, self._backup, target)
        return target.name

    def _backup(self, target: Path) -> None:
        name = str(target).replace("'", "''")
        with self._cursor() as db:
            home = db.execute("SELECT current_database()").fetchall()[0][0]
            db.execute(f"ATTACH '{name}' AS copy_of_it")
            try:
                db.execute(f'COPY FROM DATABASE "{home}" TO copy_of_it')
            finally:
                db.execute("DETACH copy_of_it")

    async def close(self) -> None:
        """Close the file; what still runs is interrupted, and rolled back."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._closing = True
        for pool in (self._changes, self._asks):
            pool.shutdown(wait=False, cancel_futures=True)
        self._interrupt(time.monotonic() + _CLOSE_S)
        if self._active:
            log.warning("store: closed while %d queries still run", len(self._active))
            return  # a connection must not be closed while a thread works with it
        with contextlib.suppress(duckdb.Error):
            self._db.close()

    def _interrupt(self, deadline: float) -> None:
        """Interrupt what runs until it has ended."""
        while self._active and time.monotonic() < deadline:
            for db in tuple(self._active):
                with contextlib.suppress(duckdb.Error):
                    db.interrupt()
            time.sleep(0.02)

    # -- help --------------------------------------------------------------------------

    def _quarters(self, kind: str, since_ms: int) -> str:
        """Quarters, with those that are not worked out yet from the raw readings."""
        fresh = max(self._rolled[kind], since_ms // QUARTER_MS * QUARTER_MS)
        return f"SELECT * FROM {kind}_15m UNION ALL BY NAME {binned(kind, fresh)}"

    def _days(self, kind: str, quarters: str, since_ms: int) -> str:
        """Days, with those that are not over yet from their quarters."""
        today = max(self._rolled[kind] - QUARTER_MS, since_ms) // DAY_MS * DAY_MS
        limit = f"ts >= make_timestamp({today} * 1000)"
        rest = f"SELECT * FROM ({quarters}) WHERE {limit}"
        return (
            f"SELECT * FROM {kind}_1d WHERE NOT ({limit})"
            f" UNION ALL BY NAME {days_of(kind, f'({rest})', bounded=False)}"
        )

    async def _frame(self, query: str, parameters: Sequence[Any]) -> Frame:
        return await self._run(self._asks, self._fetch, query, parameters)

    def _fetch(self, query: str, parameters: Sequence[Any]) -> Frame:
        with self._cursor() as db:
            found = db.execute(query, parameters).fetchnumpy()
        return {name: unmasked(column) for name, column in found.items()}

    def _ask(self, query: str, parameters: Sequence[Any]) -> list[Any]:
        with self._cursor() as db:
            return db.execute(query, parameters).fetchall()


def _rolled_until(db: duckdb.DuckDBPyConnection, kind: str) -> int:
    """End of the newest quarter that was worked out [ms]."""
    rows = db.execute(f"SELECT epoch_ms(max(ts)) FROM {kind}_15m").fetchall()
    return int(rows[0][0]) + QUARTER_MS if rows[0][0] is not None else 0


def _roll_back(db: duckdb.DuckDBPyConnection) -> None:
    """Give a transaction up; one whose commit failed is given up already."""
    with contextlib.suppress(duckdb.Error):
        db.execute("ROLLBACK")
