"""What the dashboard shows of invitations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tenantry.domain.identity.invitations.models import Invitation
from tenantry.domain.identity.users.models import User
from tenantry.kernel.feature import DashboardPart
from tenantry.kernel.schema import BaseStruct

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.tenancy.guards import Principal

__all__ = ("INVITATIONS_PART", "InvitationsPart")


class InvitationsPart(BaseStruct):
    pending: int
    """People who were invited and have not come yet, and still can."""


async def _read(session: AsyncSession, _: Principal) -> InvitationsPart:
    pending = (
        select(func.count())
        .select_from(Invitation)
        .join(User, User.id == Invitation.user_id)
        .where(Invitation.accepted_at.is_(None), Invitation.expires_at > func.now(), User.is_active)
    )
    return InvitationsPart(pending=await session.scalar(pending) or 0)


INVITATIONS_PART = DashboardPart("invitations", _read, "users:read")
