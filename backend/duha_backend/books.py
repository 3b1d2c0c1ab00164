"""What ingest writes down beside the readings: events, what was refused, what to roll up.

Kept in the registry's database, whichever store has the readings, and shared by every
worker.
"""

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import sqlalchemy as sa

from duha_backend import tables
from duha_backend.database import Database
from duha_backend.readings import Step
from duha_backend.validate import Examined, Reject

MOST_QUARANTINED = 200_000
"""Refused things beyond which the oldest are deleted, so that poison cannot fill a disk."""
_TRIM_EVERY = 10_000

Marked = Step | Literal["late"]
Bin = tuple[str, Marked, int]
"""Kind, step and start [ms] of a step with new readings."""


class Books:
    """The books, over the registry's engine."""

    def __init__(self, engine: Database) -> None:
        self._engine = engine
        self._untrimmed = 0

    def write(self, messages: Sequence[Examined], received_ms: int) -> None:
        """Write down the events and what was refused of some messages; twice is once."""
        events = [
            {"controller": m.controller, "ts": e.ts, "code": e.code,
             "device": e.device or "", "detail": e.detail}
            for m in messages if m.batch is not None for e in m.batch.events
        ]  # fmt: skip
        rejects = [reject for message in messages for reject in message.rejects]
        if not (events or rejects):
            return
        with self._engine.begin() as db:
            if events:
                statement = tables.insert(db, tables.event).on_conflict_do_nothing()
                db.execute(statement, events)
            self._refuse(db, rejects, received_ms)

    def refuse(self, rejects: Sequence[Reject], received_ms: int) -> None:
        """Put things into quarantine."""
        if rejects:
            with self._engine.begin() as db:
                self._refuse(db, rejects, received_ms)

    def _refuse(
        self, db: sa.Connection, rejects: Sequence[Reject], received_ms: int
    ) -> None:
        if not rejects:
            return
        rows = [{**_row(reject), "received": received_ms} for reject in rejects]
        db.execute(sa.insert(tables.quarantine), rows)
        self._untrimmed += len(rows)
        if self._untrimmed >= _TRIM_EVERY:
            self._untrimmed = 0
            q = tables.quarantine.c
            newest = db.execute(sa.select(sa.func.max(q.id))).scalar_one()
            oldest = newest - MOST_QUARANTINED
            db.execute(sa.delete(tables.quarantine).where(q.id <= oldest))

    def quarantine(
        self, before: int | None, limit: int, controller: str | None = None
    ) -> list[dict[str, Any]]:
        """What was refused, newest first."""
        q = tables.quarantine
        query = sa.select(q).order_by(q.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(q.c.id < before)
        if controller is not None:
            query = query.where(q.c.controller == controller)
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    def quarantined(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Refused things by their numbers, those only that were not played again."""
        q = tables.quarantine
        query = sa.select(q).where(q.c.id.in_(numbers), q.c.replayed.is_(None))
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    def replayed(self, numbers: Sequence[int], now_ms: int) -> None:
        """Note that refused things have been stored after all."""
        q = tables.quarantine
        with self._engine.begin() as db:
            db.execute(sa.update(q).where(q.c.id.in_(numbers)).values(replayed=now_ms))

    def events(
        self, since_ms: int, until_ms: int, controller: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Events of a span, newest first."""
        e = tables.event
        query = (
            sa.select(e)
            .where(e.c.ts >= since_ms, e.c.ts < until_ms)
            .order_by(e.c.ts.desc())
            .limit(limit)
        )
        if controller is not None:
            query = query.where(e.c.controller == controller)
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    def count(self) -> dict[str, int]:
        """How many events there are, and refused things that wait."""
        waiting = tables.quarantine.c.replayed.is_(None)
        queries = {
            "event": sa.select(sa.func.count()).select_from(tables.event),
            "quarantine": sa.select(sa.func.count()).where(waiting),
        }
        with self._engine.connect() as db:
            return {name: db.execute(q).scalar_one() for name, q in queries.items()}

    # -- what is to be rolled up ---------------------------------------------------

    def mark(self, bins: Iterable[Bin]) -> None:
        """Note that steps have new readings."""
        rows = [
            {"kind": kind, "step": step, "start": start, "mark": secrets.token_hex(4)}
            for kind, step, start in bins
        ]
        if not rows:
            return
        with self._engine.begin() as db:
            statement = tables.insert(db, tables.unrolled)
            keys = ["kind", "step", "start"]
            changes = {"mark": statement.excluded.mark}
            db.execute(
                statement.on_conflict_do_update(index_elements=keys, set_=changes), rows
            )

    def marked(self) -> list[tuple[str, Marked, int, str]]:
        """Steps with new readings, the finer first, the older first; and their marks."""
        u = tables.unrolled
        query = sa.select(u.c.kind, u.c.step, u.c.start, u.c.mark)
        query = query.order_by(u.c.step, u.c.start)  # "15m" is before "1d"
        with self._engine.connect() as db:
            return [tuple(row) for row in db.execute(query)]

    def unmark(self, kind: str, step: Marked, start: int, mark: str) -> None:
        """Forget a step that was rolled up, unless it has been marked again since."""
        u = tables.unrolled.c
        with self._engine.begin() as db:
            db.execute(
                sa.delete(tables.unrolled).where(
                    u.kind == kind, u.step == step, u.start == start, u.mark == mark
                )
            )


def _row(reject: Reject) -> dict[str, Any]:
    return {
        "controller": reject.controller,
        "kind": reject.kind,
        "reason": reject.reason,
        "raw": reject.raw,
    }
