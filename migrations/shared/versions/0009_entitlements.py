"""What plans say of rates, quotas and features, and what single tenants have in their place.

Revision: 0009
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TIMES = ("lock_timeout", "idle_in_transaction_timeout")
_RATES = ("request_rate", "user_rate", "key_rate")
_BURSTS = ("request_burst", "user_burst", "key_burst")
_RANGES = (
    dict.fromkeys(_TIMES, "BETWEEN 1 AND 600000")
    | dict.fromkeys(_RATES, "BETWEEN 0.01 AND 1000000")
    | dict.fromkeys(_BURSTS, "BETWEEN 1 AND 1000000")
    | {"concurrent_requests": "BETWEEN 1 AND 10000", "connections": "BETWEEN 1 AND 1000"}
)

# The tenant comes from the transaction's role, never from an argument. NULL is no limit. A schema that is no tenant's
# yet, or no tenant's any more, has room for nothing.
_OWN_QUOTA = """
CREATE FUNCTION platform.own_quota(quota text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT CASE WHEN t.id IS NULL THEN 0
                WHEN t.overrides -> 'quotas' ? quota THEN (t.overrides -> 'quotas' ->> quota)::bigint
                ELSE (p.quotas ->> quota)::bigint
           END
      FROM (SELECT platform.current_tenant_id() AS id) own
      LEFT JOIN platform.tenant t ON t.id = own.id
      LEFT JOIN platform.plan p ON p.slug = t.plan
$function$
"""

# A function's columns cannot be changed, and releases before this one use `own_plan`.
_DESCRIBED_PLAN = """
CREATE FUNCTION platform.own_described_plan() RETURNS TABLE (slug text, name text, description text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT p.slug, p.name, p.description
      FROM platform.tenant t JOIN platform.plan p ON p.slug = t.plan
     WHERE t.id = platform.current_tenant_id()
$function$
"""


def upgrade() -> None:
    for name, allowed in _RANGES.items():
        kind = sa.Float() if name in _RATES else sa.Integer()
        op.add_column("plan", sa.Column(name, kind, nullable=True), schema="platform")
        op.create_check_constraint(op.f(f"ck_plan_{name}_range"), "plan", f"{name} {allowed}", schema="platform")
    for table, name in (("plan", "quotas"), ("plan", "features"), ("tenant", "overrides")):
        op.add_column(
            table,
            sa.Column(name, postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
            schema="platform",
        )
        op.create_check_constraint(
            op.f(f"ck_{table}_{name}_object"), table, f"jsonb_typeof({name}) = 'object'", schema="platform"
        )
    op.execute(_OWN_QUOTA)
    op.execute("REVOKE EXECUTE ON FUNCTION platform.own_quota(text) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION platform.own_quota(text) TO tenantry_tenant")
    op.execute(_DESCRIBED_PLAN)
    op.execute("REVOKE EXECUTE ON FUNCTION platform.own_described_plan() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION platform.own_described_plan() TO tenantry_tenant")


def downgrade() -> None:
    op.execute("DROP FUNCTION platform.own_described_plan()")
    op.execute("DROP FUNCTION platform.own_quota(text)")
    op.drop_column("tenant", "overrides", schema="platform")
    for name in ("features", "quotas", *reversed(_RANGES)):
        op.drop_column("plan", name, schema="platform")
