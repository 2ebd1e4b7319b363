"""What the tests of the fair queue share: jobs that wait to be let go, and steps of a worker without a worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from saq.job import Job, Status

from tenantry.jobs.fair import FairQueue
from tenantry.jobs.patience import answer
from tenantry.jobs.queue import RingQueue
from tenantry.tenancy.redis import platform_key, queue_name
from tests.platform.support import eventually

__all__ = ("ACME", "GLOBEX", "PLENTY", "Gated", "age", "begin", "ended")

ACME, GLOBEX = queue_name(UUID(int=1)), queue_name(UUID(int=2))
PLENTY: dict[str, Any] = {"retries": 5, "timeout": 60}


class Gated:
    """A job that runs until it is let go."""

    def __init__(self) -> None:
        self.begun: list[Job] = []
        self.go = asyncio.Event()

    async def run(self, context: Any, **_: Any) -> str:
        self.begun.append(context["job"])
        await self.go.wait()
        return "gone"

    async def wait_for(self, number: int = 1) -> None:
        async def begun() -> bool:
            return len(self.begun) >= number

        await eventually(begun, 20)


def becomes(queue: RingQueue, key: str, *statuses: Status) -> Callable[[], Awaitable[Job | None]]:
    """Whether a job's status is one of these."""

    async def ask() -> Job | None:
        job = await queue.job(queue.job_key(key))
        return job if job is not None and job.status in statuses else None

    return ask


async def ended(queue: RingQueue, key: str, status: Status = Status.COMPLETE) -> Job:
    job = await eventually(becomes(queue, key, status), 30)
    assert job is not None
    return job


async def age(queue: FairQueue, *workers: str) -> None:
    """Let the time pass after which workers that gave no sign are dead, and after which it is looked for them."""
    keys = [platform_key("jobs", "turn", "sweep"), *(platform_key("jobs", "life", name) for name in workers)]
    await answer(queue.redis.delete(*keys))


async def begin(queue: FairQueue) -> Job:
    """Take a job and begin it as SAQ's worker does, without one."""
    (claim,) = await queue.ring.claim(queue.worker_id, 1)
    job = queue.queue_of(claim.queue).claimed(claim)
    queue._held.add(claim.name)
    job.started, job.attempts = int(time.time() * 1000), job.attempts + 1
    await job.update(status=Status.ACTIVE)
    return job
