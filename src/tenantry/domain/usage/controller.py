"""Routes of the organization's use."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from litestar import Controller, Request, get
from litestar.params import QueryParameter

from tenantry.domain.usage.schemas import OwnUsage
from tenantry.domain.usage.service import OwnUsageService, provide_own_usage, put_together
from tenantry.kernel.service import Injected
from tenantry.tenancy.guards import requires_permission
from tenantry.tenancy.request import own_tenant, request_transaction
from tenantry.tenancy.use import period, read_uncounted

__all__ = ("OwnUsageController",)


class OwnUsageController(Controller):
    """What the caller's own organization uses."""

    path = "/tenant/usage"
    tags = ["organization"]
    dependencies = {"usage": provide_own_usage}

    @get(
        "/",
        operation_id="GetOwnUsage",
        summary="See what the organization uses",
        guards=[requires_permission("organization:read")],
    )
    async def get_own_usage(
        self,
        request: Request[Any, Any, Any],
        usage: Injected[OwnUsageService],
        since: Annotated[
            date | None, QueryParameter(name="from", description="The first day; that of this month by default.")
        ] = None,
        until: Annotated[
            date | None, QueryParameter(name="to", description="The last day; today by default, in UTC.")
        ] = None,
    ) -> OwnUsage:
        """Requests, jobs, storage and seats, day by day and together, up to this moment."""
        first, last = period(since, until)
        tenant = own_tenant(request)
        written = await usage.written(first, last)
        # Redis may be slow: no connection is held for it.
        await request_transaction(request).pause()
        uncounted = await read_uncounted(request.app.state.redis, tenant.id, first, last, written)
        return put_together(first, last, written, uncounted)
