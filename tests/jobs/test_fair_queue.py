"""SAQ's own worker over every tenant's queue: what it takes and when, and how its jobs are stopped."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from saq import Queue
from saq.job import Job, Status

from tenantry.jobs import fair
from tenantry.jobs.fair import FairQueue
from tenantry.jobs.patience import answer
from tenantry.jobs.ring import PLATFORM_QUEUE
from tests.jobs.bystander import COUNTS, count
from tests.jobs.support import job_redis_url, open_fair_queue, open_ring, open_saq_worker
from tests.jobs.workers import ACME, GLOBEX, PLENTY, Gated, begin, ended
from tests.platform.support import eventually


@pytest.fixture
async def queue() -> AsyncIterator[FairQueue]:
    async with open_ring(), open_fair_queue("one") as opened:
        yield opened


@pytest.fixture
async def other() -> AsyncIterator[FairQueue]:
    async with open_fair_queue("two") as opened:
        yield opened


# Working.


async def test_workers_in_one_process_and_in_two_run_every_job_once(queue: FairQueue, other: FairQueue) -> None:
    names = [PLATFORM_QUEUE, ACME, GLOBEX]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.jobs.bystander", job_redis_url(), "elsewhere")
    )
    try:
        functions = [("count", count)]
        async with open_saq_worker(queue, functions), open_saq_worker(other, functions):

            async def everybody() -> bool:
                info = await queue.info()
                return set(info["workers"]) == {"one", "two", "elsewhere"}

            for member in (queue, other):
                await member.worker_info(member.worker_id, "platform")
            await eventually(everybody, 60)
            for name in names:
                for number in range(100):
                    assert await queue.queue_of(name).enqueue("count", key=str(number), **PLENTY)

            async def done() -> bool:
                counts = [await queue.queue_of(name).count("incomplete") for name in names]
                return not any(counts)

            await eventually(done, 60)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    effects = await answer(queue.redis.hgetall(COUNTS))
    assert Counter(effects.values()) == {b"1": 300}
    by = Counter[str]()
    for name in names:
        for job in await queue.jobs([queue.queue_of(name).job_key(str(number)) for number in range(100)]):
            assert job is not None
            assert job.status is Status.COMPLETE
            by[job.result] += 1
    assert set(by) == {"one", "two", "elsewhere"}


async def test_a_neighbour_does_not_wait_for_a_flood(queue: FairQueue) -> None:
    flood = queue.queue_of(ACME)
    for start in range(0, 2000, 50):
        await asyncio.gather(*(flood.enqueue("count", key=str(start + n), **PLENTY) for n in range(50)))
    async with open_saq_worker(queue, [("count", count)]):
        await ended(flood, "5")
        await queue.queue_of(GLOBEX).enqueue("count", key="mine", **PLENTY)
        waiting = await flood.count("queued")
        await ended(queue.queue_of(GLOBEX), "mine")
        assert waiting - await flood.count("queued") < 300
        assert await flood.count("queued") > 500


async def test_an_idle_worker_is_woken_at_once(queue: FairQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair, "_BLOCK", 9.0)
    async with open_saq_worker(queue, [("count", count)]):

        async def asleep() -> bool:
            clients = await answer(queue.redis.client_list())
            own = job_redis_url().rpartition("/")[2]
            return any(client["cmd"] == "blpop" and client["db"] == own for client in clients)

        await eventually(asleep, 20)
        began = time.monotonic()
        await queue.queue_of(ACME).enqueue("count", key="a", **PLENTY)
        await ended(queue.queue_of(ACME), "a")
        assert time.monotonic() - began < 5


async def test_equal_keys_of_two_tenants_are_two_jobs_also_in_one_worker(queue: FairQueue) -> None:
    gated = Gated()
    async with open_saq_worker(queue, [("gated", gated.run)]) as worker:
        jobs = [await queue.queue_of(name).enqueue("gated", key="digest", **PLENTY) for name in (ACME, GLOBEX)]
        await gated.wait_for(2)
        assert len(worker.job_task_contexts) == 2
        assert jobs[0] is not None
        await jobs[0].abort("only this one")
        await ended(queue.queue_of(ACME), "digest", Status.ABORTED)
        gated.go.set()
        await ended(queue.queue_of(GLOBEX), "digest")


async def test_what_a_worker_has_done_for_tenants_is_in_its_figures(queue: FairQueue) -> None:
    async def broken(_: Any) -> None:
        raise RuntimeError("broken")

    async with open_saq_worker(queue, [("count", count), ("broken", broken)]):
        await queue.queue_of(ACME).enqueue("count", key="a", **PLENTY)
        await queue.enqueue("count", key="b", **PLENTY)
        await queue.queue_of(GLOBEX).enqueue("broken", key="c", retries=2, timeout=60)
        await ended(queue.queue_of(ACME), "a")
        await ended(queue, "b")
        await ended(queue.queue_of(GLOBEX), "c", Status.FAILED)
    assert (queue.complete, queue.failed, queue.retried) == (2, 1, 1)


async def test_a_result_that_is_not_json_ends_in_death_and_not_in_limbo(queue: FairQueue) -> None:
    async def odd(_: Any) -> object:
        return object()

    async with open_saq_worker(queue, [("odd", odd)]):
        await queue.queue_of(ACME).enqueue("odd", key="a", retries=2, timeout=60)
        job = await ended(queue.queue_of(ACME), "a", Status.FAILED)
    assert "TypeError" in (job.error or "")
    assert await queue.ring.inflight() == []


# SAQ's own tools.


async def test_saqs_own_client_reads_a_tenants_queue(queue: FairQueue, other: FairQueue) -> None:
    member = queue.queue_of(ACME)
    for number in range(3):
        await member.enqueue("f", key=str(number), **PLENTY)
    await member.enqueue("f", key="later", scheduled=int(time.time()) + 100, **PLENTY)
    at_work = await begin(queue)
    stock = Queue.from_url(job_redis_url(), name=ACME)
    try:
        info = await stock.info(jobs=True)
        assert [await stock.count(kind) for kind in ("queued", "active", "incomplete")] == [2, 1, 4]
        assert (info["name"], info["queued"], info["active"], info["scheduled"]) == (ACME, 2, 1, 1)
        assert {job["key"] for job in info["jobs"]} == {f"{ACME}:{key}" for key in ("0", "1", "2", "later")}
        seen = await stock.job(f"{ACME}:0")
        assert seen is not None
        assert (seen.status, seen.attempts) == (Status.ACTIVE, 1)
        assert (await stock.info())["workers"] == {}
        waiting = asyncio.create_task(seen.refresh(20))

        async def listening() -> bool:
            return bool(await answer(queue.redis.pubsub_numpat()))

        await eventually(listening, 20)
        # Giving it back is nothing that whoever waits for its end could make sense of.
        await queue.ring.settle(queue.queue_of(ACME).claim_of(at_work), "release")
        again = await begin(other)
        await again.finish(Status.COMPLETE, result={"done": [1]})
        await waiting
        assert (seen.status, seen.result) == (Status.COMPLETE, {"done": [1]})
    finally:
        await stock.disconnect()


async def test_whoever_has_enqueued_a_job_sees_it_through(queue: FairQueue) -> None:
    job = await queue.queue_of(ACME).enqueue("count", key="a", **PLENTY)
    assert job is not None
    async with open_saq_worker(queue, [("count", count)]):
        await job.refresh(until_complete=20)
    assert (job.status, job.result, job.attempts) == (Status.COMPLETE, "one", 1)


# Aborting.


async def test_a_running_job_is_stopped_and_stays_so(queue: FairQueue) -> None:
    gated = Gated()
    async with open_saq_worker(queue, [("gated", gated.run)]):
        job = await queue.queue_of(ACME).enqueue("gated", key="a", **PLENTY)
        assert job is not None
        await gated.wait_for()
        await job.abort("not wanted")
        assert job.status is Status.ABORTING
        # Whoever tells how far it is does not take it back.
        await gated.begun[0].update(progress=0.5)
        stopped = await ended(queue.queue_of(ACME), "a", Status.ABORTED)
    assert (stopped.error, stopped.attempts) == ("not wanted", 1)
    assert await queue.redis.exists(job.abort_id) == 0
    assert await queue.ring.inflight() == []
    await stopped.abort("again")
    assert (stopped.status, stopped.error) == (Status.ABORTED, "not wanted")


@pytest.mark.parametrize("stubborn", ["swallows", "raises"])
async def test_a_job_that_answers_its_cancellation_oddly_is_aborted_all_the_same(
    queue: FairQueue, stubborn: str
) -> None:
    begun = asyncio.Event()

    async def odd(_: Any) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if stubborn == "raises":
                raise RuntimeError("I was not finished") from None
        return "done"

    async with open_saq_worker(queue, [("odd", odd)]):
        # As whoever has enqueued it knows it: not yet claimed.
        job = await queue.queue_of(ACME).enqueue("odd", key="a", **PLENTY)
        assert job is not None
        async with asyncio.timeout(20):
            await begun.wait()
        await job.abort("not wanted")
        await ended(queue.queue_of(ACME), "a", Status.ABORTED)

        async def at_rest() -> bool:
            return not await queue.ring.inflight()

        await eventually(at_rest, 20)
    assert await queue.queue_of(ACME).count("incomplete") == 0


async def test_a_job_that_is_aborted_between_its_claim_and_its_beginning_does_not_come_back(
    queue: FairQueue, other: FairQueue
) -> None:
    member = queue.queue_of(ACME)
    job = await member.enqueue("f", key="a", **PLENTY)
    assert job is not None
    (claim,) = await queue.ring.claim("one", 1)
    await job.abort("not wanted")
    taken = queue.queue_of(ACME).claimed(claim)
    taken.attempts = 1
    await taken.update(status=Status.ACTIVE)
    await taken.retry("cancelled")
    stored = await member.job(job.key)
    assert stored is not None
    assert (stored.status, stored.error) == (Status.ABORTED, "not wanted")
    assert await member.count("incomplete") == 0
    assert await other.ring.claim("two", 1) == []


async def test_a_job_that_is_to_be_aborted_is_given_back_by_nobody(queue: FairQueue) -> None:
    member = queue.queue_of(ACME)
    job = await member.enqueue("f", key="a", **PLENTY)
    assert job is not None
    (claim,) = await queue.ring.claim("one", 1)
    await job.abort("not wanted")
    assert await queue.ring.settle(claim, "release")
    stored = await member.job(job.key)
    assert stored is not None
    assert stored.status is Status.ABORTED
    assert (await member.count("incomplete"), await queue.redis.exists(job.abort_id)) == (0, 0)


async def test_aborting_what_redis_no_longer_knows_is_no_error(queue: FairQueue) -> None:
    job = Job(function="f", queue=queue.queue_of(ACME), key=f"{ACME}:gone")
    await job.abort("not wanted")
    assert job.status is Status.NEW
    assert await queue.redis.exists(job.id, job.abort_id) == 0


# Dead jobs.


async def test_a_replayed_job_has_all_of_its_attempts_again(queue: FairQueue) -> None:
    member = queue.queue_of(ACME)
    await member.enqueue("f", key="a", retries=4, timeout=60)
    job = await begin(queue)
    # As the runner does where another attempt would not help.
    job.retries = job.attempts
    await job.finish(Status.FAILED, error="hopeless")
    assert (await member.dead())[1] == 1
    replayed = await member.replay("a")
    assert replayed is not None
    assert (replayed.retries, replayed.attempts, replayed.error) == (4, 0, None)
    assert (await member.dead())[1] == 0
    assert await member.replay("a") is None
    assert (await begin(queue)).attempts == 1
