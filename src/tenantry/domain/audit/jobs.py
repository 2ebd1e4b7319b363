"""Sealing the audit trail."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.audit.chain import BATCH, seal_next
from tenantry.jobs.definition import job

__all__ = ("seal_audit",)

_SEALS = 20
"""That one run makes at most: its transaction is not to be long, and another run goes on."""


@job("seal_audit", retries=3, timeout=120, backoff=30)
async def seal_audit(session: AsyncSession, batch: Annotated[int, Meta(ge=1, le=BATCH)] = BATCH) -> int:
    """Seal what has happened since the last seal; how many events."""
    count = 0
    for _ in range(_SEALS):
        sealed = await seal_next(session, batch=batch)
        count += sealed
        if sealed < batch:
            return count
    await seal_audit.enqueue(session, key="more", batch=batch)
    return count
