"""Small documents by kind and id: programmes, calendars, channels, and their history.

A document that could not be read back is not stored. One that cannot be read, because
it is older or was written by something else, is set aside and named; the others go on.
"""

import hashlib
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa

from duha_backend import tables
from duha_backend.alarms.channels import Channel
from duha_backend.alarms.quiet import Quiet
from duha_backend.database import Database
from duha_backend.errors import Conflict, Invalid, NotFound, Stale
from duha_backend.lighting.inventory import Group, LuminaireType, Stretch
from duha_backend.lighting.tariff import Tariff
from duha_backend.rain.events import DesignRain
from duha_backend.rain.series import GaugeCare, RainRules
from duha_backend.runoff.catchments import Catchment
from duha_backend.runoff.live import SwmmModel
from duha_backend.runoff.watch import Watch
from duha_contract.programmes import Calendar, Programme

Document = (
    Programme
    | Calendar
    | Group
    | Stretch
    | LuminaireType
    | Tariff
    | Quiet
    | Channel
    | DesignRain
    | GaugeCare
    | RainRules
    | Catchment
    | Watch
    | SwmmModel
)
D = TypeVar(
    "D", Programme, Calendar, Group, Stretch, LuminaireType, Tariff, Quiet, Channel,
    DesignRain, GaugeCare, RainRules, Catchment, Watch, SwmmModel,
)  # fmt: skip
_DOCUMENTS: dict[type[msgspec.Struct], str] = {
    Programme: "programme",
    Calendar: "calendar",
    Group: "group",
    Stretch: "stretch",
    LuminaireType: "type",
    Tariff: "tariff",
    Quiet: "quiet",
    Channel: "channel",
    DesignRain: "design_rain",
    GaugeCare: "gauge",
    RainRules: "rain_rules",
    Catchment: "catchment",
    Watch: "watch",
    SwmmModel: "model",
}
_OF_LIGHTING = {_DOCUMENTS[kind] for kind in (Programme, Calendar, Group, Stretch)}
"""Kinds whose change makes other documents for the controllers."""
JUDGING_S = 20.0
"""Longest wait for others who judge and store at the same time [s]."""
_JUDGING_LOCK = 7464
LONGEST_ID = 200
S = TypeVar("S", bound=msgspec.Struct)


class SetAside(NamedTuple):
    """A stored thing that cannot be read, and why."""

    kind: str
    id: str
    reason: str


class Version(NamedTuple):
    """What a document was from a time on [ms]; no body: it was taken away."""

    since: int
    who: str
    body: bytes | None


def tag(document: msgspec.Struct) -> str:
    """A short name for the content of a document; another content has another one."""
    return hashlib.sha256(msgspec.json.encode(document)).hexdigest()[:16]


