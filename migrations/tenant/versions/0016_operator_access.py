"""Operators of the platform in an organization: what its owners have granted, and who came in.

Revision: 0016
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "operator_access_grant",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("granted_by_id", sa.Uuid(), nullable=True),
        sa.Column("operator_id", sa.Uuid(), nullable=True),
        sa.Column("operator_email", sa.Text(), nullable=True),
        sa.Column("can_write", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_by_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "char_length(operator_email) BETWEEN 3 AND 254", name=op.f("ck_operator_access_grant_operator_email_length")
        ),
        sa.CheckConstraint(
            "char_length(reason) BETWEEN 1 AND 500", name=op.f("ck_operator_access_grant_reason_length")
        ),
        sa.ForeignKeyConstraint(
            ["granted_by_id"],
            ["user_account.id"],
            name=op.f("fk_operator_access_grant_granted_by_id_user_account"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["revoked_by_id"],
            ["user_account.id"],
            name=op.f("fk_operator_access_grant_revoked_by_id_user_account"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_access_grant")),
    )
    op.create_index(op.f("ix_operator_access_grant_granted_by_id"), "operator_access_grant", ["granted_by_id"])
    op.create_index(op.f("ix_operator_access_grant_revoked_by_id"), "operator_access_grant", ["revoked_by_id"])
    op.create_table(
        "operator_access_request",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("operator_id", sa.Uuid(), nullable=False),
        sa.Column("operator_name", sa.Text(), nullable=False),
        sa.Column("can_write", sa.Boolean(), nullable=False),
        sa.Column("hours", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answered_by_id", sa.Uuid(), nullable=True),
        sa.Column("grant_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("hours BETWEEN 1 AND 72", name=op.f("ck_operator_access_request_hours_range")),
        sa.CheckConstraint(
            "char_length(operator_name) BETWEEN 1 AND 200", name=op.f("ck_operator_access_request_operator_name_length")
        ),
        sa.CheckConstraint(
            "char_length(reason) BETWEEN 1 AND 500", name=op.f("ck_operator_access_request_reason_length")
        ),
        sa.CheckConstraint(
            "status IN ('accepted', 'declined', 'expired', 'pending')",
            name=op.f("ck_operator_access_request_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["answered_by_id"],
            ["user_account.id"],
            name=op.f("fk_operator_access_request_answered_by_id_user_account"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["grant_id"],
            ["operator_access_grant.id"],
            name=op.f("fk_operator_access_request_grant_id_operator_access_grant"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_access_request")),
    )
    op.create_index(op.f("ix_operator_access_request_answered_by_id"), "operator_access_request", ["answered_by_id"])
    # Of those that were answered there may be many; open is one.
    op.create_index(
        "uq_operator_access_request_operator_id",
        "operator_access_request",
        ["operator_id"],
        unique=True,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "operator_access_session",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("operator_id", sa.Uuid(), nullable=True),
        sa.Column("operator_name", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Uuid(), nullable=True),
        sa.Column("way", sa.Text(), nullable=False),
        sa.Column("can_write", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("way IN ('shell', 'api')", name=op.f("ck_operator_access_session_way_known")),
        sa.CheckConstraint(
            "char_length(operator_name) BETWEEN 1 AND 200", name=op.f("ck_operator_access_session_operator_name_length")
        ),
        sa.CheckConstraint(
            "char_length(reason) BETWEEN 1 AND 500", name=op.f("ck_operator_access_session_reason_length")
        ),
        sa.ForeignKeyConstraint(
            ["grant_id"],
            ["operator_access_grant.id"],
            name=op.f("fk_operator_access_session_grant_id_operator_access_grant"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_access_session")),
    )
    op.create_index(op.f("ix_operator_access_session_grant_id"), "operator_access_session", ["grant_id"])
    op.create_table(
        "operator_access_notice",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=True),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "num_nonnulls(request_id, session_id) = 1", name=op.f("ck_operator_access_notice_about_one")
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["operator_access_request.id"],
            name=op.f("fk_operator_access_notice_request_id_operator_access_request"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["operator_access_session.id"],
            name=op.f("fk_operator_access_notice_session_id_operator_access_session"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["user_account.id"],
            name=op.f("fk_operator_access_notice_user_id_user_account"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_access_notice")),
    )
    op.create_index(op.f("ix_operator_access_notice_user_id"), "operator_access_notice", ["user_id"])


def downgrade() -> None:
    op.drop_table("operator_access_notice")
    op.drop_table("operator_access_session")
    op.drop_table("operator_access_request")
    op.drop_table("operator_access_grant")
