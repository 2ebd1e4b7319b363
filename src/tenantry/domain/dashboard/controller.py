"""The dashboard's route."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, get

from tenantry.domain.dashboard.schemas import DashboardRead
from tenantry.domain.dashboard.service import Dashboards
from tenantry.tenancy.guards import principal_of
from tenantry.tenancy.request import tenant_request

__all__ = ("DashboardController",)


class DashboardController(Controller):
    """What people see when they come in."""

    path = "/dashboard"
    tags = ["dashboard"]

    @get("/", operation_id="GetDashboard", summary="See what is going on", opt={"any_user": True})
    async def get_dashboard(self, request: Request[Any, Any, Any]) -> DashboardRead:
        """Counts and recent things of all that the caller may see, read beside one another.

        `notifications`, `apiKeys` and `teamInvitations` are the caller's own; `users` and `invitations` need
        `users:read`, `teams` needs `teams:read`, `jobs` `jobs:read`, `activity` `audit:read`, `webhooks`
        `webhooks:read`. Features that are
        added bring their own parts.
        """
        dashboards: Dashboards = request.app.state.dashboards
        return await dashboards.read(tenant_request(request), principal_of(request))
