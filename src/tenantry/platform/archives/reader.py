"""Reading an archive that anybody may have made: checked from end to end before a row of it is written anywhere."""

from __future__ import annotations

import csv
import errno
import functools
import hashlib
import io
import struct
import threading
import zipfile
import zlib
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import asyncpg

from tenantry.kernel.threads import to_the_end
from tenantry.platform.archives.catalog import count_rows, read_shape, set_sequences
from tenantry.platform.archives.format import MANIFEST, ArchivedTable, ArchiveError, Manifest, decode_manifest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from tenantry.platform.archives.writer import Progress
    from tenantry.tenancy.connection import DriverConnection

__all__ = ("ArchiveReader", "load_archive", "verify_archive")

_CHUNK = 512 * 1024
_LARGEST_MANIFEST = 16 << 20
# Of the list of members, which is read into memory as a whole: enough for 100,000 tables.
_LARGEST_DIRECTORY = 16 << 20
# The csv module's own limit, one for the whole process, is 128 KiB; PostgreSQL's of one value is a gigabyte.
csv.field_size_limit(1 << 30)

# What PostgreSQL says of rows that do not fit: data exception, constraint violation, limit exceeded.
_ROWS_AT_FAULT = ("22", "23", "54")


async def verify_archive(path: Path, *, size_limit: int) -> Manifest:
    """Check all of an archive and return its manifest; see `ArchiveReader.open`.

    Raises:
        ArchiveError: it is not a whole and sound archive.
    """
    async with ArchiveReader.open(path, size_limit=size_limit) as reader:
        return reader.manifest


class ArchiveReader:
    """An archive that has been checked; made by `open`."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self.manifest = manifest
        self._archive = archive

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path | IO[bytes], *, size_limit: int) -> AsyncIterator[ArchiveReader]:
        """Open an archive and check every byte of it: members, sizes, digests, and every row's number of values.

        `path` is a file's, or a file that is open, can be sought in, and stays the caller's to close.

        `size_limit` bounds the tables' files together, inflated, in bytes. What the ZIP's headers say of sizes is not
        believed: bytes are counted as they are inflated, and the first one too many ends it.

        Raises:
            ArchiveError: it is not a whole and sound archive; the text names the member and what was expected.
            OSError: the file cannot be read.
        """
        stop = threading.Event()
        archive = await to_the_end(lambda: _open_zip(path))
        with archive:
            reader = await to_the_end(lambda: cls._checked(archive, size_limit, stop), cancel=stop.set)
            yield reader

    @classmethod
    def _checked(cls, archive: zipfile.ZipFile, size_limit: int, stop: threading.Event) -> ArchiveReader:
        reader = cls(archive, _read_manifest(archive))
        _check_members(archive, reader.manifest)
        if (size := sum(table.bytes for table in reader.manifest.tables)) > size_limit:
            raise ArchiveError.of(MANIFEST, f"expected at most {size_limit} bytes of tables, found {size}")
        for table in reader.manifest.tables:
            reader._check_table(table, stop)
        return reader

    def _check_table(self, table: ArchivedTable, stop: threading.Event) -> None:
        with _refusing(table.file), self._member(table) as member:
            # Lines are ended by what the CSV says and not by what Python thinks, hence newline="".
            text = io.TextIOWrapper(io.BufferedReader(member, _CHUNK), encoding="utf-8", newline="")
            lines = csv.reader(text, strict=True)
            if (header := next(lines, None)) != table.columns:
                raise ArchiveError.of(
                    table.file, f"expected the header {','.join(table.columns)}, found {','.join(header or ())!r:.200}"
                )
            width, rows = len(table.columns), 0
            for line in lines:
                rows += 1
                # One column that is NULL is an empty line, for which Python has no value at all.
                if len(line) != width and not (width == 1 and not line):
                    raise ArchiveError.of(table.file, f"expected {width} values in row {rows}, found {len(line)}")
                if stop.is_set():
                    return
            if rows != table.rows:
                raise ArchiveError.of(table.file, f"expected {table.rows} rows, found {rows}")

    async def rows(self, table: ArchivedTable) -> AsyncGenerator[bytes, None]:
        """The table's file, checked once more: it may have been changed since.

        Raises:
            ArchiveError: it has been.
        """
        with _refusing(table.file), self._member(table) as member:
            while chunk := await to_the_end(functools.partial(member.read, _CHUNK)):
                yield chunk

    @contextmanager
    def _member(self, table: ArchivedTable) -> Iterator[_Member]:
        with self._archive.open(table.file) as source:
            yield _Member(source, table)


class _Member(io.RawIOBase):
    """A table's file, inflated: no longer than the manifest says, and at its end no shorter and no other."""

    def __init__(self, source: IO[bytes], table: ArchivedTable) -> None:
        self._source = source
        self._table = table
        self._left = table.bytes
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # One byte more than there should be, so that too long a file is noticed and never inflated.
        data = self._source.read(min(len(buffer), self._left + 1))
        self._left -= len(data)
        if self._left < 0 or (not data and self._left):
            what = "more" if self._left < 0 else f"{self._left} fewer"
            raise ArchiveError.of(self._table.file, f"expected {self._table.bytes} bytes, found {what}")
        self._digest.update(data)
        if not data and self._digest.hexdigest() != self._table.sha256:
            raise ArchiveError.of(
                self._table.file, f"expected the SHA-256 {self._table.sha256}, found {self._digest.hexdigest()}"
            )
        buffer[: len(data)] = data
        return len(data)


