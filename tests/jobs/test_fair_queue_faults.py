"""What becomes of the jobs of workers that end, die or are only slow, and of a Redis that goes away."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
import structlog
from saq.job import Job, Status

from tenantry.dev.valkey import EmbeddedValkey
from tenantry.jobs import fair
from tenantry.jobs.fair import FairQueue
from tenantry.jobs.patience import answer
from tenantry.jobs.queue import ClaimLostError
from tenantry.jobs.ring import Share
from tenantry.tenancy.redis import queue_name
from tests.jobs.bystander import count
from tests.jobs.support import open_fair_queue, open_ring, open_saq_worker
from tests.jobs.workers import ACME, GLOBEX, PLENTY, Gated, age, begin, ended
from tests.platform.support import eventually
from tests.servers import temporary_folder


@pytest.fixture
async def queue() -> AsyncIterator[FairQueue]:
    async with open_ring(), open_fair_queue("one") as opened:
        yield opened


@pytest.fixture
async def other() -> AsyncIterator[FairQueue]:
    async with open_fair_queue("two") as opened:
        yield opened


@pytest.fixture
def valkey(request: pytest.FixtureRequest) -> Iterator[EmbeddedValkey]:
    """A server of the test's own, to be killed or measured; persistent if the test says so."""
    folder = temporary_folder("tenantry-jobs-")
    try:
        persistent = bool(getattr(request, "param", False))
        with EmbeddedValkey(folder / "valkey", persistent=persistent, delete_with_parent=True) as server:
            yield server
    finally:
        shutil.rmtree(folder)


# Ending, and dying.


async def test_a_worker_that_ends_gives_back_what_it_has_taken(queue: FairQueue, other: FairQueue) -> None:
    gated = Gated()
    member = queue.queue_of(ACME)
    async with open_saq_worker(queue, [("gated", gated.run)], concurrency=2, grace=1):
        for number in range(4):
            await member.enqueue("gated", key=str(number), **PLENTY)
        await gated.wait_for(2)
        # Taken in the worker's name, and never handed out: the connection broke, say.
        (unknown,) = await queue.ring.claim("one", 1)
    await queue.close()
    assert await queue.ring.inflight() == []
    assert (await member.count("queued"), await member.count("active")) == (4, 0)
    async with open_saq_worker(other, [("gated", gated.run)]):
        gated.go.set()
        for number in range(4):
            job = await ended(member, str(number))
            assert job.attempts == (2 if job.id in {begun.id for begun in gated.begun[:2]} else 1)
    assert unknown.id not in {begun.id for begun in gated.begun[:2]}


async def test_a_worker_that_is_told_to_end_takes_no_more(queue: FairQueue) -> None:
    gated = Gated()
    async with open_saq_worker(queue, [("gated", gated.run)], concurrency=3, grace=20) as worker:
        await queue.enqueue("gated", key="first", **PLENTY)
        await gated.wait_for()
        worker.event.set()
        await queue.enqueue("gated", key="second", **PLENTY)

        async def none_asks() -> bool:
            return not queue._waiters

        await eventually(none_asks, 20)
        gated.go.set()
    await ended(queue, "first")
    assert [job.key for job in gated.begun] == ["platform:first"]
    assert await queue.count("queued") == 1


async def test_a_claim_whose_answer_was_lost_is_found_while_the_worker_lives(
    queue: FairQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair, "_CHECK", 0.1)
    gated = Gated()
    async with open_saq_worker(queue, [("gated", gated.run), ("count", count)]):
        await queue.enqueue("gated", key="at-work", **PLENTY)
        await gated.wait_for()
        # Not in the ring, so that nobody takes it first.
        await queue.ring.pause(ACME)
        await queue.queue_of(ACME).enqueue("count", key="a", **PLENTY)
        await queue.ring.claim("nobody", 1)
        await queue.ring.redis.srem(queue.ring.keys["paused"], ACME)  # type: ignore[misc]
        await queue.ring.register({ACME: Share()})
        await ended(queue.queue_of(ACME), "a")
        await queue.queue_of(GLOBEX).enqueue("count", key="b", scheduled=int(time.time()) + 100, **PLENTY)
        lost = await queue.ring.schedule(time.time() + 200), await queue.ring.claim("one", 1)
        assert lost
        assert (await ended(queue.queue_of(GLOBEX), "b")).attempts == 1
        gated.go.set()
        assert (await ended(queue, "at-work")).attempts == 1


