"""The outbox of jobs, and what a plan gives of the workers' time.

Revision: 0003
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The tenant comes from the transaction's role, never from an argument. No NOTIFY: it serialises everybody's commits.
_ENQUEUE = """
CREATE FUNCTION platform.enqueue_job(
    job_id uuid, job_name text, job_arguments jsonb, job_key text, job_due timestamptz, job_retries integer,
    job_timeout integer, job_meta jsonb
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    own uuid := platform.current_tenant_id();
    made uuid;
BEGIN
    INSERT INTO platform.outbox
           (id, tenant_id, name, arguments, key, status, due, retries, timeout, meta, created_at, updated_at)
    VALUES (job_id, own, job_name, job_arguments, job_key, 'pending', coalesce(job_due, now()), job_retries,
            job_timeout, job_meta, now(), now())
    ON CONFLICT (tenant_id, name, key) WHERE key IS NOT NULL AND status <> 'dead' DO NOTHING
    RETURNING id INTO made;
    IF made IS NULL THEN
        SELECT o.id INTO made FROM platform.outbox o
         WHERE o.tenant_id = own AND o.name = job_name AND o.key = job_key AND o.status <> 'dead';
    END IF;
    RETURN made;
END
$function$
"""

_ACKNOWLEDGE = """
CREATE FUNCTION platform.acknowledge_job(job_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    DELETE FROM platform.outbox o WHERE o.id = job_id AND o.tenant_id = platform.current_tenant_id();
    RETURN FOUND;
END
$function$
"""

# How far a job is that the organization has asked for; neither its arguments nor its error.
_OWN_JOB = """
CREATE FUNCTION platform.own_job(job_id uuid)
RETURNS TABLE (name text, status text, due timestamptz, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT o.name, o.status, o.due, o.created_at, o.updated_at
      FROM platform.outbox o
     WHERE o.id = job_id AND o.tenant_id = platform.current_tenant_id()
$function$
"""

_GRANTS = (
    "REVOKE EXECUTE ON FUNCTION"
    " platform.enqueue_job(uuid, text, jsonb, text, timestamptz, integer, integer, jsonb),"
    " platform.acknowledge_job(uuid), platform.own_job(uuid) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION"
    " platform.enqueue_job(uuid, text, jsonb, text, timestamptz, integer, integer, jsonb),"
    " platform.acknowledge_job(uuid), platform.own_job(uuid) TO tenantry_tenant",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON platform.outbox TO tenantry_control",
)


def upgrade() -> None:
    op.add_column(
        "plan", sa.Column("job_weight", sa.Float(), server_default=sa.text("1"), nullable=False), schema="platform"
    )
    op.add_column(
        "plan",
        sa.Column("job_concurrency", sa.Integer(), server_default=sa.text("8"), nullable=False),
        schema="platform",
    )
    op.create_check_constraint(
        op.f("ck_plan_job_weight_range"), "plan", "job_weight BETWEEN 0.01 AND 100", schema="platform"
    )
    op.create_check_constraint(
        op.f("ck_plan_job_concurrency_range"), "plan", "job_concurrency BETWEEN 1 AND 1000", schema="platform"
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("arguments", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("due", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("timeout", sa.Integer(), nullable=False),
        sa.Column("meta", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("again_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status IN ('pending', 'relayed', 'dead')", name=op.f("ck_outbox_status_known")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 100", name=op.f("ck_outbox_name_length")),
        sa.CheckConstraint("char_length(key) BETWEEN 1 AND 200", name=op.f("ck_outbox_key_length")),
        sa.CheckConstraint("pg_column_size(arguments) <= 262144", name=op.f("ck_outbox_arguments_size")),
        sa.CheckConstraint("retries BETWEEN 2 AND 100", name=op.f("ck_outbox_retries_range")),
        sa.CheckConstraint("timeout BETWEEN 1 AND 86400", name=op.f("ck_outbox_timeout_range")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_outbox_tenant_id_tenant")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        schema="platform",
    )
    # Of each tenant the first that are due: the relay takes a few of every tenant, whoever has how many.
    op.create_index(
        "ix_outbox_tenant_id_due_pending",
        "outbox",
        ["tenant_id", "due", "id"],
        schema="platform",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_outbox_again_at_relayed",
        "outbox",
        ["again_at"],
        schema="platform",
        postgresql_where=sa.text("status = 'relayed'"),
    )
    op.create_index(
        "uq_outbox_key",
        "outbox",
        ["tenant_id", "name", "key"],
        unique=True,
        schema="platform",
        postgresql_where=sa.text("key IS NOT NULL AND status <> 'dead'"),
        postgresql_nulls_not_distinct=True,
    )
    for statement in (_ENQUEUE, _ACKNOWLEDGE, _OWN_JOB, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION platform.own_job(uuid)")
    op.execute("DROP FUNCTION platform.acknowledge_job(uuid)")
    op.execute("DROP FUNCTION platform.enqueue_job(uuid, text, jsonb, text, timestamptz, integer, integer, jsonb)")
    op.drop_table("outbox", schema="platform")
    op.drop_constraint(op.f("ck_plan_job_concurrency_range"), "plan", schema="platform", type_="check")
    op.drop_constraint(op.f("ck_plan_job_weight_range"), "plan", schema="platform", type_="check")
    op.drop_column("plan", "job_concurrency", schema="platform")
    op.drop_column("plan", "job_weight", schema="platform")
