"""Energy: how much of a night was read, what is unknown, and each stretch by itself."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_NEW = (
    "due_h", "covered_h", "saved_uncertainty_wh", "unknown_wh", "unknown_baseline_wh",
    "excluded_wh", "excluded_unknown_wh", "meter_covered",
)  # fmt: skip


def upgrade() -> None:
    """Add columns and a table; of nights settled before the coverage is not known."""
    op.drop_column("energy", "covered")  # readings of levels, not what energy rests on
    for name in _NEW:
        op.add_column("energy", sa.Column(name, sa.Float))
    op.add_column("energy", sa.Column("excluded_lamps", sa.Integer))
    op.create_table(
        "energy_mark",
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("mark", sa.String, nullable=False),
    )
    op.create_table(
        "energy_stretch",
        sa.Column("night", sa.String, primary_key=True),
        sa.Column("stretch", sa.String, primary_key=True),
        sa.Column("lamps_wh", sa.Float, nullable=False),
        sa.Column("due_h", sa.Float, nullable=False),
        sa.Column("covered_h", sa.Float, nullable=False),
    )
