"""What an archive holds: `manifest.json`, and one CSV file per table."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta

from tenantry.kernel.errors import ClientException, define_problem
from tenantry.kernel.schema import END, BaseStruct, Email, Slug, camel

if TYPE_CHECKING:
    from sqlalchemy import MetaData

__all__ = (
    "FORMAT",
    "FORMAT_VERSION",
    "MANIFEST",
    "NAME_PATTERN",
    "ArchiveError",
    "ArchiveTables",
    "ArchivedTable",
    "ArchivedTenant",
    "Manifest",
    "decode_manifest",
    "file_name",
)

FORMAT = "tenantry-tenant"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"

NAME_PATTERN = rf"^[A-Za-z_][A-Za-z0-9_$]{{0,62}}{END}"
"""Names of tables and columns: PostgreSQL's without quotes (63 bytes), in either case; nothing of a path."""

INVALID_ARCHIVE = define_problem(
    "invalid-archive",
    422,
    "Invalid archive",
    "The file is no archive of a tenant that could be loaded here. `member` is the file in the archive that is at "
    "fault, and the detail says what was expected of it. Nothing was written.",
)


class ArchiveError(ClientException):
    """The archive is damaged, incomplete, of another kind, or not for this schema (422).

    Raised as `raise ArchiveError.of("tables/team.csv", "expected …")`; `member` is empty where it is the file itself.
    """

    problem = INVALID_ARCHIVE

    @classmethod
    def of(cls, member: str, text: str) -> ArchiveError:
        return cls(f"{member or 'The archive'}: {text}.", member=member)


StructT = TypeVar("StructT", bound=msgspec.Struct)

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class ArchivedTenant(BaseStruct):
    """Whose data they are."""

    id: UUID
    slug: Slug
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    plan: Slug
    owner_email: Email


class ArchivedTable(BaseStruct):
    """One table: `bytes` and `sha256` are of its inflated file, `rows` does without the header."""

    name: Name
    file: str
    columns: Annotated[list[Name], Meta(min_length=1, max_length=1600)]
    rows: Count
    bytes: Count
    sha256: Annotated[str, Meta(pattern=rf"^[0-9a-f]{{64}}{END}")]


class Manifest(BaseStruct):
    """What is in the archive. The tables are in the order in which their foreign keys let them be loaded."""

    format: str
    format_version: int
    created_at: Annotated[datetime.datetime, Meta(tz=True)]
    application: Annotated[str, Meta(max_length=100)]
    """The version of the application that wrote it."""
    tenant: ArchivedTenant
    revision: Annotated[str, Meta(min_length=1, max_length=100)]
    """The revision of the tenant's schema."""
    credentials: bool
    tables: list[ArchivedTable]
    left_out: list[Name]
    """Tables that are not in the archive since all of their rows are secrets."""


@dataclass(frozen=True, slots=True)
class ArchiveTables:
    """What the models say of their columns, by table: `info={"secret": True}` and `info={"personal": <kind>}`.

    What the database has beyond the models is copied as it is: the catalog says what there is, the models what of it
    is delicate.
    """

    secret_tables: frozenset[str]
    secret_columns: Mapping[str, frozenset[str]]
    personal_columns: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, metadata: MetaData) -> ArchiveTables:
        """The marks of all tables of `metadata`."""
        secret: dict[str, frozenset[str]] = {}
        personal: dict[str, dict[str, str]] = {}
        for table in metadata.tables.values():
            if found := frozenset(column.name for column in table.columns if column.info.get("secret")):
                secret[table.name] = found
            if kinds := {column.name: column.info["personal"] for column in table.columns if "personal" in column.info}:
                personal[table.name] = kinds
        return cls(
            secret_tables=frozenset(table.name for table in metadata.tables.values() if table.info.get("secret")),
            secret_columns=secret,
            personal_columns=personal,
        )


def file_name(table: str) -> str:
    """Where a table's rows are in the archive."""
    return f"tables/{table}.csv"


class _Head(msgspec.Struct, rename=camel):
    format: str
    format_version: int


def decode_manifest(data: bytes) -> Manifest:
    """The manifest, if it is one and says one thing only.

    Raises:
        ArchiveError: it does not.
    """
    # First what it is: of another version nothing else can be expected to fit.
    head = _decode(data, _Head)
    if head.format != FORMAT:
        _refuse(f"expected the format {FORMAT!r}, found {head.format!r:.100}")
    if head.format_version != FORMAT_VERSION:
        _refuse(f"expected version {FORMAT_VERSION} of the format, found {head.format_version}")
    manifest = _decode(data, Manifest)
    names = [*(table.name for table in manifest.tables), *manifest.left_out]
    if twice := _first_twice(names):
        _refuse(f"the table {twice} is named twice")
    if manifest.credentials and manifest.left_out:
        _refuse(f"expected every table where credentials are included, but {manifest.left_out[0]} is left out")
    for table in manifest.tables:
        if table.file != file_name(table.name):
            _refuse(f"expected the table {table.name} in {file_name(table.name)}, found {table.file!r:.100}")
        if twice := _first_twice(table.columns):
            _refuse(f"the column {twice} of {table.name} is named twice")
    return manifest


def _decode(data: bytes, kind: type[StructT]) -> StructT:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise ArchiveError.of(MANIFEST, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArchiveError.of(MANIFEST, f"expected JSON in UTF-8: {error}") from error


def _refuse(text: str) -> NoReturn:
    raise ArchiveError.of(MANIFEST, text)


def _first_twice(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
