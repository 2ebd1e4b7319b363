"""What tenants have used, day by day.

Revision: 0010
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# The tenant comes from the transaction's role, never from an argument.
_OWN_USE = """
CREATE FUNCTION platform.own_use(since date, until date)
RETURNS TABLE (day date, requests bigint, requests_epoch text, requests_seen bigint, jobs bigint, jobs_epoch text,
               jobs_seen bigint, storage_bytes bigint, seats bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT u.day, u.requests, u.requests_epoch, u.requests_seen, u.jobs, u.jobs_epoch, u.jobs_seen, u.storage_bytes,
           u.seats
      FROM platform.usage_day u
     WHERE u.tenant_id = platform.current_tenant_id() AND u.day BETWEEN since AND until
     ORDER BY u.day
$function$
"""

# Two numbers, and nothing else of what is in the tenant's tables: the control plane may not look into them itself.
# Without a schema (archived, not made yet) both are 0.
_MEASURE = """
CREATE FUNCTION platform.measure_tenant(tenant uuid) RETURNS TABLE (storage_bytes bigint, seats bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    own text := 't_' || replace(tenant::text, '-', '');
BEGIN
    SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint INTO storage_bytes
      FROM pg_catalog.pg_class c
     WHERE c.relnamespace = to_regnamespace(own) AND c.relkind IN ('r', 'p', 'm');
    seats := 0;
    IF to_regclass(own || '.user_account') IS NOT NULL THEN
        EXECUTE format('SELECT count(*) FROM %I.user_account WHERE is_active', own) INTO seats;
    END IF;
    RETURN NEXT;
END
$function$
"""

_GRANTS = (
    "REVOKE EXECUTE ON FUNCTION platform.own_use(date, date), platform.measure_tenant(uuid) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION platform.own_use(date, date) TO tenantry_tenant",
    "GRANT EXECUTE ON FUNCTION platform.measure_tenant(uuid) TO tenantry_control",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON platform.usage_day TO tenantry_control",
)


def upgrade() -> None:
    op.create_table(
        "usage_day",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("requests_epoch", sa.Text(), nullable=True),
        sa.Column("requests_seen", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("jobs", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("jobs_epoch", sa.Text(), nullable=True),
        sa.Column("jobs_seen", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("storage_bytes", sa.BigInteger(), nullable=True),
        sa.Column("seats", sa.BigInteger(), nullable=True),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "day", name=op.f("pk_usage_day")),
        sa.CheckConstraint(
            "requests >= requests_seen AND jobs >= jobs_seen AND requests_seen >= 0 AND jobs_seen >= 0",
            name=op.f("ck_usage_day_counted"),
        ),
        schema="platform",
    )
    op.create_index("ix_usage_day_day", "usage_day", ["day"], schema="platform")
    for statement in (_OWN_USE, _MEASURE, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION platform.measure_tenant(uuid)")
    op.execute("DROP FUNCTION platform.own_use(date, date)")
    op.drop_index("ix_usage_day_day", table_name="usage_day", schema="platform")
    op.drop_table("usage_day", schema="platform")
