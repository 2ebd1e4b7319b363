"""What clones and imports have in common: a new tenant that begins with rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.kernel.errors import ApplicationException
from tenantry.kernel.feature import Owner
from tenantry.platform.audit.service import PROVISIONER, record
from tenantry.platform.provisioning.creation import owner_of
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.platform.tenants.lifecycle import transition

if TYPE_CHECKING:
    from tenantry.platform.provisioning.operations import Work
    from tenantry.tenancy.models import Tenant

__all__ = ("AdoptOwner", "abandon", "adopt", "open_doors")

AdoptOwner = Callable[[AsyncSession, Owner], Awaitable[None]]
"""Makes somebody the organization's owner: the user who has the address, or else a new one."""


async def adopt(work: Work, adopt_owner: AdoptOwner) -> None:
    """Give the new tenant the owner of the payload, if it names one; the search_path leads to its schema.

    Raises:
        OperationFailed: the rows do not allow it.
    """
    if (payload := work.payload.get("owner")) is None:
        return
    try:
        await adopt_owner(work.session, owner_of(payload))
    except ApplicationException as error:
        raise OperationFailed(error.detail) from error
    await work.session.flush()


async def open_doors(work: Work, tenant: Tenant, revision: str) -> None:
    """The new tenant is there."""
    transition(tenant, "activate")
    tenant.revision = revision
    await work.session.flush()


async def abandon(work: Work, reason: str) -> None:
    """The new tenant is none: its schema was rolled back, its row says that it failed, and can be deleted."""
    tenant = await work.tenant()
    if tenant.status == "provisioning":
        transition(tenant, "fail", reason=reason)
    record(
        work.session,
        actor=PROVISIONER,
        action=f"tenant.{work.kind}-failed",
        tenant_id=work.tenant_id,
        details={"operation": str(work.operation_id)},
    )
