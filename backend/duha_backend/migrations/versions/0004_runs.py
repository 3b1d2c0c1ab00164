"""Runs of runoff models."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table of runs."""
    op.create_table(
        "run",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("warm", sa.Boolean, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("t0", sa.BigInteger, nullable=False),
        sa.Column("begun", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.BigInteger),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("result", sa.LargeBinary),
    )
    op.create_index("ix_run_model", "run", ["model"])
    op.create_index("ix_run_t0", "run", ["t0"])
