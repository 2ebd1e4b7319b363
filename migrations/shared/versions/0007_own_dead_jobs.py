"""What an organization may know of its jobs that have failed for good.

Revision: 0007
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The last ones; neither their arguments nor their errors.
_OWN_DEAD_JOBS = """
CREATE FUNCTION platform.own_dead_jobs(most integer)
RETURNS TABLE (id uuid, name text, died_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT o.id, o.name, o.updated_at
      FROM platform.outbox o
     WHERE o.tenant_id = platform.current_tenant_id() AND o.status = 'dead'
     ORDER BY o.updated_at DESC, o.id
     LIMIT least(most, 100)
$function$
"""


def upgrade() -> None:
    op.create_index(
        "ix_outbox_tenant_id_updated_at_dead",
        "outbox",
        ["tenant_id", "updated_at"],
        schema="platform",
        postgresql_where=sa.text("status = 'dead'"),
    )
    op.execute(_OWN_DEAD_JOBS)
    op.execute("REVOKE EXECUTE ON FUNCTION platform.own_dead_jobs(integer) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION platform.own_dead_jobs(integer) TO tenantry_tenant")


def downgrade() -> None:
    op.execute("DROP FUNCTION platform.own_dead_jobs(integer)")
    op.drop_index("ix_outbox_tenant_id_updated_at_dead", table_name="outbox", schema="platform")
