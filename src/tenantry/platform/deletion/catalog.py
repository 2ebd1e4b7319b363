"""A tenant's schema and role in PostgreSQL's catalog: what there is of them, and taking them away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenantry.tenancy.connection import DriverConnection

__all__ = (
    "Belongings",
    "count_belongings",
    "drop_belongings",
    "find_belongings",
    "kept_prefix",
    "leftovers",
    "lock_tables",
)

# Quoted by the server: a name with a quote in it is nobody's way out of a statement.
_TABLES = """
SELECT c.relname AS name, format('%I.%I', n.nspname, c.relname) AS quoted
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relnamespace = $1 AND c.relkind IN ('r', 'p') ORDER BY c.relname
"""

_SCHEMA = """
SELECT count(*) AS relations,
       coalesce(sum(pg_total_relation_size(oid)) FILTER (WHERE relkind IN ('r', 'm', 'S')), 0)::bigint AS bytes
  FROM pg_class WHERE relnamespace = $1
"""

_ROLE = """
SELECT (SELECT count(*) FROM pg_auth_members WHERE roleid = $1 OR member = $1) AS memberships,
       (SELECT count(*) FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = $1) AS grants,
       (SELECT count(*) FROM pg_default_acl WHERE defaclrole = $1 OR defaclnamespace = $2) AS "defaultPrivileges"
"""

# By name and by number: what named the role or the schema and has outlived it can be found by its number alone.
_LEFT = """
SELECT (SELECT count(*) FROM pg_namespace
         WHERE nspname = $1 OR oid = $2 OR starts_with(nspname, 'kept_' || substr($1, 3) || '_')) AS schemas,
       (SELECT count(*) FROM pg_roles WHERE rolname = $1 OR oid = $3) AS roles,
       (SELECT count(*) FROM pg_class WHERE relnamespace = $2 OR relowner = $3) AS relations,
       (SELECT count(*) FROM pg_proc WHERE pronamespace = $2 OR proowner = $3) AS functions,
       (SELECT count(*) FROM pg_type WHERE typnamespace = $2 OR typowner = $3) AS types,
       (SELECT count(*) FROM pg_auth_members WHERE roleid = $3 OR member = $3) AS memberships,
       (SELECT count(*) FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = $3) AS grants,
       (SELECT count(*) FROM pg_default_acl WHERE defaclrole = $3 OR defaclnamespace = $2) AS "defaultPrivileges"
"""


@dataclass(frozen=True)
class Belongings:
    """A tenant's schema and role, each by its number in the catalog; 0 where there is none, as of an archived one."""

    name: str
    schema: int
    role: int


def kept_prefix(name: str) -> str:
    """How schemas are called that were a tenant's, of the schema `name`, until a backup was restored; see `backups`."""
    return f"kept_{name.removeprefix('t_')}_"


async def find_belongings(connection: DriverConnection, name: str) -> Belongings:
    """What there is of the schema and the role of that name."""
    return Belongings(
        name,
        await connection.fetchval("SELECT oid FROM pg_namespace WHERE nspname = $1", name) or 0,
        await connection.fetchval("SELECT oid FROM pg_roles WHERE rolname = $1", name) or 0,
    )


async def lock_tables(connection: DriverConnection, belongings: Belongings, *, seconds: int) -> None:
    """Wait until nobody is in the tenant's tables, and let nobody in any more.

    Whoever enters the role later finds its tables locked until the commit and gone thereafter. Ending those who are in
    them would take rights over the application's sessions that the owner has not: their own time limits do.

    Raises:
        asyncpg.LockNotAvailableError: somebody is still in one of them after `seconds`.
    """
    await connection.execute(f"SET LOCAL lock_timeout TO '{seconds}s'; SET LOCAL client_min_messages TO warning")
    tables = await connection.fetch(_TABLES, belongings.schema)
    if tables:
        names = ", ".join(table["quoted"] for table in tables)
        await connection.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")


async def count_belongings(connection: DriverConnection, belongings: Belongings) -> dict[str, Any]:
    """What is about to be removed, as the certificate says it; exact, since the tables are locked."""
    schema = role = None
    if belongings.schema:
        tables = {
            table["name"]: await connection.fetchval(f"SELECT count(*) FROM {table['quoted']}")  # noqa: S608
            for table in await connection.fetch(_TABLES, belongings.schema)
        }
        size = await connection.fetchrow(_SCHEMA, belongings.schema)
        schema = {"name": belongings.name, "tables": tables, **dict(size or {})}
    if belongings.role:
        granted = await connection.fetchrow(_ROLE, belongings.role, belongings.schema)
        role = {"name": belongings.name, **dict(granted or {})}
    return {"schema": schema, "role": role}


async def drop_belongings(connection: DriverConnection, belongings: Belongings) -> None:
    """Drop the schema with everything in it, then the role with its memberships.

    In this order: the role's rights on the schema go with the schema, and a role that still has any cannot be dropped.
    `DROP OWNED` would need the right to become the tenant, which the owner has not. What is kept of it since a backup
    was restored goes as well: it is the same people's data, and the role has rights there.

    Raises:
        asyncpg.DependentObjectsStillExistError: the role owns something elsewhere, or has rights on it. Nobody gave
            it such: it is for an operator to look at.
    """
    if belongings.schema:
        await connection.execute(f'DROP SCHEMA "{belongings.name}" CASCADE')
    kept = await connection.fetch(
        "SELECT quote_ident(nspname) AS quoted FROM pg_namespace WHERE starts_with(nspname, $1)",
        kept_prefix(belongings.name),
    )
    for schema in kept:
        await connection.execute(f"DROP SCHEMA {schema['quoted']} CASCADE")
    if belongings.role:
        await connection.execute(f'DROP ROLE "{belongings.name}"')


async def leftovers(connection: DriverConnection, belongings: Belongings) -> dict[str, int]:
    """What the catalog still has of them, by kind; all zero once they were dropped."""
    # A number of which there was none is made one that nothing has.
    numbers = (belongings.schema or 0xFFFFFFFF, belongings.role or 0xFFFFFFFF)
    row = await connection.fetchrow(_LEFT, belongings.name, *numbers)
    return dict(row or {})
