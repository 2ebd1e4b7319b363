"""Telling people of events, and forgetting what they were told long ago."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from msgspec import Meta
from sqlalchemy import delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.notifications.listeners import wake
from tenantry.domain.notifications.models import Notification
from tenantry.domain.notifications.service import tell
from tenantry.events.definition import RecordedEvent, current_catalogue
from tenantry.jobs.definition import Discard, JobRun, job
from tenantry.tenancy.context import TenantContext

__all__ = ("end_streams", "forget_old_notifications", "notify")

_BATCH = 1000
"""Rows that one statement deletes: a plan's time for a statement may be short."""
_BATCHES = 50
"""Of which so many: the transaction is not to be long, and the next run goes on."""


@job("notify", retries=8, timeout=60)
async def notify(run: JobRun, session: AsyncSession, tenant: TenantContext, event: RecordedEvent) -> int:
    """Tell those whom it concerns of an event; how many."""
    kind = current_catalogue().notifications.get(event.name)
    if kind is None:
        raise Discard(f"nobody is told of {event.name!r} any more")
    told = await tell(session, kind, event, await kind.recipients(session, event))
    if told:
        # Once it is committed: whoever looks then finds it.
        run.hints.append(partial(wake, tenant_id=tenant.id, user_ids=told))
    return len(told)


@job("end_streams", retries=3, timeout=30)
async def end_streams(run: JobRun, tenant: TenantContext, event: RecordedEvent) -> None:
    """Have the streams of a user who may not see anything any more look, and find that out, now.

    They would by their next sign of life, which may be a quarter of a minute away.
    """
    run.hints.append(partial(wake, tenant_id=tenant.id, user_ids=[event.subject]))


@job("forget_old_notifications", retries=3, timeout=120, backoff=60)
async def forget_old_notifications(
    session: AsyncSession,
    read_days: Annotated[int, Meta(ge=0, le=3650)] = 90,
    days: Annotated[int, Meta(ge=0, le=3650)] = 180,
    batch: Annotated[int, Meta(ge=1)] = _BATCH,
) -> int:
    """Delete what was read `read_days` ago, and what was made `days` ago, read or not; how many."""
    forgotten = (
        select(Notification.id)
        .where(
            or_(
                Notification.read_at < func.now() - func.make_interval(0, 0, 0, read_days),
                Notification.created_at < func.now() - func.make_interval(0, 0, 0, days),
            )
        )
        .limit(batch)
    )
    count = 0
    for _ in range(_BATCHES):
        gone = (
            await session.execute(
                delete(Notification).where(Notification.id.in_(forgotten)).returning(Notification.id),
                execution_options={"synchronize_session": False},
            )
        ).all()
        count += len(gone)
        if len(gone) < batch:
            return count
    await forget_old_notifications.enqueue(session, key="more", read_days=read_days, days=days, batch=batch)
    return count