async def test_a_dead_workers_jobs_run_again_if_they_have_an_attempt_left(queue: FairQueue, other: FairQueue) -> None:
    dead: list[str] = []

    async def note(job: Job) -> None:
        dead.append(job.key)

    other.when_dead = note
    member = queue.queue_of(ACME)
    await member.enqueue("f", key="last", retries=1, timeout=60)
    await member.enqueue("f", key="more", retries=2, timeout=60)
    await member.enqueue("f", key="untouched", retries=1, timeout=60)
    assert [(await begin(queue)).key for _ in range(2)] == [f"{ACME}:last", f"{ACME}:more"]
    await queue.ring.claim("one", 1)
    await age(queue)
    assert await other.sweep() == []
    await age(queue, "one")
    assert len(await other.sweep()) == 3
    assert dead == [f"{ACME}:last"]
    (buried,), total = await member.dead()
    assert (total, buried.key, buried.error) == (1, f"{ACME}:last", "its worker died, and no attempt is left")
    again = await begin(other), await begin(other)
    assert [(job.key, job.attempts) for job in again] == [(f"{ACME}:untouched", 1), (f"{ACME}:more", 2)]
    assert await other.sweep() == []


async def test_a_worker_that_was_only_slow_changes_nothing_any_more(queue: FairQueue, other: FairQueue) -> None:
    told: list[str] = []

    async def note(job: Job) -> None:
        told.append(job.key)

    queue.when_dead = note
    await queue.queue_of(ACME).enqueue("f", key="a", **PLENTY)
    slow = await begin(queue)
    await age(queue, "one")
    assert await other.sweep() == [slow.id]
    successor = await begin(other)
    with pytest.raises(ClaimLostError):
        await slow.update(progress=0.5)
    await slow.retry("too late")
    await slow.finish(Status.FAILED, error="too late")
    await slow.finish(Status.COMPLETE, result="too late")
    assert told == []
    await successor.finish(Status.COMPLETE, result="in time")
    job = await queue.queue_of(ACME).job(slow.key)
    assert job is not None
    assert (job.result, job.attempts) == ("in time", 2)
    assert await queue.queue_of(ACME).count("incomplete") == 0


async def test_what_is_no_job_stops_neither_workers_nor_sweeps(queue: FairQueue, other: FairQueue) -> None:
    bad = [b"{", b"[]", b"", b'{"queue": "elsewhere"}', b'{"queue": "platform", "function": "f", "colour": "blue"}']
    for number, payload in enumerate(bad):
        await queue.ring.enqueue(ACME, f"saq:job:{ACME}:{ACME}:{number}", payload)
        await queue.ring.enqueue(GLOBEX, f"saq:job:{GLOBEX}:{GLOBEX}:{number}", payload)
    await queue.queue_of(ACME).enqueue("count", key="good", **PLENTY)
    await queue.ring.pause(GLOBEX)
    assert len(await queue.ring.claim("dead", 6)) == 6
    await age(queue, "dead")
    with structlog.testing.capture_logs() as logs:
        assert len(await other.sweep()) == 6
        await queue.ring.resume(GLOBEX)
        async with open_saq_worker(queue, [("count", count)]):
            await ended(queue.queue_of(ACME), "good")

            async def through() -> bool:
                return not await queue.ring.inflight() and not await queue.queue_of(GLOBEX).count("incomplete")

            await eventually(through, 20)
    assert len([line for line in logs if line["event"] == "what was taken is no job"]) >= 2 * len(bad) - 1


