"""The size and the quality of a call's pictures."""

import sqlalchemy as sa
from alembic import op

revision = "0004_images"
down_revision = "0003_responses"


def upgrade() -> None:
    for name in ("image_size", "image_quality"):
        op.add_column("calls", sa.Column(name, sa.String(16), nullable=False, server_default=""))


def downgrade() -> None:
    for name in ("image_quality", "image_size"):
        op.drop_column("calls", name)
