"""Plans on the wire."""

from __future__ import annotations

from datetime import datetime

from tenantry.kernel.schema import BaseStruct

__all__ = ("PlanRead",)


class PlanRead(BaseStruct):
    slug: str
    name: str
    description: str | None
    statement_timeout: int | None
    """Milliseconds."""
    job_weight: float
    """Of the workers' turns, beside the other plans' weights."""
    job_concurrency: int
    """Jobs of one organization at work at a time."""
    created_at: datetime
    updated_at: datetime
