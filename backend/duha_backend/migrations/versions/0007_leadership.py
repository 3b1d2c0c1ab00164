"""Terms of leaders."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the table of leaderships."""
    op.create_table(
        "leadership",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.String, nullable=False),
    )
