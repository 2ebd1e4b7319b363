"""How a worker ends: at once, and yet not before its jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from saq.job import Job

from tenantry.jobs.fair import FairQueue
from tenantry.jobs.patience import end
from tests.jobs.bystander import count
from tests.jobs.support import open_fair_queue, open_ring, open_saq_worker
from tests.jobs.workers import ACME, PLENTY, Gated, ended
from tests.platform.support import eventually

SLOW = {"schedule": 60, "worker_info": 60, "sweep": 60, "abort": 60}
"""Whoever waited for one of these timers, or for the grace time, would be noticed."""


@pytest.fixture
async def queue() -> AsyncIterator[FairQueue]:
    async with open_ring(), open_fair_queue("one") as opened:
        yield opened


async def idle(queue: FairQueue, slots: int) -> None:
    """Until so many slots wait for a job."""

    async def wait() -> bool:
        return len(queue._waiters) == slots

    await eventually(wait, 20)


async def test_a_worker_with_nothing_to_do_ends_at_once(queue: FairQueue) -> None:
    async with open_saq_worker(queue, [("count", count)], dequeue_timeout=60.0, grace=60, **SLOW) as worker:
        await queue.queue_of(ACME).enqueue("count", key="a", **PLENTY)
        await ended(queue.queue_of(ACME), "a")
        await idle(queue, 4)
        began = time.monotonic()
        worker.event.set()
    assert time.monotonic() - began < 10
    assert worker.tasks == set()


async def test_a_worker_that_ends_waits_for_its_jobs_and_for_nothing_else(queue: FairQueue) -> None:
    gated = Gated()
    began = time.monotonic()
    async with open_saq_worker(queue, [("gated", gated.run)], dequeue_timeout=60.0, grace=60, **SLOW) as worker:
        await queue.queue_of(ACME).enqueue("gated", key="a", **PLENTY)
        await gated.wait_for()
        await idle(queue, 3)
        worker.event.set()

        async def none_asks() -> bool:
            return not queue._waiters

        await eventually(none_asks, 20)
        assert worker.job_task_contexts
        gated.go.set()
    assert time.monotonic() - began < 30
    job = await ended(queue.queue_of(ACME), "a")
    assert (job.result, job.attempts) == ("gone", 1)


async def test_a_job_that_comes_as_its_slot_is_dismissed_is_given_to_the_next(queue: FairQueue) -> None:
    slot = asyncio.create_task(queue.dequeue())
    await eventually(lambda: asyncio.sleep(0, bool(queue._waiters)), 20)
    queue.dismiss()
    queue._give(Job(function="count", queue=queue, key="late"))
    assert await slot is None
    taken = await queue.dequeue()
    assert taken is not None
    assert taken.key == "late"


@pytest.fixture
def lossy() -> Callable[..., Awaitable[None]]:
    """A wait that loses the first of its cancellations, as `asyncio.wait_for` in Python 3.11 sometimes does."""
    lost = False

    async def wait(*_: object, **__: object) -> None:
        nonlocal lost
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if lost:
                raise
            lost = True

    return wait


async def test_what_has_lost_its_cancellation_ends_all_the_same(lossy: Callable[..., Awaitable[None]]) -> None:
    async def work() -> None:
        while True:
            await lossy()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await end(task)
    assert task.cancelled()


async def test_a_queue_whose_cancellation_is_lost_closes_all_the_same(
    queue: FairQueue, lossy: Callable[..., Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def asleep(*_: object, **__: object) -> None:
        asked.set()
        await lossy()

    monkeypatch.setattr(queue._blocking, "blpop", asleep)
    slot = asyncio.create_task(queue.dequeue())
    async with asyncio.timeout(20):
        await asked.wait()
        queue.dismiss()
        await queue.close()
    assert await slot is None


async def test_upkeep_that_fails_is_tried_again(queue: FairQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def away(lock: int = 1) -> list[str]:
        nonlocal calls
        calls += 1
        raise RedisConnectionError("away")

    monkeypatch.setattr(queue, "schedule", away)
    with structlog.testing.capture_logs() as logs:
        async with open_saq_worker(queue, [("count", count)], **(SLOW | {"schedule": 1})):
            await eventually(lambda: asyncio.sleep(0, calls >= 2), 20)
    assert [line["upkeep"] for line in logs if line["event"] == "upkeep failed"] == ["schedule"] * calls
