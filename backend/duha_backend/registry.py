"""The registry: assets, programmes, overrides, desired documents, tokens, audit.

SQLAlchemy Core, so that SQLite and PostgreSQL are the same to everybody else.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from duha_backend import tables
from duha_backend.errors import NotFound
from duha_contract.lighting import Calendar, Override, Programme
from duha_contract.messages import Desired

_LONGEST_SESSION_MS = 24 * 3_600_000
_BULK = 5000


class Asset(NamedTuple):
    """Something of the city's that has a place."""

    id: str
    kind: str
    cabinet: str
    district: str
    street: str
    latitude: float
    longitude: float
    feeder: str = ""
    type: str = ""
    networked: bool = True


class StoredOverride(NamedTuple):
    """An override and whom it was meant for."""

    override: Override
    target_kind: str
    target: str
    cancelled: int | None


class Group(msgspec.Struct, frozen=True):
    """A named list of luminaires."""

    id: str
    name: str
    members: tuple[str, ...]


_DOCUMENTS: dict[type[msgspec.Struct], str] = {
    Programme: "programme",
    Calendar: "calendar",
    Group: "group",
}


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

    # -- programmes, calendars, groups ---------------------------------------------

    def save(self, document: Programme | Calendar | Group) -> None:
        """Store a document, replacing the one with its id."""
        row = {
            "kind": _DOCUMENTS[type(document)],
            "id": document.id,
            "body": msgspec.json.encode(document),
        }
        with self._engine.begin() as db:
            self._upsert(db, tables.document, [row])
            self._changed(db, "wanted")

    def programmes(self) -> list[Programme]:
        """All programmes."""
        return [
            msgspec.json.decode(b, type=Programme) for b in self._bodies("programme")
        ]

    def calendars(self) -> list[Calendar]:
        """All calendars."""
        return [msgspec.json.decode(b, type=Calendar) for b in self._bodies("calendar")]

    def groups(self) -> list[Group]:
        """All groups."""
        return [msgspec.json.decode(b, type=Group) for b in self._bodies("group")]

    def assign(self, target: str, calendar: str | None) -> None:
        """Give a calendar to a luminaire, a cabinet or "*", the city; None takes it away."""
        with self._engine.begin() as db:
            if calendar is None:
                db.execute(
                    sa.delete(tables.assignment).where(
                        tables.assignment.c.target == target
                    )
                )
            else:
                row = {"target": target, "calendar": calendar}
                self._upsert(db, tables.assignment, [row])
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

    def save_desired(self, controller: str, desired: Desired) -> None:
        """Store the desired document of a controller."""
        row = {
            "controller": controller,
            "revision": desired.revision,
            "body": msgspec.json.encode(desired),
        }
        with self._engine.begin() as db:
            self._upsert(db, tables.desired, [row])
            self._changed(db, "desired")

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

    def new_token(self, name: str, expires: int | None = None) -> str:
        """Make a token; only its digest is kept, so this is the one time it is seen."""
        token = secrets.token_urlsafe(32)
        row = {"digest": _digest(token), "name": name, "expires": expires}
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

    def who(self, token: str, now_ms: int) -> str | None:
        """Whose token this is; None when nobody's, or run out."""
        query = sa.select(tables.token.c.name, tables.token.c.expires).where(
            tables.token.c.digest == _digest(token)
        )
        with self._engine.connect() as db:
            row = db.execute(query).first()
        if row is None or (row.expires is not None and row.expires <= now_ms):
            return None
        return str(row.name)

    def record(self, ts: int, who: str, action: str, target: str, detail: str) -> None:
        """Write a line of the audit log."""
        row = {
            "ts": ts,
            "who": who,
            "action": action,
            "target": target,
            "detail": detail,
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

    def _bodies(self, kind: str) -> list[bytes]:
        query = (
            sa.select(tables.document.c.body)
            .where(tables.document.c.kind == kind)
            .order_by(tables.document.c.id)
        )
        with self._engine.connect() as db:
            return [body for (body,) in db.execute(query)]

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


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
