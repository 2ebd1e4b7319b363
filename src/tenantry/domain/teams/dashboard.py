"""What the dashboard shows of teams."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import func, select

from tenantry.domain.teams.models import Team, TeamMember
from tenantry.kernel.feature import DashboardPart
from tenantry.kernel.schema import BaseStruct

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.tenancy.guards import Principal

__all__ = ("TEAMS_PART", "OwnTeam", "TeamsPart")

_MOST = 10


class OwnTeam(BaseStruct):
    """A team that the caller is in."""

    id: UUID
    slug: str
    name: str
    role: str


class TeamsPart(BaseStruct):
    total: int
    mine: list[OwnTeam]
    """Ten of them at most, by name."""


async def _read(session: AsyncSession, principal: Principal) -> TeamsPart:
    total = await session.scalar(select(func.count()).select_from(Team)) or 0
    mine = await session.execute(
        select(Team.id, Team.slug, Team.name, TeamMember.role)
        .join(TeamMember, TeamMember.team_id == Team.id)
        .where(TeamMember.user_id == principal.user_id)
        .order_by(Team.name, Team.id)
        .limit(_MOST)
    )
    return TeamsPart(
        total=total, mine=[OwnTeam(id=row.id, slug=row.slug, name=row.name, role=row.role) for row in mine]
    )


TEAMS_PART = DashboardPart("teams", _read, "teams:read")
