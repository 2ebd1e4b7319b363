"""A tenant's schema as it is at one moment, for as long as it takes to copy it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.platform.provisioning.operations import Work
    from tenantry.tenancy.connection import DriverConnection

__all__ = ("snapshot", "snapshot_of")

# Quoted by the server: a name with a quote in it is nobody's way out of a statement.
_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) AS quoted
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') ORDER BY c.relname
"""


@asynccontextmanager
async def snapshot(work: Work, schema: str) -> AsyncIterator[DriverConnection]:
    """The owner's second connection, as `snapshot_of`.

    Raises:
        asyncpg.LockNotAvailableError: somebody is changing the tables just now.
    """
    async with snapshot_of(work.engine, schema) as connection:
        yield connection


@asynccontextmanager
async def snapshot_of(engine: AsyncEngine, schema: str) -> AsyncIterator[DriverConnection]:
    """A connection of the owner's, in a transaction that sees one moment and writes nothing.

    Readers and writers go on meanwhile. A migration, an archive or a purge of the same tenant waits: the tables are
    locked against their change, and before the moment is chosen, so that what the catalog says of them is true to the
    end. The tenant's row is not locked, since nobody could suspend it for as long.

    Raises:
        asyncpg.LockNotAvailableError: somebody is changing the tables just now.
    """
    # By itself and before: inside, asking would choose the moment.
    async with engine.connect() as connection:
        driver = cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
        tables = [record["quoted"] for record in await driver.fetch(_TABLES, schema)]
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        # SQLAlchemy begins with its first statement; of these, none chooses the moment yet.
        await connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout TO '1h'")
        await connection.exec_driver_sql("SET LOCAL lock_timeout TO '15s'")
        driver = cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
        if tables:
            await driver.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS SHARE MODE")
        yield driver
