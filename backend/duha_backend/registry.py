"""The registry: assets, programmes, overrides, desired documents, tokens, audit.

SQLAlchemy Core, so that SQLite and PostgreSQL are the same to everybody else.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa

from duha_backend import tables
from duha_backend.alarms.channels import Channel
from duha_backend.alarms.quiet import Quiet
from duha_backend.errors import NotFound, Stale
from duha_backend.lighting.inventory import Asset, Group, LuminaireType, Stretch
from duha_backend.lighting.tariff import Tariff
from duha_backend.lighting.wanted import Sensed, StoredOverride
from duha_backend.rain.events import DesignRain
from duha_backend.rain.series import GaugeCare, RainRules
from duha_backend.runoff.catchments import Catchment
from duha_backend.runoff.live import SwmmModel
from duha_backend.runoff.watch import Watch
from duha_contract.lighting import Override
from duha_contract.messages import Desired
from duha_contract.programmes import Calendar, Programme

Role = Literal["viewer", "operator", "engineer", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "engineer", "admin")
"""What somebody may do; each may do what those before may."""
_SENSED_KEPT_MS = 31 * 24 * 3_600_000
_LONGEST_SESSION_MS = 24 * 3_600_000
_BULK = 5000


class User(NamedTuple):
    """Who asks, and what they may do."""

    name: str
    role: Role
    session: bool = False


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


class Version(NamedTuple):
    """What a document was from a time on [ms]; no body: it was taken away."""

    since: int
    who: str
    body: bytes | None


def tag(document: msgspec.Struct) -> str:
    """A short name for the content of a document; another content has another one."""
    return hashlib.sha256(msgspec.json.encode(document)).hexdigest()[:16]


class Registry:
    """The registry behind one database URL."""

    def __init__(self, url: str) -> None:
        self.engine = tables.open_engine(url)
        self._engine = self.engine

    @classmethod
    def in_folder(cls, folder: Path) -> "Registry":
        """The embedded registry of a data folder."""
        return cls(f"sqlite:///{folder / 'registry.db'}")

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def backup(self, folder: Path) -> str | None:
        """Copy an SQLite registry into a folder; None for a server's database."""
        if self._engine.dialect.name != "sqlite":
            return None
        with self._engine.connect() as db:
            db.execute(
                sa.text("VACUUM INTO :file"), {"file": str(folder / "registry.db")}
            )
        return "registry.db"

    # -- assets ------------------------------------------------------------------

    def put_assets(
        self, assets: Iterable[Asset], streets: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Take assets, replacing those of the same ids; streets replace all streets."""
        rows = [asset._asdict() for asset in assets]
        with self._engine.begin() as db:
            if streets:
                db.execute(sa.delete(tables.street))
                db.execute(sa.insert(tables.street), list(streets))
            for start in range(0, len(rows), _BULK):
                self._upsert(db, tables.asset, rows[start : start + _BULK])
            self._changed(db, "assets")

    def assets(self, kind: str | None = None) -> list[Asset]:
        """All assets, or those of a kind, by id."""
        query = sa.select(tables.asset).order_by(tables.asset.c.id)
        if kind is not None:
            query = query.where(tables.asset.c.kind == kind)
        with self._engine.connect() as db:
            return [Asset(*row) for row in db.execute(query)]

    def owners(self) -> dict[str, str]:
        """Cabinet of each asset that has one."""
        a = tables.asset.c
        shared: dict[str, str] = {}
        with self._engine.connect() as db:
            rows = db.execute(sa.select(a.id, a.cabinet).where(a.cabinet != ""))
            return {name: shared.setdefault(c, c) for name, c in rows}

    def asset_page(
        self, kind: str | None, cabinet: str | None, after: str, limit: int
    ) -> list[Asset]:
        """Up to `limit` assets whose id comes after `after`."""
        query = sa.select(tables.asset).where(tables.asset.c.id > after)
        if kind is not None:
            query = query.where(tables.asset.c.kind == kind)
        if cabinet is not None:
            query = query.where(tables.asset.c.cabinet == cabinet)
        with self._engine.connect() as db:
            rows = db.execute(query.order_by(tables.asset.c.id).limit(limit))
            return [Asset(*row) for row in rows]

    def streets(self) -> list[dict[str, Any]]:
        """Name, main (bool) and line [[longitude, latitude]] of every street."""
        columns = (tables.street.c.name, tables.street.c.main, tables.street.c.line)
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(sa.select(*columns)).mappings()]

    # -- documents: programmes, calendars, groups, stretches, types -------------------

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
        """
        with self._engine.begin() as db:
            for document, match in documents:
                key = (_DOCUMENTS[type(document)], document.id)
                body = msgspec.json.encode(document)
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
        if self.find(kind, name) is None:
            raise NotFound(f"no {_DOCUMENTS[kind]} {name!r}")
        with self._engine.begin() as db:
            self._replace(db, (_DOCUMENTS[kind], name), None, now, who, match)

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
        self._changed(db, "wanted")

    @staticmethod
    def _remember(
        db: sa.Connection, key: tuple[str, str], now: int, who: str, body: bytes | None
    ) -> None:
        row = {"kind": key[0], "id": key[1], "ts": now, "who": who, "body": body}
        db.execute(sa.insert(tables.history), row)

    def all(self, kind: type[D]) -> list[D]:
        """All documents of a kind, by id."""
        d = tables.document.c
        query = sa.select(d.body).where(d.kind == _DOCUMENTS[kind]).order_by(d.id)
        with self._engine.connect() as db:
            return [
                msgspec.json.decode(body, type=kind) for (body,) in db.execute(query)
            ]

    def find(self, kind: type[D], name: str) -> D | None:
        """The document of an id, or None."""
        d = tables.document.c
        query = sa.select(d.body).where(d.kind == _DOCUMENTS[kind], d.id == name)
        with self._engine.connect() as db:
            body = db.execute(query).scalar()
        return None if body is None else msgspec.json.decode(body, type=kind)

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
        return [msgspec.json.decode(body, type=kind) for body in bodies]

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
        with self._engine.begin() as db:
            held = sa.select(a.c.calendar).where(a.c.target == target)
            if match is not None and (db.execute(held).scalar() or "") != match:
                raise Stale(f"{target!r} has another calendar meanwhile; look again")
            if calendar is None:
                db.execute(sa.delete(a).where(a.c.target == target))
            else:
                self._upsert(db, a, [{"target": target, "calendar": calendar}])
            body = None if calendar is None else calendar.encode()
            self._remember(db, ("assignment", target), now, who, body)
            self._changed(db, "wanted")

    def assignments(self) -> dict[str, str]:
        """Calendar by target."""
        with self._engine.connect() as db:
            return {
                row.target: row.calendar
                for row in db.execute(sa.select(tables.assignment))
            }

    # -- overrides -------------------------------------------------------------------

    def add_override(self, stored: StoredOverride) -> None:
        """Store a new override."""
        row = {
            "id": stored.override.id,
            "target_kind": stored.target_kind,
            "target": stored.target,
            "body": msgspec.json.encode(stored.override),
            "end": stored.override.end,
        }
        with self._engine.begin() as db:
            db.execute(sa.insert(tables.override), row)
            self._changed(db, "wanted")

    def cancel_override(self, name: str, now_ms: int) -> None:
        """End an override now.

        Raises
        ------
        NotFound
            There is none of this id that is not over already.
        """
        query = (
            sa.update(tables.override)
            .where(tables.override.c.id == name, tables.override.c.cancelled.is_(None))
            .where(tables.override.c.end > now_ms)
            .values(cancelled=now_ms)
        )
        with self._engine.begin() as db:
            if db.execute(query).rowcount == 0:
                raise NotFound(f"no standing override {name!r}")
            self._changed(db, "wanted")

    def overrides(self, since_ms: int) -> list[StoredOverride]:
        """Overrides that end after a time [ms], cancelled ones too, newest first."""
        query = (
            sa.select(tables.override)
            .where(tables.override.c.end > since_ms)
            .order_by(tables.override.c.id.desc())
        )
        with self._engine.connect() as db:
            return [
                StoredOverride(
                    msgspec.json.decode(row.body, type=Override),
                    row.target_kind,
                    row.target,
                    row.cancelled,
                )
                for row in db.execute(query)
            ]

    # -- desired documents -------------------------------------------------------------

    def desired(self) -> dict[str, Desired]:
        """The desired document of every controller that has one."""
        with self._engine.connect() as db:
            rows = db.execute(
                sa.select(tables.desired.c.controller, tables.desired.c.body)
            )
            return {
                name: msgspec.json.decode(body, type=Desired) for name, body in rows
            }

    def save_desired(self, documents: Mapping[str, Desired]) -> None:
        """Store the desired documents of some controllers."""
        rows = [
            {"controller": name, "revision": d.revision, "body": msgspec.json.encode(d)}
            for name, d in documents.items()
        ]
        with self._engine.begin() as db:
            for start in range(0, len(rows), _BULK):
                self._upsert(db, tables.desired, rows[start : start + _BULK])
            self._changed(db, "desired")

    # -- what programmes answer to -----------------------------------------------------

    def add_sensed(self, given: Sensed) -> None:
        """Store an adaptive input, or how long it holds now.

        Detectors say much: what they have said is forgotten after a month.
        """
        c = tables.sensed.c
        old = (c.kind != "wet_road") & (c.end < given.end - _SENSED_KEPT_MS)
        with self._engine.begin() as db:
            db.execute(sa.delete(tables.sensed).where(old))
            self._upsert(db, tables.sensed, [given._asdict()])
            if given.kind != "wet_road":
                self._changed(db, "wanted")

    def sensed(self, since_ms: int, until_ms: int | None = None) -> list[Sensed]:
        """Adaptive inputs that held at some time between two times [ms]."""
        c = tables.sensed.c
        query = sa.select(tables.sensed).where(c.end > since_ms).order_by(c.start)
        if until_ms is not None:
            query = query.where(c.start <= until_ms)
        with self._engine.connect() as db:
            return [Sensed(*row) for row in db.execute(query)]

    # -- tokens and audit ----------------------------------------------------------------

    def has_token(self) -> bool:
        """Whether anybody can sign in yet."""
        query = (
            sa.select(tables.token.c.digest)
            .where(tables.token.c.expires.is_(None))
            .limit(1)
        )
        with self._engine.connect() as db:
            return db.execute(query).first() is not None

    def new_token(
        self, name: str, expires: int | None = None, role: Role = "admin"
    ) -> str:
        """Make a token; only its digest is kept, so this is the one time it is seen."""
        token = secrets.token_urlsafe(32)
        row = {
            "digest": _digest(token),
            "name": name,
            "expires": expires,
            "role": role,
        }
        with self._engine.begin() as db:
            if (
                expires is not None
            ):  # a good moment to forget the sessions that are over
                over = tables.token.c.expires < expires - _LONGEST_SESSION_MS
                db.execute(sa.delete(tables.token).where(over))
            db.execute(sa.insert(tables.token), row)
        return token

    def drop_token(self, token: str) -> None:
        """Forget a token."""
        query = sa.delete(tables.token).where(tables.token.c.digest == _digest(token))
        with self._engine.begin() as db:
            db.execute(query)

    def who(self, token: str, now_ms: int) -> User | None:
        """Whose token this is; None when nobody's, or run out."""
        c = tables.token.c
        query = sa.select(c.name, c.expires, c.role).where(c.digest == _digest(token))
        with self._engine.connect() as db:
            row = db.execute(query).first()
        if row is None or (row.expires is not None and row.expires <= now_ms):
            return None
        return User(row.name, row.role, row.expires is not None)

    def tokens(self) -> list[dict[str, Any]]:
        """Who can sign in for good, with which role; no session, no secret."""
        c = tables.token.c
        query = sa.select(c.name, c.role).where(c.expires.is_(None)).order_by(c.name)
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    def record(
        self, ts: int, who: str, action: str, target: str, detail: str, **more: str
    ) -> None:
        """Write a line of the audit log.

        `more` may say what was there `before` and `after`, `why`, and `source`: from where.
        """
        row = {
            "ts": ts,
            "who": who,
            "action": action,
            "target": target,
            "detail": detail,
            **more,
        }
        with self._engine.begin() as db:
            db.execute(sa.insert(tables.audit), row)

    def audit_page(self, before: int | None, limit: int) -> list[dict[str, Any]]:
        """The audit log, newest first."""
        query = sa.select(tables.audit).order_by(tables.audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(tables.audit.c.id < before)
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    # -- help ------------------------------------------------------------------------

    def change(self, name: str) -> int:
        """A number that grows whenever `assets`, `wanted` or `desired` has changed."""
        query = sa.select(tables.change.c.number).where(tables.change.c.name == name)
        with self._engine.connect() as db:
            return db.execute(query).scalar() or 0

    @staticmethod
    def _changed(db: sa.Connection, name: str) -> None:
        statement = tables.insert(db, tables.change).values(name=name, number=1)
        grown = {"number": tables.change.c.number + 1}
        db.execute(statement.on_conflict_do_update(index_elements=["name"], set_=grown))

    @staticmethod
    def _upsert(
        db: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]
    ) -> None:
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
        db.execute(
            statement.on_conflict_do_update(index_elements=keys, set_=changes), rows
        )


def _tag_of(kind: str, body: bytes) -> str:
    struct = next(struct for struct, name in _DOCUMENTS.items() if name == kind)
    return tag(msgspec.json.decode(body, type=struct))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
