"""Cleaning up after invitations to teams."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from sqlalchemy import delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.team_invitations.models import TeamInvitation
from tenantry.jobs.definition import job

__all__ = ("forget_old_team_invitations",)


@job("forget_old_team_invitations", retries=3, timeout=60, backoff=60)
async def forget_old_team_invitations(session: AsyncSession, days: Annotated[int, Meta(ge=0, le=3650)] = 30) -> int:
    """Delete invitations to teams that ended or expired `days` ago, and the addresses in them; how many."""
    ended_at = func.least(TeamInvitation.expires_at, TeamInvitation.ended_at)
    gone = await session.execute(
        delete(TeamInvitation)
        .where(ended_at < func.now() - func.make_interval(0, 0, 0, days))
        .returning(TeamInvitation.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())
