"""Copying rows from one schema to another, from connection to connection, without a file in between."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, cast, column, func, literal, null, select, table
from sqlalchemy.dialects import postgresql

from tenantry.platform.archives.catalog import set_sequences

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import ColumnElement

    from tenantry.platform.archives.catalog import Column, Shape, Table
    from tenantry.platform.archives.format import ArchiveTables
    from tenantry.tenancy.connection import DriverConnection

__all__ = ("MASKED_DOMAIN", "IncompleteCopyError", "copy_tables")

MASKED_DOMAIN = "masked.invalid"
"""No mail ever arrives there (RFC 2606 §2)."""

_BUFFERED = 16
"""Pieces on their way, of what the driver gives at once: the faster side waits for the slower one."""

_DIALECT = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


class IncompleteCopyError(Exception):
    """Fewer or more rows arrived than were sent; nothing of the copy is kept."""


async def copy_tables(
    source: DriverConnection, target: DriverConnection, *, shape: Shape, schema: str, tables: ArchiveTables, mask: bool
) -> int:
    """Copy all rows of `shape`, which `source` sees, into `schema`, which `target` writes; returns how many.

    Tables that the models mark as secret are left out. With `mask`, columns marked as secret are emptied as well and
    those marked as personal are replaced: an address by one at `MASKED_DOMAIN`, anything else by NULL or, where that
    cannot be, by a text that tells nothing. Equal values stay equal within this copy, and are not in the next one.

    Raises:
        IncompleteCopyError, asyncpg.PostgresError: the caller must roll back.
    """
    masks = _Masks(tables) if mask else None
    copied = 0
    for one in shape.tables:
        if one.name not in tables.secret_tables:
            copied += await _copy_table(source, target, _query(shape.schema, one, masks), one, schema)
    await set_sequences(target, schema)
    return copied


class _Masks:
    """What takes the place of what identifies a person."""

    def __init__(self, tables: ArchiveTables) -> None:
        self._tables = tables
        # Forgotten with the copy. Addresses can be guessed: a digest without a secret would say which guess was right.
        self._salt = secrets.token_hex(32)

    def masked(self, name: str, found: Column, value: ColumnElement[Any]) -> ColumnElement[Any]:
        if found.name in self._tables.secret_columns.get(name, ()):
            return null()
        kind = self._tables.personal_columns.get(name, {}).get(found.name)
        if kind is None:
            return value
        salted = func.convert_to(literal(self._salt) + cast(value, Text), "UTF8")
        digest = func.left(func.encode(func.sha256(salted), "hex"), 24)
        if kind == "email":
            return literal("user-") + digest + literal(f"@{MASKED_DOMAIN}")
        return literal("masked-") + digest if found.not_null else null()


def _query(schema: str, shape: Table, masks: _Masks | None) -> str:
    source = table(shape.name, *(column(found.name) for found in shape.columns), schema=schema)
    chosen = [
        (source.c[found.name] if masks is None else masks.masked(shape.name, found, source.c[found.name])).label(
            found.name
        )
        for found in shape.columns
    ]
    return str(select(*chosen).compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True}))


async def _copy_table(source: DriverConnection, target: DriverConnection, query: str, shape: Table, schema: str) -> int:
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_BUFFERED)

    async def read() -> int:
        try:
            status = await source.copy_from_query(query, output=pieces.put, format="binary")
        finally:
            await pieces.put(None)
        return int(status.removeprefix("COPY "))

    async def arriving() -> AsyncIterator[bytes]:
        while (piece := await pieces.get()) is not None:
            yield piece
        # Its error, if it ended in one, is then the copy's: a copy that was cut off is never taken for a whole one.
        await reading

    reading = asyncio.create_task(read())
    try:
        status = await target.copy_to_table(
            shape.name, schema_name=schema, columns=shape.column_names, source=arriving(), format="binary"
        )
    finally:
        # Where the writing has failed, nobody takes what is read any more.
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    sent, arrived = reading.result(), int(status.removeprefix("COPY "))
    if sent != arrived:
        raise IncompleteCopyError(f"of {sent} rows of {shape.name} {arrived} arrived")
    return arrived
