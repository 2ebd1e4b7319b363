"""What becomes due waits apart, who chose a time zone when, and what the catalog grows to.

Revision: 0005
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# As in 0003, but for the status: what is not due yet is not among what the relay looks through.
_ENQUEUE = """
CREATE OR REPLACE FUNCTION platform.enqueue_job(
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
    VALUES (job_id, own, job_name, job_arguments, job_key, {status}, coalesce(job_due, now()), job_retries,
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

# The control plane's role may not connect, and so not ask for the size of what it is in.
_DATABASE_SIZE = """
CREATE FUNCTION platform.database_size() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT pg_database_size(current_database())
$function$
"""


def _known(*states: str) -> None:
    op.drop_constraint(op.f("ck_outbox_status_known"), "outbox", schema="platform", type_="check")
    words = ", ".join(f"'{state}'" for state in states)
    op.create_check_constraint(op.f("ck_outbox_status_known"), "outbox", f"status IN ({words})", schema="platform")


def upgrade() -> None:
    _known("pending", "later", "relayed", "dead")
    op.create_index(
        "ix_outbox_due_later",
        "outbox",
        ["due"],
        schema="platform",
        postgresql_where=sa.text("status = 'later'"),
    )
    op.execute(_ENQUEUE.replace("{status}", "CASE WHEN job_due > now() THEN 'later' ELSE 'pending' END"))
    op.execute("UPDATE platform.outbox SET status = 'later' WHERE status = 'pending' AND due > now()")
    op.add_column(
        "schedule", sa.Column("timezone_set_at", sa.DateTime(timezone=True), nullable=True), schema="platform"
    )
    op.create_table(
        "catalog_statistic",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("schemas", sa.BigInteger(), nullable=False),
        sa.Column("relations", sa.BigInteger(), nullable=False),
        sa.Column("database_bytes", sa.BigInteger(), nullable=False),
        sa.Column("tables", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("jobs", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("oldest_pending", sa.Float(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog_statistic")),
        sa.UniqueConstraint("day", name="uq_catalog_statistic_day"),
        schema="platform",
    )
    op.execute(_DATABASE_SIZE)
    op.execute("REVOKE EXECUTE ON FUNCTION platform.database_size() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION platform.database_size() TO tenantry_control")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON platform.catalog_statistic TO tenantry_control")


def downgrade() -> None:
    op.execute("DROP FUNCTION platform.database_size()")
    op.drop_table("catalog_statistic", schema="platform")
    op.drop_column("schedule", "timezone_set_at", schema="platform")
    op.execute(_ENQUEUE.replace("{status}", "'pending'"))
    op.execute("UPDATE platform.outbox SET status = 'pending' WHERE status = 'later'")
    op.drop_index("ix_outbox_due_later", table_name="outbox", schema="platform")
    _known("pending", "relayed", "dead")
