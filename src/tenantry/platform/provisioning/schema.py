"""Making tenants' schemas: roles, grants and tables, in one transaction with whatever else must be true with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tenantry.platform.rollouts.planning import segments
from tenantry.tenancy.bootstrap import APP_ROLE, TENANT_GROUP_ROLE
from tenantry.tenancy.migrations import compile_script, head, upgrade
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.revisions import path_between

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from tenantry.tenancy.connection import DriverConnection

__all__ = (
    "begin_schema",
    "create_schema",
    "create_schemas",
    "creation_script",
    "drop_schemas",
    "enter_schema",
    "finish_schemas",
    "finish_unentered",
    "make_schemas",
    "migrate_schema",
)


def _begin(tenant_id: UUID) -> str:
    name = schema_name(tenant_id)
    return f"""
CREATE ROLE "{name}" NOLOGIN INHERIT;
CREATE SCHEMA "{name}";
GRANT USAGE ON SCHEMA "{name}" TO "{name}";
ALTER DEFAULT PRIVILEGES IN SCHEMA "{name}" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "{name}";
ALTER DEFAULT PRIVILEGES IN SCHEMA "{name}" GRANT USAGE, SELECT ON SEQUENCES TO "{name}";
{_enter(tenant_id)};
"""


def _enter(tenant_id: UUID) -> str:
    return f'SET LOCAL search_path TO "{schema_name(tenant_id)}"'


def _keep_version(tenant_id: UUID) -> str:
    name = schema_name(tenant_id)
    return f"""
-- The version is the owner's to write.
REVOKE INSERT, UPDATE, DELETE ON "{name}".alembic_version FROM "{name}";
"""


def _finish(tenant_id: UUID) -> str:
    name = schema_name(tenant_id)
    return f"""{_keep_version(tenant_id)}
-- What every tenant may do in the shared schema is granted to the group once, not to ten thousand roles.
GRANT {TENANT_GROUP_ROLE} TO "{name}" WITH INHERIT TRUE, SET FALSE;
-- The application may become the tenant, but holds none of its rights until it does.
GRANT "{name}" TO {APP_ROLE} WITH INHERIT FALSE, SET TRUE;
"""


def creation_script(tenant_ids: Sequence[UUID]) -> str:
    """The SQL that makes roles, grants and schemas at head, without BEGIN and COMMIT.

    The grants come last: granting the tenants' group locks it, for the whole cluster, until the transaction ends.
    """
    script = compile_script("tenant")
    return "".join([_begin(tenant_id) + script for tenant_id in tenant_ids] + [_finish(one) for one in tenant_ids])


async def create_schemas(connection: DriverConnection, tenant_ids: Sequence[UUID]) -> None:
    """Make the roles and the schemas at head, in one round trip, inside the caller's transaction.

    Leaves the search_path on the last one until the transaction ends. Roles and schemas are transactional in
    PostgreSQL: a provisioner that is killed here leaves nothing behind. Nothing is compared with what Alembic would
    make; see `create_verified`. Of a tree with logic in Python there is no such script; see `make_schemas`.

    Raises:
        asyncpg.PostgresError: whatever the server says; the caller must roll back.
    """
    await connection.execute(creation_script(tenant_ids))


async def create_schema(connection: DriverConnection, tenant_id: UUID) -> None:
    """Make one role and its schema; as `create_schemas`."""
    await create_schemas(connection, [tenant_id])


async def make_schemas(connection: AsyncConnection, tenant_ids: Sequence[UUID]) -> None:
    """As `create_schemas`, of any tree: one round trip unless it has revisions that say `online = True`.

    Args:
        connection: the owner's, in a transaction that has begun.
        tenant_ids: at least one.

    Raises:
        asyncpg.PostgresError, sqlalchemy.exc.DBAPIError: whatever the server says; the caller must roll back.
        UncompilableError: a revision that has to say `online = True` does not.
    """
    driver = await _driver(connection)
    target = head("tenant")
    if not any(step.online for step in path_between("tenant", "base", target)):
        await create_schemas(driver, tenant_ids)
        return
    for tenant_id in tenant_ids:
        await begin_schema(driver, tenant_id)
        await migrate_schema(connection, "base", target)
    await finish_schemas(driver, tenant_ids)


async def migrate_schema(connection: AsyncConnection, start: str, end: str) -> None:
    """Bring the schema that the search_path leads to from one revision to another, inside the caller's transaction.

    Compiled revisions that follow each other are one round trip; those that say `online = True` run through Alembic.

    Raises:
        asyncpg.PostgresError, sqlalchemy.exc.DBAPIError: whatever the server says; the caller must roll back.
        UnknownRevisionError, RevisionError: no path leads from one to the other.
        UncompilableError: a revision that has to say `online = True` does not.
    """
    driver = await _driver(connection)
    for segment in segments(start, end):
        if segment.online:
            await connection.run_sync(upgrade, "tenant", segment.end)
        else:
            # On lines of their own: a statement may end in a comment.
            await driver.execute("\n;\n".join(segment.statements))


async def begin_schema(connection: DriverConnection, tenant_id: UUID) -> None:
    """Make a role and an empty schema, and put the search_path on it: for whoever runs the tree by Alembic."""
    await connection.execute(_begin(tenant_id))


async def finish_unentered(connection: DriverConnection, tenant_id: UUID) -> None:
    """As `finish_schemas`, of a role that nobody is to become: without its memberships."""
    await connection.execute(_keep_version(tenant_id))


async def finish_schemas(connection: DriverConnection, tenant_ids: Sequence[UUID]) -> None:
    """Grant what a role gets once the tables are there."""
    await connection.execute("".join([_finish(tenant_id) for tenant_id in tenant_ids]))


async def enter_schema(connection: DriverConnection, tenant_id: UUID) -> None:
    """Put the transaction's search_path on a tenant's schema."""
    await connection.execute(_enter(tenant_id))


async def drop_schemas(connection: DriverConnection, tenant_ids: Sequence[UUID]) -> None:
    """Drop schemas with everything in them, then their roles, which otherwise would still have rights there.

    Raises:
        asyncpg.PostgresError: whatever the server says; the caller must roll back.
    """
    names = [schema_name(tenant_id) for tenant_id in tenant_ids]
    await connection.execute("".join(f'DROP SCHEMA "{name}" CASCADE; DROP ROLE "{name}";' for name in names))


async def _driver(connection: AsyncConnection) -> DriverConnection:
    return cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
