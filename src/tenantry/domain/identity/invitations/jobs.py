"""Cleaning up after invitations."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from sqlalchemy import delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.invitations.models import Invitation
from tenantry.jobs.definition import job

__all__ = ("forget_old_invitations",)


@job("forget_old_invitations", retries=3, timeout=60, backoff=60)
async def forget_old_invitations(session: AsyncSession, days: Annotated[int, Meta(ge=0, le=3650)] = 30) -> int:
    """Delete invitations that were accepted or expired `days` ago; how many.

    Whoever tries one is told that it was used, has expired or never was one, before as after.
    """
    ended_at = func.least(Invitation.expires_at, Invitation.accepted_at)
    gone = await session.execute(
        delete(Invitation)
        .where(ended_at < func.now() - func.make_interval(0, 0, 0, days))
        .returning(Invitation.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())
