"""What one backend keeps of each tenant that it has served: the figure behind the forecast of `tenantry doctor`.

    python -m benchmarks.relation_cache postgresql://postgres:secret@127.0.0.1/tenantry

The address is a superuser's, of a database with some tenants: only such may read a backend's memory contexts. One
connection visits the schemas one after the other and plans a query over each of its tables, as a request does; after
each number of schemas it says how much its caches hold.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import asyncpg

_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^t_[0-9a-f]{32}$' ORDER BY 1"
_TABLES = "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r' ORDER BY 1"
_RELATIONS = "SELECT count(*) FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'i')"
# The caches of the catalog, of relations and of plans, whatever hangs on them included.
_MEMORY = """
WITH c AS (SELECT * FROM pg_backend_memory_contexts)
SELECT coalesce(sum(total_bytes), 0)::bigint AS total FROM c
 WHERE c.path @> (SELECT path FROM c WHERE name = 'CacheMemoryContext')
"""
_MEMORY_BEFORE_18 = """
SELECT coalesce(sum(total_bytes), 0)::bigint AS total FROM pg_backend_memory_contexts
 WHERE name = 'CacheMemoryContext' OR parent = 'CacheMemoryContext'
"""


async def measure(url: str, *, most: int = 200) -> None:
    """Print the memory after 0, 1, 10, … schemas, and what each schema and each relation has added."""
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        schemas = [row[0] for row in await connection.fetch(_SCHEMAS)][:most]
        if len(schemas) < 2:
            raise SystemExit("the database has fewer than two tenants")
        tables = [row[0] for row in await connection.fetch(_TABLES, schemas[0])]
        relations = await connection.fetchval(_RELATIONS, schemas[0])
        await _visit(connection, schemas[0], tables)
        first = await _memory(connection)
        print(f"{len(tables)} tables, {relations} tables and indexes in a schema; {first / 1024:.0f} KiB after one")
        for number, schema in enumerate(schemas[1:], 2):
            await _visit(connection, schema, tables)
            if number in {10, 50, 100, len(schemas)}:
                each = (await _memory(connection) - first) / (number - 1)
                print(
                    f"{number:>5} schemas: {each / 1024:.0f} KiB for each, {each / relations / 1024:.1f} KiB a relation"
                )
    finally:
        await connection.close()


async def _visit(connection: asyncpg.Connection[Any], schema: str, tables: list[str]) -> None:
    async with connection.transaction(readonly=True):
        await connection.fetchval("SELECT set_config('search_path', $1, true)", schema)
        for table in tables:
            await connection.fetch(await _query(connection, table))


async def _query(connection: asyncpg.Connection[Any], table: str) -> str:
    """A query that the planner looks at the table and all of its indexes for."""
    return str(
        await connection.fetchval("SELECT format('SELECT * FROM %I t WHERE t IS NULL LIMIT 1', $1::text)", table)
    )


async def _memory(connection: asyncpg.Connection[Any]) -> int:
    version: int = await connection.fetchval("SELECT current_setting('server_version_num')::int")
    row = await connection.fetchrow(_MEMORY if version >= 180_000 else _MEMORY_BEFORE_18)
    return 0 if row is None else int(row["total"])


if __name__ == "__main__":
    asyncio.run(measure(sys.argv[1]))
