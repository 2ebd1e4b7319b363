"""Cleaning up after signed-in devices."""

from __future__ import annotations

import time
from typing import Annotated, Any

from msgspec import Meta
from sqlalchemy import Delete, delete, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tenantry.domain.identity.sessions.guessing import MEMORY
from tenantry.domain.identity.sessions.models import KnownDevice, LoginAttempt, UserSession
from tenantry.jobs.definition import job

__all__ = ("forget_ended_sessions", "forget_login_traces")

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
    return await _delete(session, delete(UserSession).where(UserSession.id.in_(forgotten)), UserSession.id, batch)


@job("forget_login_traces", retries=3, timeout=120, backoff=60)
async def forget_login_traces(
    session: AsyncSession, days: Annotated[int, Meta(ge=1, le=3650)] = 400, batch: Annotated[int, Meta(ge=1)] = _BATCH
) -> int:
    """Delete devices that were not seen for `days`, and tallies of failed log-ins that count no more; how many.

    A user's last device stays: without any, their next one would be their first, of which nobody is told.
    """
    later = aliased(KnownDevice)
    has_later = (
        select(true())
        .where(later.user_id == KnownDevice.user_id, later.last_seen_at > KnownDevice.last_seen_at)
        .exists()
    )
    unseen = (
        select(KnownDevice.id)
        .where(KnownDevice.last_seen_at < func.now() - func.make_interval(0, 0, 0, days), has_later)
        .limit(batch)
    )
    count = await _delete(session, delete(KnownDevice).where(KnownDevice.id.in_(unseen)), KnownDevice.id, batch)
    past = int(time.time() * 1000) - MEMORY
    stale = select(LoginAttempt.id).where(LoginAttempt.last_at < past).limit(batch)
    return count + await _delete(
        session, delete(LoginAttempt).where(LoginAttempt.id.in_(stale)), LoginAttempt.id, batch
    )


async def _delete(session: AsyncSession, statement: Delete, key: Any, batch: int) -> int:
    count = 0
    for _ in range(_BATCHES):
        gone = (await session.execute(statement.returning(key), execution_options={"synchronize_session": False})).all()
        count += len(gone)
        if len(gone) < batch:
            break
    return count
