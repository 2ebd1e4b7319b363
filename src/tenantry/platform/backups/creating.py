"""Making backups: a schema as it is at one moment, encrypted as it is read."""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

import tenantry
from tenantry.kernel.errors import ConflictException
from tenantry.kernel.storage import disk_errors
from tenantry.platform.archives.format import ArchivedTenant
from tenantry.platform.archives.writer import write_archive_into
from tenantry.platform.audit.service import record
from tenantry.platform.backups.format import FORMAT_VERSION, BackupManifest, BackupName, new_id
from tenantry.platform.backups.sealing import SealedWriter
from tenantry.platform.lifecycle.archiving import archived_tenant
from tenantry.platform.lifecycle.snapshot import snapshot_of
from tenantry.platform.provisioning.fingerprint import describe_schema, fingerprint
from tenantry.platform.provisioning.reference import reference
from tenantry.platform.tenants.lifecycle import TRANSITION
from tenantry.tenancy.models import Tenant
from tenantry.tenancy.revision_files import HAS_SCHEMA
from tenantry.tenancy.revisions import RevisionError
from tenantry.tenancy.scope import SHARED_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.platform.archives.format import ArchiveTables
    from tenantry.platform.backups.store import BackupStore
    from tenantry.platform.provisioning.operations import StepListener

__all__ = ("BackupWriter", "Made", "run_each")

_NOBODY = ArchivedTenant(
    id=UUID(int=0), slug="platform", name="The shared schema", plan="platform", owner_email="nobody@platform.invalid"
)
"""Whose the shared schema is, in a format that has one tenant to an archive."""

_log = structlog.get_logger(__name__)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Made(Generic[ResultT]):
    """What became of one of several: a result, or an error."""

    label: str
    """The tenant's slug, or `shared`."""
    result: ResultT | None
    error: Exception | None


