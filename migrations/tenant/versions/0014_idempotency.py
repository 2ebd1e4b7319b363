"""Answers to requests that may be sent again.

Revision: 0014
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotent_request",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_idempotent_request_digest_length")),
        sa.CheckConstraint("octet_length(fingerprint) = 32", name=op.f("ck_idempotent_request_fingerprint_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotent_request")),
        sa.UniqueConstraint("digest", name="uq_idempotent_request_digest"),
    )
    op.create_index(op.f("ix_idempotent_request_expires_at"), "idempotent_request", ["expires_at"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_idempotent_request_expires_at"), table_name="idempotent_request")
    op.drop_table("idempotent_request")
