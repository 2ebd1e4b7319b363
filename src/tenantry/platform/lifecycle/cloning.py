"""The operation `clone`: a new tenant with the rows of another, as they are at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from sqlalchemy import select

from tenantry.platform.archives.catalog import read_shape
from tenantry.platform.lifecycle.building import begin_at, finish_at_head
from tenantry.platform.lifecycle.copying import copy_tables
from tenantry.platform.lifecycle.founding import abandon, adopt, open_doors
from tenantry.platform.lifecycle.snapshot import snapshot
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.platform.tenants.lifecycle import EVENTS
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.platform.archives.format import ArchiveTables
    from tenantry.platform.lifecycle.founding import AdoptOwner
    from tenantry.platform.provisioning.operations import Work

__all__ = ("CloneHandler",)


class CloneHandler:
    """Copies rows from connection to connection; sessions, refresh tokens and invitations stay behind."""

    kind: ClassVar[str] = "clone"

    def __init__(self, *, tables: ArchiveTables, adopt_owner: AdoptOwner) -> None:
        """`tables` is what the models mark as delicate."""
        self._tables = tables
        self._adopt_owner = adopt_owner

    async def run(self, work: Work) -> Mapping[str, Any]:
        await work.be_patient()
        tenant = await work.tenant()
        source_id, mask = UUID(work.payload["source"]), bool(work.payload["mask"])
        source = (await work.session.scalars(select(Tenant).where(Tenant.id == source_id))).one()
        if source.status not in EVENTS["clone"].sources:
            raise OperationFailed(f"the organization that was to be cloned is {source.status}")
        async with snapshot(work, source.schema_name) as connection:
            shape = await read_shape(connection, source.schema_name)
            await begin_at(work, shape.revision)
            await work.step("schema made")
            rows = await copy_tables(
                connection, work.driver, shape=shape, schema=tenant.schema_name, tables=self._tables, mask=mask
            )
        await work.step("rows copied")
        revision = await finish_at_head(work, shape.revision)
        await adopt(work, self._adopt_owner)
        await work.step("schema migrated")
        await open_doors(work, tenant, revision)
        return {"source": str(source_id), "masked": mask, "rows": rows, "revision": revision}

    async def give_up(self, work: Work, error: str) -> None:
        await abandon(work, "cloning failed")
