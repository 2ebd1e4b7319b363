"""What the dashboard shows of the audit trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from tenantry.domain.audit.schemas import AuditEventRead
from tenantry.events.models import AuditEvent
from tenantry.kernel.feature import DashboardPart
from tenantry.kernel.schema import BaseStruct
from tenantry.kernel.service import to_struct
from tenantry.tenancy.cache import ANY_EVENT, cached

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("ACTIVITY_PART", "ActivityPart")

_MOST = 10


class ActivityPart(BaseStruct):
    latest: list[AuditEventRead]
    """The last ten things that have happened."""


@cached(ActivityPart, ttl=60, invalidated_by=(ANY_EVENT,))
async def read_activity_part(session: AsyncSession) -> ActivityPart:
    """The same for all who may see the trail."""
    latest = await session.scalars(
        select(AuditEvent).order_by(AuditEvent.occurred_at.desc(), AuditEvent.id.desc()).limit(_MOST)
    )
    return ActivityPart(latest=[to_struct(row, AuditEventRead) for row in latest])


ACTIVITY_PART = DashboardPart("activity", read_activity_part, "audit:read")
