"""The operation `archive`: a tenant's data go into the storage, and its schema is dropped once they are read back."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from tenantry.platform.archives.format import ArchivedTenant
from tenantry.platform.archives.reader import verify_archive
from tenantry.platform.archives.writer import table_digests, write_archive
from tenantry.platform.audit.service import PROVISIONER, record
from tenantry.platform.deletion.catalog import drop_belongings, find_belongings, lock_tables
from tenantry.platform.lifecycle.files import ANY_SIZE, archive_key, discard, store
from tenantry.platform.provisioning.operations import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.kernel.storage import Storage
    from tenantry.platform.archives.format import ArchiveTables, Manifest
    from tenantry.platform.lifecycle.files import StoredFile
    from tenantry.platform.provisioning.operations import Work
    from tenantry.tenancy.models import Tenant

__all__ = ("ArchiveHandler", "UnsoundArchiveError", "archived_tenant")

_LOCK_SECONDS = 15
"""Longer than a request's transaction may last: five seconds a statement, ten between two."""


class UnsoundArchiveError(Exception):
    """What the storage gave back is not what was written, or not what the tables hold."""


def archived_tenant(tenant: Tenant) -> ArchivedTenant:
    """A tenant as an archive's manifest names it."""
    return ArchivedTenant(
        id=tenant.id, slug=tenant.slug, name=tenant.name, plan=tenant.plan, owner_email=tenant.owner_email
    )


class ArchiveHandler:
    """Moves a tenant's data out of the database.

    The tenant is refused already. Its tables are locked first, so that whoever was let in before has committed, and is
    in the archive, or finds nothing to write to. The schema goes in the transaction that records where the archive is.
    """

    kind: ClassVar[str] = "archive"

    def __init__(self, *, storage: Storage, tables: ArchiveTables) -> None:
        """`tables` is what the models mark as delicate."""
        self._storage = storage
        self._tables = tables

    async def run(self, work: Work) -> Mapping[str, Any]:
        # The upload takes as long as it takes, while the transaction holds the locks and idles.
        await work.be_patient()
        tenant = await work.tenant()
        belongings = await find_belongings(work.driver, tenant.schema_name)
        if tenant.status != "archived" or tenant.archive_key is not None or not belongings.schema:
            raise OperationFailed(f"the organization is {tenant.status}, and has nothing to archive")
        await lock_tables(work.driver, belongings, seconds=_LOCK_SECONDS)
        await work.step("tables locked")

        key = archive_key(work.tenant_id, work.operation_id)
        async with self._storage.scratch() as folder:
            path = folder / "archive.zip"
            # On this connection: any other would wait for the locks.
            manifest = await write_archive(
                work.driver,
                schema=tenant.schema_name,
                tenant=archived_tenant(tenant),
                tables=self._tables,
                path=path,
                credentials=True,
            )
            await work.step("archive written")
            stored = await store(self._storage, key, path)
        await work.step("archive stored")
        await self._verify(work, tenant, key, manifest)
        await work.step("archive verified")

        await drop_belongings(work.driver, belongings)
        tenant.archive_key, tenant.revision = key, None
        outcome = self._outcome(work, stored, manifest)
        await work.session.flush()
        await work.step("schema dropped")
        return outcome

    async def _verify(self, work: Work, tenant: Tenant, key: str, manifest: Manifest) -> None:
        """Read the archive back, all of it, and compare it with the tables, which nobody can have changed."""
        async with self._storage.scratch() as folder:
            path = folder / "archive.zip"
            await self._storage.fetch_to(key, path)
            read = await verify_archive(path, size_limit=ANY_SIZE)
        if read != manifest:
            raise UnsoundArchiveError("the archive that was read back is not the one that was written")
        held = await table_digests(work.driver, tenant.schema_name)
        if {table.name: (table.rows, table.sha256) for table in read.tables} != held:
            raise UnsoundArchiveError("the archive does not hold the rows that the tables do")

    def _outcome(self, work: Work, stored: StoredFile, manifest: Manifest) -> Mapping[str, Any]:
        rows = sum(table.rows for table in manifest.tables)
        record(
            work.session,
            actor=PROVISIONER,
            action="tenant.archived",
            tenant_id=work.tenant_id,
            details={"operation": str(work.operation_id), "rows": rows, "sha256": stored.sha256},
        )
        return {
            "key": stored.key,
            "bytes": stored.size,
            "sha256": stored.sha256,
            "revision": manifest.revision,
            "tables": len(manifest.tables),
            "rows": rows,
            # A suspended organization is to come back suspended.
            "before": work.payload["before"],
        }

    async def give_up(self, work: Work, error: str) -> None:
        """The schema was not touched: the tenant is served again, or suspended, as it was before it was asked for."""
        tenant = await work.tenant()
        if tenant.status == "archived" and tenant.archive_key is None:
            before = work.payload["before"]
            tenant.status, tenant.status_reason = before["status"], before["reason"]
            tenant.status_changed_at = datetime.datetime.now(datetime.UTC)
        record(
            work.session,
            actor=PROVISIONER,
            action="tenant.archive-failed",
            tenant_id=work.tenant_id,
            details={"operation": str(work.operation_id), "to": tenant.status},
        )
        await discard(self._storage, archive_key(work.tenant_id, work.operation_id))
