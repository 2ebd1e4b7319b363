"""The operation `restore`: an archived tenant's data come back into the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import select

from tenantry.platform.archives.reader import ArchiveReader, load_archive
from tenantry.platform.audit.service import PROVISIONER, record
from tenantry.platform.deletion.catalog import find_belongings
from tenantry.platform.lifecycle.building import begin_at, finish_at_head, require_same_rows
from tenantry.platform.lifecycle.files import ANY_SIZE
from tenantry.platform.provisioning.models import Operation
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.platform.tenants.lifecycle import transition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.kernel.storage import Storage
    from tenantry.platform.provisioning.operations import Work
    from tenantry.tenancy.models import Tenant

__all__ = ("RestoreHandler",)


class RestoreHandler:
    """Makes the schema and the role anew, at the archive's revision, loads the rows and migrates them."""

    kind: ClassVar[str] = "restore"

    def __init__(self, *, storage: Storage) -> None:
        self._storage = storage

    async def run(self, work: Work) -> Mapping[str, Any]:
        await work.be_patient()
        tenant = await work.tenant()
        if tenant.status != "archived":
            raise OperationFailed(f"the organization is {tenant.status}, not archived")
        key = tenant.archive_key
        if key is None:
            await self._wake(work, tenant)
        else:
            await self._rebuild(work, tenant, key)
        transition(tenant, "restore")
        if key is not None:
            await self._suspend_again(work, tenant, key)
        record(
            work.session,
            actor=PROVISIONER,
            action="tenant.restored",
            tenant_id=work.tenant_id,
            details={"operation": str(work.operation_id), "revision": tenant.revision, "to": tenant.status},
        )
        await work.session.flush()
        # The archive is needed until this has committed; the provisioner's chore removes it thereafter.
        return {"archive": key, "revision": tenant.revision}

    async def give_up(self, work: Work, error: str) -> None:
        """It stays archived, and its archive where it is."""
        record(
            work.session,
            actor=PROVISIONER,
            action="tenant.restore-failed",
            tenant_id=work.tenant_id,
            details={"operation": str(work.operation_id)},
        )

    @staticmethod
    async def _wake(work: Work, tenant: Tenant) -> None:
        """Its data never left the schema: undeleted, say, after an archive that was not carried out."""
        belongings = await find_belongings(work.driver, tenant.schema_name)
        if not (belongings.schema and belongings.role):
            raise OperationFailed("there is neither an archive of the organization nor a schema")

    @staticmethod
    async def _suspend_again(work: Work, tenant: Tenant, key: str) -> None:
        """An organization that was suspended when it was archived is refused as before: nobody has resumed it."""
        archived = await work.session.scalar(
            select(Operation.result).where(
                Operation.tenant_id == tenant.id,
                Operation.kind == "archive",
                Operation.result["key"].astext == key,
            )
        )
        before = (archived or {}).get("before")
        if before is not None and before["status"] == "suspended":
            transition(tenant, "suspend", reason=before["reason"])

    async def _rebuild(self, work: Work, tenant: Tenant, key: str) -> None:
        async with self._storage.scratch() as folder:
            path = folder / "archive.zip"
            await self._storage.fetch_to(key, path)
            await work.step("archive fetched")
            async with ArchiveReader.open(path, size_limit=ANY_SIZE) as reader:
                manifest = reader.manifest
                if manifest.tenant.id != tenant.id:
                    raise OperationFailed("the archive is another organization's")
                await begin_at(work, manifest.revision)
                await work.step("schema made")
                await load_archive(work.driver, reader, schema=tenant.schema_name)
        await work.step("rows loaded")
        await require_same_rows(work, manifest)
        await work.step("rows compared")
        revision = await finish_at_head(work, manifest.revision)
        await work.step("schema migrated")
        tenant.archive_key, tenant.revision = None, revision
