"""What somebody says who acknowledges an alarm."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column."""
    column = sa.Column("comment", sa.String, nullable=False, server_default="")
    op.add_column("alarm", column)
