"""The registry: assets, programmes, overrides, desired documents, tokens, audit.

SQLAlchemy Core, so that SQLite and PostgreSQL are the same to everybody else.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from duha_backend import tables
from duha_backend.database import patient
from duha_backend.documents import (
    Document,
    Documents,
    SetAside,
    Version,
    changed,
    tag,
    upsert,
)
from duha_backend.errors import Conflict, NotFound, Stale
from duha_backend.lighting.inventory import Asset
from duha_backend.lighting.wanted import Sensed, StoredOverride
from duha_backend.people import ROLES, People, Role, User
from duha_contract.lighting import Override
from duha_contract.messages import Desired

__all__ = [
    "ROLES",
    "Document",
    "Registry",
    "Role",
    "SetAside",
    "User",
    "Version",
    "tag",
]
_SENSED_KEPT_MS = 31 * 24 * 3_600_000
_BULK = 5000
_IMPORT_S = 60.0


class Registry(Documents, People):
    """The registry behind one database URL."""

    def __init__(self, url: str) -> None:
        self.engine = tables.open_database(url)
        Documents.__init__(self, self.engine)

    @classmethod
    def in_folder(cls, folder: Path) -> "Registry":
        """The embedded registry of a data folder."""
        return cls(f"sqlite:///{folder / 'registry.db'}")

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def backup(self, folder: Path) -> str | None:
        """Copy an SQLite registry into a folder; None for a server's database."""
        if not self._engine.embedded:
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
            patient(db, _IMPORT_S)
            if streets:
                db.execute(sa.delete(tables.street))
                db.execute(sa.insert(tables.street), list(streets))
            for start in range(0, len(rows), _BULK):
                upsert(db, tables.asset, rows[start : start + _BULK])
            changed(db, "assets")

    def assets(self, kind: str | None = None) -> list[Asset]:
        """All assets, or those of a kind, by id."""
        query = sa.select(tables.asset).order_by(tables.asset.c.id)
        if kind is not None:
            query = query.where(tables.asset.c.kind == kind)
        with self._engine.connect() as db:
            return [Asset(*row) for row in db.execute(query)]

    def drop_asset(self, name: str, now: int = 0, who: str = "") -> Asset:
        """Take an asset out of the inventory, with its assignment; its readings stay.

        Raises
        ------
        NotFound
            There is none.
        Conflict
            It is a cabinet that others hang on.
        """
        a, g = tables.asset.c, tables.assignment.c
        with self._engine.begin() as db:
            row = db.execute(sa.select(tables.asset).where(a.id == name)).first()
            if row is None:
                raise NotFound(f"no asset {name!r}")
            on_it = sa.select(a.id).where(a.cabinet == name, a.id != name).limit(1)
            user = db.execute(on_it).scalar()
            if user is not None:
                raise Conflict(f"{name!r} feeds {user!r}; take away what hangs on it")
            db.execute(sa.delete(tables.asset).where(a.id == name))
            gone = sa.delete(tables.assignment).where(g.target == name)
            if db.execute(gone).rowcount:
                self._remember(db, ("assignment", name), now, who, None)
            here = tables.desired.c.controller == name
            db.execute(sa.delete(tables.desired).where(here))
            for what in ("assets", "wanted", "desired"):
                changed(db, what)
        return Asset(*row)

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
            changed(db, "wanted")

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
            changed(db, "wanted")

    def overrides(self, since_ms: int) -> list[StoredOverride]:
        """Overrides that end after a time [ms], cancelled ones too, newest first."""
        query = (
            sa.select(tables.override)
            .where(tables.override.c.end > since_ms)
            .order_by(tables.override.c.id.desc())
        )
        with self._engine.connect() as db:
            rows = list(db.execute(query))
        bodies = [(row.id, row.body) for row in rows]
        found = self.readable("override", bodies, Override)
        return [
            StoredOverride(found[row.id], row.target_kind, row.target, row.cancelled)
            for row in rows
            if row.id in found
        ]

    # -- desired documents -------------------------------------------------------------

    def desired(self) -> dict[str, Desired]:
        """The desired document of every controller that has one that can be read."""
        d = tables.desired.c
        with self._engine.connect() as db:
            rows = [
                (r.controller, r.body)
                for r in db.execute(sa.select(d.controller, d.body))
            ]
        return self.readable("desired", rows, Desired)

    def revisions(self) -> dict[str, int]:
        """Revision of every desired document, those that cannot be read too."""
        d = tables.desired.c
        with self._engine.connect() as db:
            rows = db.execute(sa.select(d.controller, d.revision))
            return {row.controller: row.revision for row in rows}

    def save_desired(self, documents: Mapping[str, Desired], term: int = 0) -> None:
        """Store the desired documents of some controllers.

        Raises
        ------
        Stale
            Another leads meanwhile, in a later term than `term`.
        """
        rows = [
            {"controller": name, "revision": d.revision, "body": msgspec.json.encode(d)}
            for name, d in documents.items()
        ]
        lead = tables.leadership.c
        newest = sa.select(lead.term).where(lead.name == "control")
        with self._engine.begin() as db:
            if (db.execute(newest).scalar() or 0) > term > 0:
                raise Stale(f"another leads meanwhile; this was term {term}")
            for start in range(0, len(rows), _BULK):
                upsert(db, tables.desired, rows[start : start + _BULK])
            changed(db, "desired")

    # -- what programmes answer to -----------------------------------------------------

    def add_sensed(self, given: Sensed) -> None:
        """Store an adaptive input, or how long it holds now.

        Detectors say much: what they have said is forgotten after a month.
        """
        c = tables.sensed.c
        old = (c.kind != "wet_road") & (c.end < given.end - _SENSED_KEPT_MS)
        with self._engine.begin() as db:
            db.execute(sa.delete(tables.sensed).where(old))
            upsert(db, tables.sensed, [given._asdict()])
            if given.kind != "wet_road":
                changed(db, "wanted")

    def sensed(self, since_ms: int, until_ms: int | None = None) -> list[Sensed]:
        """Adaptive inputs that held at some time between two times [ms]."""
        c = tables.sensed.c
        query = sa.select(tables.sensed).where(c.end > since_ms).order_by(c.start)
        if until_ms is not None:
            query = query.where(c.start <= until_ms)
        with self._engine.connect() as db:
            return [Sensed(*row) for row in db.execute(query)]

    # -- what has changed --------------------------------------------------------------

    def change(self, name: str) -> int:
        """A number that grows whenever something has changed.

        There are numbers of `assets`, of `documents` of any kind, of what is `wanted` of the
        lights, and of `desired` documents.
        """
        query = sa.select(tables.change.c.number).where(tables.change.c.name == name)
        with self._engine.connect() as db:
            return db.execute(query).scalar() or 0