async def load_archive(
    connection: DriverConnection, reader: ArchiveReader, *, schema: str, progress: Progress | None = None
) -> None:
    """Load a checked archive into a schema that is at the archive's revision and empty.

    `connection` is the owner's, and the transaction the caller's: whatever is raised, it is to be rolled back.

    Raises:
        ArchiveError: the archive is for a schema of another shape, its rows break a constraint, or there were rows
            already.
        SchemaNotPortableError: the schema is none that archives are made of.
        asyncpg.PostgresError: whatever else the server says.
    """
    manifest = reader.manifest
    shape = await read_shape(connection, schema)
    if shape.revision != manifest.revision:
        raise ArchiveError.of(MANIFEST, f"expected the revision {shape.revision}, found {manifest.revision}")
    columns = {table.name: table.column_names for table in shape.tables}
    for name in [*(table.name for table in manifest.tables), *manifest.left_out]:
        if name not in columns:
            raise ArchiveError.of(MANIFEST, f"the table {name} is not in the schema at revision {shape.revision}")
    if absent := columns.keys() - {table.name for table in manifest.tables} - set(manifest.left_out):
        raise ArchiveError.of(MANIFEST, f"expected the table {min(absent)} as well")
    for table in manifest.tables:
        if differing := set(table.columns) ^ set(columns[table.name]):
            name = min(differing)
            what = "is not in the schema" if name in table.columns else "is not in the archive"
            raise ArchiveError.of(table.file, f"the column {name} {what}")
    for number, table in enumerate(manifest.tables, 1):
        await _load_table(connection, reader, table, schema)
        if progress is not None:
            progress(number, len(manifest.tables), table.name)
    try:
        await set_sequences(connection, schema)
    except asyncpg.DataError as error:
        raise ArchiveError.of(MANIFEST, f"a value that its column's sequence cannot reach: {error.args[0]}") from error


async def _load_table(connection: DriverConnection, reader: ArchiveReader, table: ArchivedTable, schema: str) -> None:
    try:
        async with aclosing(reader.rows(table)) as rows:
            status = await connection.copy_to_table(
                table.name,
                schema_name=schema,
                columns=table.columns,
                source=rows,
                format="csv",
                header=True,
                encoding="UTF8",
            )
    except asyncpg.PostgresError as error:
        if not (error.sqlstate or "").startswith(_ROWS_AT_FAULT):
            raise
        # Without PostgreSQL's DETAIL, which quotes the row.
        raise ArchiveError.of(table.file, f"rows that the table does not take: {error.args[0]}") from error
    copied, found = int(status.removeprefix("COPY ")), await count_rows(connection, schema, table.name)
    if not copied == found == table.rows:
        raise ArchiveError.of(
            table.file, f"expected the table to have {table.rows} rows, found {found} of which {copied} were loaded"
        )


def _open_zip(path: Path | IO[bytes]) -> zipfile.ZipFile:
    with _refusing(""):
        with path.open("rb") if isinstance(path, Path) else nullcontext(path) as file:
            # Private, hence guarded by a test: zipfile itself would read a list of members of any size.
            end = cast("Any", zipfile)._EndRecData(file)
        if end is None:
            raise ArchiveError.of("", "expected a ZIP file")
        if end[cast("Any", zipfile)._ECD_SIZE] > _LARGEST_DIRECTORY:
            raise ArchiveError.of("", f"expected a list of members of at most {_LARGEST_DIRECTORY} bytes")
        return zipfile.ZipFile(path)


def _read_manifest(archive: zipfile.ZipFile) -> Manifest:
    with _refusing(MANIFEST):
        try:
            member = archive.open(MANIFEST)
        except KeyError:
            raise ArchiveError.of(MANIFEST, "expected it in the archive") from None
        with member:
            data = member.read(_LARGEST_MANIFEST + 1)
        if len(data) > _LARGEST_MANIFEST:
            raise ArchiveError.of(MANIFEST, f"expected at most {_LARGEST_MANIFEST} bytes")
        return decode_manifest(data)


def _check_members(archive: zipfile.ZipFile, manifest: Manifest) -> None:
    expected = {MANIFEST, *(table.file for table in manifest.tables)}
    seen: set[str] = set()
    for member in archive.infolist():
        name = member.orig_filename  # as it is in the file: zipfile cuts it off at a NUL
        if name not in expected:
            raise ArchiveError.of(f"{name!r:.200}", "the manifest names no such member")
        if name in seen:
            raise ArchiveError.of(name, "expected once, found twice")
        seen.add(name)
    if absent := expected - seen:
        raise ArchiveError.of(min(absent), "expected it in the archive, since the manifest names it")


@contextmanager
def _refusing(member: str) -> Iterator[None]:
    """Whatever the libraries make of a damaged file, as an `ArchiveError`."""
    try:
        yield
    except csv.Error as error:
        raise ArchiveError.of(member, f"expected CSV (RFC 4180): {error}") from error
    except UnicodeDecodeError as error:
        raise ArchiveError.of(member, f"expected UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a seek to before the file's beginning, where a header sent us
            raise
        raise ArchiveError.of(member, "expected a whole ZIP file") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, OverflowError) as error:
        raise ArchiveError.of(member, f"expected a sound ZIP file: {error}") from error
    except (RuntimeError, ValueError) as error:
        # zipfile's words for an encrypted member, and for lengths and times that no file can have.
        raise ArchiveError.of(member, f"expected a plain ZIP file: {error}") from error
