"""Cleaning up after strangers."""

from __future__ import annotations

from sqlalchemy import delete, func, text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.jobs.definition import job
from tenantry.platform.strangers.models import PublicRequest

__all__ = ("forget_public_requests",)


@job("forget_public_requests", retries=3, timeout=60, backoff=60, platform=True)
async def forget_public_requests(session: AsyncSession) -> int:
    """Delete what no brake counts any more; how many."""
    gone = await session.execute(
        delete(PublicRequest)
        .where(PublicRequest.created_at < func.now() - text("interval '1 hour'"))
        .returning(PublicRequest.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())
