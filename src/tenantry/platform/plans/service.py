"""Plans. They are declared in `tenants/plans.toml`; the API only shows them."""

from __future__ import annotations

from advanced_alchemy.repository import SQLAlchemyAsyncRepository

from tenantry.kernel.service import Service, create_service_provider
from tenantry.platform.plans.models import Plan

__all__ = ("PlanService", "provide_plans")


class PlanService(Service[Plan]):
    """Plans of this deployment."""

    class Repo(SQLAlchemyAsyncRepository[Plan]):
        model_type = Plan

    repository_type = Repo
    match_fields = ["slug"]


provide_plans = create_service_provider(PlanService, error_messages={"not_found": "There is no such plan."})
