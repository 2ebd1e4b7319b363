"""The audit trail: events, and the seals over them.

Revision: 0002
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Tables are made with the rights that the schema's default privileges give its role, which is named like the schema.
# What has happened may not be changed: inserting and reading is all that is left. Where there is no such role (a schema
# that is only compared), there is nothing to take away.
_APPEND_ONLY = """
DO $do$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = current_schema()) THEN
        EXECUTE 'REVOKE UPDATE, DELETE, TRUNCATE ON audit_event, audit_seal, audit_sealed_event FROM '
                || quote_ident(current_schema());
    END IF;
END
$do$
"""


def upgrade() -> None:
    op.create_table(
        "audit_event",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("char_length(actor) BETWEEN 1 AND 200", name=op.f("ck_audit_event_actor_length")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 100", name=op.f("ck_audit_event_name_length")),
        sa.CheckConstraint("char_length(request_id) <= 200", name=op.f("ck_audit_event_request_id_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_event")),
    )
    op.create_index("ix_audit_event_actor_id", "audit_event", ["actor", "id"], unique=False)
    op.create_index("ix_audit_event_occurred_at_id", "audit_event", ["occurred_at", "id"], unique=False)
    op.create_index("ix_audit_event_subject_id", "audit_event", ["subject", "id"], unique=False)
    op.create_table(
        "audit_seal",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("first_event_id", sa.Uuid(), nullable=False),
        sa.Column("last_event_id", sa.Uuid(), nullable=False),
        sa.Column("event_count", sa.Integer(), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("event_count > 0", name=op.f("ck_audit_seal_event_count_range")),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("ck_audit_seal_hash_length")),
        sa.CheckConstraint("octet_length(previous_hash) = 32", name=op.f("ck_audit_seal_previous_hash_length")),
        sa.CheckConstraint("sequence > 0", name=op.f("ck_audit_seal_sequence_range")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_seal")),
        sa.UniqueConstraint("previous_hash", name="uq_audit_seal_previous_hash"),
        sa.UniqueConstraint("sequence", name="uq_audit_seal_sequence"),
    )
    op.create_table(
        "audit_sealed_event",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seal_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_audit_sealed_event_digest_length")),
        sa.ForeignKeyConstraint(["id"], ["audit_event.id"], name=op.f("fk_audit_sealed_event_id_audit_event")),
        sa.ForeignKeyConstraint(["seal_id"], ["audit_seal.id"], name=op.f("fk_audit_sealed_event_seal_id_audit_seal")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_sealed_event")),
    )
    op.create_index(op.f("ix_audit_sealed_event_seal_id"), "audit_sealed_event", ["seal_id"], unique=False)
    op.execute(_APPEND_ONLY)


def downgrade() -> None:
    op.drop_index(op.f("ix_audit_sealed_event_seal_id"), table_name="audit_sealed_event")
    op.drop_table("audit_sealed_event")
    op.drop_table("audit_seal")
    op.drop_index("ix_audit_event_subject_id", table_name="audit_event")
    op.drop_index("ix_audit_event_occurred_at_id", table_name="audit_event")
    op.drop_index("ix_audit_event_actor_id", table_name="audit_event")
    op.drop_table("audit_event")