async def test_an_error_nobody_thought_of_does_not_end_the_taking_of_jobs(
    queue: FairQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([ValueError("never thought of"), RuntimeError("nor of that")])
    decide = queue._may_run

    async def fail_first(claim: Any) -> bool:
        for failure in failures:
            raise failure
        return await decide(claim)

    monkeypatch.setattr(queue, "_may_run", fail_first)
    async with open_saq_worker(queue, [("count", count)]):
        for name in (ACME, GLOBEX):
            await queue.queue_of(name).enqueue("count", key="a", **PLENTY)
        jobs = [await ended(queue.queue_of(name), "a") for name in (ACME, GLOBEX)]
    # Those that were taken when it happened were given back, and lost no attempt.
    assert [job.attempts for job in jobs] == [1, 1]


# A Redis that goes away.


@pytest.mark.parametrize("valkey", [True, False], indirect=True, ids=["with its data", "empty"])
async def test_a_redis_that_is_killed_and_comes_back_stops_no_worker_and_loses_nothing_that_it_kept(
    valkey: EmbeddedValkey,
) -> None:
    effects = Counter[str]()
    first, second = Gated(), Gated()

    async def note(context: Any, **_: Any) -> str:
        effects[context["job"].key] += 1
        return "done"

    async with open_fair_queue("one", valkey.url()) as queue:
        if valkey.persistent:
            # Otherwise what was acknowledged in the last second would be gone.
            await answer(queue.redis.config_set("appendfsync", "always"))
        functions = [("note", note), ("first", first.run), ("second", second.run)]
        async with open_saq_worker(queue, functions, grace=5):
            await queue.queue_of(ACME).enqueue("first", key="held", **PLENTY)
            await queue.queue_of(GLOBEX).enqueue("first", key="held", **PLENTY)
            await first.wait_for(2)
            for name in (ACME, GLOBEX):
                for number in range(20):
                    later = int(time.time()) + 1 if number % 2 else 0
                    assert await queue.queue_of(name).enqueue("note", key=str(number), scheduled=later, **PLENTY)
            await asyncio.to_thread(valkey.kill)
            # One ends while there is nobody to say it to, and one after that.
            first.go.set()
            await asyncio.to_thread(valkey.start)
            assert await answer(queue.redis.ping())
            await queue.queue_of(ACME).enqueue("second", key="after", **PLENTY)
            await second.wait_for()
            second.go.set()
            await ended(queue.queue_of(ACME), "after")
            if valkey.persistent:
                for name in (ACME, GLOBEX):
                    for key in ("held", *map(str, range(20))):
                        await ended(queue.queue_of(name), key)

            async def at_rest() -> bool:
                counts = [await queue.queue_of(name).count("incomplete") for name in (ACME, GLOBEX)]
                return not any(counts) and not await queue.ring.inflight()

            await eventually(at_rest, 30)
    if valkey.persistent:
        assert len(effects) == 40
        # What was killed between its end and its being written down has run again, nothing else.
        assert sum(effects.values()) <= 44
        assert len(first.begun) == 2


async def test_jobs_wait_for_redis_with_what_they_have_to_say(valkey: EmbeddedValkey) -> None:
    async with open_fair_queue("one", valkey.url()) as queue:
        await queue.queue_of(ACME).enqueue("f", key="a", **PLENTY)
        job = await begin(queue)
        await asyncio.to_thread(valkey.kill)
        with structlog.testing.capture_logs() as logs:
            telling = asyncio.create_task(job.update(progress=0.5))
            ending = asyncio.create_task(queue.finish(job, Status.COMPLETE))

            async def waits() -> bool:
                return len([line for line in logs if line["event"] == "waiting for Redis"]) == 2

            await eventually(waits, 20)
        assert not telling.done()
        assert not ending.done()
        await asyncio.to_thread(valkey.start)
        # It has come back empty: the claim is gone, which whoever is still at work has to know.
        with pytest.raises(ClaimLostError):
            await telling
        await ending


# Rest.


async def test_an_idle_worker_among_ten_thousand_queues_asks_for_next_to_nothing(valkey: EmbeddedValkey) -> None:
    async with open_ring(valkey.url()) as ring, open_fair_queue("one", valkey.url()) as queue:
        await ring.register({queue_name(UUID(int=number)): Share() for number in range(1, 10_001)})
        assert len(await ring.queues()) == 10_000

        async def calls() -> Counter[str]:
            """How often which command was called, also by scripts."""
            found = await answer(queue.redis.info("commandstats"))
            counted = Counter({name.removeprefix("cmdstat_"): stats["calls"] for name, stats in found.items()})
            return counted - Counter({"info": counted["info"]})

        async with open_saq_worker(queue, [("count", count)], concurrency=10):

            async def rounds(number: int) -> Counter[str]:
                """Until it has gone to sleep, a second at a time, so often."""
                before = await calls()

                async def slept() -> Counter[str] | None:
                    now = await calls()
                    return now if now["blpop"] - before["blpop"] >= number else None

                after = await eventually(slept, 60)
                assert after is not None
                return after - before

            # At its start it looks at all of them.
            await rounds(2)
            began = time.monotonic()
            asked = await rounds(6)
            seconds = time.monotonic() - began
            assert asked.total() / seconds < 20, asked
            # A slot that has waited in vain leaves nothing behind.
            assert len(queue._waiters) <= 10
            clients = await answer(queue.redis.client_list())
            assert len(clients) <= 8
