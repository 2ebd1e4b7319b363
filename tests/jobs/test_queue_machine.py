"""Whatever happens to the queues, in whatever order, they are as a plain model of them says: hypothesis looks for the
order in which they are not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from saq.job import Job, Status

from tenantry.jobs.fair import FairQueue
from tenantry.jobs.queue import ClaimLostError, RingQueue
from tenantry.jobs.ring import PLATFORM_QUEUE, Claim, Share
from tenantry.kernel.redis import create_redis
from tenantry.tenancy.redis import platform_key, queue_name, tenant_holdings
from tests.jobs.model import Model, Work
from tests.jobs.support import job_redis_url

T = TypeVar("T")

TENANTS = (UUID(int=1), UUID(int=2))
QUEUES = (PLATFORM_QUEUE, *(queue_name(tenant) for tenant in TENANTS))
WORKERS = ("one", "two")
KEYS = ("a", "b", "c", "d", "e")
LATER = 100.0
"""Seconds: of what is due then nothing is due during a test."""

queues = st.sampled_from(QUEUES)
workers = st.sampled_from(WORKERS)
numbers = st.integers(0, 9)


class QueueMachine(RuleBasedStateMachine):
    """Two workers, three queues, and everything that can happen to their jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.ghosts: list[Work] = []
        """Jobs that their worker still believes to have, and has not."""

    def run(self, what: Awaitable[T]) -> T:
        async def wait() -> T:
            return await what

        return self.runner.run(wait())

    @initialize()
    def begin(self) -> None:
        async def begin() -> None:
            self.redis = create_redis(job_redis_url(), timeout=5)
            await self.redis.flushdb()
            self.workers = {name: FairQueue(self.redis, self.redis, worker_id=name) for name in WORKERS}
            self.ring = self.workers["one"].ring
            # All of it is looked at every few minutes; here only where the ring is found to be lost.
            await self.ring.first("heal", 1000)

        self.run(begin())
        for name in QUEUES:
            self.enqueue(name, ["a", "b", "c"], 0, 0.0)

    def teardown(self) -> None:
        if hasattr(self, "redis"):
            self.run(self.redis.aclose())
        self.runner.close()

    def queue(self, name: str) -> RingQueue:
        return self.workers["one"].queue_of(name)

    # What clients do.

    @rule(
        name=queues,
        keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4),
        later=st.sampled_from((0, 0, 0, 1, 2)),
        delay=st.sampled_from((0.0, LATER)),
    )
    def enqueue(self, name: str, keys: list[str], later: int, delay: float) -> None:
        due = int(time.time() + LATER) + later if later else 0
        queue = self.queue(name)
        queue.share = None if name == PLATFORM_QUEUE else Share(2.0, 2)
        for key in keys:
            made = self.run(queue.enqueue("f", key=key, scheduled=due, retries=2, timeout=60, retry_delay=delay))
            job_id = queue.job_id(queue.job_key(key))
            assert (made is not None) == self.model.enqueue(name, job_id, due, queue.share)

    def abort(self, name: str, key: str) -> None:
        queue = self.queue(name)
        job = self.run(queue.job(queue.job_key(key)))
        if job is None:
            job = Job(function="f", queue=queue, key=queue.job_key(key))
        before = job.status
        self.run(job.abort("not wanted"))
        expected = self.model.abort(name, job.id)
        assert job.status is {"aborted": Status.ABORTED, "aborting": Status.ABORTING, "gone": before}[expected]

    def replay(self, name: str, number: int) -> None:
        queue = self.queue(name)
        dead = self.model.dead[name]
        key = queue.job_key_from_id(sorted(dead)[number % len(dead)]) if dead else "nobody"
        replayed = self.run(queue.replay(key))
        assert (replayed is not None) == bool(dead)
        if replayed is not None:
            assert (replayed.attempts, replayed.retries) == (0, 2)
            self.model.revive(name, replayed.id)

    # What workers do.

    @rule(worker=workers, wanted=st.integers(1, 4), begin=st.booleans())
    def claim(self, worker: str, wanted: int, begin: bool) -> None:
        claims = self.run(self.take(worker, wanted))
        assert [(claim.queue, claim.id) for claim in claims] == self.model.claim(wanted)
        for claim in claims:
            job = self.workers[worker].queue_of(claim.queue).claimed(claim)
            assert job.id == claim.id
            self.model.work[claim.id] = Work(claim, job, worker)
            if begin:
                self.start(self.model.work[claim.id])

    async def take(self, worker: str, wanted: int) -> list[Claim]:
        await self.redis.lpop(self.ring.keys["wake"])  # type: ignore[misc]
        return await self.ring.claim(worker, wanted)

    @rule(
        number=numbers,
        what=st.sampled_from(("report", "finish", "finish", "fail", "fail")),
        ttl=st.sampled_from((-1, 0, 60)),
        done=st.floats(0, 1),
    )
    @precondition(lambda self: self.model.work)
    def work(self, number: int, what: str, ttl: int, done: float) -> None:
        """One of the jobs that are at work begins, or gets on."""
        work = list(self.model.work.values())[number % len(self.model.work)]
        if not work.begun:
            self.start(work)
        elif what == "report":
            self.run(work.job.update(progress=done))
        elif what == "finish":
            work.job.ttl = ttl
            self.run(work.job.finish(Status.COMPLETE, result=1))
            self.model.finish(work)
        elif work.job.retryable:
            self.retry(work)
        else:
            self.run(work.job.finish(Status.FAILED, error="broken"))
            self.model.bury(work)

    def start(self, work: Work) -> None:
        work.job.attempts += 1
        self.run(work.job.update(status=Status.ACTIVE))
        work.begun = True

    def retry(self, work: Work) -> None:
        self.run(work.job.retry("again"))
        self.model.retry(work, self.due_of(work))

    def due_of(self, work: Work) -> float:
        """When a job is due that was just put back by our own clock."""
        score = self.run(self.redis.zscore(f"saq:{work.claim.queue}:incomplete", work.claim.id))
        expected = work.job.retry_delay
        assert score is None or score == 0 or abs(score - time.time() - expected) < 10
        return score or 0.0

    @rule(number=numbers, how=st.sampled_from(("finish", "retry", "update")))
    @precondition(lambda self: self.ghosts)
    def come_too_late(self, number: int, how: str) -> None:
        """A worker that was taken for dead, and was only slow: the invariants see that nothing comes of it."""
        ghost = self.ghosts[number % len(self.ghosts)]
        if how == "finish":
            self.run(ghost.job.finish(Status.COMPLETE, result=2))
        elif how == "retry":
            self.run(ghost.job.retry("late"))
        else:
            with pytest.raises(ClaimLostError):
                self.run(ghost.job.update(progress=0.5))

    # What happens to workers.

    @rule(
        what=st.sampled_from(("die", "end", "lose the ring", "purge", "flush")),
        worker=workers,
        lost=st.sets(st.sampled_from(("wake", "passes", "due", "inflight"))),
        tenant=st.sampled_from(TENANTS),
    )
    @precondition(lambda self: self.model.work)
    def have_bad_luck(self, what: str, worker: str, lost: set[str], tenant: UUID) -> None:
        """One rule for all of it, or there would be little else."""
        if what == "die":
            self.die(worker)
        elif what == "end":
            self.end(worker)
        elif what == "lose the ring":
            self.lose_the_ring(lost)
        elif what == "purge":
            self.purge(tenant)
        else:
            self.flush()

    def die(self, worker: str) -> None:
        self.run(self.redis.delete(platform_key("jobs", "life", worker)))
        self.sweep({worker})

    def end(self, worker: str) -> None:
        """SIGTERM, and the grace time is over."""
        order = self.run(self.ring.inflight())
        self.run(self.workers[worker].close())
        for claim in order:
            if self.ring.worker_of(claim) == worker:
                self.hand_on(claim, died=False)

    def lose_the_ring(self, lost: set[str]) -> None:
        self.run(self.redis.delete(self.ring.keys["ready"], *(self.ring.keys[name] for name in lost)))
        if "inflight" in lost:
            self.ghosts += self.model.work.values()
        self.model.lose(lost)
        self.sweep(set())

    def sweep(self, died: set[str]) -> None:
        order = self.run(self.ring.inflight())
        # A worker that has taken nothing yet has no sign of life either, and nothing to hand on.
        self.run(self.redis.delete(platform_key("jobs", "turn", "sweep")))
        whole = self.run(self.ring.is_whole())
        swept = self.run(self.workers["two"].sweep())
        expected = [claim for claim in order if self.ring.worker_of(claim) in died]
        assert swept == [claim.id for claim in expected]
        for claim in expected:
            self.hand_on(claim, died=True)
        if not whole:
            self.model.heal()

    def hand_on(self, claim: Claim, *, died: bool) -> None:
        work = self.model.work[claim.id]
        self.ghosts.append(work)
        if not work.begun:
            self.model.release(work)
        elif died and not work.job.retryable and not work.aborting:
            self.model.bury(work)
        else:
            self.model.retry(work, self.due_of(work))

    # What time, operators and accidents do.

    @rule()
    @precondition(lambda self: any(self.model.scheduled.values()))
    def let_time_pass(self) -> None:
        """All that waits for its time is due, and was not before."""
        assert self.run(self.ring.schedule(time.time() + LATER / 2)) == []
        assert self.run(self.ring.schedule(time.time() + 3 * LATER)) == self.model.schedule()

    @rule(
        what=st.sampled_from(("change share", "pause", "abort", "abort", "replay")),
        name=queues,
        weight=st.sampled_from((0.3, 1.0, 3.0)),
        cap=st.integers(1, 3),
        key=st.sampled_from(KEYS),
        number=numbers,
    )
    def operate(self, what: str, name: str, weight: float, cap: int, key: str, number: int) -> None:
        if what == "change share":
            self.change_share(name, weight, cap)
        elif what == "pause":
            self.pause_or_resume(name)
        elif what == "abort":
            unfinished = self.model.unfinished()
            self.abort(*unfinished[number % len(unfinished)] if unfinished and number else (name, key))
        else:
            self.replay(name, number)

    def change_share(self, name: str, weight: float, cap: int) -> None:
        self.run(self.ring.register({name: Share(weight, cap)}))
        self.model.register(name, Share(weight, cap))

    def pause_or_resume(self, name: str) -> None:
        if name in self.model.paused:
            self.run(self.ring.resume(name))
            self.model.paused.discard(name)
        else:
            self.run(self.ring.pause(name))
            self.model.paused.add(name)
        self.model.place(name)

    def purge(self, tenant: UUID) -> None:
        async def purge() -> None:
            await self.ring.forget(queue_name(tenant))
            for beginning in tenant_holdings(tenant)["queues"]:
                async for key in self.redis.scan_iter(match=f"{beginning}*", count=1000):
                    await self.redis.delete(key)

        self.run(purge())
        self.ghosts += self.model.forget(queue_name(tenant))

    def flush(self) -> None:
        async def flush() -> None:
            await self.redis.flushdb()
            await self.ring.first("heal", 1000)

        self.run(flush())
        self.ghosts += self.model.work.values()
        self.model = Model()

    # What is always so.

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not hasattr(self, "redis"):
            return
        model, seen = self.model, self.run(self.look())
        assert seen["ready"] == model.ready
        assert seen["inflight"] == {
            work.claim.id: f"{work.claim.queue} {work.claim.name}" for work in model.work.values()
        }
        # Whoever sleeps is woken if there is anything to do.
        assert seen["wake"] <= 1
        assert seen["wake"] or not model.ready
        at_work: set[str] = set()
        for name in QUEUES:
            found = seen[name]
            places = [found["queued"], found["active"], list(found["scheduled"]), found["dead"]]
            assert places == [
                model.queued[name],
                model.active(name),
                sorted(model.scheduled[name], key=lambda job_id: (model.scheduled[name][job_id], job_id)),
                sorted(model.dead[name]),
            ]
            assert found["scheduled"] == model.scheduled[name]
            everywhere = [job_id for place in places for job_id in place]
            assert len(everywhere) == len(set(everywhere)), "a job is in two places"
            assert found["incomplete"] == {*places[0], *places[1], *places[2]}
            assert not found["without payload"]
            assert found["aborts"] == {
                work.claim.id for work in model.work.values() if work.aborting and work.claim.queue == name
            }
            weight_and_cap = model.share(name)
            may = bool(found["queued"]) and len(found["active"]) < weight_and_cap.cap and name not in model.paused
            assert (name in seen["ready"]) == may
            assert len(found["active"]) <= model.allowed(name)
            at_work |= set(found["active"])
        assert at_work == set(seen["inflight"])

    async def look(self) -> dict[str, Any]:
        """All that Redis has."""
        # redis-py declares what a pipeline returns as if it were no pipeline.
        pipeline: Any = self.redis.pipeline(transaction=True)
        async with pipeline as pipe:
            keys = self.ring.keys
            pipe.zrange(keys["ready"], 0, -1, withscores=True).hgetall(keys["inflight"]).llen(keys["wake"])
            for name in QUEUES:
                base = f"saq:{name}:"
                pipe.lrange(f"{base}queued", 0, -1).lrange(f"{base}active", 0, -1)
                pipe.zrange(f"{base}incomplete", 0, -1, withscores=True).zrange(f"{base}dead", 0, -1)
            pipe.keys("saq:job:*").keys("saq:abort:*")
            ready, inflight, wake, *rest = await pipe.execute()
        payloads, aborts = ({key.decode() for key in found} for found in rest[-2:])
        seen: dict[str, Any] = {
            "ready": {name.decode(): score for name, score in ready if name != b"-"},
            "inflight": {key.decode(): value.decode() for key, value in inflight.items()},
            "wake": wake,
        }
        for index, name in enumerate(QUEUES):
            queued, active, incomplete, dead = rest[4 * index : 4 * index + 4]
            queued, active, dead = ([job_id.decode() for job_id in ids] for ids in (queued, active, dead))
            queue = self.queue(name)
            seen[name] = {
                "queued": queued,
                "active": active,
                "dead": sorted(dead),
                "scheduled": {job_id.decode(): score for job_id, score in incomplete if score > 0},
                "incomplete": {job_id.decode() for job_id, _ in incomplete},
                "without payload": {*queued, *active, *dead} - payloads,
                "aborts": {
                    queue.job_id(key.removeprefix("saq:abort:"))
                    for key in aborts
                    if key.startswith(f"saq:abort:{name}:")
                },
            }
        return seen


QueueMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestQueueMachine = QueueMachine.TestCase
