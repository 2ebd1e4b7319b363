"""The warm pool, the lifecycle of tenants, the audit trail and rollouts.

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

_KINDS = "'create', 'archive', 'restore', 'purge', 'clone', 'export', 'import'"

# The organization may ask for its own data: the tenant comes from the transaction's role, never from an argument.
_REQUEST_EXPORT = """
CREATE FUNCTION platform.request_export(requested_by uuid) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    own uuid := platform.current_tenant_id();
    made uuid := platform.uuidv7();
    actor text := 'user:' || own || '/' || requested_by;
BEGIN
    INSERT INTO platform.operation
           (id, kind, status, tenant_id, payload, attempts, not_before, requested_by, created_at, updated_at)
    VALUES (made, 'export', 'pending', own, '{"credentials": false}', 0, now(), actor, now(), now());
    INSERT INTO platform.audit_entry (id, actor, action, tenant_id, details, created_at, updated_at)
    VALUES (platform.uuidv7(), actor, 'tenant.export', own, jsonb_build_object('operation', made), now(), now());
    RETURN made;
END
$function$
"""

_OWN_EXPORTS = """
CREATE FUNCTION platform.own_exports()
RETURNS TABLE (id uuid, status text, error text, result jsonb, created_at timestamptz, finished_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT o.id, o.status, o.error, o.result, o.created_at, o.finished_at
      FROM platform.operation o
     WHERE o.tenant_id = platform.current_tenant_id() AND o.kind = 'export' AND o.requested_by LIKE 'user:%'
     ORDER BY o.id DESC
$function$
"""

# uuidv7() is built in from PostgreSQL 18 on; before, the time is put in front by hand (RFC 9562 §5.7).
_UUIDV7 = """
DO $do$
BEGIN
    IF current_setting('server_version_num')::int < 180000 THEN
        CREATE FUNCTION platform.uuidv7() RETURNS uuid LANGUAGE sql VOLATILE AS $function$
            SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
                       PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                       FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
        $function$;
    ELSE
        CREATE FUNCTION platform.uuidv7() RETURNS uuid LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.uuidv7()';
    END IF;
END
$do$
"""

_GRANTS = (
    "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA platform FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION platform.request_export(uuid), platform.own_exports() TO tenantry_tenant",
    # Claimed by deletion; made by the provisioner alone. FOR UPDATE SKIP LOCKED asks for UPDATE on some column.
    "GRANT SELECT, DELETE, UPDATE (updated_at) ON platform.warm_schema TO tenantry_control",
    # Written, and never changed.
    "GRANT SELECT, INSERT ON platform.audit_entry TO tenantry_control",
    "GRANT SELECT ON platform.purge_certificate, platform.rollout_tenant TO tenantry_control",
    "GRANT SELECT, INSERT, UPDATE ON platform.rollout TO tenantry_control",
)


def _timestamps() -> tuple[sa.Column[object], sa.Column[object]]:
    return (
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )


def upgrade() -> None:
    op.drop_constraint(op.f("ck_operator_role_known"), "operator", schema="platform", type_="check")
    op.execute(
        "UPDATE platform.operator SET role = CASE role WHEN 'admin' THEN 'operator' WHEN 'viewer' THEN 'auditor'"
        " ELSE role END"
    )
    op.create_check_constraint(
        op.f("ck_operator_role_known"),
        "operator",
        "role IN ('owner', 'operator', 'support', 'auditor')",
        schema="platform",
    )

    op.add_column("tenant", sa.Column("archive_key", sa.Text(), nullable=True), schema="platform")
    op.add_column("tenant", sa.Column("status_before", sa.Text(), nullable=True), schema="platform")
    op.add_column("tenant", sa.Column("purge_after", sa.DateTime(timezone=True), nullable=True), schema="platform")
    op.create_index(
        "ix_tenant_purge_after",
        "tenant",
        ["purge_after"],
        schema="platform",
        postgresql_where=sa.text("status = 'purging'"),
    )

    op.add_column(
        "operation", sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True), schema="platform"
    )
    op.drop_constraint(op.f("ck_operation_kind_known"), "operation", schema="platform", type_="check")
    op.create_check_constraint(op.f("ck_operation_kind_known"), "operation", f"kind IN ({_KINDS})", schema="platform")
    op.create_index(
        "uq_operation_tenant_id_pending",
        "operation",
        ["tenant_id"],
        unique=True,
        schema="platform",
        postgresql_where=sa.text("status = 'pending'"),
    )

    op.create_table(
        "warm_schema",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        *_timestamps(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_warm_schema")),
        schema="platform",
    )
    op.create_table(
        "audit_entry",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        *_timestamps(),
        sa.CheckConstraint("char_length(actor) BETWEEN 1 AND 200", name=op.f("ck_audit_entry_actor_length")),
        sa.CheckConstraint("char_length(action) BETWEEN 1 AND 100", name=op.f("ck_audit_entry_action_length")),
        sa.CheckConstraint("char_length(reason) <= 1000", name=op.f("ck_audit_entry_reason_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entry")),
        schema="platform",
    )
    op.create_index("ix_audit_entry_tenant_id_id", "audit_entry", ["tenant_id", "id"], schema="platform")
    op.create_index("ix_audit_entry_actor_id", "audit_entry", ["actor", "id"], schema="platform")
    op.create_table(
        "purge_certificate",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("certificate", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("jws", sa.Text(), nullable=False),
        *_timestamps(),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["platform.tenant.id"], name=op.f("fk_purge_certificate_tenant_id_tenant")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_purge_certificate")),
        sa.UniqueConstraint("tenant_id", name="uq_purge_certificate_tenant_id"),
        schema="platform",
    )
    op.create_table(
        "rollout",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("canary", sa.Integer(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("halt_after", sa.Integer(), nullable=False),
        sa.Column("lock_timeout", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("only", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("halted_reason", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        *_timestamps(),
        sa.CheckConstraint(
            "status IN ('running', 'halted', 'done', 'cancelled')", name=op.f("ck_rollout_status_known")
        ),
        sa.CheckConstraint("canary >= 0", name=op.f("ck_rollout_canary_range")),
        sa.CheckConstraint("concurrency BETWEEN 1 AND 64", name=op.f("ck_rollout_concurrency_range")),
        sa.CheckConstraint("halt_after >= 1", name=op.f("ck_rollout_halt_after_range")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout")),
        schema="platform",
    )
    # One at a time: whoever starts a second is told of the first.
    op.create_index(
        "uq_rollout_running",
        "rollout",
        [sa.text("(status)")],
        unique=True,
        schema="platform",
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_table(
        "rollout_tenant",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("rollout_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("from_revision", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("statement", sa.Text(), nullable=True),
        sa.Column("duration", sa.Integer(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        *_timestamps(),
        sa.CheckConstraint("status IN ('pending', 'done', 'failed')", name=op.f("ck_rollout_tenant_status_known")),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["platform.rollout.id"], name=op.f("fk_rollout_tenant_rollout_id_rollout")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_rollout_tenant_tenant_id_tenant")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout_tenant")),
        sa.UniqueConstraint("rollout_id", "tenant_id", name="uq_rollout_tenant_rollout_id_tenant_id"),
        schema="platform",
    )
    op.create_index(op.f("ix_platform_rollout_tenant_tenant_id"), "rollout_tenant", ["tenant_id"], schema="platform")
    for statement in (_UUIDV7, _REQUEST_EXPORT, _OWN_EXPORTS, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    for function in ("request_export(uuid)", "own_exports()", "uuidv7()"):
        op.execute(f"DROP FUNCTION platform.{function}")
    for table in ("rollout_tenant", "rollout", "purge_certificate", "audit_entry", "warm_schema"):
        op.drop_table(table, schema="platform")
    op.drop_index("uq_operation_tenant_id_pending", table_name="operation", schema="platform")
    # What the older release does not know it cannot carry out.
    op.execute("DELETE FROM platform.operation WHERE kind <> 'create'")
    op.drop_constraint(op.f("ck_operation_kind_known"), "operation", schema="platform", type_="check")
    op.create_check_constraint(op.f("ck_operation_kind_known"), "operation", "kind IN ('create')", schema="platform")
    op.drop_column("operation", "result", schema="platform")
    op.drop_index("ix_tenant_purge_after", table_name="tenant", schema="platform")
    for column in ("purge_after", "status_before", "archive_key"):
        op.drop_column("tenant", column, schema="platform")
    op.drop_constraint(op.f("ck_operator_role_known"), "operator", schema="platform", type_="check")
    op.execute(
        "UPDATE platform.operator SET role = CASE role WHEN 'operator' THEN 'admin' WHEN 'owner' THEN role"
        " ELSE 'viewer' END"
    )
    op.create_check_constraint(
        op.f("ck_operator_role_known"), "operator", "role IN ('owner', 'admin', 'viewer')", schema="platform"
    )
