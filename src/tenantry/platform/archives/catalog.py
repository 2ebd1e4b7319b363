"""A tenant's tables as the database itself describes them, and the statements that copy them."""

from __future__ import annotations

import contextlib
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from sqlalchemy import Text, cast, collate, column, func, null, select, table
from sqlalchemy.dialects import postgresql

from tenantry.platform.archives.format import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import ClauseElement

    from tenantry.tenancy.connection import DriverConnection

__all__ = (
    "Column",
    "Reference",
    "SchemaNotPortableError",
    "Shape",
    "Table",
    "copy_query",
    "count_rows",
    "portable_text",
    "read_shape",
    "set_sequences",
)

_VERSION_TABLE = "alembic_version"
_DIALECT = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

_COLUMNS = """
SELECT c.relname AS table_name, a.attname AS name, a.attnotnull AS not_null, a.attcollation <> 0 AS collated,
       array_position(i.indkey::int2[], a.attnum) AS key_position
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a
  ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname, a.attnum
"""

_REFERENCES = """
SELECT c.relname AS source, a.attname AS column_name, t.relname AS target
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid AND NOT c.relispartition
JOIN pg_catalog.pg_class t ON t.oid = k.confrelid AND t.relnamespace = c.relnamespace AND NOT t.relispartition
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
WHERE k.contype = 'f' AND n.nspname = $1
ORDER BY c.relname, a.attname, t.relname
"""

_SEQUENCES = """
SELECT s.oid AS sequence, s.relname AS name, c.relname AS table_name, a.attname AS column_name,
       q.seqincrement > 0 AS ascending
FROM pg_catalog.pg_class s
JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = s.oid
  AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
LEFT JOIN pg_catalog.pg_class c ON c.oid = d.refobjid
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE s.relkind = 'S' AND n.nspname = $1
ORDER BY s.relname
"""

# What decides how COPY writes a value, so that the same rows are the same bytes on every server and in every session.
_PORTABLE = """
SET LOCAL datestyle TO 'ISO, YMD';
SET LOCAL intervalstyle TO 'iso_8601';
SET LOCAL timezone TO 'UTC';
SET LOCAL extra_float_digits TO 1;
SET LOCAL bytea_output TO 'hex';
SET LOCAL lc_monetary TO 'C'
"""


class SchemaNotPortableError(Exception):
    """The schema has something that an archive cannot hold; whoever wrote its migration has to change that."""


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    not_null: bool
    collated: bool
    """Whether its order depends on a collation, which may differ between two servers."""
    key_position: int | None
    """Its place in the primary key."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its columns, those that the database computes left out."""

    name: str
    columns: tuple[Column, ...]

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]


@dataclass(frozen=True, slots=True)
class Reference:
    """A column of `source` that belongs to a foreign key to `target`."""

    source: str
    column: str
    target: str


@dataclass(frozen=True, slots=True)
class Shape:
    """A schema: its revision, and its tables in the order in which their foreign keys let them be loaded."""

    schema: str
    revision: str
    tables: tuple[Table, ...]
    references: tuple[Reference, ...]


async def read_shape(connection: DriverConnection, schema: str) -> Shape:
    """What the schema holds, without `alembic_version`.

    Raises:
        SchemaNotPortableError: it has no revision, tables that refer to each other in a circle, names that would need
            quotes, or a sequence that belongs to no column.
    """
    columns: dict[str, list[Column]] = {}
    for row in await connection.fetch(_COLUMNS, schema):
        known = columns.setdefault(row["table_name"], [])
        if row["name"] is not None:
            known.append(Column(row["name"], row["not_null"], row["collated"], row["key_position"]))
    if _VERSION_TABLE not in columns:
        raise SchemaNotPortableError(f"the schema {schema} has no {_VERSION_TABLE}, so that its revision is unknown")
    del columns[_VERSION_TABLE]
    for name, found in columns.items():
        if not found:
            raise SchemaNotPortableError(f"the table {name} has no columns to write")
        for word in (name, *(one.name for one in found)):
            if re.match(NAME_PATTERN, word) is None:
                raise SchemaNotPortableError(f"the name {word!r} in the table {name} cannot be written to an archive")
    for row in await connection.fetch(_SEQUENCES, schema):
        if row["column_name"] is None:
            raise SchemaNotPortableError(f"the sequence {row['name']} belongs to no column: its value would be lost")
    references = tuple(
        Reference(row["source"], row["column_name"], row["target"])
        for row in await connection.fetch(_REFERENCES, schema)
    )
    version = table(_VERSION_TABLE, column("version_num"), schema=schema)
    revisions = await connection.fetch(_sql(select(version.c.version_num)))
    if len(revisions) != 1:
        raise SchemaNotPortableError(f"expected the schema {schema} to have one revision, found {len(revisions)}")
    return Shape(
        schema=schema,
        revision=revisions[0][0],
        tables=tuple(Table(name, tuple(columns[name])) for name in _loading_order(set(columns), references)),
        references=references,
    )


def _loading_order(names: set[str], references: tuple[Reference, ...]) -> list[str]:
    # A table may refer to itself: the key is checked at the end of the one COPY that fills it.
    targets: dict[str, set[str]] = {name: set() for name in sorted(names)}
    for reference in references:
        if reference.source != reference.target:
            targets[reference.source].add(reference.target)
    sorter = TopologicalSorter(targets)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise SchemaNotPortableError(f"no order of loading satisfies the foreign keys {circle}") from error
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return order


def copy_query(schema: str, shape: Table, *, as_null: frozenset[str] = frozenset()) -> str:
    """All rows of a table, the columns `as_null` emptied, in an order that is the same on every server.

    By the primary key, or without one by all columns: a sequential scan begins wherever another one is just then.
    """
    source = table(shape.name, *(column(found.name) for found in shape.columns), schema=schema)
    chosen = [
        null().label(found.name) if found.name in as_null else source.c[found.name].label(found.name)
        for found in shape.columns
    ]
    key = sorted(
        (found for found in shape.columns if found.key_position is not None),
        key=lambda found: found.key_position or 0,
    )
    order = (
        [collate(source.c[found.name], "C") if found.collated else source.c[found.name] for found in key]
        if key
        else [collate(cast(source.c[found.name], Text), "C") for found in shape.columns]
    )
    return _sql(select(*chosen).order_by(*order))


async def count_rows(connection: DriverConnection, schema: str, name: str) -> int:
    """How many rows a table has now."""
    return int(await connection.fetchval(_sql(select(func.count()).select_from(table(name, schema=schema)))))


async def set_sequences(connection: DriverConnection, schema: str) -> None:
    """Set each sequence to the largest value in its column (or the smallest, if it descends)."""
    for row in await connection.fetch(_SEQUENCES, schema):
        source = table(row["table_name"], column(row["column_name"]), schema=schema)
        farthest = func.max if row["ascending"] else func.min
        value = await connection.fetchval(_sql(select(farthest(source.c[row["column_name"]]))))
        if value is not None:
            await connection.fetchval("SELECT pg_catalog.setval($1::oid::regclass, $2)", row["sequence"], value)


class _Undo(Exception):  # noqa: N818 - no error: it takes back the settings
    pass


@asynccontextmanager
async def portable_text(connection: DriverConnection) -> AsyncIterator[None]:
    """Inside, every value is written in the one form that archives have; nothing that is changed inside stays."""
    with contextlib.suppress(_Undo):
        async with connection.transaction():
            await connection.execute(_PORTABLE)
            yield
            raise _Undo


def _sql(statement: ClauseElement) -> str:
    return str(statement.compile(dialect=_DIALECT))
