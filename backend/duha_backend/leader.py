"""One leader among several processes: a lock in PostgreSQL that dies with its holder."""

import logging

import sqlalchemy as sa

log = logging.getLogger(__name__)

_LOCKS = {"control": 7462, "runoff": 7463}


class Leadership:
    """Whether this process is the one that controls, or looks after runoff.

    Who holds the lock leads; when a leader dies, its connection goes, the lock is free, and
    the first to ask has it. With SQLite there is one process, which leads.
    """

    def __init__(self, engine: sa.Engine, name: str = "control") -> None:
        self._engine = engine
        self._name = name
        self._connection: sa.Connection | None = None
        self.held = False

    def ask(self) -> bool:
        """Get hold of the lock, or see that it is still held."""
        before = self.held
        self.held = self._ask()
        if self.held != before:
            log.info("%s: %s", self._name, "leads now" if self.held else "stands by")
        return self.held

    def _ask(self) -> bool:
        if self._engine.dialect.name != "postgresql":
            return True
        try:
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(
                    isolation_level="AUTOCOMMIT"
                )
            if self.held:
                self._connection.execute(sa.select(1))
                return True
            query = sa.select(sa.func.pg_try_advisory_lock(_LOCKS[self._name]))
            return bool(self._connection.execute(query).scalar())
        except sa.exc.DBAPIError as error:
            log.warning("%s: the registry does not answer: %s", self._name, error.orig)
            self.close()
            return False

    def close(self) -> None:
        """Let the lock go."""
        self.held = False
        if self._connection is not None:
            # The lock belongs to the session: it must end, not return to the pool.
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
