"""The book of alarms: their states after ISA-18.2, and what has been told to whom."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import sqlalchemy as sa

from duha_backend import tables
from duha_backend.alarms.engine import News
from duha_backend.alarms.kinds import KINDS, Severity
from duha_backend.database import Database
from duha_backend.errors import Invalid, NotFound

State = Literal["unacknowledged", "acknowledged", "cleared", "shelved", "closed"]
AGAIN_MS = 24 * 3_600_000
"""An alarm that comes back so soon, before anybody has seen it, is the same one."""
LONGEST_SHELF_MS = 90 * 24 * 3_600_000
Row = dict[str, Any]


def state_of(row: Row, now: int) -> State:
    """State of an alarm: ISA-18.2 names, and ``cleared`` for returned and not seen."""
    if row["shelved_until"] is not None and row["shelved_until"] > now:
        return "shelved"
    if row["cleared"] is None:
        return "unacknowledged" if row["acknowledged"] is None else "acknowledged"
    return "cleared" if row["acknowledged"] is None else "closed"


class Book:
    """Alarms in the registry's database."""

    def __init__(self, engine: Database) -> None:
        self._engine = engine

    def standing(self) -> list[tuple[str, str]]:
        """Code and object of every alarm that is not over."""
        a = tables.alarm.c
        query = sa.select(a.code, a.object).where(a.cleared.is_(None))
        with self._engine.connect() as db:
            return [(row.code, row.object) for row in db.execute(query)]

    def take(
        self, news: Iterable[News], queue: Callable[[sa.Connection, list[Row]], None]
    ) -> list[Row]:
        """Write down what begins and what is over; the rows that are news to people.

        `queue` writes down, in the same transaction, who is to be told of these rows.
        """
        told = []
        with self._engine.begin() as db:
            for one in news:
                row = _begin(db, one) if one.began else _end(db, one)
                if row is not None:
                    told.append(row)
            queue(db, told)
        return told

    def page(
        self, now: int, *, everything: bool = False, before: int | None = None,
        limit: int = 500, cabinet: str | None = None, thing: str | None = None,
        severity: Severity | None = None, shelved: bool = False,
    ) -> list[Row]:  # fmt: skip
        """Alarms, newest first: those that want somebody, all that ever were, the shelf."""
        a = tables.alarm.c
        query = sa.select(tables.alarm).order_by(a.id.desc()).limit(limit)
        if not everything:
            query = query.where(a.cleared.is_(None) | a.acknowledged.is_(None))
        if before is not None:
            query = query.where(a.id < before)
        if cabinet is not None:
            query = query.where(a.cabinet == cabinet)
        if thing is not None:
            query = query.where(a.object == thing)
        if severity is not None:
            query = query.where(a.severity == severity)
        if shelved:
            query = query.where(a.shelved_until > now)
        with self._engine.connect() as db:
            rows = [dict(row) for row in db.execute(query).mappings()]
        return [row | {"state": state_of(row, now)} for row in rows]

    def counts(self, now: int) -> dict[str, int]:
        """How many alarms of each severity nobody has acknowledged."""
        a = tables.alarm.c
        query = (
            sa.select(a.severity, sa.func.count())
            .where(a.cleared.is_(None), a.acknowledged.is_(None))
            .where(a.shelved_until.is_(None) | (a.shelved_until <= now))
            .group_by(a.severity)
        )
        with self._engine.connect() as db:
            return {severity: int(number) for severity, number in db.execute(query)}

    def tally(self, now: int) -> dict[str, int]:
        """How many alarms are in each state that wants, or has wanted, somebody."""
        found = dict.fromkeys(
            ("unacknowledged", "acknowledged", "cleared", "shelved"), 0
        )
        a = tables.alarm.c
        shelved = sa.and_(a.shelved_until.is_not(None), a.shelved_until > now)
        state = sa.case(
            (shelved, "shelved"),
            (a.cleared.is_not(None), "cleared"),
            (a.acknowledged.is_not(None), "acknowledged"),
            else_="unacknowledged",
        )
        query = (
            sa.select(state, sa.func.count())
            .where(a.cleared.is_(None) | a.acknowledged.is_(None))
            .group_by(state)
        )
        with self._engine.connect() as db:
            return found | {name: int(number) for name, number in db.execute(query)}

    def codes(self, now: int) -> dict[str, int]:
        """How many alarms of each kind are not over and not shelved."""
        a = tables.alarm.c
        query = (
            sa.select(a.code, sa.func.count())
            .where(a.cleared.is_(None))
            .where(a.shelved_until.is_(None) | (a.shelved_until <= now))
            .group_by(a.code)
        )
        with self._engine.connect() as db:
            return {code: int(number) for code, number in db.execute(query)}

    def acknowledge(
        self, ids: Sequence[int], who: str, now: int, comment: str = ""
    ) -> int:
        """Somebody has seen them; returns how many nobody had before.

        A comment stands at all of them, and replaces the one before.
        """
        a = tables.alarm
        query = sa.update(a).where(a.c.id.in_(ids), a.c.acknowledged.is_(None))
        with self._engine.begin() as db:
            self._all_there(db, ids)
            made = db.execute(query.values(acknowledged=now, acknowledged_by=who))
            if comment:
                here = a.c.id.in_(ids)
                db.execute(sa.update(a).where(here).values(comment=comment))
            return made.rowcount

    def shelve(
        self, ids: Sequence[int], who: str, now: int, until: int, reason: str
    ) -> None:
        """Put alarms aside until a time [ms], with a reason.

        Raises
        ------
        Invalid
            It ends before it begins, or too late, or nobody says why.
        """
        if not now < until <= now + LONGEST_SHELF_MS:
            raise Invalid("an alarm is shelved until some time in the next 90 days")
        if not reason.strip():
            raise Invalid("say why it is shelved")
        self._set(
            ids, shelved_until=until, shelved_by=who, shelved_reason=reason.strip()
        )

    def unshelve(self, ids: Sequence[int]) -> None:
        """Take alarms from the shelf."""
        self._set(ids, shelved_until=None, shelved_by="", shelved_reason="")

    def assign(self, ids: Sequence[int], whom: str) -> None:
        """Say who looks after alarms."""
        self._set(ids, assigned=whom)

    def _set(self, ids: Sequence[int], **values: Any) -> None:
        query = sa.update(tables.alarm).where(tables.alarm.c.id.in_(ids))
        with self._engine.begin() as db:
            self._all_there(db, ids)
            db.execute(query.values(**values))

    @staticmethod
    def _all_there(db: sa.Connection, ids: Sequence[int]) -> None:
        query = sa.select(tables.alarm.c.id).where(tables.alarm.c.id.in_(ids))
        missing = set(ids) - set(db.execute(query).scalars())
        if missing:
            raise NotFound(f"no alarm {min(missing)}")


