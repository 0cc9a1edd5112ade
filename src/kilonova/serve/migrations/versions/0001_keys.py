"""Keys: who may use the server, for what, and how much."""

import sqlalchemy as sa
from alembic import op

revision = "0001_keys"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(20), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("bedrock_key_hash", sa.String(64), nullable=False),
        sa.Column("openai_key_hash", sa.String(64), nullable=False),
        sa.Column("master_key_id", sa.String(16), nullable=False),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.Column("operations", sa.JSON(), nullable=True),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("tokens_per_day", sa.BigInteger(), nullable=True),
        sa.Column("budget_usd", sa.String(40), nullable=True),
        sa.Column("budget_period", sa.String(5), nullable=False),
        sa.Column("context_strategy", sa.String(32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("bedrock_key_hash", name="uq_keys_bedrock_key_hash"),
        sa.UniqueConstraint("openai_key_hash", name="uq_keys_openai_key_hash"),
    )


def downgrade() -> None:
    op.drop_table("keys")
