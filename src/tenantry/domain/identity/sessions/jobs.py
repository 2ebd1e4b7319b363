"""Cleaning up after signed-in devices."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.sessions.models import UserSession
from tenantry.jobs.definition import job

__all__ = ("forget_ended_sessions",)

_BATCH = 1000
"""Rows that one statement deletes: a plan's time for a statement may be short."""
_BATCHES = 50
"""Of which so many: the transaction is not to be long, and the next run goes on."""


@job("forget_ended_sessions", retries=3, timeout=120, backoff=60)
async def forget_ended_sessions(
    session: AsyncSession, days: Annotated[int, Meta(ge=0, le=3650)] = 30, batch: Annotated[int, Meta(ge=1)] = _BATCH
) -> int:
    """Delete sessions that expired or were revoked `days` ago, with their spent refresh tokens; how many.

    Their tokens were refused before, and are refused after: a session that is not there is no better than one that has
    ended. The one that was used last stays, since it is what operators are told of the organization's last activity.
    """
    last = select(UserSession.id).order_by(UserSession.last_used_at.desc(), UserSession.id.desc()).limit(1)
    ended_at = func.least(UserSession.expires_at, UserSession.revoked_at)
    forgotten = (
        select(UserSession.id)
        .where(ended_at < func.now() - func.make_interval(0, 0, 0, days), UserSession.id != last.scalar_subquery())
        .limit(batch)
    )
    count = 0
    for _ in range(_BATCHES):
        gone = (
            await session.execute(
                delete(UserSession).where(UserSession.id.in_(forgotten)).returning(UserSession.id),
                execution_options={"synchronize_session": False},
            )
        ).all()
        count += len(gone)
        if len(gone) < batch:
            break
    return count
