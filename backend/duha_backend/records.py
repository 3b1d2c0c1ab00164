"""Keeps what the registry only ever adds to within bounds: by age and by rows."""

from typing import NamedTuple

import sqlalchemy as sa

from duha_backend import tables
from duha_backend.database import Database

DAY_MS = 24 * 3_600_000
STEP_ROWS = 1000
"""Rows that one transaction deletes."""
STEPS = 20
"""Transactions of one table at each `tend`."""


class Kept(NamedTuple):
    """How long the rows of a table are kept.

    Attributes
    ----------
    days : int
        Age from which on rows are deleted.
    rows : int
        Rows, by their numbers, that stay at most.
    where : ColumnElement, optional
        Which rows may go at all.
    """

    table: sa.Table
    number: sa.Column[int]
    time: sa.Column[int]
    days: int
    rows: int
    where: sa.ColumnElement[bool] | None = None


def _replaced() -> sa.ColumnElement[bool]:
    """Versions that a later one of the same document has replaced."""
    h, later = tables.history, tables.history.alias("later")
    newer = (later.c.kind == h.c.kind) & (later.c.id == h.c.id)
    newer &= later.c.number > h.c.number
    return sa.exists(sa.select(later.c.number).where(newer))


KEPT = (
    Kept(tables.audit, tables.audit.c.id, tables.audit.c.ts, 5 * 366, 1_000_000),
    Kept(
        tables.history, tables.history.c.number, tables.history.c.ts, 3 * 366, 200_000,
        _replaced(),
    ),
    Kept(
        tables.delivery, tables.delivery.c.id, tables.delivery.c.ts, 366, 200_000,
        tables.delivery.c.state != "waiting",
    ),
    Kept(
        tables.alarm, tables.alarm.c.id, tables.alarm.c.raised, 3 * 366, 500_000,
        tables.alarm.c.cleared.is_not(None),
    ),
)  # fmt: skip
WET_DAYS = 400
"""How long it is known which roads were wet: a year of nights can be explained."""
OVERRIDE_DAYS = 3 * 366


class Records:
    """Deletes the oldest records, a few at a time.

    Parameters
    ----------
    database : Database
        The registry's.
    """

    def __init__(self, database: Database, kept: tuple[Kept, ...] = KEPT) -> None:
        self._database = database
        self._kept = kept

    def tend(self, now: int) -> int:
        """Delete what is too old or too much at a time [ms]; returns how many rows."""
        gone = sum(self._trim(kept, now) for kept in self._kept)
        s, o = tables.sensed, tables.override
        with self._database.begin() as db:
            for table, days in ((s, WET_DAYS), (o, OVERRIDE_DAYS)):
                old = sa.delete(table).where(table.c.end < now - days * DAY_MS)
                gone += db.execute(old).rowcount
        return gone

    def _trim(self, kept: Kept, now: int) -> int:
        newest = sa.select(sa.func.max(kept.number))
        with self._database.connect() as db:
            last = db.execute(newest).scalar() or 0
        due = (kept.time < now - kept.days * DAY_MS) | (kept.number <= last - kept.rows)
        if kept.where is not None:
            due &= kept.where
        some = sa.select(kept.number).where(due).order_by(kept.number).limit(STEP_ROWS)
        gone = 0
        for _ in range(STEPS):
            with self._database.begin() as db:
                made = db.execute(sa.delete(kept.table).where(kept.number.in_(some)))
            gone += made.rowcount
            if made.rowcount < STEP_ROWS:
                break
        return gone
