"""What a worker takes its jobs from: every tenant's queue, each in its turn."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from saq.job import Job, Status

from tenantry.jobs.patience import AWAY, answer
from tenantry.jobs.queue import RingQueue, encode
from tenantry.jobs.ring import PLATFORM_QUEUE, Claim, Ring
from tenantry.jobs.strange import Strange
from tenantry.tenancy.redis import queue_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from redis.asyncio import Redis
    from saq.types import WorkerInfo

    from tenantry.jobs.gate import Gate

__all__ = ("FairQueue",)

_BLOCK = 1.0
"""Seconds that an idle worker blocks before it looks by itself: a token may have died with whoever took it."""

_CLOSED = 0.2
"""Seconds between two looks at a gate that is closed."""

_CHECK = 15.0
"""Seconds between two looks for claims that this worker has made and knows nothing of.

redis-py asks once more by itself where a connection breaks: nobody learns then that an answer was lost.
"""

_HEAL = 300
"""Seconds between two looks at every queue, whether the ring is whole or not."""

_CLOSING = 5.0
"""Seconds for giving back what was taken: whoever kills us next does not wait longer."""

_TENANTS_NAME = len(queue_name(UUID(int=0)))

_log = structlog.get_logger(__name__)


class FairQueue(RingQueue):
    """The queue of one `saq.Worker`; of its own it has the jobs of the platform.

    However many slots the worker has, one task asks Redis for all that are free. An idle worker is one blocked
    connection, whatever the number of tenants.
    """

    def __init__(self, redis: Redis, blocking: Redis, *, worker_id: str, gate: Gate | None = None) -> None:
        """`blocking` must have no time-out of its own: it waits for a second at a time. Without a gate all may run."""
        super().__init__(Ring(redis), PLATFORM_QUEUE)
        self.worker_id = worker_id
        self._blocking = blocking
        self._gate = gate
        self._waiters: deque[asyncio.Future[Job | None]] = deque()
        self._spare: deque[Job] = deque()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._check_at = 0.0
        self._held: set[str] = set()
        self.when_dead: Callable[[Job], Awaitable[None]] | None = None
        """Is told of every job that is dead, whoever has found it so."""
        self.strange = Strange()
        self.is_ending: Callable[[], bool] = lambda: False
        """Whether the worker takes no more jobs; those that it has it may still end."""
        self.queue_of = lru_cache(maxsize=4096)(self._queue_of)

    def _queue_of(self, name: str) -> RingQueue:
        """The queue of that name; its counters of jobs are the worker's."""
        return self if name == self.name else _MemberQueue(self, name)

    async def dequeue(self, timeout: float = 0.0, poll_interval: float = 0.0) -> Job | None:  # noqa: ASYNC109 - SAQ's
        """The next job of whoever's turn it is; None after `timeout` seconds, if that is not 0, or when dismissed.

        Redis being away is no error here, but a reason to wait: SAQ's worker would ask again at once, for ever.
        """
        if self._spare:
            return self._spare.popleft()
        if self._task is None:
            self._task = asyncio.create_task(self._claim_for_all(), name="job-claims")
        waiter: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wanted.set()
        taken: Job | None = None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout or None):
                    taken = await waiter
        finally:
            if taken is None:
                if waiter.cancel() or waiter.cancelled():
                    with contextlib.suppress(ValueError):
                        self._waiters.remove(waiter)
                elif (late := waiter.result()) is not None:
                    # It came at the very moment at which nobody waited any more.
                    self._give(late)
        return taken

    def dismiss(self) -> None:
        """Have every slot that waits for a job go without: the worker ends."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _give(self, job: Job) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(job)
                return
        self._spare.append(job)

    async def _claim_for_all(self) -> None:
        # Not only until it is cancelled, since that may be lost: see `end`.
        while self._task is asyncio.current_task():
            try:
                await self._claim_for_those_who_wait()
            except Exception as error:
                # Whatever it was: a worker that takes no jobs any more, and says nothing, would be worse. A claim may
                # have been made that nobody here knows of.
                self._check_at = 0.0
                if isinstance(error, AWAY):
                    _log.warning("no jobs can be taken", error=repr(error))
                else:
                    _log.exception("no jobs can be taken")
                await asyncio.sleep(0.5)

    async def _claim_for_those_who_wait(self) -> None:
        self._wanted.clear()
        free = sum(not waiter.done() for waiter in self._waiters)
        if not free:
            await self._wanted.wait()
            return
        if self.is_ending() or not (self._gate is None or self._gate.is_open):
            await asyncio.sleep(_CLOSED)
            return
        now = asyncio.get_running_loop().time()
        if now >= self._check_at:
            await self._give_back()
            self._check_at = now + _CHECK
        taken = await self._take(free)
        if taken < free:
            await answer(self._blocking.blpop([self.ring.keys["wake"]], timeout=_BLOCK))

    async def _take(self, wanted: int) -> int:
        """Claim jobs and hand them out; how many were claimed. What is claimed and not held by its end is given back
        at the next look."""
        claiming = asyncio.create_task(self.ring.claim(self.worker_id, wanted))
        try:
            claims = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # Redis makes the claim all the same, and it would come after whoever looks what there is to give back.
            await asyncio.gather(claiming, return_exceptions=True)
            raise
        for claim in claims:
            if self.is_ending():
                # It was told so while it was asking.
                await self.ring.settle(claim, "release")
                continue
            if not await self._may_run(claim):
                continue
            try:
                job = self.queue_of(claim.queue).claimed(claim)
            except Exception as error:
                await self._discard(claim, claim.payload, error)
            else:
                if (due := self.strange.due(job)) is not None:
                    payload = encode(job.to_dict())
                    await self.ring.settle(claim, "retry", payload=payload, status=job.status, value=due)
                    continue
                self._held.add(claim.name)
                self._give(job)
        return len(claims)

    async def _discard(self, claim: Claim, payload: bytes, error: Exception) -> None:
        """Whatever was put there by hand: it must neither stop the others nor come back."""
        _log.error("what was taken is no job", job=claim.id, error=repr(error))
        await self.ring.settle(claim, "finish", payload=payload, status=Status.FAILED, value=86_400)

    async def _may_run(self, claim: Claim) -> bool:
        """Whether a job that was taken may run; if not, it is given back, or dropped with whose it was."""
        decision = "run" if self._gate is None else await self._gate.decide(claim.queue)
        if decision == "run":
            return True
        if decision == "wait":
            await self.ring.pause(claim.queue)
            await self.ring.settle(claim, "release")
        else:
            await self.ring.settle(claim, "finish", value=-1)
        return False

    async def _give_back(self) -> None:
        """Give back what Redis says that this worker has taken, and nobody here is at."""
        for claim in await self.ring.inflight():
            if self.ring.worker_of(claim) == self.worker_id and claim.name not in self._held:
                await self._hand_on(claim, None)

    async def buried(self, job: Job) -> None:
        if self.when_dead is not None:
            await self.when_dead(job)

    def ended(self, claim: Claim) -> None:
        self._held.discard(claim.name)

    async def sweep(self, lock: int = 60, abort: float = 5.0) -> list[str]:
        """Hand on the jobs of workers that are dead, and put every queue where it belongs, should the ring be lost.

        One worker in `lock` seconds does it. Each job is handed on in one script: killed anywhere, nothing is lost.
        """
        if not await self.ring.first("sweep", max(1, lock - 1)):
            return []
        claims = await self.ring.inflight()
        dead = await self.ring.dead({self.ring.worker_of(claim) for claim in claims})
        left = [claim for claim in claims if self.ring.worker_of(claim) in dead]
        swept = [claim.id for claim in left if await self._hand_on(claim, "its worker died")]
        if await self.ring.first("heal", _HEAL) or not await self.ring.is_whole():
            await self.ring.heal()
        return swept

    async def _hand_on(self, claim: Claim, death: str | None) -> bool:
        """Have a job run again; after a `death` only if it has an attempt left. Whether the claim was still there."""
        queue = self.queue_of(claim.queue)
        payload = await self.redis.get(claim.id)
        if payload is None:
            return await self.ring.settle(claim, "finish", value=-1)
        try:
            job = queue.deserialize(payload)
        except Exception as error:
            await self._discard(claim, payload, error)
            return True
        if job is not None and job.status is Status.ABORTING:
            job.meta["claim"] = claim.name
            await queue.finish(job, Status.ABORTED, error=job.error)
            return True
        if job is None or job.status is not Status.ACTIVE or job.meta.get("claim") != claim.name:
            # Taken, and not begun: it is the next again.
            return await self.ring.settle(claim, "release")
        if death is None:
            await queue.retry(job, "its worker ended")
        elif job.retryable:
            _log.warning("a job's worker is gone", job=claim.id, function=job.function, attempts=job.attempts)
            await queue.retry(job, death)
        else:
            await queue.finish(job, Status.FAILED, error=f"{death}, and no attempt is left")
        return True

    async def schedule(self, lock: int = 1) -> list[str]:
        """Line up what is due, in all queues, and let go on who may again; one worker in `lock` seconds does it."""
        if not await self.ring.first("schedule", max(1, lock)):
            return []
        if self._gate is not None and self._gate.is_open:
            for queue in await self.ring.paused():
                if await self._gate.decide(queue) != "wait":
                    await self.ring.resume(queue)
        now, found = time.time(), []
        while some := await self.ring.schedule(now):
            found += some
        return found

    async def jobs(self, job_keys: Iterable[str]) -> list[Job | None]:
        """Jobs of any queue, by their keys, which name it."""
        keys = list(job_keys)
        if not keys:
            return []
        queues = [self.queue_of(_queue_in(key)) for key in keys]
        payloads = await self.redis.mget([queue.job_id(key) for queue, key in zip(queues, keys, strict=True)])
        return [queue.deserialize(payload) for queue, payload in zip(queues, payloads, strict=True)]

    async def finish_abort(self, job: Job) -> None:
        """What the worker calls once it has stopped a job.

        `job` is as whoever aborts it has stored it, perhaps before it was claimed.
        """
        claim = await self.ring.claim_on(job.get_queue().name, job.id)
        if claim is not None and self.ring.worker_of(claim) == self.worker_id:
            job.meta["claim"] = claim.name
            await job.finish(Status.ABORTED, error=job.error)

    async def write_worker_info(self, worker_id: str, info: WorkerInfo, ttl: int) -> None:
        """What SAQ's tools show of the worker, and its sign of life."""
        await self.ring.sign_of_life(worker_id)
        await super().write_worker_info(worker_id, info, ttl)

    async def close(self) -> None:
        """Give back what was taken. The worker must have stopped: nothing of it is at work any more."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait({task})
        self._spare.clear()
        self._held.clear()
        try:
            async with asyncio.timeout(_CLOSING):
                await self._give_back()
        except (TimeoutError, *AWAY) as error:
            _log.warning("what was taken is not given back, but swept", error=repr(error))


class _MemberQueue(RingQueue):
    """A tenant's queue in a worker, which is told what ends."""

    def __init__(self, fair: FairQueue, name: str) -> None:
        super().__init__(fair.ring, name)
        self._fair = fair

    async def finish(self, job: Job, status: Status, **kwargs: Any) -> None:
        await super().finish(job, status, **kwargs)
        self._fair.complete += status is Status.COMPLETE
        self._fair.failed += status is Status.FAILED
        self._fair.aborted += status is Status.ABORTED

    async def retry(self, job: Job, error: str | None) -> None:
        await super().retry(job, error)
        self._fair.retried += 1

    async def buried(self, job: Job) -> None:
        await self._fair.buried(job)

    def ended(self, claim: Claim) -> None:
        self._fair.ended(claim)


def _queue_in(key: str) -> str:
    """The name of the queue with which a job's key begins."""
    return PLATFORM_QUEUE if key.startswith(f"{PLATFORM_QUEUE}:") else key[:_TENANTS_NAME]
