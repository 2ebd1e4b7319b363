"""Operators in organizations: the control plane's list, and what an organization's transaction may ask of it.

Revision: 0011
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# The tenant comes from the transaction's role, never from an argument. An operator who was deactivated, or has another
# role than when they came in, is nobody here.
_OWN = """
CREATE FUNCTION platform.own_operator_access(access_id uuid) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT a.operator_id
      FROM platform.operator_access a JOIN platform.operator o ON o.id = a.operator_id
     WHERE a.id = access_id AND a.tenant_id = platform.current_tenant_id()
       AND a.closed_at IS NULL AND a.expires_at > now() AND o.is_active AND o.role = a.operator_role
$function$
"""
# So that operators see in their list what the organization's owners have ended.
_CLOSE = """
CREATE FUNCTION platform.close_own_operator_access(access_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    UPDATE platform.operator_access a SET closed_at = now(), updated_at = now()
     WHERE a.id = access_id AND a.tenant_id = platform.current_tenant_id() AND a.closed_at IS NULL;
    RETURN FOUND;
END
$function$
"""


def upgrade() -> None:
    op.create_table(
        "operator_access",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("operator_id", sa.Uuid(), nullable=False),
        sa.Column("operator_role", sa.Text(), nullable=False),
        sa.Column("can_write", sa.Boolean(), nullable=False),
        sa.Column("is_break_glass", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("char_length(reason) BETWEEN 1 AND 500", name=op.f("ck_operator_access_reason_length")),
        sa.ForeignKeyConstraint(
            ["operator_id"], ["platform.operator.id"], name=op.f("fk_operator_access_operator_id_operator")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["platform.tenant.id"], name=op.f("fk_operator_access_tenant_id_tenant")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_access")),
        schema="platform",
    )
    op.create_index(
        "ix_operator_access_tenant_id_created_at", "operator_access", ["tenant_id", "created_at"], schema="platform"
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON platform.operator_access TO tenantry_control")
    op.execute(_OWN)
    op.execute("REVOKE EXECUTE ON FUNCTION platform.own_operator_access(uuid) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION platform.own_operator_access(uuid) TO tenantry_tenant")
    op.execute(_CLOSE)
    op.execute("REVOKE EXECUTE ON FUNCTION platform.close_own_operator_access(uuid) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION platform.close_own_operator_access(uuid) TO tenantry_tenant")


def downgrade() -> None:
    op.execute("DROP FUNCTION platform.close_own_operator_access(uuid)")
    op.execute("DROP FUNCTION platform.own_operator_access(uuid)")
    op.drop_table("operator_access", schema="platform")
