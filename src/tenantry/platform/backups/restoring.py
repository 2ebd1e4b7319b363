"""Restoring a tenant: its rows beside what is there, checked, and put in its place in one transaction.

Everything in the database is one transaction, the schema's making, the rows and the swap. A process that is killed, or
a backup that turns out to be no good, leaves nothing. What is there is served until the swap, for which the tables are
locked; requests of that moment wait.
"""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from tenantry.kernel.errors import ConflictException, ResourceNotFoundException
from tenantry.platform.archives.reader import load_archive
from tenantry.platform.audit.service import record
from tenantry.platform.backups.swapping import (
    KeptSchema,
    hand_over,
    kept_schemas,
    lock_out,
    put_back,
    set_aside,
    take_place,
)
from tenantry.platform.deletion.catalog import find_belongings
from tenantry.platform.lifecycle.building import (
    SchemaDiffersError,
    begin_at,
    finish_at_head,
    require_known,
    require_same_rows,
)
from tenantry.platform.provisioning.fingerprint import describe_schema, differences
from tenantry.platform.provisioning.operations import OperationFailed, Work, require_idle
from tenantry.platform.provisioning.reference import reference
from tenantry.platform.provisioning.schema import (
    enter_schema,
    finish_schemas,
    finish_unentered,
    migrate_schema,
)
from tenantry.platform.tenants.lifecycle import TRANSITION, allowed_events
from tenantry.platform.tenants.service import TenantService, check_slug
from tenantry.tenancy.migrations import head
from tenantry.tenancy.models import Tenant, schema_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tenantry.platform.archives.reader import ArchiveReader
    from tenantry.platform.backups.format import BackupManifest
    from tenantry.platform.backups.store import BackupStore
    from tenantry.platform.deletion.catalog import Belongings
    from tenantry.platform.provisioning.operations import StepListener
    from tenantry.tenancy.connection import DriverConnection

__all__ = ("BackupRestorer", "EndSessions", "Restored", "open_work")

EndSessions = Callable[[AsyncSession], Awaitable[None]]
"""Ends what people are signed in by, in the schema that the search_path leads to."""

