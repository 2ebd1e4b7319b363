"""Writing a tenant's archive, and the digests by which it is compared with what it was written from."""

from __future__ import annotations

import datetime
import functools
import hashlib
import os
from collections.abc import Callable, Coroutine
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol, cast
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import msgspec

import tenantry
from tenantry.kernel.storage import disk_errors
from tenantry.kernel.threads import to_the_end
from tenantry.platform.archives.catalog import (
    SchemaNotPortableError,
    Shape,
    Table,
    copy_query,
    portable_text,
    read_shape,
)
from tenantry.platform.archives.format import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    ArchivedTable,
    ArchiveTables,
    Manifest,
    file_name,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tenantry.platform.archives.format import ArchivedTenant
    from tenantry.tenancy.connection import DriverConnection

__all__ = ("Progress", "Sink", "TableDigest", "table_digests", "write_archive", "write_archive_into")

Progress = Callable[[int, int, str], None]
"""Called after each table: how many are done, how many there are, and the name of this one."""


class Sink(Protocol):
    """What an archive is written into."""

    def write(self, data: bytes, /) -> int: ...
    def flush(self) -> None: ...


class TableDigest(NamedTuple):
    """The rows of a table, and the SHA-256 of the file that they make in an archive."""

    rows: int
    sha256: str


async def write_archive(
    connection: DriverConnection,
    *,
    schema: str,
    tenant: ArchivedTenant,
    tables: ArchiveTables,
    path: Path,
    credentials: bool,
    progress: Progress | None = None,
) -> Manifest:
    """Write the tenant in `schema` to the new file `path` (0600), table by table; no table is ever held in memory.

    `connection` is the owner's. The caller has seen to it that nothing changes meanwhile: by a transaction with one
    snapshot (REPEATABLE READ), or by locks. Without `credentials`, columns that the models mark as secret are NULL
    and tables that they mark are left out.

    Raises:
        SchemaNotPortableError: the schema, or what the models mark in it, cannot be written.
        StorageFullError: the disk is full.
        FileExistsError: there is such a file.
        asyncpg.PostgresError, OSError: whatever the server or the disk says.

    Whatever is raised, the file is gone.
    """
    with disk_errors():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                return await write_archive_into(
                    connection,
                    file,
                    schema=schema,
                    tenant=tenant,
                    tables=tables,
                    credentials=credentials,
                    progress=progress,
                )
        except BaseException:
            os.unlink(path)
            raise


async def write_archive_into(
    connection: DriverConnection,
    file: Sink,
    *,
    schema: str,
    tenant: ArchivedTenant,
    tables: ArchiveTables,
    credentials: bool,
    progress: Progress | None = None,
) -> Manifest:
    """As `write_archive`, into whatever takes bytes one after the other: it is never sought in. It is left open.

    Raises:
        SchemaNotPortableError, asyncpg.PostgresError: as `write_archive`.
        Exception: whatever `file` raises.
    """
    shape = await read_shape(connection, schema)
    written, left_out, secret = _choose(shape, tables, credentials=credentials)
    with ZipFile(cast("IO[bytes]", file), "w") as archive:
        now = datetime.datetime.now(datetime.UTC)
        entries: list[ArchivedTable] = []
        async with portable_text(connection):
            for table in written:
                query = copy_query(schema, table, as_null=secret.get(table.name, frozenset()))
                with archive.open(_member(file_name(table.name), now), "w", force_zip64=True) as member:
                    entries.append(await _write_table(connection, table, query, member))
                if progress is not None:
                    progress(len(entries), len(written), table.name)
        manifest = Manifest(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            created_at=now,
            application=tenantry.__version__,
            tenant=tenant,
            revision=shape.revision,
            credentials=credentials,
            tables=entries,
            left_out=left_out,
        )
        archive.writestr(_member(MANIFEST, now), msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


async def table_digests(connection: DriverConnection, schema: str) -> dict[str, TableDigest]:
    """What an archive of the schema would say of each table if it were written now, with credentials.

    Raises:
        SchemaNotPortableError: the schema cannot be written to an archive.
    """
    digests: dict[str, TableDigest] = {}
    shape = await read_shape(connection, schema)
    async with portable_text(connection):
        for table in shape.tables:
            digest = hashlib.sha256()

            async def take(data: bytes, update: Callable[[bytes], None] = digest.update) -> None:
                await to_the_end(functools.partial(update, data))

            rows = await _copy_out(connection, copy_query(schema, table), take)
            digests[table.name] = TableDigest(rows, digest.hexdigest())
    return digests


def _choose(
    shape: Shape, tables: ArchiveTables, *, credentials: bool
) -> tuple[list[Table], list[str], dict[str, frozenset[str]]]:
    """The tables to write, the names of those left out, and the columns to empty."""
    if credentials:
        return list(shape.tables), [], {}
    written = [table for table in shape.tables if table.name not in tables.secret_tables]
    left_out = sorted(table.name for table in shape.tables if table.name in tables.secret_tables)
    secret = dict(tables.secret_columns)
    for table in written:
        for column in table.columns:
            if column.not_null and column.name in secret.get(table.name, ()):
                raise SchemaNotPortableError(
                    f"{table.name}.{column.name} is marked as secret but cannot be NULL: mark the table, or allow NULL"
                )
    for reference in shape.references:
        if (
            reference.target in left_out
            and reference.source not in left_out
            and reference.column not in secret.get(reference.source, ())
        ):
            raise SchemaNotPortableError(
                f"{reference.source}.{reference.column} refers to {reference.target}, which is left out as secret: "
                "mark the column, or its table, as well"
            )
    return written, left_out, secret


def _member(name: str, now: datetime.datetime) -> ZipInfo:
    member = ZipInfo(name, (now.year, now.month, now.day, now.hour, now.minute, now.second))
    member.compress_type = ZIP_DEFLATED
    member.external_attr = 0o600 << 16
    return member


async def _write_table(connection: DriverConnection, table: Table, query: str, member: IO[bytes]) -> ArchivedTable:
    digest = hashlib.sha256()
    size = 0

    def write(data: bytes) -> None:
        digest.update(data)
        member.write(data)

    async def take(data: bytes) -> None:
        nonlocal size
        size += len(data)
        await to_the_end(functools.partial(write, data))

    rows = await _copy_out(connection, query, take)
    return ArchivedTable(
        name=table.name,
        file=file_name(table.name),
        columns=table.column_names,
        rows=rows,
        bytes=size,
        sha256=digest.hexdigest(),
    )


async def _copy_out(
    connection: DriverConnection, query: str, take: Callable[[bytes], Coroutine[Any, Any, None]]
) -> int:
    status = await connection.copy_from_query(query, output=take, format="csv", header=True, encoding="UTF8")
    return int(status.removeprefix("COPY "))
