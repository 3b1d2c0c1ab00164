"""Lighting: classes, types, history, inputs, roles, a fuller audit log; alarms."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add tables and columns; programmes say by an effect what rain does."""
    for name in ("stretch", "pole", "phase", "asset_id"):
        column = sa.Column(name, sa.String, nullable=False, server_default="")
        op.add_column("asset", column)
    op.add_column("asset", sa.Column("floor", sa.Float))
    op.add_column(
        "token", sa.Column("role", sa.String, nullable=False, server_default="admin")
    )
    for name in ("before", "after"):
        column = sa.Column(name, sa.Text, nullable=False, server_default="")
        op.add_column("audit", column)
    for name in ("why", "source"):
        column = sa.Column(name, sa.String, nullable=False, server_default="")
        op.add_column("audit", column)
    history = op.create_table(
        "history",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("ts", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("body", sa.LargeBinary),
    )
    op.create_index("ix_history_kind_ts", "history", ["kind", "ts"])
    op.create_table(
        "sensed",
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("target_kind", sa.String, primary_key=True),
        sa.Column("target", sa.String, primary_key=True),
        sa.Column("start", sa.BigInteger, primary_key=True),
        sa.Column("end", sa.BigInteger, nullable=False, index=True),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("who", sa.String, nullable=False),
    )
    _alarms()
    _energy()
    _answer_to_rain_by_an_effect()
    _begin_history(history)


def _alarms() -> None:
    op.create_table(
        "alarm",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("object", sa.String, nullable=False, index=True),
        sa.Column("cabinet", sa.String, nullable=False),
        sa.Column("severity", sa.String, nullable=False),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("affected", sa.Integer, nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
        sa.Column("raised", sa.BigInteger, nullable=False),
        sa.Column("cleared", sa.BigInteger, index=True),
        sa.Column("acknowledged", sa.BigInteger),
        sa.Column("acknowledged_by", sa.String, nullable=False, server_default=""),
        sa.Column("shelved_until", sa.BigInteger),
        sa.Column("shelved_by", sa.String, nullable=False, server_default=""),
        sa.Column("shelved_reason", sa.String, nullable=False, server_default=""),
        sa.Column("assigned", sa.String, nullable=False, server_default=""),
    )
    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("alarm", sa.Integer, nullable=False, index=True),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("what", sa.String, nullable=False),
        sa.Column("ts", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String, nullable=False, index=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", sa.Float, nullable=False),
        sa.Column("detail", sa.String, nullable=False),
    )


def _energy() -> None:
    def needed(name: str, kind: type) -> sa.Column[Any]:
        return sa.Column(name, kind, nullable=False)

    op.create_table(
        "energy",
        sa.Column("night", sa.String, primary_key=True),
        sa.Column("cabinet", sa.String, primary_key=True),
        needed("district", sa.String),
        needed("lamps", sa.Integer),
        needed("measured_lamps", sa.Integer),
        needed("unknown_lamps", sa.Integer),
        needed("measured_wh", sa.Float),
        needed("calculated_wh", sa.Float),
        needed("lamps_wh", sa.Float),
        sa.Column("meter_wh", sa.Float),
        sa.Column("reactive_varh", sa.Float),
        needed("own_wh", sa.Float),
        needed("uncertainty_wh", sa.Float),
        needed("baseline_wh", sa.Float),
        needed("burning_h", sa.Float),
        needed("covered", sa.Float),
        sa.Column("price_per_kwh", sa.Float),
        sa.Column("co2_kg_per_kwh", sa.Float),
        needed("currency", sa.String),
        needed("source", sa.String),
        needed("baseline", sa.String),
    )


def _answer_to_rain_by_an_effect() -> None:
    db = op.get_bind()
    document = sa.table(
        "document", sa.column("kind"), sa.column("id"), sa.column("body")
    )
    rows = db.execute(sa.select(document).where(document.c.kind == "programme")).all()
    for row in rows:
        body = json.loads(bytes(row.body))
        wet = body.pop("wet_level", None)
        if wet is not None:
            body["effects"] = [{"on": "wet_road", "level": wet}]
        here = (document.c.kind == row.kind) & (document.c.id == row.id)
        new = json.dumps(body, separators=(",", ":")).encode()
        db.execute(sa.update(document).where(here).values(body=new))


def _begin_history(history: sa.Table) -> None:
    """What is there now was there always, as far as anybody knows."""
    db = op.get_bind()
    documents = db.execute(sa.text("SELECT kind, id, body FROM document")).all()
    given = db.execute(sa.text("SELECT target, calendar FROM assignment")).all()
    rows = [(row.kind, row.id, bytes(row.body)) for row in documents]
    rows += [("assignment", row.target, row.calendar.encode()) for row in given]
    for kind, name, body in rows:
        row = {"kind": kind, "id": name, "ts": 0, "who": "", "body": body}
        db.execute(sa.insert(history).values(row))
