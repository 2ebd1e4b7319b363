"""The directory: what SCIM says of people and teams.

Revision: 0013
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "directory_user",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("given_name", sa.Text(), nullable=True),
        sa.Column("family_name", sa.Text(), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "char_length(external_id) BETWEEN 1 AND 255", name=op.f("ck_directory_user_external_id_length")
        ),
        sa.CheckConstraint(
            "char_length(given_name) BETWEEN 1 AND 100", name=op.f("ck_directory_user_given_name_length")
        ),
        sa.CheckConstraint(
            "char_length(family_name) BETWEEN 1 AND 100", name=op.f("ck_directory_user_family_name_length")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["user_account.id"],
            name=op.f("fk_directory_user_user_id_user_account"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_directory_user")),
        sa.UniqueConstraint("user_id", name="uq_directory_user_user_id"),
    )
    op.create_index(op.f("ix_directory_user_external_id"), "directory_user", ["external_id"], unique=False)
    op.create_table(
        "directory_group",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("is_provisioned", sa.Boolean(), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "char_length(external_id) BETWEEN 1 AND 255", name=op.f("ck_directory_group_external_id_length")
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["team.id"], name=op.f("fk_directory_group_team_id_team"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_directory_group")),
        sa.UniqueConstraint("team_id", name="uq_directory_group_team_id"),
    )
    op.create_index(op.f("ix_directory_group_external_id"), "directory_group", ["external_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_directory_group_external_id"), table_name="directory_group")
    op.drop_table("directory_group")
    op.drop_index(op.f("ix_directory_user_external_id"), table_name="directory_user")
    op.drop_table("directory_user")
