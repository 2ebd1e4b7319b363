"""What the dashboard shows of accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tenantry.domain.identity.users.models import User
from tenantry.kernel.feature import DashboardPart
from tenantry.kernel.schema import BaseStruct

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.tenancy.guards import Principal

__all__ = ("USERS_PART", "UsersPart")


class UsersPart(BaseStruct):
    active: int
    deactivated: int


async def _read(session: AsyncSession, _: Principal) -> UsersPart:
    counted = await session.execute(
        select(func.count().filter(User.is_active), func.count().filter(~User.is_active)).select_from(User)
    )
    active, deactivated = counted.one()
    return UsersPart(active=active, deactivated=deactivated)


USERS_PART = DashboardPart("users", _read, "users:read")
