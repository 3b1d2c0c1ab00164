"""The book of runs: what models have reckoned, and how it went.

States after Delft-FEWS: pending, running, failed, complete; or cancelled. A run begins cold, and is warm
when it has been replayed up to where rain is known.
"""

import secrets
from typing import Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa

from duha_backend import tables
from duha_backend.database import Database
from duha_backend.drainage.turns import Busy

State = Literal["pending", "running", "failed", "complete", "cancelled"]
RunKind = Literal["live", "forecast", "study"]
KEPT = {"live": 20, "forecast": 300, "study": 200}
"""Runs that are kept: of each model; studies, all together."""
MOST_RUNS = 3_000
"""Runs of a kind that are kept of all models together, removed ones among them."""
OVER: tuple[State, ...] = ("complete", "failed", "cancelled")
MOST_PENDING, MOST_PENDING_EACH = 20, 4
_PLAIN = [column for column in tables.run.c if column.name != "result"]


class Run(NamedTuple):
    """A run.

    Attributes
    ----------
    start, t0 : int
        First moment, and up to when rain was known (the time of the forecast) [ms].
    begun, ended : int
        When it was reckoned [ms].
    warm : bool
        Whether it had been replayed up to `t0`.
    """

    id: str
    kind: RunKind
    model: str
    state: State
    warm: bool
    start: int
    t0: int
    begun: int
    ended: int | None
    detail: str


class Runs:
    """Runs in the registry's database."""

    def __init__(self, engine: Database) -> None:
        self._engine = engine
        self._seen: dict[str, tuple[tuple[str, int, str], Any]] = {}

    def begin(
        self, kind: RunKind, model: str, start: int, t0: int, now: int, mark: str = "",
        state: State = "running", result: Any = None,
    ) -> str:  # fmt: skip
        """Write a new run down; the oldest of its kind are forgotten."""
        name = f"{mark}-{secrets.token_hex(6)}".lstrip("-")
        row = {
            "id": name, "kind": kind, "model": model, "state": state, "warm": False,
            "start": start, "t0": t0, "begun": now, "ended": None, "detail": "",
            "result": None if result is None else msgspec.json.encode(result),
        }  # fmt: skip
        r = tables.run.c
        mine = r.kind == kind
        if kind != "study":
            mine &= r.model == model
        newest = (
            sa.select(r.id).where(mine).order_by(r.begun.desc()).limit(KEPT[kind] - 1)
        )
        with self._engine.begin() as db:
            keep = list(db.execute(newest).scalars())
            over = mine & r.id.not_in(keep) & r.state.in_(OVER)
            db.execute(sa.delete(tables.run).where(over))
            old = (
                sa.select(r.id)
                .where(r.kind == kind, r.state.in_(OVER))
                .order_by(r.begun.desc())
                .offset(MOST_RUNS)
            )
            ids = list(db.execute(old).scalars())
            if ids:
                db.execute(sa.delete(tables.run).where(r.id.in_(ids[:500])))
            db.execute(sa.insert(tables.run), row)
        return name

    def update(self, name: str, only: State | None = None, **values: Any) -> bool:
        """Change a run, `only` while it is in a state; `result` is anything that is JSON.

        Returns whether it was changed.
        """
        if "result" in values:
            values["result"] = msgspec.json.encode(values["result"])
        query = sa.update(tables.run).where(tables.run.c.id == name).values(**values)
        if only is not None:
            query = query.where(tables.run.c.state == only)
        with self._engine.begin() as db:
            return db.execute(query).rowcount > 0

    def ask(self, model: str, now: int, asked: Any, by: str) -> str:
        """Write a study down that waits to be carried out.

        Raises
        ------
        Busy
            Too many wait already, of all or of whoever asks.
        """
        waiting = [self.result(run.id) or {} for run in self.pending("study")]
        mine = sum(one.get("by") == by for one in waiting)
        if mine >= MOST_PENDING_EACH or len(waiting) >= MOST_PENDING:
            raise Busy(
                f"{len(waiting)} studies wait, {mine} of them yours: at most"
                f" {MOST_PENDING}, {MOST_PENDING_EACH} of each; wait, or cancel one",
                after_s=60.0,
            )
        result = {"asked": asked, "by": by}
        return self.begin("study", model, now, now, now, state="pending", result=result)

    def end_all(self, kind: RunKind, model: str, now: int, detail: str) -> None:
        """Whatever of a kind still runs has failed, as its process is gone."""
        r = tables.run.c
        query = (
            sa.update(tables.run)
            .where(r.kind == kind, r.model == model, r.state == "running")
            .values(state="failed", ended=now, detail=detail)
        )
        with self._engine.begin() as db:
            db.execute(query)

    def newest(self, model: str) -> tuple[Run | None, Any]:
        """The live run of a model and what it has found; read once for each minute of it."""
        runs = self.page("live", model, 1)
        if not runs:
            return None, None
        run = runs[0]
        seen = (run.id, run.t0, run.state)
        if self._seen.get(model, (None,))[0] != seen:
            self._seen[model] = (seen, self.result(run.id))
        return run, self._seen[model][1]

    def find(self, name: str) -> Run | None:
        """A run."""
        query = sa.select(*_PLAIN).where(tables.run.c.id == name)
        with self._engine.connect() as db:
            row = db.execute(query).first()
        return None if row is None else _run(row)

    def result(self, name: str) -> Any:
        """What a run has found; None for nothing yet."""
        query = sa.select(tables.run.c.result).where(tables.run.c.id == name)
        with self._engine.connect() as db:
            raw = db.execute(query).scalar()
        return None if raw is None else msgspec.json.decode(raw)

    def page(
        self, kind: RunKind | None = None, model: str | None = None, limit: int = 50
    ) -> list[Run]:
        """Runs, newest first."""
        r = tables.run.c
        query = sa.select(*_PLAIN).order_by(r.begun.desc()).limit(limit)
        if kind is not None:
            query = query.where(r.kind == kind)
        if model is not None:
            query = query.where(r.model == model)
        with self._engine.connect() as db:
            return [_run(row) for row in db.execute(query)]

    def pending(self, kind: RunKind) -> list[Run]:
        """Runs that wait for somebody, oldest first."""
        r = tables.run.c
        query = sa.select(*_PLAIN).where(r.kind == kind, r.state == "pending")
        with self._engine.connect() as db:
            return [_run(row) for row in db.execute(query.order_by(r.begun))]


def _run(row: Any) -> Run:
    return Run(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
