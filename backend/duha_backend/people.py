"""Who may do what: tokens, sessions, and the audit log of what was done."""

import hashlib
import secrets
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from duha_backend import tables
from duha_backend.database import Database
from duha_backend.errors import NotFound

Role = Literal["viewer", "operator", "engineer", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "engineer", "admin")
"""What somebody may do; each may do what those before may."""
_LONGEST_SESSION_MS = 24 * 3_600_000


class User(NamedTuple):
    """Who asks, what they may do, and whether by a session that a token has opened."""

    name: str
    role: Role
    session: bool = False


class People:
    """Tokens and audit log in the registry's database."""

    def __init__(self, database: Database) -> None:
        self._engine = database

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
        return User(row.name, row.role, session=row.expires is not None)

    def tokens(self) -> list[dict[str, Any]]:
        """Who can sign in for good, with which role; no session, no secret."""
        c = tables.token.c
        query = sa.select(c.name, c.role).where(c.expires.is_(None)).order_by(c.name)
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    def revoke(self, name: str) -> int:
        """Forget every token and session of a name; returns how many there were.

        Raises
        ------
        NotFound
            There is none.
        """
        query = sa.delete(tables.token).where(tables.token.c.name == name)
        with self._engine.begin() as db:
            gone = db.execute(query).rowcount
        if not gone:
            raise NotFound(f"no token of {name!r}")
        return gone

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


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
