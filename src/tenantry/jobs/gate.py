"""Whose jobs may run now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tenantry.jobs.ring import Share, tenant_of
from tenantry.kernel.errors import UnavailableException

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.tenancy.registry import TenantRegistry

__all__ = ("Decision", "Gate")

Decision = Literal["run", "wait", "gone"]


class Gate:
    """Asks the registry. A suspended or archived organization's jobs wait; a purged one's are dropped."""

    def __init__(self, registry: TenantRegistry) -> None:
        self._registry = registry

    @property
    def is_open(self) -> bool:
        """Whether jobs may be taken at all: without the database they would only spend their attempts."""
        return self._registry.is_fresh

    async def decide(self, queue: str) -> Decision:
        """What is to become of a job of that queue."""
        try:
            tenant_id = tenant_of(queue)
        except ValueError:
            return "gone"
        if tenant_id is None:
            return "run"
        try:
            tenant = self._registry.by_id(tenant_id)
            if tenant is None:
                # It may have been made a moment ago.
                await self._registry.refresh()
                tenant = self._registry.by_id(tenant_id)
        except UnavailableException:
            return "wait"
        if tenant is None:
            return "gone"
        return "run" if tenant.is_active and tenant.served else "wait"

    def share(self, tenant_id: UUID) -> Share | None:
        """What a tenant's queue gets, by its plan; None where nobody knows at the moment."""
        try:
            tenant = self._registry.by_id(tenant_id)
        except UnavailableException:
            return None
        return None if tenant is None else Share(tenant.plan.job_weight, tenant.plan.job_concurrency)
