"""What ingest writes down beside the readings: events, what was refused, what to roll up.

Kept in the registry's database, whichever store has the readings, and shared by every
worker. Events and quarantine are bounded, in all and for each controller: the oldest go.
"""

import contextlib
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import sqlalchemy as sa

from duha_backend import tables
from duha_backend.database import Database
from duha_backend.errors import StoreDown
from duha_backend.readings import DAY_MS, Step
from duha_backend.trim import Caps, Kept, trim
from duha_backend.validate import Examined, Reject, clipped

MOST_RAW = 64 * 1024
"""Bytes of one refused thing that are kept; its reason says when there were more."""
MOST_QUARANTINED = 200_000
"""Refused things beyond which the oldest are deleted, so that poison cannot fill a disk."""
MOST_QUARANTINED_BYTES = 64 * 1024 * 1024
QUARANTINED_EACH = Caps(1000, 1024 * 1024)
EVENTS = Caps(1_000_000, 256 * 1024 * 1024)
EVENTS_EACH = Caps(50_000, 8 * 1024 * 1024)
EVENT_DAYS = 400
_TRIM_EVERY = 1000
_TRIM_BYTES = 1024 * 1024

Marked = Step | Literal["late"]
Bin = tuple[str, Marked, int]
"""Kind, step and start [ms] of a step with new readings."""


class Books:
    """The books, over the registry's engine.

    Every method raises StoreDown when the database is away or cannot do it now; any other
    error is the fault of what it was given.

    Attributes
    ----------
    deleted : dict of str to int
        Events and refused things that had to go since the start, for lack of room.
    """

    def __init__(self, engine: Database) -> None:
        self._engine = engine
        self._fresh = {"quarantine": Caps(0, 0), "event": Caps(0, 0)}
        self.deleted = {"quarantine": 0, "event": 0}

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
        self._came("event", len(events), sum(len(str(e["detail"])) for e in events))
        self._came("quarantine", len(rejects), sum(len(r.raw) for r in rejects))
        with contextlib.suppress(StoreDown):  # it is trimmed with what comes next
            self.trim(received_ms)

    def refuse(self, rejects: Sequence[Reject], received_ms: int) -> None:
        """Put things into quarantine."""
        if rejects:
            self.write([Examined("", rejects=list(rejects))], received_ms)

    @staticmethod
    def _refuse(db: sa.Connection, rejects: Sequence[Reject], received_ms: int) -> None:
        if rejects:
            rows = [{**_row(reject), "received": received_ms} for reject in rejects]
            db.execute(sa.insert(tables.quarantine), rows)

    # -- bounds --------------------------------------------------------------------

    def _came(self, table: str, things: int, size: int) -> None:
        before = self._fresh[table]
        self._fresh[table] = Caps(before.things + things, before.bytes + size)

    def trim(self, now_ms: int) -> None:
        """Delete the oldest things beyond the bounds, once enough has come."""
        kept = {
            "quarantine": Kept(
                tables.quarantine, tables.quarantine.c.id, tables.quarantine.c.raw,
                Caps(MOST_QUARANTINED, MOST_QUARANTINED_BYTES), QUARANTINED_EACH,
            ),
            "event": Kept(
                tables.event, tables.event.c.ts, tables.event.c.detail, EVENTS,
                EVENTS_EACH, oldest=now_ms - EVENT_DAYS * DAY_MS,
            ),
        }  # fmt: skip
        for name, what in kept.items():
            fresh = self._fresh[name]
            if fresh.things >= _TRIM_EVERY or fresh.bytes >= _TRIM_BYTES:
                self.deleted[name] += trim(self._engine, what)
                self._fresh[name] = Caps(0, 0)

    # -- reading -------------------------------------------------------------------

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

    def marked(self, step: Marked | None = None) -> list[tuple[str, Marked, int, str]]:
        """Steps with new readings, and their marks: the finer first, then the newer.

        Late readings of a month must not hold up the roll-ups of today. Rain that is to
        be judged again goes by time.
        """
        u = tables.unrolled
        age = sa.case((u.c.step == "late", u.c.start), else_=-u.c.start)
        query = sa.select(u.c.kind, u.c.step, u.c.start, u.c.mark)
        if step is not None:
            query = query.where(u.c.step == step)
        query = query.order_by(u.c.step, age)  # "15m" is before "1d"
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
    reason, n = clipped(reject.reason), len(reject.raw)
    if n > MOST_RAW:
        reason = f"{reason} [{MOST_RAW} of {n} bytes kept]"
    return {
        "controller": reject.controller,
        "kind": reject.kind,
        "reason": reason,
        "raw": reject.raw[:MOST_RAW],
    }
