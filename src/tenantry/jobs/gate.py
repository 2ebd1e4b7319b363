"""Whose jobs may run now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tenantry.jobs.ring import Share, tenant_of
from tenantry.kernel.errors import UnavailableException
from tenantry.tenancy.redis import queue_name

if TYPE_CHECKING:
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

    def shares(self) -> dict[str, Share]:
        """What every tenant's queue gets, by its plan."""
        return {
            queue_name(tenant.id): Share(tenant.plan.job_weight, tenant.plan.job_concurrency)
            for tenant in self._registry.all()
        }
