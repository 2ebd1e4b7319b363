"""What the dashboard shows of invitations to teams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tenantry.domain.team_invitations.models import TeamInvitation
from tenantry.kernel.feature import DashboardPart
from tenantry.kernel.schema import BaseStruct

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.tenancy.guards import Principal

__all__ = ("TEAM_INVITATIONS_PART", "TeamInvitationsPart")


class TeamInvitationsPart(BaseStruct):
    pending: int
    """Teams that have asked the caller, who has not answered yet."""


async def _read(session: AsyncSession, principal: Principal) -> TeamInvitationsPart:
    pending = select(func.count()).where(
        TeamInvitation.user_id == principal.user_id,
        TeamInvitation.status == "pending",
        TeamInvitation.expires_at > func.now(),
    )
    return TeamInvitationsPart(pending=await session.scalar(pending) or 0)


TEAM_INVITATIONS_PART = DashboardPart("teamInvitations", _read)
