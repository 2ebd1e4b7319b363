"""The control plane: plans, tenants, operators, operations.

Revision: 0001
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# What a tenant may do in this schema goes through functions that take the tenant from the transaction's role, never
# from an argument. Inside a SECURITY DEFINER function current_user is the function's owner, but the setting `role`
# still names the tenant.
_CURRENT_TENANT = """
CREATE FUNCTION platform.current_tenant_id() RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    role_name text := current_setting('role');
BEGIN
    IF role_name !~ '^t_[0-9a-f]{32}$' THEN
        RAISE EXCEPTION 'no tenant in this transaction' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN substr(role_name, 3)::uuid;
END
$function$
"""

_OWN_PLAN = """
CREATE FUNCTION platform.own_plan() RETURNS TABLE (slug text, name text, statement_timeout integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT p.slug, p.name, p.statement_timeout
      FROM platform.tenant t JOIN platform.plan p ON p.slug = t.plan
     WHERE t.id = platform.current_tenant_id()
$function$
"""

# NOTIFY serialises the commits that use it: for changes of tenants and plans alone, never on a tenant's own way.
_NOTE_CHANGE = """
CREATE FUNCTION platform.note_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    NEW.changed_xid := pg_current_xact_id()::text::bigint;
    PERFORM pg_notify('tenantry_tenant', NEW.id::text);
    RETURN NEW;
END
$function$
"""

_TRIGGERS = tuple(
    f"CREATE TRIGGER note_change BEFORE INSERT OR UPDATE ON platform.{table}"
    " FOR EACH ROW EXECUTE FUNCTION platform.note_change()"
    for table in ("tenant", "plan")
)

_GRANTS = (
    "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA platform FROM PUBLIC",
    "GRANT USAGE ON SCHEMA platform TO tenantry_control, tenantry_tenant",
    "GRANT EXECUTE ON FUNCTION platform.own_plan() TO tenantry_tenant",
    "GRANT SELECT, INSERT, UPDATE ON platform.tenant, platform.plan, platform.operator, platform.operation"
    " TO tenantry_control",
)


def upgrade() -> None:
    op.create_table(
        "operator",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("hashed_password", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('owner', 'admin', 'viewer')", name=op.f("ck_operator_role_known")),
        sa.CheckConstraint("char_length(email) BETWEEN 3 AND 254", name=op.f("ck_operator_email_length")),
        sa.CheckConstraint("char_length(name) <= 200", name=op.f("ck_operator_name_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator")),
        sa.UniqueConstraint("email", name="uq_operator_email"),
        schema="platform",
    )
    op.create_table(
        "plan",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("statement_timeout", sa.Integer(), nullable=True),
        sa.Column("changed_xid", sa.BigInteger(), server_default=sa.FetchedValue(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'", name=op.f("ck_plan_slug_form")),
        sa.CheckConstraint("char_length(description) <= 1000", name=op.f("ck_plan_description_length")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_plan_name_length")),
        sa.CheckConstraint("statement_timeout BETWEEN 1 AND 600000", name=op.f("ck_plan_statement_timeout_range")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan")),
        sa.UniqueConstraint("slug", name="uq_plan_slug"),
        schema="platform",
    )
    op.create_index(op.f("ix_platform_plan_changed_xid"), "plan", ["changed_xid"], unique=False, schema="platform")
    op.create_table(
        "tenant",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("status_changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("owner_email", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=True),
        sa.Column("changed_xid", sa.BigInteger(), server_default=sa.FetchedValue(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'", name=op.f("ck_tenant_slug_form")),
        sa.CheckConstraint(
            "status IN ('provisioning', 'active', 'suspended', 'archived', 'purging', 'purged', 'failed')",
            name=op.f("ck_tenant_status_known"),
        ),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_tenant_name_length")),
        sa.CheckConstraint("char_length(status_reason) <= 1000", name=op.f("ck_tenant_status_reason_length")),
        sa.ForeignKeyConstraint(["plan"], ["platform.plan.slug"], name=op.f("fk_tenant_plan_plan")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant")),
        sa.UniqueConstraint("slug", name="uq_tenant_slug"),
        schema="platform",
    )
    op.create_index(op.f("ix_platform_tenant_changed_xid"), "tenant", ["changed_xid"], unique=False, schema="platform")
    op.create_table(
        "operation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('create')", name=op.f("ck_operation_kind_known")),
        sa.CheckConstraint("status IN ('pending', 'done', 'failed')", name=op.f("ck_operation_status_known")),
        sa.CheckConstraint("char_length(error) <= 2000", name=op.f("ck_operation_error_length")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_operation_tenant_id_tenant")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operation")),
        schema="platform",
    )
    op.create_index(
        "ix_operation_pending",
        "operation",
        ["not_before"],
        unique=False,
        schema="platform",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        op.f("ix_platform_operation_tenant_id"), "operation", ["tenant_id"], unique=False, schema="platform"
    )
    for statement in (_CURRENT_TENANT, _OWN_PLAN, _NOTE_CHANGE, *_TRIGGERS, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    for table in ("tenant", "plan"):
        op.execute(f"DROP TRIGGER note_change ON platform.{table}")
    for function in ("own_plan", "current_tenant_id", "note_change"):
        op.execute(f"DROP FUNCTION platform.{function}()")
    op.drop_index(op.f("ix_platform_operation_tenant_id"), table_name="operation", schema="platform")
    op.drop_index(
        "ix_operation_pending",
        table_name="operation",
        schema="platform",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_table("operation", schema="platform")
    op.drop_index(op.f("ix_platform_tenant_changed_xid"), table_name="tenant", schema="platform")
    op.drop_table("tenant", schema="platform")
    op.drop_index(op.f("ix_platform_plan_changed_xid"), table_name="plan", schema="platform")
    op.drop_table("plan", schema="platform")
    op.drop_table("operator", schema="platform")
