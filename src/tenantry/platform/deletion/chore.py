"""The end of a grace time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sqlalchemy import and_, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.platform.audit.service import PROVISIONER
from tenantry.platform.deletion.service import ask_for_purge
from tenantry.platform.provisioning.models import Operation
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ("DuePurges",)


class DuePurges:
    """Asks for the purge of tenants whose grace time is over, and again where one was given up."""

    name: ClassVar[str] = "purges that are due"

    def __init__(self, *, settle: float, interval: float = 5.0) -> None:
        """Both in seconds; `settle` is how long a tenant is refused everywhere before it is purged."""
        self.interval = interval
        self._settle = settle

    async def run(self, engine: AsyncEngine) -> bool:
        """Ask for one, if one is due; several provisioners pass by each other's."""
        # Five attempts take half a minute. Redis may be away for longer, and nobody is to have to remember.
        busy = select(Operation.id).where(
            Operation.tenant_id == Tenant.id,
            or_(
                Operation.status == "pending",
                and_(Operation.kind == "purge", Operation.finished_at > func.now() - text("interval '15 minutes'")),
            ),
        )
        due = (
            select(Tenant)
            .where(Tenant.status == "purging", Tenant.purge_after <= func.now(), ~busy.exists())
            .order_by(Tenant.purge_after)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            if (tenant := await session.scalar(due)) is None:
                return False
            # The one that another provisioner has just asked for is seen now, where the first look could not.
            pending = select(Operation.id).where(Operation.tenant_id == tenant.id, Operation.status == "pending")
            if await session.scalar(pending) is not None:
                return True
            await ask_for_purge(session, tenant, actor=PROVISIONER, reason=None, settle=self._settle)
        return True
