"""The registry's database: bounded waiting, one kind of error, and no queue at a dead server.

A server that is stopped or cut off keeps its connections open and never answers: TCP
time-outs and time-outs of the server itself do not help. So the client bounds its own
waiting, and after one call without an answer the next fail at once, until one call at a
time has tried again.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NoReturn

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from duha_backend.errors import Conflict, Invalid, RegistryDown

CONNECT_S = 2
PING_S = 1.5
SILENCE_S = 3.0
"""Longest time without a byte from the server within a statement [s]."""
POOL_S = 2.0
AGAIN_S = 0.5
"""After a call without an answer the next is tried so much later [s]."""
BUSY_MS = 3000
"""Longest wait for another writer of SQLite [ms]."""
POOL_SIZE, POOL_MORE = 10, 20
SERVER_SETTINGS = {
    "statement_timeout": "10s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "60s",
    # The server lets go of the locks of a client that has vanished.
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "client_connection_check_interval": "2s",
}
CLIENT_SETTINGS = {
    "connect_timeout": CONNECT_S,
    "tcp_user_timeout": 4000,
    "keepalives": 1,
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
}
SILENT = "the registry does not answer"
_ERRORS = (sa.exc.SQLAlchemyError, OverflowError)


class Database:
    """Connections to the registry's database; every error of its driver is a BackendError.

    Parameters
    ----------
    url : str
        SQLAlchemy's address of an SQLite file or a PostgreSQL database.
    """

    def __init__(self, url: str) -> None:
        try:
            self.engine = _engine(url)
        except (sa.exc.ArgumentError, ImportError) as error:
            raise Invalid(f"registry: {error}") from None
        self.dialect = self.engine.dialect
        self._gate = Gate()

    @property
    def embedded(self) -> bool:
        """Whether it is a file of this process's own."""
        return self.dialect.name == "sqlite"

    @contextlib.contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A connection for reading.

        Raises
        ------
        RegistryDown
            The database does not answer, or cannot do it now.
        Invalid
            A value that no database can keep.
        Conflict
            It contradicts what has been written meanwhile.
        """
        with self.calling(), self.engine.connect() as db:
            yield db

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction; raises as `connect` does."""
        with self.calling(), self.engine.begin() as db:
            yield db

    def dispose(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """Statements on a connection that somebody keeps; raises as `connect` does."""
        self._gate.enter()
        down = False
        try:
            yield
        except _ERRORS as error:
            down = not self.embedded and _is_silence(error)
            _raise(error)
        finally:
            (self._gate.failed if down else self._gate.answered)()


class Gate:
    """Lets calls through while the other side answers; after a failure one at a time.

    Parameters
    ----------
    again_s : float
        How long after a failure the next call may try [s].
    monotonic : callable, optional
        Time [s].
    """

    def __init__(
        self, again_s: float = AGAIN_S, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._again_s = again_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._again_at: float | None = None

    def enter(self) -> None:
        """Begin a call.

        Raises
        ------
        RegistryDown
            The last call had no answer, and another tries already or it is too early.
        """
        with self._lock:
            if self._again_at is None:
                return
            now = self._monotonic()
            if now < self._again_at:
                raise RegistryDown(SILENT, self._again_s)
            # This call tries; were its thread lost, another would a while later.
            self._again_at = now + CONNECT_S + PING_S + SILENCE_S

    def answered(self) -> None:
        """The call has had an answer."""
        if self._again_at is not None:
            with self._lock:
                self._again_at = None

    def failed(self) -> None:
        """The call had no answer."""
        with self._lock:
            self._again_at = self._monotonic() + self._again_s


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server is silent within a statement."""

    limit_s = SILENCE_S

    def wait(self, gen: Any, *args: Any, **more: Any) -> Any:
        """Wait for the outcome of a statement, at most `limit_s` without a byte [s]."""
        try:
            return super().wait(_bounded(gen, self.limit_s), *args, **more)
        except _Silence:
            self.pgconn.finish()
            message = f"no answer within {self.limit_s:g} s"
            raise NoAnswer(message) from None


class NoAnswer(psycopg.OperationalError):
    """The server was silent for too long."""


class _Silence(Exception):  # noqa: N818 - never leaves this module
    pass


def _bounded(
    waiting: Generator[Any, Any, Any], limit_s: float
) -> Generator[Any, Any, Any]:
    """Pass a driver's waiting on; raise when nothing has come for too long."""
    until = time.monotonic() + limit_s
    try:
        wanted = next(waiting)
        while True:
            ready = yield wanted
            if ready:
                until = time.monotonic() + limit_s
            elif time.monotonic() > until:
                raise _Silence
            wanted = waiting.send(ready)
    except StopIteration as done:
        return done.value


def insert(db: sa.Connection, table: sa.Table) -> Any:
    """An INSERT that can say what to do on conflict, in the dialect of the database."""
    made: Any = postgresql if db.dialect.name == "postgresql" else sqlite
    return made.insert(table)


def patient(db: sa.Connection, limit_s: float) -> None:
    """Let the statements of a transaction take longer than others."""
    if db.dialect.name == "postgresql":
        driver: Any = db.connection.driver_connection
        driver.limit_s = limit_s
        limit_ms = round(limit_s * 1000)
        for name in ("statement_timeout", "lock_timeout"):
            db.execute(sa.text(f"SET LOCAL {name} = {limit_ms}"))


def _engine(url: str) -> sa.Engine:
    made = sa.create_engine(
        url, pool_pre_ping=True, pool_size=POOL_SIZE, max_overflow=POOL_MORE,
        pool_timeout=POOL_S,
    )  # fmt: skip
    if made.dialect.name == "sqlite":
        sa.event.listen(made, "connect", _durable)
    else:
        sa.event.listen(made, "do_connect", _connected)
        sa.event.listen(made, "checkin", _as_before)
        _bound_ping(made.dialect)
    return made


def _connected(
    _dialect: object, _record: object, args: tuple[str, ...], settings: dict[str, Any]
) -> BoundedConnection:
    """Connect with every time-out; what the URL says itself stands."""
    server = [f"-c {name}={value}" for name, value in SERVER_SETTINGS.items()]
    settings = CLIENT_SETTINGS | settings
    settings["options"] = " ".join([*server, settings.get("options", "")]).strip()
    return BoundedConnection.connect(*args, **settings)


def _as_before(connection: Any, _record: object) -> None:
    if connection is not None:
        connection.limit_s = SILENCE_S


def _bound_ping(dialect: Any) -> None:
    """A connection from the pool that does not answer soon is replaced."""
    ping = dialect.do_ping

    def bounded(connection: Any) -> Any:
        connection.limit_s = PING_S
        try:
            return ping(connection)
        finally:
            connection.limit_s = SILENCE_S

    dialect.do_ping = bounded


def _durable(connection: Any, _record: object) -> None:
    """SQLite as a store: write-ahead log, on disk at commit, patient with others."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")


def _is_silence(error: Exception) -> bool:
    """Whether the server was silent; one that refuses or hangs up has answered."""
    silent = (NoAnswer, psycopg.errors.ConnectionTimeout)
    return isinstance(getattr(error, "orig", None), silent)


def _raise(error: Exception) -> NoReturn:
    said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    line = said.splitlines()[0]
    if isinstance(error, sa.exc.DataError | OverflowError):
        raise Invalid(f"the registry cannot keep this: {line}") from error
    if isinstance(error, sa.exc.IntegrityError):
        raise Conflict(f"it contradicts what is there: {line}") from error
    # The same words each time: what changes is logged, and a registry stays away a while.
    said = SILENT if _is_silence(error) else f"registry: {line}"
    raise RegistryDown(said) from error
