"""A schema as PostgreSQL's catalog tells it: what two ways of making one must agree on."""

from __future__ import annotations

import asyncpg

__all__ = ("describe_schema", "without_order")

_PARTS = {
    "column": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
               a.attcollation::regcollation::text,
               CASE WHEN $2::bool THEN a.attnum END
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
    """,
    "constraint": """
        SELECT c.relname, k.conname, k.contype::text, pg_get_constraintdef(k.oid), k.condeferrable, k.convalidated
          FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
         WHERE c.relnamespace = $1::regnamespace AND (k.contype <> 'n' OR $2::bool)
    """,
    "index": """
        SELECT c.relname, pg_get_indexdef(i.indexrelid), i.indisunique, i.indisvalid
          FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE c.relnamespace = $1::regnamespace AND $2::bool IS NOT NULL
    """,
    "privilege": """
        SELECT c.relname, coalesce(g.rolname, 'PUBLIC'), a.privilege_type, a.is_grantable
          FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee
         WHERE c.relnamespace = $1::regnamespace AND $2::bool
    """,
    "trigger": """
        SELECT c.relname, t.tgname, pg_get_triggerdef(t.oid)
          FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
         WHERE c.relnamespace = $1::regnamespace AND NOT t.tgisinternal AND $2::bool
    """,
    "function": """
        SELECT p.proname, pg_get_functiondef(p.oid), p.proacl::text
          FROM pg_proc p WHERE p.pronamespace = $1::regnamespace AND $2::bool
    """,
}


async def describe_schema(
    connection: asyncpg.Connection[asyncpg.Record], schema: str, *, declared_only: bool = False
) -> set[tuple[object, ...]]:
    """Everything in the schema but its name and its version table.

    `declared_only` leaves out what models do not declare: the order of columns, privileges, triggers and functions.
    """
    found: set[tuple[object, ...]] = set()
    for kind, query in _PARTS.items():
        for row in await connection.fetch(query, schema, not declared_only):
            values = [value.replace(schema, "SCHEMA") if isinstance(value, str) else value for value in row.values()]
            # Shown with the schema's name or without, as the search_path has it.
            values = [value.replace("SCHEMA.", "") if isinstance(value, str) else value for value in values]
            if not str(values[0]).startswith("alembic_version"):
                found.add((kind, *values))
    return found


def without_order(found: set[tuple[object, ...]]) -> set[tuple[object, ...]]:
    """The same without the order of columns: one that comes back comes last, which no downgrade could help."""
    return {row[:-1] if row[0] == "column" else row for row in found}
