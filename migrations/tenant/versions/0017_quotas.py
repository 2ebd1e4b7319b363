"""What is held by whoever makes more of what a quota counts.

Revision: 0017
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quota_lock",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 100", name=op.f("ck_quota_lock_name_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quota_lock")),
        sa.UniqueConstraint("name", name="uq_quota_lock_name"),
    )


def downgrade() -> None:
    op.drop_table("quota_lock")