class Documents:
    """Documents in the registry's database."""

    def __init__(self, database: Database) -> None:
        self._engine = database
        self._set_aside: dict[str, list[SetAside]] = {}
        self._judging = threading.Lock()

    @property
    def set_aside(self) -> list[SetAside]:
        """What could not be read when it was last read."""
        return [one for some in list(self._set_aside.values()) for one in some]

    def readable(
        self, what: str, rows: Iterable[tuple[str, bytes]], kind: type[S]
    ) -> dict[str, S]:
        """What can be read of some rows, by id; the others are set aside under `what`."""
        found: dict[str, S] = {}
        bad = []
        for name, body in rows:
            try:
                found[name] = msgspec.json.decode(body, type=kind)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                bad.append(SetAside(what, name, str(error)))
        self._set_aside[what] = bad
        return found

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Hold off others, here and elsewhere, who judge what is wanted and then store.

        Raises
        ------
        Conflict
            Others take too long.
        """
        until = time.monotonic() + JUDGING_S
        if not self._judging.acquire(timeout=JUDGING_S):
            raise Conflict("others are changing what is wanted; try again")
        try:
            if self._engine.embedded:
                yield
                return
            with self._engine.begin() as db:
                lock = sa.select(sa.func.pg_try_advisory_xact_lock(_JUDGING_LOCK))
                while not db.execute(lock).scalar():
                    if time.monotonic() > until:
                        raise Conflict("others are changing what is wanted; try again")
                    time.sleep(0.05)
                yield
        finally:
            self._judging.release()

    def save(
        self, document: Document, now: int = 0, who: str = "", match: str | None = None
    ) -> None:
        """Store a document, replacing the one with its id.

        Parameters
        ----------
        document : Document
            What to store.
        now, who : int, str
            When [ms] and by whom, for its history.
        match : str, optional
            Tag of what it replaces; "" for nothing.

        Raises
        ------
        Stale
            Somebody else has changed it since.
        """
        self.save_all([(document, match)], now, who)

    def save_all(
        self, documents: Iterable[tuple[Document, str | None]], now: int, who: str
    ) -> None:
        """Store documents that belong together, each with the tag it replaces: all or none.

        Raises
        ------
        Stale
            Somebody else has changed one of them since; nothing is stored.
        Invalid
            One of them could not be read back.
        """
        given = list(documents)
        bodies = [body_of(document) for document, _ in given]
        with self._engine.begin() as db:
            for (document, match), body in zip(given, bodies, strict=True):
                key = (_DOCUMENTS[type(document)], document.id)
                self._replace(db, key, body, now, who, match)

    def agree(self, kind: type[Any], name: str, match: str | None) -> None:
        """Raise Stale when a document is not the one with a tag any more."""
        found = self.find(kind, name)
        if match is not None and match != ("" if found is None else tag(found)):
            raise Stale(
                f"{_DOCUMENTS[kind]} {name!r} has been changed since; look again"
            )

    def drop(
        self, kind: type[D], name: str, now: int, who: str, match: str | None = None
    ) -> None:
        """Take a document away.

        Raises
        ------
        NotFound
            There is none.
        Stale
            Somebody else has changed it since.
        """
        d, key = tables.document.c, (_DOCUMENTS[kind], name)
        here = sa.select(d.id).where(d.kind == key[0], d.id == name)
        with self._engine.begin() as db:
            if db.execute(here).first() is None:
                raise NotFound(f"no {key[0]} {name!r}")
            self._replace(db, key, None, now, who, match)

    def _replace(
        self,
        db: sa.Connection,
        key: tuple[str, str],
        body: bytes | None,
        now: int,
        who: str,
        match: str | None,
    ) -> None:
        d = tables.document.c
        here = (d.kind == key[0]) & (d.id == key[1])
        old = db.execute(sa.select(d.body).where(here)).scalar()
        found = "" if old is None else _tag_of(key[0], old)
        if match is not None and match != found:
            raise Stale(f"{key[0]} {key[1]!r} has been changed since; look again")
        if old == body:
            return
        if old is None:
            row = {"kind": key[0], "id": key[1], "body": body}
            db.execute(sa.insert(tables.document), row)
        else:
            same = here & (d.body == old)  # nobody may come between
            change = (
                sa.delete(tables.document).where(same)
                if body is None
                else sa.update(tables.document).where(same).values(body=body)
            )
            if db.execute(change).rowcount == 0:
                raise Stale(f"{key[0]} {key[1]!r} has been changed since; look again")
        self._remember(db, key, now, who, body)
        changed(db, "documents")
        if key[0] in _OF_LIGHTING:
            changed(db, "wanted")

    @staticmethod
    def _remember(
        db: sa.Connection, key: tuple[str, str], now: int, who: str, body: bytes | None
    ) -> None:
        row = {"kind": key[0], "id": key[1], "ts": now, "who": who, "body": body}
        db.execute(sa.insert(tables.history), row)

    def all(self, kind: type[D]) -> list[D]:
        """All documents of a kind that can be read, by id; `set_aside` names the others."""
        d = tables.document.c
        name = _DOCUMENTS[kind]
        query = sa.select(d.id, d.body).where(d.kind == name).order_by(d.id)
        with self._engine.connect() as db:
            rows = [(row.id, row.body) for row in db.execute(query)]
        return list(self.readable(name, rows, kind).values())

    def find(self, kind: type[D], name: str) -> D | None:
        """The document of an id; None where there is none that can be read."""
        d = tables.document.c
        query = sa.select(d.body).where(d.kind == _DOCUMENTS[kind], d.id == name)
        with self._engine.connect() as db:
            body = db.execute(query).scalar()
        return None if body is None else _read(body, kind)

    def history(self, kind: type[D], name: str) -> list[Version]:
        """Every version of a document, newest first."""
        h = tables.history.c
        query = (
            sa.select(h.ts, h.who, h.body)
            .where(h.kind == _DOCUMENTS[kind], h.id == name)
            .order_by(h.number.desc())
        )
        with self._engine.connect() as db:
            return [Version(*row) for row in db.execute(query)]

    def all_at(self, kind: type[D], t: int) -> list[D]:
        """The documents of a kind as they were at a time [ms]."""
        bodies = self._at(_DOCUMENTS[kind], t).values()
        found = [_read(body, kind) for body in bodies]
        return [document for document in found if document is not None]

    def assignments_at(self, t: int) -> dict[str, str]:
        """Calendar by target, as it was at a time [ms]."""
        return {n: body.decode() for n, body in self._at("assignment", t).items()}

    def _at(self, kind: str, t: int) -> dict[str, bytes]:
        h = tables.history.c
        query = (
            sa.select(h.id, h.body)
            .where(h.kind == kind, h.ts <= t)
            .order_by(h.ts, h.number)
        )
        with self._engine.connect() as db:
            last: dict[str, bytes | None] = {
                row.id: row.body for row in db.execute(query)
            }
        return {name: body for name, body in last.items() if body is not None}

    def assign(
        self,
        target: str,
        calendar: str | None,
        now: int = 0,
        who: str = "",
        match: str | None = None,
    ) -> None:
        """Give a calendar to a luminaire, a stretch, a cabinet or "*", the city.

        None takes it away. `match` is the calendar that it replaces, "" for none; raises
        Stale when it is another one meanwhile.
        """
        a = tables.assignment
        here = a.c.target == target
        if match:
            here &= a.c.calendar == match
        with self._engine.begin() as db:
            if calendar is None and match != "":
                made = db.execute(sa.delete(a).where(here)).rowcount
            elif calendar is None:
                made = db.execute(sa.select(a.c.target).where(here)).first() is None
            elif match:
                change = sa.update(a).where(here).values(calendar=calendar)
                made = db.execute(change).rowcount
            else:
                new = tables.insert(db, a).values(target=target, calendar=calendar)
                put = {"calendar": calendar}
                new = (
                    new.on_conflict_do_update(index_elements=["target"], set_=put)
                    if match is None
                    else new.on_conflict_do_nothing()
                )
                made = db.execute(new.returning(a.c.target)).first() is not None
            if match is not None and not made:
                raise Stale(f"{target!r} has another calendar meanwhile; look again")
            body = None if calendar is None else calendar.encode()
            self._remember(db, ("assignment", target), now, who, body)
            changed(db, "wanted")

    def assignments(self) -> dict[str, str]:
        """Calendar by target."""
        with self._engine.connect() as db:
            return {
                row.target: row.calendar
                for row in db.execute(sa.select(tables.assignment))
            }


def changed(db: sa.Connection, name: str) -> None:
    """Have a number grow, so that others look again."""
    statement = tables.insert(db, tables.change).values(name=name, number=1)
    grown = {"number": tables.change.c.number + 1}
    db.execute(statement.on_conflict_do_update(index_elements=["name"], set_=grown))


def upsert(
    db: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]
) -> None:
    """Insert rows, replacing those of the same primary keys."""
    rows = list(rows)
    if not rows:
        return
    statement = tables.insert(db, table)
    keys = [column.name for column in table.primary_key]
    changes = {
        column.name: statement.excluded[column.name]
        for column in table.columns
        if column.name not in keys
    }
    db.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), rows)


def body_of(document: Document) -> bytes:
    """A document as it is stored.

    Raises
    ------
    Invalid
        It could not be read back: a number that is not finite, an id that is none.
    """
    kind = _DOCUMENTS[type(document)]
    if not 0 < len(document.id) <= LONGEST_ID or not document.id.isprintable():
        raise Invalid(f"{kind}: an id is 1 to {LONGEST_ID} printable characters")
    wrong = _not_finite(msgspec.structs.asdict(document))
    if wrong is not None:
        raise Invalid(f"{kind} {document.id}: {wrong} is no finite number")
    try:
        body = msgspec.json.encode(document)
        again = msgspec.json.decode(body, type=type(document))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Invalid(f"{kind} {document.id}: {error}") from None
    if again != document:
        raise Invalid(f"{kind} {document.id}: it would not be read back as it is")
    return body


def _not_finite(value: Any, path: str = "") -> str | None:
    """Path of the first number that is not finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path.strip(".")
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, Mapping):
        parts = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(str(number), part) for number, part in enumerate(value)]
    else:
        return None
    found = (_not_finite(part, f"{path}.{name}") for name, part in parts)
    return next((name for name in found if name is not None), None)


def _read(body: bytes, kind: type[D]) -> D | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _tag_of(kind: str, body: bytes) -> str:
    """Tag of what is stored; of what cannot be read, of its bytes."""
    struct = next(struct for struct, name in _DOCUMENTS.items() if name == kind)
    document = _read(body, struct)  # type: ignore[type-var]
    return hashlib.sha256(body).hexdigest()[:16] if document is None else tag(document)
