"""One leader among several processes: a lock in PostgreSQL, and a term for each leader.

The lock dies with the session that holds it. A leader that is cut off from the registry
cannot know whether it still holds it: it stops leading by its own clock after `LEASE_S`
without a confirmation, and who takes over from a leader that has not resigned waits for
longer than that.
"""

import contextlib
import logging
import secrets
import time
from collections.abc import Callable

import sqlalchemy as sa

from duha_backend import tables
from duha_backend.database import Database
from duha_backend.errors import BackendError

log = logging.getLogger(__name__)

_LOCKS = {"control": 7462, "runoff": 7463}
LEASE_S = 4.0
"""A leader that could not confirm that it leads for so long leads no more [s]."""
TAKE_OVER_S = 5.0
"""How long a new leader waits for one that may not know yet that it leads no more [s]."""


class Leadership:
    """Whether this process is the one that controls, or looks after runoff.

    Who holds the lock leads; when a leader dies, its connection goes, the lock is free, and
    the first to ask has it. With SQLite there is one process, which leads.

    Parameters
    ----------
    database : Database
        The registry's.
    name : str
        What is led.
    monotonic : callable, optional
        Time [s].
    wall : callable, optional
        POSIX time [s]. No term is below it: a registry that was emptied or restored from a
        backup begins above every term that controllers have seen.

    Attributes
    ----------
    term : int
        Number of the present leadership, raised by each new leader; 0 before the first.
    """

    def __init__(
        self, database: Database, name: str = "control",
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._database = database
        self._name = name
        self._monotonic = monotonic
        self._wall = wall
        self._me = secrets.token_hex(8)
        self._connection: sa.Connection | None = None
        self._locked_at: float | None = None
        self._confirmed_at: float | None = None
        self._said = False
        self.term = 0

    @property
    def held(self) -> bool:
        """Whether this process leads now: confirmed, and not too long ago."""
        if self._confirmed_at is None:
            return False
        if self._database.embedded:
            return True
        return self._monotonic() < self._confirmed_at + LEASE_S

    def ask(self) -> bool:
        """Get hold of the lock, or confirm that it is still held; whether we lead.

        Raises
        ------
        RegistryDown
            The registry does not answer; who has led goes on until its time is over.
        """
        try:
            self._ask(self._monotonic())
        finally:
            if self.held != self._said:
                self._said = self.held
                said = f"leads now, term {self.term}" if self.held else "stands by"
                log.info("%s: %s", self._name, said)
        return self.held

    def _ask(self, now: float) -> None:
        if self._database.embedded:
            if self._confirmed_at is None:
                with self._database.begin() as db:
                    self.term = self._begin_term(db)
                self._confirmed_at = now
            return
        try:
            with self._database.calling():
                self._ask_server(now)
        except BackendError:
            self._drop()
            raise

    def _ask_server(self, now: float) -> None:
        if not self.held:
            self._confirmed_at = None
        if self._connection is None:
            made = self._database.engine.connect()
            self._connection = made.execution_options(isolation_level="AUTOCOMMIT")
        db = self._connection
        if self._locked_at is None:
            lock = sa.select(sa.func.pg_try_advisory_lock(_LOCKS[self._name]))
            if not db.execute(lock).scalar():
                return
            self._locked_at = now
        holder = self._holder(db)
        if holder != self._me:
            self._confirmed_at = None
            if holder and self._monotonic() < self._locked_at + TAKE_OVER_S:
                return
            self.term = self._begin_term(db)
        self._confirmed_at = now

    def _holder(self, db: sa.Connection) -> str:
        """Who leads by the registry; empty when the last one has resigned."""
        t = tables.leadership.c
        query = sa.select(t.holder).where(t.name == self._name)
        return db.execute(query).scalar() or ""

    def _begin_term(self, db: sa.Connection) -> int:
        t = tables.leadership
        least = max(1, int(self._wall()))
        row = {"name": self._name, "term": least, "holder": self._me}
        statement = tables.insert(db, t).values(row)
        after = sa.case((t.c.term >= least, t.c.term + 1), else_=least)
        grown = {"term": after, "holder": self._me}
        statement = statement.on_conflict_do_update(index_elements=["name"], set_=grown)
        return int(db.execute(statement.returning(t.c.term)).scalar_one())

    def close(self) -> None:
        """Resign, so that another may lead at once."""
        connection = self._connection
        if connection is not None and self.held:
            mine = (tables.leadership.c.name == self._name) & (
                tables.leadership.c.holder == self._me
            )
            resigned = sa.update(tables.leadership).where(mine).values(holder="")
            with contextlib.suppress(BackendError), self._database.calling():
                connection.execute(resigned)
        self._drop()
        self._confirmed_at = None

    def _drop(self) -> None:
        """Let the lock go; what was confirmed holds until its time is over."""
        self._locked_at = None
        if not self.held:
            self._confirmed_at = None
        connection, self._connection = self._connection, None
        if connection is not None:
            # The lock belongs to the session: it must end, not return to the pool.
            connection.invalidate()
            connection.close()
