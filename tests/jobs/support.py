"""Workers that a test runs itself, on a Redis database of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tenantry.jobs.definition import Job
from tenantry.jobs.fair import FairQueue
from tenantry.jobs.gate import Gate
from tenantry.jobs.prompt import PromptWorker
from tenantry.jobs.ring import Ring
from tenantry.kernel.redis import create_redis
from tenantry.worker import WorkerProcess
from tests.databases import Template
from tests.servers import REDIS_URL
from tests.world import settings_for

__all__ = ("empty_redis", "job_redis_url", "open_fair_queue", "open_ring", "open_saq_worker", "open_worker")

Functions = Sequence[tuple[str, Callable[..., Awaitable[Any]]]]


def job_redis_url() -> str:
    """The Redis database of this pytest process, in which no other one's worker looks for jobs."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 14 + 1
    return urlunsplit(urlsplit(os.environ[REDIS_URL])._replace(path=f"/{number}"))


@asynccontextmanager
async def open_ring(url: str | None = None) -> AsyncIterator[Ring]:
    """A ring on a Redis database that is empty at first: this process's, or that of `url`."""
    redis = create_redis(url or job_redis_url(), timeout=5)
    await redis.flushdb()
    try:
        yield Ring(redis)
    finally:
        await redis.aclose()


@asynccontextmanager
async def open_fair_queue(
    worker_id: str, url: str | None = None, *, gate: Gate | None = None
) -> AsyncIterator[FairQueue]:
    """What a worker of that name takes its jobs from."""
    address = url or job_redis_url()
    redis, blocking = create_redis(address, timeout=5, max_connections=200), create_redis(address, timeout=10)
    queue = FairQueue(redis, blocking, worker_id=worker_id, gate=gate)
    try:
        yield queue
    finally:
        await queue.close()
        await queue.disconnect()
        await blocking.aclose()


@asynccontextmanager
async def open_saq_worker(
    queue: FairQueue,
    functions: Functions,
    *,
    concurrency: int = 4,
    grace: int = 2,
    dequeue_timeout: float = 1.0,
    **timers: int,
) -> AsyncIterator[PromptWorker]:
    """A worker over all queues, at work until the block ends, and without database, relay and runner."""
    worker = PromptWorker(
        queue,
        functions,
        id=queue.worker_id,
        concurrency=concurrency,
        dequeue_timeout=dequeue_timeout,
        timers={"schedule": 1, "worker_info": 4, "sweep": 5, "abort": 1, **timers},
        shutdown_grace_period_s=grace,
    )
    worker.SIGNALS = []
    queue.is_ending = lambda: worker.event.is_set()
    task = asyncio.create_task(worker.start())
    try:
        yield worker
    finally:
        worker.event.set()
        await task


@asynccontextmanager
async def empty_redis(addresses: Template) -> AsyncIterator[str]:
    """The address of an empty Redis database."""
    assert addresses.redis_url == os.environ[REDIS_URL]
    url = job_redis_url()
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
