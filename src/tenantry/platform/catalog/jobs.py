"""Measuring the database's catalog, every night."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.jobs.definition import job
from tenantry.platform.catalog.service import measure

__all__ = ("measure_catalog",)


@job("measure_catalog", retries=3, timeout=120, backoff=60, platform=True)
async def measure_catalog(session: AsyncSession) -> str:
    """Write down how much there is in the database's catalog; the day (ISO 8601)."""
    return (await measure(session)).isoformat()
