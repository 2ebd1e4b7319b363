"""Schemas to archive, and archives made by hand: the ones that nobody should have made."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from tenantry.features import TENANT_METADATA
from tenantry.platform.archives.format import ArchivedTenant, ArchiveTables, Manifest
from tenantry.platform.archives.writer import Progress, write_archive
from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.migrations import compile_script

__all__ = (
    "LIMIT",
    "NO_MARKS",
    "TABLES",
    "TENANT",
    "Forged",
    "as_owner",
    "inflated",
    "make_schema",
    "make_tenant_schema",
    "write",
)

LIMIT = 100_000_000
TABLES = ArchiveTables.of(TENANT_METADATA)
NO_MARKS = ArchiveTables(frozenset(), {}, {})
TENANT = ArchivedTenant(
    id=UUID("018f0000-0000-7000-8000-000000000001"),
    slug="acme",
    name="Acme",
    plan="free",
    owner_email="owner@acme.example",
)


@asynccontextmanager
async def as_owner(url: str) -> AsyncIterator[DriverConnection]:
    """The owner's connection, inside a transaction that is undone afterwards."""
    connection = await asyncpg.connect(url, connection_class=DriverConnection)
    try:
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield connection
        finally:
            await transaction.rollback()
    finally:
        await connection.close()


async def make_schema(connection: DriverConnection, name: str, tables: str, *, revision: str = "0001") -> str:
    """A schema with these tables and this revision, which the search_path then leads to."""
    await connection.execute(
        f"CREATE SCHEMA {name}; SET LOCAL search_path TO {name};"
        f"CREATE TABLE alembic_version (version_num text NOT NULL);"
        f"INSERT INTO alembic_version VALUES ('{revision}'); {tables}; SET LOCAL search_path TO {name}"
    )
    return name


async def make_tenant_schema(connection: DriverConnection, name: str) -> str:
    """A tenant's schema at head, without rows."""
    await connection.execute(f"CREATE SCHEMA {name}; SET LOCAL search_path TO {name}; {compile_script('tenant')}")
    return name


async def write(
    connection: DriverConnection,
    schema: str,
    path: Path,
    *,
    tables: ArchiveTables = NO_MARKS,
    credentials: bool = True,
    tenant: ArchivedTenant = TENANT,
    progress: Progress | None = None,
) -> Manifest:
    return await write_archive(
        connection,
        schema=schema,
        tenant=tenant,
        tables=tables,
        path=path,
        credentials=credentials,
        progress=progress,
    )


def inflated(path: Path) -> dict[str, bytes]:
    """Every member of an archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@dataclass
class Forged:
    """An archive of any content: what is not given agrees with what is."""

    tables: dict[str, tuple[Sequence[str], bytes]] = field(
        default_factory=lambda: {
            "tag": (["id", "name"], b'id,name\n1,red\n2,"of two\nlines, and a ""quote"""\n'),
            "team": (["id"], b"id\n7\n"),
        }
    )
    manifest: dict[str, Any] = field(default_factory=dict)
    """Replaces fields of the manifest."""
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Replaces fields of a table's entry."""
    without: Sequence[str] = ()
    """Members that are left out."""
    extra: Sequence[tuple[str, bytes]] = ()
    """Members on top."""
    manifest_bytes: bytes | None = None

    def document(self) -> dict[str, Any]:
        tables = [
            {
                "name": name,
                "file": f"tables/{name}.csv",
                "columns": list(columns),
                "rows": max(0, content.count(b"\n") - 1),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                **self.entries.get(name, {}),
            }
            for name, (columns, content) in self.tables.items()
        ]
        return {
            "format": "tenantry-tenant",
            "formatVersion": 1,
            "createdAt": "2026-11-23T10:00:00Z",
            "application": "0.1.0",
            "tenant": {
                "id": str(TENANT.id),
                "slug": "acme",
                "name": "Acme",
                "plan": "free",
                "ownerEmail": "owner@acme.example",
            },
            "revision": "0001",
            "credentials": True,
            "tables": tables,
            "leftOut": [],
            **self.manifest,
        }

    def build(self) -> bytes:
        buffer = io.BytesIO()
        manifest = json.dumps(self.document()).encode() if self.manifest_bytes is None else self.manifest_bytes
        members = [("manifest.json", manifest), *((f"tables/{n}.csv", data) for n, (_, data) in self.tables.items())]
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in [*members, *self.extra]:
                if name not in self.without:
                    archive.writestr(zipfile.ZipInfo(name), data, compress_type=zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    def put(self, path: Path) -> Path:
        path.write_bytes(self.build())
        return path
