"""What decisions have used of a campaign's limits."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table, where a store of the days before there were steps doesn't have it."""
    op.create_table(
        "limit_uses",
        sa.Column("campaign", sa.String(63), primary_key=True),
        sa.Column("limit_name", sa.Text, primary_key=True),
        sa.Column("period", sa.String(63), primary_key=True),
        sa.Column("used", sa.Float(53), nullable=False),
        if_not_exists=True,
    )
