"""Writing down what tenants use, and measuring what they take up."""

from __future__ import annotations

from redis.asyncio import Redis

from tenantry.jobs.definition import Transactions, job
from tenantry.platform.usage.draining import drain_marked, forget_old, measure_due

__all__ = ("drain_use", "measure_use")


@job("drain_use", retries=2, timeout=300, backoff=5, platform=True)
async def drain_use(open: Transactions, redis: Redis) -> int:  # noqa: A002
    """Write down what has been used since the last time; of how many tenants and days."""
    return await drain_marked(open, redis)


@job("measure_use", retries=2, timeout=300, backoff=30, platform=True)
async def measure_use(open: Transactions, redis: Redis) -> int:  # noqa: A002
    """Measure storage and seats of those whose turn it is, and forget what is too old; how many there were."""
    measured = await measure_due(open, redis)
    async with open() as session:
        await forget_old(session)
    return measured
