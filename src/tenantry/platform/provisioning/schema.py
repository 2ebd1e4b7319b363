"""Making a tenant's schema: role, grants and tables, in one transaction with whatever else must be true with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.tenancy.bootstrap import APP_ROLE, TENANT_GROUP_ROLE
from tenantry.tenancy.migrations import compile_script
from tenantry.tenancy.models import schema_name

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.tenancy.connection import DriverConnection

__all__ = ("create_schema",)


def _statements(name: str) -> str:
    return f"""
CREATE ROLE "{name}" NOLOGIN INHERIT;
-- What every tenant may do in the shared schema is granted to the group once, not to ten thousand roles.
GRANT {TENANT_GROUP_ROLE} TO "{name}" WITH INHERIT TRUE, SET FALSE;
-- The application may become the tenant, but holds none of its rights until it does.
GRANT "{name}" TO {APP_ROLE} WITH INHERIT FALSE, SET TRUE;
CREATE SCHEMA "{name}";
GRANT USAGE ON SCHEMA "{name}" TO "{name}";
ALTER DEFAULT PRIVILEGES IN SCHEMA "{name}" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "{name}";
ALTER DEFAULT PRIVILEGES IN SCHEMA "{name}" GRANT USAGE, SELECT ON SEQUENCES TO "{name}";
SET LOCAL search_path TO "{name}";
{compile_script("tenant")}
-- The version is the owner's to write.
REVOKE INSERT, UPDATE, DELETE ON "{name}".alembic_version FROM "{name}";
"""  # noqa: S608 - the name is made of a UUID's digits


async def create_schema(connection: DriverConnection, tenant_id: UUID) -> None:
    """Make the role and the schema at head, in one round trip, inside the caller's transaction.

    Leaves the search_path on the new schema until the transaction ends. Roles and schemas are transactional in
    PostgreSQL: a provisioner that is killed here leaves nothing behind.

    Raises:
        asyncpg.PostgresError: whatever the server says; the caller must roll back.
    """
    await connection.execute(_statements(schema_name(tenant_id)))
