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
    created_at: datetime
    updated_at: datetime
