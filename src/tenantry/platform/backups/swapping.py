"""One schema in the place of another, and what was there kept for a while.

A schema that is kept is called `kept_<tenant>_<time>`; nobody may enter it, and its comment says until when it is kept
and which backup took its place. The catalog itself is the list of them: a table would be restored into databases that
have none of what it lists.
"""

from __future__ import annotations

import asyncio
import datetime
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import msgspec

from tenantry.kernel.errors import UnavailableException
from tenantry.platform.deletion.catalog import find_belongings, kept_prefix, lock_tables
from tenantry.tenancy.models import schema_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantry.tenancy.connection import DriverConnection

__all__ = ("KeptSchema", "drop_kept", "hand_over", "kept_schemas", "lock_out", "put_back", "set_aside", "take_place")

_PATIENCE = 20.0
"""Seconds, and longer than a request's transaction may last: five seconds a statement, ten between two."""
_ATTEMPT_MS = 800
"""Below PostgreSQL's `deadlock_timeout` of a second: a request that waits for us in a circle is let go, not ended."""

_KEPT = """
SELECT n.nspname::text AS name, pg_catalog.obj_description(n.oid, 'pg_namespace') AS comment
  FROM pg_catalog.pg_namespace n WHERE n.nspname ~ '^kept_[0-9a-f]{32}_[0-9]{20}$' ORDER BY n.nspname DESC
"""


# Whatever a role may do in its schema, as the statements that let another one do so, and no longer the first.
_HAND_OVER = """
WITH given AS (
    SELECT 'SCHEMA ' || quote_ident(n.nspname) AS object, '' AS part, '' AS prefix, n.nspacl AS acl
      FROM pg_namespace n WHERE n.nspname = $1
    UNION ALL
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass, '', '', c.relacl
      FROM pg_class c WHERE c.relnamespace = to_regnamespace($1)
    UNION ALL
    SELECT 'TABLE ' || c.oid::regclass, ' (' || quote_ident(a.attname) || ')', '', a.attacl
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = to_regnamespace($1)
    UNION ALL
    SELECT 'ROUTINE ' || p.oid::regprocedure, '', '', p.proacl FROM pg_proc p
     WHERE p.pronamespace = to_regnamespace($1)
    UNION ALL
    SELECT CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES'
                WHEN 'T' THEN 'TYPES' END, '',
           'ALTER DEFAULT PRIVILEGES IN SCHEMA ' || quote_ident($1) || ' ', d.defaclacl
      FROM pg_default_acl d WHERE d.defaclnamespace = to_regnamespace($1)
)
SELECT format('%1$sGRANT %2$s ON %3$s TO %4$I; %1$sREVOKE %2$s ON %3$s FROM %5$I', g.prefix,
              string_agg(e.privilege_type || g.part, ', '), g.object, $2::text, $1::text)
  FROM given g, aclexplode(g.acl) e JOIN pg_roles r ON r.oid = e.grantee
 WHERE r.rolname = $1 GROUP BY g.prefix, g.object
"""


class _Comment(msgspec.Struct):
    until: datetime.datetime
    backup: str


@dataclass(frozen=True, slots=True)
class KeptSchema:
    """What a tenant had before a restore."""

    name: str
    tenant_id: UUID
    until: datetime.datetime
    backup: str
    """The id of the backup that took its place; empty where undoing did."""


async def hand_over(connection: DriverConnection, made: UUID, tenant_id: UUID) -> None:
    """Give what the role of a schema that was made beside a tenant's may do there to the tenant's role; drop the other.

    Revisions grant and revoke by the schema's name, so that a schema is made with a role of its own. The tenant's role
    stays the one that it is: transactions that have become it go on after the swap. Had anything been missed, the role
    could not be dropped, nor the schema be what the revisions make.
    """
    name, role = schema_name(made), schema_name(tenant_id)
    # Before the path is another: the names that the server writes are whole then.
    await connection.execute("SET LOCAL search_path TO pg_catalog")
    statements = [row[0] for row in await connection.fetch(_HAND_OVER, name, role)]
    await connection.execute(";\n".join([*statements, f'DROP ROLE "{name}"']))


