"""SAQ's queue, under the rules of the ring: one for each tenant, and one for the platform.

SAQ's own tools (`saq.Queue`, its web page) read a tenant's queue as any other: all of its keys are where SAQ puts them.
What is overridden writes the ring in the same script, and only under a claim that has not become another's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from saq.job import Job, Status
from saq.queue.redis import RedisQueue

from tenantry.jobs.patience import persist
from tenantry.jobs.ring import Claim, Share

if TYPE_CHECKING:
    from tenantry.jobs.ring import Ring

__all__ = ("ClaimLostError", "RingQueue")

_CLAIM = "claim"
_DEAD_KEPT = 10_000

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class ClaimLostError(Exception):
    """The job is another worker's by now, this one having been taken for dead: it must not go on."""


class RingQueue(RedisQueue):
    """One tenant's queue, or the platform's."""

    def __init__(self, ring: Ring, name: str, *, share: Share | None = None) -> None:
        """`share` is what the queue gets once something is enqueued here."""
        super().__init__(ring.redis, name=name, dump=_encode, load=_decode)
        self.ring = ring
        self.share = share or Share()

    def job_key(self, key: str) -> str:
        """A job's key with its queue's name, which SAQ's abort keys and comparisons of jobs leave out: two tenants'
        equal keys would meet in one worker."""
        return key if key.startswith(f"{self.name}:") else f"{self.name}:{key}"

    def claimed(self, claim: Claim) -> Job:
        """A job that was taken, which knows its claim.

        Raises:
            ValueError, TypeError: what was stored is no job.
        """
        job = self.deserialize(claim.payload)
        if job is None:
            raise ValueError("an empty job")
        job.meta[_CLAIM] = claim.name
        return job

    def claim_of(self, job: Job) -> Claim:
        """Under which claim a job runs; an unclaimed job's is nobody's."""
        return Claim(self.name, job.id, str(job.meta.get(_CLAIM, "")), b"")

    def ended(self, claim: Claim) -> None:
        """A claim was settled, or has become another's."""

    async def buried(self, job: Job) -> None:
        """A job of this queue is dead."""

    async def _enqueue(self, job: Job) -> Job | None:
        job.key = self.job_key(job.key)
        made = await self.ring.enqueue(
            self.name,
            job.id,
            _encode(job.to_dict()),
            scheduled=job.scheduled,
            abort_id=job.abort_id,
            share=self.share,
        )
        return job if made else None

    async def _update(self, job: Job, status: Status | None = None, **kwargs: Any) -> None:
        if status is None:
            # Whoever reports progress does not take back that it is to be aborted.
            stored = await self.job(job.key)
            status = stored.status if stored is not None else None
        job.status = status or job.status
        if not await self.ring.update(self.claim_of(job), _encode(job.to_dict()), job.status):
            raise ClaimLostError(job.id)

    async def _finish(self, job: Job, status: Status, *, result: Any = None, error: str | None = None) -> None:
        dead = status is Status.FAILED
        claim = self.claim_of(job)
        await persist(
            lambda: self.ring.settle(
                claim,
                "dead" if dead else "finish",
                payload=_encode(job.to_dict()),
                status=status,
                abort_id=job.abort_id,
                value=_DEAD_KEPT if dead else job.ttl,
            )
        )
        self.ended(claim)
        if dead:
            await self.buried(job)

    async def _retry(self, job: Job, error: str | None) -> None:
        delay = job.next_retry_delay()
        due = time.time() + delay if delay else 0
        # Otherwise SAQ would line it up now and schedule it besides.
        job.scheduled = 0
        claim = self.claim_of(job)
        await persist(
            lambda: self.ring.settle(
                claim,
                "retry",
                payload=_encode(job.to_dict()),
                status=job.status,
                abort_id=job.abort_id,
                value=due,
            )
        )
        self.ended(claim)

    async def abort(self, job: Job, error: str, ttl: float = 5) -> None:
        """Stop a job: at once where it waits, and by the worker that has it within a second or two."""
        job.error = error
        job.status = Status.ABORTING
        aborting = _encode(job.to_dict())
        job.status, job.completed = Status.ABORTED, int(time.time() * 1000)
        aborted = _encode(job.to_dict())
        answer = await self.ring.abort(
            self.name,
            job.id,
            aborted=aborted,
            aborting=aborting,
            abort_id=job.abort_id,
            seconds=max(1, int(ttl)),
            ttl=job.ttl,
            error=error,
        )
        if answer == "aborting":
            job.status, job.completed = Status.ABORTING, 0
        elif answer == "gone":
            await job.refresh()

    async def replay(self, key: str) -> Job | None:
        """Run a dead job again, with all of its attempts; None where there is no dead job of that key."""
        job = await self.job(self.job_key(key))
        if job is None or job.status is not Status.FAILED:
            return None
        job.status, job.error, job.result = Status.QUEUED, None, None
        job.attempts = job.completed = job.started = job.scheduled = 0
        job.progress, job.queued = 0.0, int(time.time() * 1000)
        job.meta.pop(_CLAIM, None)
        return job if await self.ring.revive(self.name, job.id, _encode(job.to_dict())) else None

    async def dead(self, *, offset: int = 0, limit: int = 20) -> tuple[list[Job], int]:
        """Jobs that nobody runs any more, the latest first, and how many there are."""
        key = self.namespace("dead")
        ids = await self.redis.zrevrange(key, offset, offset + limit - 1)
        payloads = await self.redis.mget(ids) if ids else []
        jobs = [job for payload in payloads if (job := self.deserialize(payload)) is not None]
        return jobs, await self.redis.zcard(key)
