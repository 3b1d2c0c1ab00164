"""Bounds a table of things that controllers send: the oldest go first, in small steps."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from duha_backend.database import Database

STEP = 1000
"""Most rows deleted in one transaction; others may write in between."""
OVERHEAD = 200
"""What a row costs beside its largest column, about [bytes]."""


@dataclass(frozen=True)
class Caps:
    """Most rows, and most bytes."""

    things: int
    bytes: int


@dataclass(frozen=True)
class Kept:
    """A table with its bounds.

    Attributes
    ----------
    age, body : column
        What grows with time, and the column that takes the room.
    all, each : Caps
        In all, and of one controller.
    oldest : int or None
        Age below which rows are deleted in any case.
    """

    table: sa.Table
    age: sa.Column[Any]
    body: sa.Column[Any]
    all: Caps
    each: Caps
    oldest: int | None = None


def trim(engine: Database, kept: Kept) -> int:
    """Delete what is beyond the bounds; returns how many rows."""
    deleted = 0
    if kept.oldest is not None:
        deleted += _delete(engine, kept, kept.age < kept.oldest)
    of_whom = kept.table.c.controller
    weight = sa.func.sum(sa.func.length(kept.body) + OVERHEAD)
    n = sa.func.count()
    too_many = (n > kept.each.things) | (weight > kept.each.bytes)
    query = sa.select(of_whom).group_by(of_whom).having(too_many)
    with engine.connect() as db:
        offenders = list(db.execute(query).scalars())
        things, size = db.execute(sa.select(n, weight).select_from(kept.table)).one()
    for name in offenders:
        deleted += _cut(engine, kept, kept.each, of_whom == name)
    if things > kept.all.things or (size or 0) > kept.all.bytes:
        deleted += _cut(engine, kept, kept.all, sa.true())
    return deleted


def _cut(engine: Database, kept: Kept, caps: Caps, which: Any) -> int:
    """Delete the oldest of some rows until the newest of them fit."""
    query = sa.select(kept.age, sa.func.length(kept.body) + OVERHEAD)
    query = query.where(which).order_by(kept.age.desc())
    things = size = 0
    last = None
    with (
        engine.connect() as db,
        db.execute(query.execution_options(yield_per=STEP)) as rows,
    ):
        for age, weight in rows:
            things, size = things + 1, size + weight
            if things > caps.things or size > caps.bytes:
                last = age
                break
    return 0 if last is None else _delete(engine, kept, which & (kept.age <= last))


def _delete(engine: Database, kept: Kept, which: Any) -> int:
    """Delete some rows, the oldest first, a few in each transaction."""
    deleted = 0
    while True:
        oldest = sa.select(kept.age).where(which).order_by(kept.age).limit(STEP)
        with engine.begin() as db:
            last = db.execute(sa.select(sa.func.max(oldest.subquery().c[0]))).scalar()
            if last is None:
                return deleted
            found = db.execute(sa.delete(kept.table).where(which & (kept.age <= last)))
            deleted += found.rowcount