_RESTORABLE = frozenset({"active", "suspended", "purging"})
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of it."""

    tenant: Tenant
    rows: int
    revision: str
    kept: KeptSchema | None
    """What was there before; None where there was nothing, or it is not kept."""


@asynccontextmanager
async def open_work(engine: AsyncEngine, schema_id: UUID, *, actor: str) -> AsyncIterator[Work]:
    """A transaction of the owner's as the provisioner's operations have it, about the schema of that id."""
    async with engine.connect() as connection, connection.begin():
        yield await _work_on(connection, engine, schema_id, actor=actor)


async def _work_on(connection: AsyncConnection, engine: AsyncEngine, schema_id: UUID, *, actor: str) -> Work:
    # SQLAlchemy begins with its first statement; one of the driver's own before it would be outside.
    await connection.execute(text("SELECT 1"))
    driver = cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
    work = Work(
        operation_id=uuid7(),
        kind="restore",
        tenant_id=schema_id,
        payload={},
        requested_by=actor,
        attempt=1,
        connection=connection,
        engine=engine,
        driver=driver,
    )
    await work.be_patient()
    return work


class BackupRestorer:
    """Restores tenants, with the owner's connections."""

    def __init__(
        self,
        engine: AsyncEngine,
        store: BackupStore,
        *,
        actor: str,
        undo: int,
        end_sessions: EndSessions,
        listener: StepListener | None = None,
    ) -> None:
        """What is replaced is kept for `undo` seconds; `listener` is told of every step."""
        self._engine = engine
        self._store = store
        self._actor = actor
        self._undo = undo
        self._end_sessions = end_sessions
        self._listener = listener

    async def restore(self, tenant_id: UUID, manifest: BackupManifest) -> Restored:
        """Put a backup in the place of what a tenant has now, or of nothing.

        Everybody in it has to sign in again: a session that was ended since would be good once more.

        Raises:
            BackupDamagedError, ArchiveError: the backup is no good.
            ConflictException: the tenant's state does not allow it, or the provisioner is at work on it.
            OperationFailed: it is of a release that is newer than this one.
            RowsDifferError, SchemaDiffersError: what came of it is not what was in the backup.
            UnavailableException: somebody is in its tables and does not come out.
        """
        if manifest.tenant_id != tenant_id:
            raise ConflictException("The backup is another organization's.")
        await self._look(tenant_id)
        async with self._store.open_archive(manifest) as reader:
            await self._step("backup checked")
            require_known(manifest.revision)
            # Now, not within: it grants on a connection of its own, and would wait for ours.
            expected = await reference(self._engine, head("tenant"))
            belongings = await self._belongings(tenant_id)
            beside = uuid7() if belongings.role else tenant_id
            async with open_work(self._engine, beside, actor=self._actor) as work:
                await begin_at(work, manifest.revision)
                await self._step("schema made")
                await self._load(work, reader)
                await migrate_schema(work.connection, manifest.revision, head("tenant"))
                await self._end_sessions(work.session)
                await work.session.flush()
                if belongings.role:
                    await finish_unentered(work.driver, beside)
                    await hand_over(work.driver, beside, tenant_id)
                await self._step("schema migrated")
                kept, tenant = await self._swap(work, belongings, tenant_id, manifest, expected)
                await self._step("swapped")
            await self._step("recorded")
        return Restored(tenant, manifest.rows, head("tenant"), kept)

    async def restore_as(self, slug: str, manifest: BackupManifest) -> Restored:
        """Make a new tenant of a backup; nothing else is touched.

        It has an id of its own, and credentials that name the old one (API keys, invitations) are not good in it.

        Raises:
            ConflictException: the slug is taken.
            ValidationFailedException: it is none, or reserved, or there is no such plan any more.
            As `restore`.
        """
        check_slug(slug)
        if manifest.tenant_id is None:
            raise ConflictException("The backup is of the shared schema, and of no organization.")
        tenant_id = uuid7()
        async with self._store.open_archive(manifest) as reader:
            await self._step("backup checked")
            whose = reader.manifest.tenant
            async with open_work(self._engine, tenant_id, actor=self._actor) as work:
                await begin_at(work, manifest.revision)
                await self._step("schema made")
                await self._load(work, reader)
                revision = await finish_at_head(work, manifest.revision)
                await self._end_sessions(work.session)
                tenants = TenantService(session=work.session)
                await tenants.check_plan(whose.plan)
                tenant = Tenant(
                    id=tenant_id,
                    slug=slug,
                    name=whose.name,
                    plan=whose.plan,
                    owner_email=whose.owner_email,
                    status="active",
                    revision=revision,
                )
                work.session.add(tenant)
                await tenants.flush_slug(slug)
                await self._record(work, "backup.restored-as", tenant_id, manifest, {"source": str(manifest.tenant_id)})
                await self._step("schema migrated")
            await self._step("recorded")
        return Restored(tenant, manifest.rows, revision, None)

    async def undo(self, tenant_id: UUID) -> Restored:
        """Give a tenant back what it had before its last restore, and keep what it has now in turn.

        Raises:
            ResourceNotFoundException: nothing is kept.
            ConflictException, UnavailableException, SchemaDiffersError: as `restore`.
        """
        await self._look(tenant_id)
        target = head("tenant")
        expected = await reference(self._engine, target)
        async with open_work(self._engine, tenant_id, actor=self._actor) as work:
            tenant = await self._locked(work, tenant_id)
            found = await kept_schemas(work.driver, tenant_id)
            if not found:
                raise ResourceNotFoundException(f"Nothing is kept of what {tenant.slug!r} had before a restore.")
            await lock_out(work.driver, tenant_id)
            kept = await set_aside(work.driver, tenant_id, seconds=self._undo, backup="")
            await put_back(work.driver, found[0])
            await enter_schema(work.driver, tenant_id)
            was = await work.driver.fetchval("SELECT version_num FROM alembic_version")
            await migrate_schema(work.connection, was, target)
            await self._in_place(work, tenant, expected, target)
            await self._record(work, "backup.restore-undone", tenant_id, None, {"replaced": found[0].backup})
            await self._step("swapped")
        return Restored(tenant, 0, target, kept)

    async def _load(self, work: Work, reader: ArchiveReader) -> None:
        await load_archive(work.driver, reader, schema=schema_name(work.tenant_id))
        await self._step("rows loaded")
        await require_same_rows(work, reader.manifest)
        await self._step("rows compared")

    async def _swap(
        self,
        work: Work,
        belongings: Belongings,
        tenant_id: UUID,
        manifest: BackupManifest,
        expected: tuple[str, ...],
    ) -> tuple[KeptSchema | None, Tenant]:
        tenant = await self._locked(work, tenant_id)
        kept: KeptSchema | None = None
        if belongings.schema:
            await lock_out(work.driver, tenant_id)
            kept = await set_aside(work.driver, tenant_id, seconds=self._undo, backup=manifest.id)
        if work.tenant_id != tenant_id:
            await take_place(work.driver, work.tenant_id, tenant_id)
            # The new one's accounts were listed as those of the name that it had.
            await work.driver.execute("DELETE FROM platform.account_directory WHERE tenant_id = $1", work.tenant_id)
        if not belongings.schema:
            # Nobody could enter it yet; a role that outlived its schema has this already, perhaps.
            await finish_schemas(work.driver, [tenant_id])
        await self._in_place(work, tenant, expected, head("tenant"))
        details: dict[str, object] = {"kept": None if kept is None else kept.name}
        await self._record(work, "backup.restored", tenant_id, manifest, details)
        return kept, tenant

    async def _in_place(self, work: Work, tenant: Tenant, expected: tuple[str, ...], revision: str) -> None:
        """See that what is there now is what should be, and have the control plane know it."""
        found = differences(expected, await describe_schema(work.driver, schema_name(tenant.id)))
        if found:
            more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise SchemaDiffersError(
                f"the schema is not what the revisions make: {'; '.join(map(str, found[:_SHOWN]))}{more}"
            )
        await work.driver.execute("SELECT platform.repair_account_directory($1)", tenant.id)
        tenant.revision = revision
        # Said also where it is the same: the registries hear of a row that changed.
        tenant.updated_at = datetime.datetime.now(datetime.UTC)
        await work.session.flush()

    async def _record(
        self, work: Work, action: str, tenant_id: UUID, manifest: BackupManifest | None, details: dict[str, object]
    ) -> None:
        told = {} if manifest is None else {"backup": manifest.id, "rows": manifest.rows}
        record(work.session, actor=self._actor, action=action, tenant_id=tenant_id, details={**told, **details})
        await work.session.flush()

    async def _look(self, tenant_id: UUID) -> None:
        """Refuse at once what the swap would refuse, before anything is fetched."""
        async with AsyncSession(self._engine) as session:
            found = (await session.scalars(select(Tenant).where(Tenant.id == tenant_id))).one_or_none()
            if found is None:
                raise ResourceNotFoundException("There is no such organization.")
            await _require_restorable(session, found)

    async def _locked(self, work: Work, tenant_id: UUID) -> Tenant:
        tenant = (await work.session.scalars(select(Tenant).where(Tenant.id == tenant_id).with_for_update())).one()
        await _require_restorable(work.session, tenant)
        return tenant

    async def _belongings(self, tenant_id: UUID) -> Belongings:
        async with self._engine.connect() as connection:
            driver = cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
            found = await find_belongings(driver, schema_name(tenant_id))
        if found.schema and not found.role:
            raise OperationFailed("the organization has a schema and no role: `tenantry doctor` says what to do")
        return found

    async def _step(self, name: str) -> None:
        if self._listener is not None:
            await self._listener(name)


async def _require_restorable(session: AsyncSession, tenant: Tenant) -> None:
    if tenant.status not in _RESTORABLE or tenant.archive_key is not None:
        way = {
            "archived": "`tenantry tenants restore` brings it back from its archive",
            "purged": "what was purged does not come back under its id; `--as` makes a new organization of the backup",
        }.get(tenant.status, "`--as` makes a new organization of the backup")
        raise ConflictException(
            f"{tenant.slug!r} is {tenant.status}: {way}.",
            problem=TRANSITION,
            state=tenant.status,
            allowed=list(allowed_events(tenant.status)),
        )
    await require_idle(session, tenant.id)
