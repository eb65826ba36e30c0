"""The tables of the first release; stores that were made before there were steps have them already."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make what is missing."""
    op.create_table(
        "campaigns",
        sa.Column("campaign", sa.String(63), primary_key=True),
        sa.Column("outcomes", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "decisions",
        sa.Column("decision_id", sa.String(36), primary_key=True),
        sa.Column("campaign", sa.String(63), nullable=False),
        sa.Column("unit_id", sa.Text, nullable=False),
        sa.Column("decided_at", sa.BigInteger, nullable=False),
        sa.Column("arm", sa.Integer, nullable=False),
        sa.Column("arm_name", sa.Text, nullable=False),
        sa.Column("levels", sa.Text, nullable=False),
        sa.Column("propensity", sa.Float(53), nullable=False),
        sa.Column("explored", sa.Boolean, nullable=False),
        sa.Column("explored_propensity", sa.Float(53)),
        sa.Column("holdout", sa.Boolean, nullable=False),
        sa.Column("policy_version", sa.Text),
        sa.Column("model_version", sa.Text),
        sa.Column("features", sa.Text, nullable=False),
        sa.Column("cost", sa.Float(53), nullable=False),
        sa.Column("price", sa.Float(53)),
        sa.Column("epsilon", sa.Float(53)),
        sa.Column("epoch", sa.Text, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "decisions_by_time", "decisions", ["campaign", "decided_at"], if_not_exists=True
    )
    op.create_table(
        "outcomes",
        sa.Column("sequence", BIG_KEY, primary_key=True),
        sa.Column("decision_id", sa.String(36), nullable=False),
        sa.Column("outcome", sa.String(63), nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.Column("observed_at", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("correct", sa.Boolean, nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "outcomes_by_decision", "outcomes", ["decision_id", "outcome"], if_not_exists=True
    )
    op.create_table(
        "requests",
        sa.Column("campaign", sa.String(63), primary_key=True),
        sa.Column("request_id", sa.String(200), primary_key=True),
        sa.Column("body", sa.String(64), nullable=False),
        sa.Column("decision_ids", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "ledger",
        sa.Column("campaign", sa.String(63), primary_key=True),
        sa.Column("period", sa.String(63), primary_key=True),
        sa.Column("arm_name", sa.Text, primary_key=True),
        sa.Column("decisions", sa.BigInteger, nullable=False),
        sa.Column("explored", sa.BigInteger, nullable=False),
        sa.Column("holdout", sa.BigInteger, nullable=False),
        sa.Column("spend", sa.Float(53), nullable=False),
        sa.Column("exploration_spend", sa.Float(53), nullable=False),
        if_not_exists=True,
    )
