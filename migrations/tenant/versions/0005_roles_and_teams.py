"""Invitations to teams.

Revision: 0005
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "team_invitation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("role_id", sa.Uuid(), nullable=True),
        sa.Column("invited_by_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("char_length(email) BETWEEN 3 AND 254", name=op.f("ck_team_invitation_email_length")),
        sa.CheckConstraint("role IN ('owner', 'admin', 'member')", name=op.f("ck_team_invitation_role_known")),
        sa.CheckConstraint(
            "status IN ('accepted', 'declined', 'revoked', 'expired', 'pending')",
            name=op.f("ck_team_invitation_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["invited_by_id"],
            ["user_account.id"],
            name=op.f("fk_team_invitation_invited_by_id_user_account"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["role_id"], ["role.id"], name=op.f("fk_team_invitation_role_id_role"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["team.id"], name=op.f("fk_team_invitation_team_id_team"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user_account.id"], name=op.f("fk_team_invitation_user_id_user_account"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_team_invitation")),
        sa.UniqueConstraint("digest", name="uq_team_invitation_digest"),
    )
    op.create_index(op.f("ix_team_invitation_invited_by_id"), "team_invitation", ["invited_by_id"], unique=False)
    op.create_index(op.f("ix_team_invitation_role_id"), "team_invitation", ["role_id"], unique=False)
    op.create_index(op.f("ix_team_invitation_team_id"), "team_invitation", ["team_id"], unique=False)
    op.create_index(op.f("ix_team_invitation_user_id"), "team_invitation", ["user_id"], unique=False)
    op.create_index(
        "uq_team_invitation_team_id_email",
        "team_invitation",
        ["team_id", "email"],
        unique=True,
        postgresql_where=sa.text("status = 'pending'"),
    )


def downgrade() -> None:
    op.drop_index(
        "uq_team_invitation_team_id_email",
        table_name="team_invitation",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_index(op.f("ix_team_invitation_user_id"), table_name="team_invitation")
    op.drop_index(op.f("ix_team_invitation_team_id"), table_name="team_invitation")
    op.drop_index(op.f("ix_team_invitation_role_id"), table_name="team_invitation")
    op.drop_index(op.f("ix_team_invitation_invited_by_id"), table_name="team_invitation")
    op.drop_table("team_invitation")
