"""Cleaning up after requests that may have been sent again."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.idempotency.models import IdempotentRequest
from tenantry.jobs.definition import job

__all__ = ("forget_idempotency_keys",)

_BATCH = 1000
"""Rows that one statement deletes: a plan's time for a statement may be short."""
_BATCHES = 50
"""Of which so many: the transaction is not to be long, and the next run goes on."""


@job("forget_idempotency_keys", retries=3, timeout=120, backoff=60)
async def forget_idempotency_keys(session: AsyncSession, batch: Annotated[int, Meta(ge=1)] = _BATCH) -> int:
    """Delete the answers whose keys have expired; how many. The keys were forgotten when they expired."""
    expired = select(IdempotentRequest.id).where(IdempotentRequest.expires_at < func.now()).limit(batch)
    count = 0
    for _ in range(_BATCHES):
        gone = (
            await session.execute(
                delete(IdempotentRequest).where(IdempotentRequest.id.in_(expired)).returning(IdempotentRequest.id),
                execution_options={"synchronize_session": False},
            )
        ).all()
        count += len(gone)
        if len(gone) < batch:
            break
    return count
