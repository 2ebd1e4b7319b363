"""Single sign-on: OpenID providers, their domains and roles, who people are there, and log-ins under way.

Revision: 0012
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sso_connection",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("client_secret", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("is_enforced", sa.Boolean(), nullable=False),
        sa.Column("provisions_users", sa.Boolean(), nullable=False),
        sa.Column("owners_allowed", sa.Boolean(), nullable=False),
        sa.Column("role_claim", sa.Text(), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("cardinality(scopes) <= 50", name=op.f("ck_sso_connection_scopes_range")),
        sa.CheckConstraint("char_length(client_id) BETWEEN 1 AND 500", name=op.f("ck_sso_connection_client_id_length")),
        sa.CheckConstraint("char_length(issuer) BETWEEN 1 AND 500", name=op.f("ck_sso_connection_issuer_length")),
        sa.CheckConstraint("char_length(last_failure) <= 500", name=op.f("ck_sso_connection_last_failure_length")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 100", name=op.f("ck_sso_connection_name_length")),
        sa.CheckConstraint("char_length(role_claim) <= 200", name=op.f("ck_sso_connection_role_claim_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sso_connection")),
    )
    op.create_table(
        "sso_domain",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.CheckConstraint("char_length(domain) BETWEEN 1 AND 253", name=op.f("ck_sso_domain_domain_length")),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["sso_connection.id"],
            name=op.f("fk_sso_domain_connection_id_sso_connection"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sso_domain")),
        sa.UniqueConstraint("domain", name="uq_sso_domain_domain"),
    )
    op.create_index(op.f("ix_sso_domain_connection_id"), "sso_domain", ["connection_id"], unique=False)
    op.create_table(
        "sso_grant",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("claim_value", sa.Text(), nullable=True),
        sa.Column("role_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("char_length(claim_value) BETWEEN 1 AND 500", name=op.f("ck_sso_grant_claim_value_length")),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["sso_connection.id"],
            name=op.f("fk_sso_grant_connection_id_sso_connection"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["role_id"], ["role.id"], name=op.f("fk_sso_grant_role_id_role"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sso_grant")),
    )
    op.create_index(op.f("ix_sso_grant_connection_id"), "sso_grant", ["connection_id"], unique=False)
    op.create_index(op.f("ix_sso_grant_role_id"), "sso_grant", ["role_id"], unique=False)
    op.create_table(
        "sso_identity",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("char_length(subject) BETWEEN 1 AND 255", name=op.f("ck_sso_identity_subject_length")),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["sso_connection.id"],
            name=op.f("fk_sso_identity_connection_id_sso_connection"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["user_account.id"],
            name=op.f("fk_sso_identity_user_id_user_account"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sso_identity")),
        sa.UniqueConstraint("connection_id", "subject", name="uq_sso_identity_connection_id_subject"),
        sa.UniqueConstraint("connection_id", "user_id", name="uq_sso_identity_connection_id_user_id"),
    )
    op.create_index(op.f("ix_sso_identity_user_id"), "sso_identity", ["user_id"], unique=False)
    op.create_table(
        "sso_login",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("state_digest", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("code_digest", sa.LargeBinary(), nullable=True),
        sa.Column("code_challenge", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("traded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("char_length(code_challenge) <= 43", name=op.f("ck_sso_login_code_challenge_length")),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["sso_connection.id"],
            name=op.f("fk_sso_login_connection_id_sso_connection"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["user_account.id"],
            name=op.f("fk_sso_login_user_id_user_account"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sso_login")),
        sa.UniqueConstraint("code_digest", name="uq_sso_login_code_digest"),
        sa.UniqueConstraint("state_digest", name="uq_sso_login_state_digest"),
    )
    op.create_index(op.f("ix_sso_login_connection_id"), "sso_login", ["connection_id"], unique=False)
    op.create_index(op.f("ix_sso_login_user_id"), "sso_login", ["user_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_sso_login_user_id"), table_name="sso_login")
    op.drop_index(op.f("ix_sso_login_connection_id"), table_name="sso_login")
    op.drop_table("sso_login")
    op.drop_index(op.f("ix_sso_identity_user_id"), table_name="sso_identity")
    op.drop_table("sso_identity")
    op.drop_index(op.f("ix_sso_grant_role_id"), table_name="sso_grant")
    op.drop_index(op.f("ix_sso_grant_connection_id"), table_name="sso_grant")
    op.drop_table("sso_grant")
    op.drop_index(op.f("ix_sso_domain_connection_id"), table_name="sso_domain")
    op.drop_table("sso_domain")
    op.drop_table("sso_connection")
