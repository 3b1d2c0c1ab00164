"""Books of ingest beside the readings; feeders, types and assets without a network."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add tables and columns."""
    op.add_column(
        "asset", sa.Column("feeder", sa.String, nullable=False, server_default="")
    )
    op.add_column(
        "asset", sa.Column("type", sa.String, nullable=False, server_default="")
    )
    op.add_column(
        "asset",
        sa.Column("networked", sa.Boolean, nullable=False, server_default=sa.true()),
    )
    op.create_table(
        "change",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "event",
        sa.Column("controller", sa.String, primary_key=True),
        sa.Column("ts", sa.BigInteger, primary_key=True),
        sa.Column("code", sa.String, primary_key=True),
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("detail", sa.String, nullable=False),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.Column("controller", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.Column("replayed", sa.BigInteger),
    )
    op.create_table(
        "unrolled",
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("step", sa.String, primary_key=True),
        sa.Column("start", sa.BigInteger, primary_key=True),
        sa.Column("mark", sa.String, nullable=False),
    )
