"""What the dashboard shows of notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tenantry.domain.notifications.models import Notification
from tenantry.domain.notifications.schemas import NotificationRead
from tenantry.kernel.feature import DashboardPart
from tenantry.kernel.schema import BaseStruct
from tenantry.kernel.service import to_struct

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.tenancy.guards import Principal

__all__ = ("NOTIFICATIONS_PART", "NotificationsPart")

_MOST = 5


class NotificationsPart(BaseStruct):
    unread: int
    latest: list[NotificationRead]
    """The last five, read or not."""


async def _read(session: AsyncSession, principal: Principal) -> NotificationsPart:
    own = Notification.user_id == principal.user_id
    unread = await session.scalar(select(func.count()).where(own, Notification.read_at.is_(None))) or 0
    latest = await session.scalars(select(Notification).where(own).order_by(Notification.position.desc()).limit(_MOST))
    return NotificationsPart(unread=unread, latest=[to_struct(row, NotificationRead) for row in latest])


NOTIFICATIONS_PART = DashboardPart("notifications", _read)
