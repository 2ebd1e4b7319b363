"""Plans on the wire."""

from __future__ import annotations

from datetime import datetime

from tenantry.tenancy.entitled import LimitsRead

__all__ = ("PlanRead",)


class PlanRead(LimitsRead):
    """A plan; what its limits mean, those of an organization say."""

    slug: str
    name: str
    description: str | None
    quotas: dict[str, int]
    """How much there may be of what is counted; what is not named has no limit."""
    features: dict[str, bool]
    """What is included and what is not; what is not named is as the deployment's packages say."""
    created_at: datetime
    updated_at: datetime