class BackupWriter:
    """Makes backups, with the owner's connections."""

    def __init__(
        self,
        engine: AsyncEngine,
        store: BackupStore,
        *,
        tables: ArchiveTables,
        actor: str,
        listener: StepListener | None = None,
    ) -> None:
        """`tables` is what the models mark as delicate; `listener` is told of every step."""
        self._engine = engine
        self._store = store
        self._tables = tables
        self._actor = actor
        self._listener = listener

    async def tenants(self) -> list[Tenant]:
        """All that have a schema, whether they are served or not, by slug."""
        tenant = aliased(Tenant, name="t")
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            return list(await session.scalars(select(tenant).where(text(HAS_SCHEMA)).order_by(tenant.slug)))

    async def tenant(self, tenant: Tenant) -> BackupManifest:
        """Back a tenant up; it is served meanwhile.

        Raises:
            ConflictException: it has no schema.
            SchemaNotPortableError: it has something that cannot be written.
            asyncpg.LockNotAvailableError: its tables are being changed just now.
            StorageUnavailableError, StorageFullError: the place of backups is away, or full.
        """
        if tenant.revision is None or tenant.archive_key is not None:
            raise ConflictException(
                f"{tenant.slug!r} is {tenant.status} and has no schema here that could be backed up.",
                problem=TRANSITION,
                state=tenant.status,
                allowed=[],
            )
        made = await self._write(tenant.schema_name, archived_tenant(tenant), tenant)
        await self.note("backup.created", tenant_id=tenant.id, details=_told(made))
        return made

    async def shared(self) -> BackupManifest:
        """Back the shared schema up: tenants, plans, operators, operations, jobs that wait, the platform's trail.

        Raises:
            As `tenant`.
        """
        made = await self._write(SHARED_SCHEMA, _NOBODY, None)
        await self.note("backup.created", target="shared", details=_told(made))
        return made

    async def all(
        self, *, concurrency: int, tell: Callable[[int, int], None] = lambda _done, _all: None
    ) -> list[Made[BackupManifest]]:
        """The shared schema first, then every tenant that has one; one that fails ends nothing but itself.

        Jobs that wait are in the shared schema. Those that were done in between are done again by whoever restores all
        of it, and none is lost: the other way about, it would be the reverse.

        Where none failed, the platform's trail says so, and from it the metric of the last backup's time.
        """
        made = await run_each([None], lambda _: self.shared(), concurrency=1, label=lambda _: "shared")
        tenants = await self.tenants()
        made += await run_each(
            tenants, self.tenant, concurrency=concurrency, label=lambda tenant: tenant.slug, tell=tell
        )
        if all(one.error is None for one in made):
            await self.note("backup.completed", details={"backups": len(made)})
        return made

    async def note(
        self,
        action: str,
        *,
        tenant_id: UUID | None = None,
        target: str | None = None,
        details: dict[str, object] | None = None,
    ) -> None:
        """Write down what was done, in the platform's trail."""
        async with AsyncSession(self._engine) as session, session.begin():
            record(session, actor=self._actor, action=action, tenant_id=tenant_id, target=target, details=details or {})

    async def _write(self, schema: str, whose: ArchivedTenant, tenant: Tenant | None) -> BackupManifest:
        began, now = time.monotonic(), datetime.datetime.now(datetime.UTC)
        name = BackupName(new_id(now), None if tenant is None else tenant.id)
        async with self._store.scratch() as folder:
            path = folder / "backup"
            async with snapshot_of(self._engine, schema) as connection:
                moment = await connection.fetchval("SELECT clock_timestamp()")
                await self._step("snapshot taken")
                with disk_errors(), os.fdopen(_create(path), "wb") as file:
                    sealed = SealedWriter(file, self._store.vault, name=name.payload_key)
                    archive = await write_archive_into(
                        connection, sealed, schema=schema, tenant=whose, tables=self._tables, credentials=True
                    )
                    sealed.finish()
                # Last, since it leaves the search_path on the catalog.
                lines = await describe_schema(connection, schema)
            await self._step("rows written")
            await self._store.put_payload(name, path)
        await self._step("rows stored")
        manifest = BackupManifest(
            format_version=FORMAT_VERSION,
            id=name.id,
            kind="shared" if tenant is None else "tenant",
            tenant_id=name.tenant_id,
            slug=None if tenant is None else tenant.slug,
            status=None if tenant is None else tenant.status,
            created_at=moment,
            seconds=round(time.monotonic() - began, 3),
            application=tenantry.__version__,
            revision=archive.revision,
            fingerprint=fingerprint(lines),
            as_revised=tenant is None or await self._is_as_revised(archive.revision, lines),
            tables=archive.tables,
            bytes=sealed.size,
            sha256=sealed.sha256,
            key_id=sealed.key_id,
        )
        await self._store.put_manifest(manifest)
        await self._step("manifest stored")
        _log.info("backup made", backup=name.id, tenant_id=str(name.tenant_id), rows=manifest.rows)
        return manifest

    async def _is_as_revised(self, revision: str, lines: Sequence[str]) -> bool:
        try:
            return tuple(lines) == await reference(self._engine, revision)
        except RevisionError:
            # A newer release's; whoever restores it has that release as well.
            return True

    async def _step(self, name: str) -> None:
        if self._listener is not None:
            await self._listener(name)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _told(manifest: BackupManifest) -> dict[str, object]:
    return {"backup": manifest.id, "rows": manifest.rows, "bytes": manifest.bytes, "key": manifest.key_id}


async def run_each(
    items: Sequence[ItemT],
    work: Callable[[ItemT], Awaitable[ResultT]],
    *,
    concurrency: int,
    label: Callable[[ItemT], str],
    tell: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Made[ResultT]]:
    """Do the same to each, so many at a time; what one raises is its own outcome."""
    turns, done = asyncio.Semaphore(concurrency), 0
    tell(0, len(items))

    async def one(item: ItemT) -> Made[ResultT]:
        nonlocal done
        async with turns:
            try:
                made: Made[ResultT] = Made(label(item), await work(item), None)
            except Exception as error:
                _log.warning("not done", what=label(item), error=repr(error))
                made = Made(label(item), None, error)
        done += 1
        tell(done, len(items))
        return made

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item)) for item in items]
    return [task.result() for task in tasks]
