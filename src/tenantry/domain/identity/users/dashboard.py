"""What the dashboard shows of accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tenantry.domain.identity.users.models import User
from tenantry.kernel.feature import DashboardPart
from tenantry.kernel.schema import BaseStruct
from tenantry.tenancy.cache import cached

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("USERS_PART", "UsersPart")


class UsersPart(BaseStruct):
    active: int
    deactivated: int


@cached(
    UsersPart,
    ttl=60,
    invalidated_by=("user.created", "user.signed_up", "user.activated", "user.deactivated", "user.erased"),
)
async def read_users_part(session: AsyncSession) -> UsersPart:
    """Counts all accounts: of ten thousand, that takes longer than the rest of the dashboard."""
    counted = await session.execute(
        select(func.count().filter(User.is_active), func.count().filter(~User.is_active)).select_from(User)
    )
    active, deactivated = counted.one()
    return UsersPart(active=active, deactivated=deactivated)


USERS_PART = DashboardPart("users", read_users_part, "users:read")
