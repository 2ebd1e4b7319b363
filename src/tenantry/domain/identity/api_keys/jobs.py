"""Cleaning up after keys."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.api_keys.models import ApiKey
from tenantry.jobs.definition import job

__all__ = ("forget_ended_api_keys",)

_BATCH = 1000
"""Rows that one statement deletes: a plan's time for a statement may be short."""
_BATCHES = 50
"""Of which so many: the transaction is not to be long, and the next run goes on."""


@job("forget_ended_api_keys", retries=3, timeout=120, backoff=60)
async def forget_ended_api_keys(
    session: AsyncSession, days: Annotated[int, Meta(ge=0, le=3650)] = 90, batch: Annotated[int, Meta(ge=1)] = _BATCH
) -> int:
    """Delete keys that expired or were revoked `days` ago; how many. The audit trail keeps what was done by them."""
    ended_at = func.least(ApiKey.expires_at, ApiKey.revoked_at)
    forgotten = select(ApiKey.id).where(ended_at < func.now() - func.make_interval(0, 0, 0, days)).limit(batch)
    count = 0
    for _ in range(_BATCHES):
        gone = (
            await session.execute(
                delete(ApiKey).where(ApiKey.id.in_(forgotten)).returning(ApiKey.id),
                execution_options={"synchronize_session": False},
            )
        ).all()
        count += len(gone)
        if len(gone) < batch:
            break
    return count
