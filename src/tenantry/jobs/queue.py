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
from tenantry.jobs.ring import Claim
from tenantry.tenancy.use import today

if TYPE_CHECKING:
    import datetime

    from tenantry.jobs.ring import Outcome, Ring, Share

__all__ = ("ClaimLostError", "RingQueue", "encode")

_CLAIM, _RETRIES = "claim", "retries"
"""What a job's `meta` has of ours."""
_DEAD_KEPT = 10_000

encode = msgspec.json.Encoder().encode
"""A job as Redis has it."""
_decode = msgspec.json.Decoder().decode


class ClaimLostError(Exception):
    """The job is another worker's by now, this one having been taken for dead: it must not go on."""


class RingQueue(RedisQueue):
    """One tenant's queue, or the platform's."""

    def __init__(self, ring: Ring, name: str, *, share: Share | None = None) -> None:
        """`share` is what the queue gets once something is enqueued here; without one it keeps its own."""
        super().__init__(ring.redis, name=name, dump=encode, load=_decode)
        self.ring = ring
        self.share = share

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
        # It has left the quarantine, if it ever was there: what ends this worker may be another.
        job.meta.pop("quarantine", None)
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
        # For a replay: a job that cannot succeed gives up the attempts that it has left.
        job.meta.setdefault(_RETRIES, job.retries)
        made = await self.ring.enqueue(
            self.name, job.id, encode(job.to_dict()), scheduled=job.scheduled, share=self.share
        )
        return job if made else None

    async def _update(self, job: Job, status: Status | None = None, **kwargs: Any) -> None:
        job.status = status or job.status
        claim, payload = self.claim_of(job), encode(job.to_dict())
        # An attempt that cannot be written down at once is none that has failed.
        if not await persist(lambda: self.ring.update(claim, payload, job.status)):
            raise ClaimLostError(job.id)

    async def _finish(self, job: Job, status: Status, *, result: Any = None, error: str | None = None) -> None:
        if status is Status.FAILED:
            if await self._settle(job, "dead", _DEAD_KEPT):
                await self.buried(job)
        else:
            await self._settle(job, "finish", job.ttl, used_on=today() if _is_use(job, status) else None)

    async def _retry(self, job: Job, error: str | None) -> None:
        delay = job.next_retry_delay()
        # Otherwise SAQ would line it up now and schedule it besides. A result there is only if it could not be stored.
        job.scheduled, job.result = 0, None
        await self._settle(job, "retry", time.time() + delay if delay > 0 else 0)

    async def _settle(self, job: Job, outcome: Outcome, value: float, *, used_on: datetime.date | None = None) -> bool:
        claim = self.claim_of(job)
        payload = encode(job.to_dict())
        try:
            return await persist(
                lambda: self.ring.settle(
                    claim, outcome, payload=payload, status=job.status, value=value, used_on=used_on
                )
            )
        finally:
            # Also where Redis refuses: nobody here is at it any more.
            self.ended(claim)

    async def abort(self, job: Job, error: str, ttl: float = 5) -> None:
        """Stop a job: at once where it waits, and by the worker that has it within a second or two.

        Nothing is done where it has ended already; `job` then says how, as far as that is known.
        """
        if (stored := await self.job(job.key)) is not None:
            job.replace(stored)
        aborting = self.copy(job)
        aborting.status, aborting.error = Status.ABORTING, error
        aborted = self.copy(aborting)
        aborted.status, aborted.completed = Status.ABORTED, int(time.time() * 1000)
        answer = await self.ring.abort(
            self.name,
            job.id,
            aborted=encode(aborted.to_dict()),
            aborting=encode(aborting.to_dict()),
            ttl=job.ttl,
        )
        if answer != "gone":
            job.replace(aborting if answer == "aborting" else aborted)
        elif (stored := await self.job(job.key)) is not None:
            job.replace(stored)

    async def replay(self, key: str) -> Job | None:
        """Run a dead job again, with all of its attempts; None where there is no dead job of that key."""
        job = await self.job(self.job_key(key))
        if job is None or job.status is not Status.FAILED:
            return None
        job.status, job.error, job.result = Status.QUEUED, None, None
        job.attempts = job.completed = job.started = job.scheduled = 0
        job.progress, job.queued = 0.0, int(time.time() * 1000)
        job.retries = job.meta.get(_RETRIES, job.retries)
        job.meta.pop(_CLAIM, None)
        return job if await self.ring.revive(self.name, job.id, encode(job.to_dict())) else None

    async def dead(self, *, offset: int = 0, limit: int = 20) -> tuple[list[Job], int]:
        """Jobs that nobody runs any more, the latest first, and how many there are."""
        key = self.namespace("dead")
        ids = await self.redis.zrevrange(key, offset, offset + limit - 1)
        payloads = await self.redis.mget(ids) if ids else []
        jobs = [job for payload in payloads if (job := self.deserialize(payload)) is not None]
        return jobs, await self.redis.zcard(key)


def _is_use(job: Job, status: Status) -> bool:
    """Whether a job that has ended is one that its tenant has used: done, and not what schedules do by themselves.

    The nightly upkeep of each tenant would otherwise be most of what an organization is told that it has used.
    """
    return status is Status.COMPLETE and job.meta.get("told", {}).get("actor") != "schedule"