async def lock_out(connection: DriverConnection, tenant_id: UUID) -> None:
    """Wait until nobody is in the tenant's tables, and let nobody in until the transaction ends: they wait.

    Raises:
        UnavailableException: somebody was in one of them for twenty seconds: an export, perhaps, or a rollout.
    """
    belongings = await find_belongings(connection, schema_name(tenant_id))
    deadline = asyncio.get_running_loop().time() + _PATIENCE
    while True:
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL statement_timeout TO '{_ATTEMPT_MS}ms'")
                await lock_tables(connection, belongings, seconds=1)
                await connection.execute("SET LOCAL statement_timeout TO 0; SET LOCAL lock_timeout TO 0")
        except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            if asyncio.get_running_loop().time() > deadline:
                raise UnavailableException(
                    "Somebody is in the organization's tables, and does not come out: an export, or a rollout?"
                    " Nothing was changed."
                ) from error
            await asyncio.sleep(random.uniform(0.05, 0.3))
        else:
            return


async def set_aside(connection: DriverConnection, tenant_id: UUID, *, seconds: int, backup: str) -> KeptSchema | None:
    """Take the tenant's schema out of its place, so that another can have it; keep it, or with 0 seconds drop it.

    Its tables are locked by `lock_out`.
    """
    live = schema_name(tenant_id)
    if not seconds:
        await connection.execute(f'DROP SCHEMA "{live}" CASCADE')
        return None
    now = datetime.datetime.now(datetime.UTC)
    kept = KeptSchema(
        f"{kept_prefix(live)}{now:%Y%m%d%H%M%S%f}", tenant_id, now + datetime.timedelta(seconds=seconds), backup
    )
    comment = msgspec.json.encode(_Comment(kept.until, backup)).decode()
    # Not a word of it is anybody's input: the id of a backup is digits and letters.
    await connection.execute(
        f'ALTER SCHEMA "{live}" RENAME TO "{kept.name}"; REVOKE USAGE ON SCHEMA "{kept.name}" FROM "{live}";'
        f"COMMENT ON SCHEMA \"{kept.name}\" IS '{comment}'"
    )
    return kept


async def take_place(connection: DriverConnection, made: UUID, tenant_id: UUID) -> None:
    """Let a schema that was made beside have the tenant's place, which is free."""
    await connection.execute(f'ALTER SCHEMA "{schema_name(made)}" RENAME TO "{schema_name(tenant_id)}"')


async def put_back(connection: DriverConnection, kept: KeptSchema) -> None:
    """Give a schema that was kept its place again, which is free."""
    live = schema_name(kept.tenant_id)
    await connection.execute(
        f'ALTER SCHEMA "{kept.name}" RENAME TO "{live}"; GRANT USAGE ON SCHEMA "{live}" TO "{live}";'
        f'COMMENT ON SCHEMA "{live}" IS NULL'
    )


async def kept_schemas(connection: DriverConnection, tenant_id: UUID | None = None) -> list[KeptSchema]:
    """Those that are kept, of one tenant or of all, the newest first."""
    found = _read(await connection.fetch(_KEPT))
    return [kept for kept in found if tenant_id is None or kept.tenant_id == tenant_id]


def _read(rows: list[asyncpg.Record]) -> Iterator[KeptSchema]:
    for row in rows:
        try:
            comment = msgspec.json.decode(row["comment"] or "", type=_Comment)
        except msgspec.MsgspecError:
            # Somebody else's words: for an operator to look at, and never dropped by us.
            continue
        yield KeptSchema(row["name"], UUID(row["name"][5:37]), comment.until, comment.backup)


async def drop_kept(connection: DriverConnection, kept: KeptSchema) -> None:
    await connection.execute(f'DROP SCHEMA "{kept.name}" CASCADE')
