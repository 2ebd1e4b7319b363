"""Routes of plans."""

from __future__ import annotations

from litestar import Controller, get

from tenantry.kernel.schema import Page
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.platform.plans.schemas import PlanRead
from tenantry.platform.plans.service import PlanService, provide_plans
from tenantry.tenancy.guards import requires_permission

__all__ = ("PlanController",)


class PlanController(Controller):
    """What tenants can be entitled to."""

    path = "/plans"
    tags = ["platform"]
    dependencies = {"plans": provide_plans}

    @get(
        "/",
        operation_id="ListPlans",
        summary="List plans",
        guards=[requires_permission("plans:read")],
        dependencies={
            "listing": create_list_query(sortable=("slug", "name"), searched=("slug", "name"), default="slug")
        },
    )
    async def list_plans(self, plans: Injected[PlanService], listing: Injected[ListQuery]) -> Page[PlanRead]:
        """The plans, as the files declare them."""
        return await plans.page(listing, PlanRead)
