"""The registry: assets, programmes, overrides, desired documents, tokens, audit.

SQLAlchemy Core, so that SQLite and PostgreSQL are the same to everybody else. The
only module that knows it.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from duha_backend.errors import Invalid, NotFound
from duha_contract.lighting import Calendar, Override, Programme
from duha_contract.messages import Desired

_LONGEST_SESSION_MS = 24 * 3_600_000
_meta = sa.MetaData()
_asset = sa.Table(
    "asset",
    _meta,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False, index=True),
    sa.Column("cabinet", sa.String, nullable=False, default="", index=True),
    sa.Column("district", sa.String, nullable=False, default=""),
    sa.Column("street", sa.String, nullable=False, default="", index=True),
    sa.Column("latitude", sa.Float, nullable=False),
    sa.Column("longitude", sa.Float, nullable=False),
)
_street = sa.Table(
    "street",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("main", sa.Boolean, nullable=False),
    sa.Column("line", sa.JSON, nullable=False),
)
_document = sa.Table(  # programmes, calendars, groups: small documents by kind and id
    "document",
    _meta,
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
_assignment = sa.Table(
    "assignment",
    _meta,
    sa.Column("target", sa.String, primary_key=True),
    sa.Column("calendar", sa.String, nullable=False),
)
_override = sa.Table(
    "override",
    _meta,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("target_kind", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("end", sa.BigInteger, nullable=False, index=True),
    sa.Column("cancelled", sa.BigInteger),
)
_desired = sa.Table(
    "desired",
    _meta,
    sa.Column("controller", sa.String, primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
_token = sa.Table(
    "token",
    _meta,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("expires", sa.BigInteger),
)
_audit = sa.Table(
    "audit",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("ts", sa.BigInteger, nullable=False),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("detail", sa.String, nullable=False),
)


class Asset(NamedTuple):
    """Something of the city's that has a place."""

    id: str
    kind: str
    cabinet: str
    district: str
    street: str
    latitude: float
    longitude: float


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
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _durable)
        _meta.create_all(self._engine)

    @classmethod
    def in_folder(cls, folder: Path) -> "Registry":
        """The embedded registry of a data folder."""
        return cls(f"sqlite:///{folder / 'registry.db'}")

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # -- assets ------------------------------------------------------------------

    def import_geojson(self, collection: Mapping[str, Any]) -> dict[str, int]:
        """Take the assets and streets of a FeatureCollection; all of it or nothing.

        Raises
        ------
        Invalid
            Names the feature and what is wrong with it.
        """
        assets: dict[str, Asset] = {}
        streets: list[dict[str, Any]] = []
        for number, feature in enumerate(collection.get("features", ()), 1):
            try:
                kind = feature["properties"]["kind"]
                if kind == "street":
                    streets.append(_street_row(feature))
                else:
                    asset = _asset_of(feature)
                    assets[asset.id] = asset
            except (KeyError, TypeError, ValueError) as error:
                raise Invalid(f"feature {number}: {error!r} in {feature}") from None
        with self._engine.begin() as db:
            if streets:
                db.execute(sa.delete(_street))
                db.execute(sa.insert(_street), streets)
            self._upsert(db, _asset, [asset._asdict() for asset in assets.values()])
        return {"assets": len(assets), "streets": len(streets)}

    def assets(self, kind: str | None = None) -> list[Asset]:
        """All assets, or those of a kind, by id."""
        query = sa.select(_asset).order_by(_asset.c.id)
        if kind is not None:
            query = query.where(_asset.c.kind == kind)
        with self._engine.connect() as db:
            return [Asset(*row) for row in db.execute(query)]

    def asset_page(
        self, kind: str | None, cabinet: str | None, after: str, limit: int
    ) -> list[Asset]:
        """Up to `limit` assets whose id comes after `after`."""
        query = sa.select(_asset).where(_asset.c.id > after)
        if kind is not None:
            query = query.where(_asset.c.kind == kind)
        if cabinet is not None:
            query = query.where(_asset.c.cabinet == cabinet)
        with self._engine.connect() as db:
            rows = db.execute(query.order_by(_asset.c.id).limit(limit))
            return [Asset(*row) for row in rows]

    def streets(self) -> list[dict[str, Any]]:
        """Name, main (bool) and line [[longitude, latitude]] of every street."""
        columns = (_street.c.name, _street.c.main, _street.c.line)
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
            self._upsert(db, _document, [row])

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
                db.execute(sa.delete(_assignment).where(_assignment.c.target == target))
            else:
                row = {"target": target, "calendar": calendar}
                self._upsert(db, _assignment, [row])

    def assignments(self) -> dict[str, str]:
        """Calendar by target."""
        with self._engine.connect() as db:
            return {
                row.target: row.calendar for row in db.execute(sa.select(_assignment))
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
            db.execute(sa.insert(_override), row)

    def cancel_override(self, name: str, now_ms: int) -> None:
        """End an override now.

        Raises
        ------
        NotFound
            There is none of this id that is not over already.
        """
        query = (
            sa.update(_override)
            .where(_override.c.id == name, _override.c.cancelled.is_(None))
            .where(_override.c.end > now_ms)
            .values(cancelled=now_ms)
        )
        with self._engine.begin() as db:
            if db.execute(query).rowcount == 0:
                raise NotFound(f"no standing override {name!r}")

    def overrides(self, since_ms: int) -> list[StoredOverride]:
        """Overrides that end after a time [ms], cancelled ones too, newest first."""
        query = (
            sa.select(_override)
            .where(_override.c.end > since_ms)
            .order_by(_override.c.id.desc())
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
            rows = db.execute(sa.select(_desired.c.controller, _desired.c.body))
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
            self._upsert(db, _desired, [row])

    # -- tokens and audit ----------------------------------------------------------------

    def has_token(self) -> bool:
        """Whether anybody can sign in yet."""
        query = sa.select(_token.c.digest).where(_token.c.expires.is_(None)).limit(1)
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
                over = _token.c.expires < expires - _LONGEST_SESSION_MS
                db.execute(sa.delete(_token).where(over))
            db.execute(sa.insert(_token), row)
        return token

    def drop_token(self, token: str) -> None:
        """Forget a token."""
        query = sa.delete(_token).where(_token.c.digest == _digest(token))
        with self._engine.begin() as db:
            db.execute(query)

    def who(self, token: str, now_ms: int) -> str | None:
        """Whose token this is; None when nobody's, or run out."""
        query = sa.select(_token.c.name, _token.c.expires).where(
            _token.c.digest == _digest(token)
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
            db.execute(sa.insert(_audit), row)

    def audit_page(self, before: int | None, limit: int) -> list[dict[str, Any]]:
        """The audit log, newest first."""
        query = sa.select(_audit).order_by(_audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(_audit.c.id < before)
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    # -- help ------------------------------------------------------------------------

    def _bodies(self, kind: str) -> list[bytes]:
        query = (
            sa.select(_document.c.body)
            .where(_document.c.kind == kind)
            .order_by(_document.c.id)
        )
        with self._engine.connect() as db:
            return [body for (body,) in db.execute(query)]

    @staticmethod
    def _upsert(
        db: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]
    ) -> None:
        rows = list(rows)
        if not rows:
            return
        statement = sqlite.insert(table)
        keys = [column.name for column in table.primary_key]
        changes = {
            column.name: statement.excluded[column.name]
            for column in table.columns
            if column.name not in keys
        }
        db.execute(
            statement.on_conflict_do_update(index_elements=keys, set_=changes), rows
        )


def _durable(connection: Any, _record: Any) -> None:
    """SQLite as a store: write-ahead log, and on disk at commit."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _asset_of(feature: Mapping[str, Any]) -> Asset:
    properties = feature["properties"]
    longitude, latitude = feature["geometry"]["coordinates"]
    if not (-180 <= longitude <= 180 and -90 <= latitude <= 90):
        raise ValueError("no longitude and latitude")
    return Asset(
        id=str(properties["id"]),
        kind=str(properties["kind"]),
        cabinet=str(properties.get("cabinet", "")),
        district=str(properties.get("district", "")),
        street=str(properties.get("street", "")),
        latitude=float(latitude),
        longitude=float(longitude),
    )


def _street_row(feature: Mapping[str, Any]) -> dict[str, Any]:
    properties = feature["properties"]
    return {
        "name": str(properties.get("name", "")),
        "main": bool(properties.get("main", False)),
        "line": [[float(x), float(y)] for x, y in feature["geometry"]["coordinates"]],
    }
