"""The registry's tables, and how an older registry becomes a present one.

The tables here are the present form; `migrations/` holds the way to it, step by step. A
test holds both to be the same.
"""

from pathlib import Path

import alembic.command
import alembic.config
import sqlalchemy as sa

from duha_backend.database import Database, insert, patient

__all__ = ["Database", "insert", "meta", "open_database", "upgrade"]

meta = sa.MetaData()
asset = sa.Table(
    "asset",
    meta,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False, index=True),
    sa.Column("cabinet", sa.String, nullable=False, default="", index=True),
    sa.Column("district", sa.String, nullable=False, default=""),
    sa.Column("street", sa.String, nullable=False, default="", index=True),
    sa.Column("latitude", sa.Float, nullable=False),
    sa.Column("longitude", sa.Float, nullable=False),
    sa.Column("feeder", sa.String, nullable=False, server_default=""),
    sa.Column("type", sa.String, nullable=False, server_default=""),
    sa.Column("networked", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("stretch", sa.String, nullable=False, server_default=""),
    sa.Column("pole", sa.String, nullable=False, server_default=""),
    sa.Column("phase", sa.String, nullable=False, server_default=""),
    sa.Column("asset_id", sa.String, nullable=False, server_default=""),
    sa.Column("floor", sa.Float),
)
street = sa.Table(
    "street",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("main", sa.Boolean, nullable=False),
    sa.Column("line", sa.JSON, nullable=False),
)
document = sa.Table(  # programmes, calendars, stretches: small documents by kind and id
    "document",
    meta,
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
history = sa.Table(  # every version of a document or assignment; old ones go in the end
    "history",
    meta,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("id", sa.String, nullable=False),
    sa.Column("ts", sa.BigInteger, nullable=False),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary),
    sa.Index("ix_history_kind_ts", "kind", "ts"),
)
sensed = sa.Table(  # what programmes answered to: wet roads, traffic, motion
    "sensed",
    meta,
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("target_kind", sa.String, primary_key=True),
    sa.Column("target", sa.String, primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("end", sa.BigInteger, nullable=False, index=True),
    sa.Column("detail", sa.String, nullable=False),
    sa.Column("who", sa.String, nullable=False),
)
assignment = sa.Table(
    "assignment",
    meta,
    sa.Column("target", sa.String, primary_key=True),
    sa.Column("calendar", sa.String, nullable=False),
)
override = sa.Table(
    "override",
    meta,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("target_kind", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("end", sa.BigInteger, nullable=False, index=True),
    sa.Column("cancelled", sa.BigInteger),
)
desired = sa.Table(
    "desired",
    meta,
    sa.Column("controller", sa.String, primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
token = sa.Table(
    "token",
    meta,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("expires", sa.BigInteger),
    sa.Column("role", sa.String, nullable=False, server_default="admin"),
)
audit = sa.Table(
    "audit",
    meta,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("ts", sa.BigInteger, nullable=False),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("detail", sa.String, nullable=False),
    sa.Column("before", sa.Text, nullable=False, server_default=""),
    sa.Column("after", sa.Text, nullable=False, server_default=""),
    sa.Column("why", sa.String, nullable=False, server_default=""),
    sa.Column("source", sa.String, nullable=False, server_default=""),
)
change = sa.Table(  # a number that grows with every change, so that others look again
    "change",
    meta,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)
leadership = sa.Table(  # who leads, and in which term; no holder: they have resigned
    "leadership",
    meta,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("term", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.String, nullable=False),
)
event = sa.Table(
    "event",
    meta,
    sa.Column("controller", sa.String, primary_key=True),
    sa.Column("ts", sa.BigInteger, primary_key=True),
    sa.Column("code", sa.String, primary_key=True),
    sa.Column("device", sa.String, primary_key=True),
    sa.Column("detail", sa.String, nullable=False),
)
quarantine = sa.Table(
    "quarantine",
    meta,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("received", sa.BigInteger, nullable=False),
    sa.Column("controller", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False),
    sa.Column("replayed", sa.BigInteger),
)
unrolled = sa.Table(  # steps with readings that are not in their roll-up yet
    "unrolled",
    meta,
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("step", sa.String, primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("mark", sa.String, nullable=False),
)


alarm = sa.Table(
    "alarm",
    meta,
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
    sa.Column("comment", sa.String, nullable=False, server_default=""),
    sa.Column("shelved_until", sa.BigInteger),
    sa.Column("shelved_by", sa.String, nullable=False, server_default=""),
    sa.Column("shelved_reason", sa.String, nullable=False, server_default=""),
    sa.Column("assigned", sa.String, nullable=False, server_default=""),
)
delivery = sa.Table(
    "delivery",
    meta,
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


energy = sa.Table(  # a cabinet's energy in a night, with what it was reckoned by
    "energy",
    meta,
    sa.Column("night", sa.String, primary_key=True),
    sa.Column("cabinet", sa.String, primary_key=True),
    sa.Column("district", sa.String, nullable=False),
    sa.Column("lamps", sa.Integer, nullable=False),
    sa.Column("measured_lamps", sa.Integer, nullable=False),
    sa.Column("unknown_lamps", sa.Integer, nullable=False),
    sa.Column("measured_wh", sa.Float, nullable=False),
    sa.Column("calculated_wh", sa.Float, nullable=False),
    sa.Column("lamps_wh", sa.Float, nullable=False),
    sa.Column("meter_wh", sa.Float),
    sa.Column("reactive_varh", sa.Float),
    sa.Column("own_wh", sa.Float, nullable=False),
    sa.Column("uncertainty_wh", sa.Float, nullable=False),
    sa.Column("baseline_wh", sa.Float, nullable=False),
    sa.Column("burning_h", sa.Float, nullable=False),
    sa.Column("price_per_kwh", sa.Float),
    sa.Column("co2_kg_per_kwh", sa.Float),
    sa.Column("currency", sa.String, nullable=False),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("baseline", sa.String, nullable=False),
    # None in rows of versions that did not know what they had read.
    sa.Column("due_h", sa.Float),
    sa.Column("covered_h", sa.Float),
    sa.Column("saved_uncertainty_wh", sa.Float),
    sa.Column("unknown_wh", sa.Float),
    sa.Column("unknown_baseline_wh", sa.Float),
    sa.Column("excluded_lamps", sa.Integer),
    sa.Column("excluded_wh", sa.Float),
    sa.Column("excluded_unknown_wh", sa.Float),
    sa.Column("meter_covered", sa.Float),
)
energy_mark = sa.Table(  # quarters of an hour whose night is to be settled
    "energy_mark",
    meta,
    sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("mark", sa.String, nullable=False),
)
energy_stretch = sa.Table(  # energy of a stretch's own luminaires in a night
    "energy_stretch",
    meta,
    sa.Column("night", sa.String, primary_key=True),
    sa.Column("stretch", sa.String, primary_key=True),
    sa.Column("lamps_wh", sa.Float, nullable=False),
    sa.Column("due_h", sa.Float, nullable=False),
    sa.Column("covered_h", sa.Float, nullable=False),
)


run = sa.Table(  # runs of runoff models: live, forecasts, studies
    "run",
    meta,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("model", sa.String, nullable=False, index=True),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("warm", sa.Boolean, nullable=False),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("t0", sa.BigInteger, nullable=False, index=True),
    sa.Column("begun", sa.BigInteger, nullable=False),
    sa.Column("ended", sa.BigInteger),
    sa.Column("detail", sa.String, nullable=False),
    sa.Column("result", sa.LargeBinary),
)


UPGRADE_S = 120.0
"""Longest a step to the present form may take, or to wait for another process [s]."""


def open_database(url: str) -> Database:
    """A database whose tables are in their present form."""
    made = Database(url)
    try:
        upgrade(made)
    except BaseException:
        made.dispose()
        raise
    return made


def upgrade(database: Database) -> None:
    """Bring a registry to the present form; one at a time where several start at once."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with database.begin() as db:
        patient(db, UPGRADE_S)
        if not database.embedded:
            db.execute(sa.text("SELECT pg_advisory_xact_lock(7461)"))
        config.attributes["connection"] = db
        names = sa.inspect(db).get_table_names()
        if "asset" in names and "alembic_version" not in names:
            alembic.command.stamp(config, "0001")  # from before there were migrations
        alembic.command.upgrade(config, "head")
