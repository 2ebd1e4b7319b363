"""What an organization may do about the owner's address that the control plane keeps.

Revision: 0008
Written: 2026-11-23
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# The tenant comes from the transaction's role, never from an argument. Nothing happens unless `former` is the address.
_REPLACE = """
CREATE FUNCTION platform.replace_owner_email(former text, successor text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    UPDATE platform.tenant t SET owner_email = successor, updated_at = now()
     WHERE t.id = platform.current_tenant_id() AND t.owner_email = former
       AND char_length(successor) BETWEEN 3 AND 254;
    RETURN FOUND;
END
$function$
"""


def upgrade() -> None:
    op.execute(_REPLACE)
    op.execute("REVOKE EXECUTE ON FUNCTION platform.replace_owner_email(text, text) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION platform.replace_owner_email(text, text) TO tenantry_tenant")


def downgrade() -> None:
    op.execute("DROP FUNCTION platform.replace_owner_email(text, text)")