def _last(db: sa.Connection, news: News) -> Row | None:
    a = tables.alarm.c
    query = (
        sa.select(tables.alarm)
        .where(a.code == news.code, a.object == news.object)
        .order_by(a.id.desc())
        .limit(1)
    )
    row = db.execute(query).mappings().first()
    return None if row is None else dict(row)


def _begin(db: sa.Connection, news: News) -> Row | None:
    """A new alarm; or the last one again, where nobody has seen it yet."""
    last = _last(db, news)
    if last is not None and last["cleared"] is None:
        return None
    if (
        last is not None
        and last["acknowledged"] is None
        and news.ts - last["cleared"] < AGAIN_MS
    ):
        change = {"cleared": None, "times": last["times"] + 1, "detail": news.detail}
        here = tables.alarm.c.id == last["id"]
        db.execute(sa.update(tables.alarm).where(here).values(**change))
        return None  # those who were told once know already
    row = {
        "code": news.code,
        "object": news.object,
        "cabinet": news.cabinet,
        "severity": KINDS[news.code].severity,
        "detail": news.detail,
        "affected": news.affected,
        "times": 1,
        "raised": news.ts,
    }
    query = sa.insert(tables.alarm).values(**row).returning(tables.alarm.c.id)
    number = db.execute(query).scalar_one()
    return row | {"id": number, "cleared": None, "shelved_until": None}


def _end(db: sa.Connection, news: News) -> Row | None:
    last = _last(db, news)
    if last is None or last["cleared"] is not None:
        return None
    here = tables.alarm.c.id == last["id"]
    db.execute(sa.update(tables.alarm).where(here).values(cleared=news.ts))
    return last | {"cleared": news.ts}
