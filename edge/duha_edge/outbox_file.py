"""The file of the outbox: its lock, its versions, and what is done when it is broken."""

import fcntl
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from duha_edge.errors import ConfigError, OutboxError
from duha_edge.outbox_rows import count, meta, write

log = logging.getLogger(__name__)

BUSY_S = 2.0
"""How long another program may hold the file before that is an error [s]."""
RETRY_S = 5.0
"""How often a file that cannot be opened is tried again."""
REOPEN_AFTER = 5
"""Errors in a row after which the file is opened again."""
_FAILING = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS batch (
        seq INTEGER PRIMARY KEY, vital INTEGER NOT NULL, payload BLOB NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS batch_by_class ON batch (vital, seq);
    CREATE TABLE IF NOT EXISTS counter (
        device TEXT PRIMARY KEY, raw INTEGER NOT NULL, ts INTEGER NOT NULL) STRICT;
    """,
    """
    ALTER TABLE batch ADD COLUMN boot TEXT NOT NULL DEFAULT '';
    ALTER TABLE batch ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE batch ADD COLUMN clock TEXT NOT NULL DEFAULT 'trusted';
    """,
    # What waits for a number of the wire, and what has one. All batches of the versions
    # before had theirs from the beginning, and those with a right time may have gone out.
    """
    CREATE TABLE queue (
        vital INTEGER NOT NULL, seq INTEGER NOT NULL, size INTEGER NOT NULL,
        boot TEXT NOT NULL, since INTEGER NOT NULL, clock TEXT NOT NULL,
        PRIMARY KEY (vital, seq)) STRICT, WITHOUT ROWID;
    CREATE TABLE sent (
        vital INTEGER NOT NULL, seq INTEGER NOT NULL,
        outbox TEXT NOT NULL, number INTEGER NOT NULL,
        PRIMARY KEY (vital, seq)) STRICT, WITHOUT ROWID;
    CREATE INDEX sent_by_number ON sent (outbox, number);
    INSERT INTO queue SELECT vital, seq, length(payload), boot, since, clock
        FROM batch WHERE clock = 'unset' AND boot = this_boot();
    INSERT INTO sent SELECT vital, seq, (SELECT value FROM meta WHERE name = 'id'), seq
        FROM batch WHERE NOT (clock = 'unset' AND boot = this_boot());
    DROP INDEX batch_by_class;
    """,
)
"""One script for each version of the schema, ever; a file says which it has."""


class Lock:
    """The right to a folder, for as long as this process lives or until `release`.

    Raises
    ------
    ConfigError
        Another agent has it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = -1
        try:
            self._file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            problem = f"another agent runs on folder {folder}: stop it first"
            raise ConfigError(problem) from None
        except OSError as error:  # a file system without locks: lights go first
            log.warning("folder %s cannot be locked: %s", folder, error)

    def release(self) -> None:
        """Let another agent have the folder."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@dataclass
class State:
    """What the file says of itself, as the last transaction left it.

    Attributes
    ----------
    id : str
        Name that batches which get a number now have on the wire.
    number : int
        The next number of that name.
    next : int
        The place of the next batch in the file.
    lost, told : int
        Batches that were dropped, and how many of them were reported.
    newest : int
        Time of the newest reading by a trusted clock [ms].
    count : int
        Batches in the file.
    """

    id: str = ""
    number: int = 1
    next: int = 1
    lost: int = 0
    told: int = 0
    newest: int = 0
    count: int = 0


class OutboxFile:
    """The file with its state; opened again where that helps. One thread at a time.

    Parameters
    ----------
    path : Path
        The file; its folder is locked.
    boot : str
        Name of this boot.

    Attributes
    ----------
    state : State
        Of the last transaction that succeeded.
    trouble : str
        The last error; empty when there is none.
    """

    def __init__(
        self, path: Path, boot: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self.state = State()
        self.trouble = ""
        self._boot = boot
        self._monotonic = monotonic
        self._folder = Lock(path.parent)
        self._db: sqlite3.Connection | None = None
        self._closed = False
        self._errors = 0
        self._try_at = -RETRY_S

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction; when it fails the state is as before.

        Raises
        ------
        OutboxError
            Nothing was written.
        """
        with self.reading() as db:
            before = State(*vars(self.state).values())
            try:
                with db:
                    db.execute("BEGIN IMMEDIATE")
                    yield db
            except BaseException:
                self.state = before
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The open file; its errors are `OutboxError`."""
        db = self.opened()
        try:
            yield db
        except sqlite3.Error as error:
            raise self._failed(error) from error
        self._errors = 0

    def keep(self, db: sqlite3.Connection, *names: str) -> None:
        """Write parts of the state."""
        write(db, {name: getattr(self.state, name) for name in names})

    def begin_name(self, db: sqlite3.Connection) -> None:
        """Let numbers begin at 1 under a new name."""
        self.state.id, self.state.number = uuid.uuid4().hex[:12], 1
        self.keep(db, "id", "number")

    def opened(self) -> sqlite3.Connection:
        """The file, opened now if it is not; at most every few seconds.

        Raises
        ------
        OutboxError
            It cannot be opened now.
        """
        if self._db is not None:
            return self._db
        now = self._monotonic()
        if self._closed or now < self._try_at + RETRY_S:
            raise OutboxError(self.trouble or f"outbox {self.path} is closed")
        self._try_at = now
        try:
            self._db = db = open_file(self.path, self._boot)
            self._read(db)
        except (sqlite3.Error, OSError, ValueError) as error:
            self.shut()
            self.trouble = f"outbox {self.path}: {error}"
            raise OutboxError(self.trouble) from error
        return db

    def _read(self, db: sqlite3.Connection) -> None:
        """Read the state; each boot and each place of the file has a name of its own."""
        known = meta(db)
        lost = int(known.get("lost", 0))
        self.state = State(
            known.get("id", ""), int(known.get("number", 1)), int(known.get("next", 1)),
            lost, int(known.get("told", lost)), int(known.get("newest", 0)), count(db),
        )  # fmt: skip
        file = self.path.stat()
        place = f"{self._boot} {file.st_dev}:{file.st_ino}"
        if known.get("place") != place:
            with db:
                write(db, {"place": place})
                self.begin_name(db)
                self.keep(db, "next", "lost", "told")

    def _failed(self, error: sqlite3.Error) -> OutboxError:
        """Take note of an error.

        A file that is broken, or fails again and again, is opened again.
        """
        self.trouble = f"outbox {self.path}: {error}"
        if _code(error) == sqlite3.SQLITE_FULL and self._db is not None:
            # What the log holds goes into the file; then the log's own room serves again.
            with suppress(sqlite3.Error):
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._errors += _code(error) in _FAILING
        if broken(error) or self._errors >= REOPEN_AFTER:
            self.shut()
            self._errors = 0
        return OutboxError(self.trouble)

    def shut(self) -> None:
        """Close the file; it may be opened again."""
        if self._db is not None:
            try:
                self._db.close()
            except sqlite3.Error as error:
                log.warning("outbox %s: %s", self.path, error)
            self._db = None

    def close(self) -> None:
        """Close the file for good, and let others have the folder."""
        self.shut()
        self._closed = True
        self._folder.release()


def open_file(path: Path, boot: str) -> sqlite3.Connection:
    """Open the outbox; only a file that is broken is set aside and a new one begun.

    Raises
    ------
    sqlite3.Error, OSError
        The file cannot be opened now: locked, no room, the disk fails. It stays.
    """
    try:
        return _connect(path, boot)
    except sqlite3.Error as error:
        if not broken(error):
            raise
        aside = path.with_name(f"{path.name}.corrupt-{uuid.uuid4().hex[:6]}")
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            beside = path.with_name(path.name + suffix)
            if beside.exists():  # what is in the log belongs to the file
                beside.replace(aside.with_name(aside.name + suffix))
        log.error("outbox %s is corrupt (%s); set aside as %s", path, error, aside.name)  # noqa: TRY400
        return _connect(path, boot)


def broken(error: sqlite3.Error) -> bool:
    """Whether an error says that the file itself is damaged."""
    return _code(error) in _BROKEN


def _code(error: sqlite3.Error) -> int:
    """Primary result code of SQLite; 0 where there is none."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _connect(path: Path, boot: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            damaged = sqlite3.DatabaseError(state)
            damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damaged
        db.create_function("this_boot", 0, lambda: boot)
        _migrate(db)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection) -> None:
    """Bring a file of any earlier version to this one, a version a transaction."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        try:
            db.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error:
            if db.in_transaction:
                db.rollback()
            raise
