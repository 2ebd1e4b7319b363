"""Workers that a test runs itself, on a Redis database of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tenantry.jobs.definition import Job
from tenantry.kernel.redis import create_redis
from tenantry.worker import WorkerProcess
from tests.databases import Template
from tests.world import settings_for

__all__ = ("empty_redis", "job_redis_url", "open_worker")


def job_redis_url(addresses: Template) -> str:
    """The Redis database of this pytest process, in which no other one's worker looks for jobs."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 14 + 1
    return urlunsplit(urlsplit(addresses.redis_url)._replace(path=f"/{number}"))


@asynccontextmanager
async def empty_redis(addresses: Template) -> AsyncIterator[str]:
    """The address of an empty Redis database."""
    url = job_redis_url(addresses)
    redis = create_redis(url)
    await redis.flushdb()
    try:
        yield url
    finally:
        await redis.aclose()


@asynccontextmanager
async def open_worker(
    addresses: Template, redis_url: str, home: Path, jobs: Sequence[Job], **overrides: object
) -> AsyncIterator[WorkerProcess]:
    """A worker in this process that is at work until the block ends; signals stay pytest's."""
    overrides = {"redis_url": redis_url, "worker_grace": 2, **overrides}
    process = WorkerProcess(settings_for(addresses, home, **overrides), jobs=jobs, signals=False)
    task = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        process.stop()
        await task
