"""The operation `export`: a copy of a tenant's data in the storage, to be fetched for a while."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import select

from tenantry.platform.archives.writer import write_archive
from tenantry.platform.lifecycle.archiving import archived_tenant
from tenantry.platform.lifecycle.files import discard, export_key, store
from tenantry.platform.lifecycle.snapshot import snapshot
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.platform.tenants.lifecycle import EVENTS
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.kernel.storage import Storage
    from tenantry.platform.archives.format import ArchiveTables
    from tenantry.platform.provisioning.operations import Work

__all__ = ("ExportHandler",)


class ExportHandler:
    """Writes an archive of a tenant as it is at one moment; it is served meanwhile."""

    kind: ClassVar[str] = "export"

    def __init__(self, *, storage: Storage, tables: ArchiveTables, ttl: int) -> None:
        """`tables` is what the models mark as delicate; exports are kept for `ttl` seconds."""
        self._storage = storage
        self._tables = tables
        self._ttl = ttl

    async def run(self, work: Work) -> Mapping[str, Any]:
        await work.be_patient()
        # Not locked: the row would be for as long as the export takes, and nobody could suspend the tenant.
        tenant = (await work.session.scalars(select(Tenant).where(Tenant.id == work.tenant_id))).one()
        if tenant.status not in EVENTS["export"].sources:
            raise OperationFailed(f"the organization is {tenant.status}: it cannot be exported")
        credentials = bool(work.payload.get("credentials"))
        async with self._storage.scratch() as folder:
            path = folder / "export.zip"
            async with snapshot(work, tenant.schema_name) as connection:
                manifest = await write_archive(
                    connection,
                    schema=tenant.schema_name,
                    tenant=archived_tenant(tenant),
                    tables=self._tables,
                    path=path,
                    credentials=credentials,
                )
            await work.step("archive written")
            stored = await store(self._storage, export_key(work.tenant_id, work.operation_id), path)
        await work.step("archive stored")
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self._ttl)
        return {
            "key": stored.key,
            "bytes": stored.size,
            "sha256": stored.sha256,
            "credentials": credentials,
            "revision": manifest.revision,
            "tables": len(manifest.tables),
            "rows": sum(table.rows for table in manifest.tables),
            "expiresAt": expires.isoformat(),
        }

    async def give_up(self, work: Work, error: str) -> None:
        """The tenant is as it was."""
        await discard(self._storage, export_key(work.tenant_id, work.operation_id))
