"""What has become of a job: its row in the outbox and what Redis keeps of it, read together.

The row is there until the job's effect is committed; what Redis keeps says how far it is, and for a while after how it
ended. A job of which there is no row has ended, and Redis, which may lose all, says how at most.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from saq.job import Job, Status

from tenantry.jobs.patience import AWAY
from tenantry.jobs.queue import RingQueue
from tenantry.jobs.ring import PLATFORM_QUEUE, Ring
from tenantry.kernel.errors import UnavailableException
from tenantry.tenancy.redis import queue_name

if TYPE_CHECKING:
    from saq.types import WorkerInfo

__all__ = ("JobStates", "JobStatus", "made_at", "moment", "status_of")

JobStatus = Literal["waiting", "scheduled", "active", "done", "dead", "cancelled"]
"""`waiting`: for its turn, or for its next attempt. `scheduled`: not before its time."""

_CANCELLED_KEPT = 3600
"""Seconds that a job is known to be cancelled, where nobody else has said how long."""
_KEY = "ob:"
_AT_WORK = frozenset({Status.ACTIVE, Status.ABORTING})
_STOPPED = frozenset({Status.ABORTED, Status.ABORTING})
_ENDS: Mapping[Status, JobStatus] = {
    Status.COMPLETE: "done",
    Status.FAILED: "dead",
    Status.ABORTED: "cancelled",
    Status.ABORTING: "cancelled",
}


def status_of(row: str | None, due: datetime.datetime | None, kept: Job | None) -> JobStatus | None:
    """What a job is; None where nothing is known of it.

    Args:
        row: the status of its row in the outbox, read before what Redis keeps: a job that ends between the two has then
            ended, and is not lost. None where it has none.
        due: when it is to run, by its row.
        kept: what Redis has.
    """
    if row is None:
        return None if kept is None else _without_row(kept.status)
    if row == "dead":
        return "dead"
    if kept is not None:
        if kept.status in _AT_WORK:
            return "active"
        if row == "relayed" and kept.status in {Status.COMPLETE, Status.FAILED}:
            return _ENDS[kept.status]
    later = row in {"pending", "later"} and due is not None and due > datetime.datetime.now(datetime.UTC)
    return "scheduled" if later else "waiting"


def _without_row(status: Status) -> JobStatus:
    # The effect of one at work is committed, but until its worker has said so there is no result.
    return "active" if status is Status.ACTIVE else _ENDS.get(status, "waiting")


def made_at(job_id: UUID) -> datetime.datetime | None:
    """When a job was enqueued, which its id says (RFC 9562 §5.7); None where it is no id of ours."""
    if job_id.version != 7:
        return None
    return moment(job_id.int >> 80)


def moment(milliseconds: int) -> datetime.datetime | None:
    """A time of SAQ's; None for its 0, and for what is no time at all."""
    try:
        return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC) if milliseconds else None
    except (ValueError, OverflowError):
        return None


@contextmanager
def _redis() -> Iterator[None]:
    try:
        yield
    except AWAY as error:
        raise UnavailableException("Redis, which holds the queues, does not answer.") from error


class JobStates:
    """The queues, for whoever looks at jobs or stops them; all of it raises `UnavailableException` without Redis."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def _queue(self, tenant_id: UUID | None) -> RingQueue:
        return RingQueue(self._ring, PLATFORM_QUEUE if tenant_id is None else queue_name(tenant_id))

    async def kept(self, jobs: Sequence[tuple[UUID | None, UUID]]) -> dict[UUID, Job]:
        """What Redis has of jobs that are given by tenant and id; one round trip."""
        if not jobs:
            return {}
        queues = {tenant_id: self._queue(tenant_id) for tenant_id, _ in jobs}
        ids = [queues[tenant].job_id(queues[tenant].job_key(f"{_KEY}{job_id}")) for tenant, job_id in jobs]
        with _redis():
            payloads = await self._ring.redis.mget(ids)
        found = {
            job_id: queues[tenant].deserialize(payload)
            for (tenant, job_id), payload in zip(jobs, payloads, strict=True)
        }
        return {job_id: job for job_id, job in found.items() if job is not None}

    async def active(self) -> set[UUID]:
        """The jobs that a worker has, of all tenants: never more than the workers have slots."""
        with _redis():
            claims = await self._ring.inflight()
        parts = (claim.id.rpartition(f":{_KEY}") for claim in claims)
        return {UUID(job_id) for _, found, job_id in parts if found}

    async def stop(self, tenant_id: UUID | None, job_id: UUID) -> None:
        """Have the worker that is at a job stop it, within a second or two; nothing where none is."""
        queue = self._queue(tenant_id)
        with _redis():
            job = await queue.job(queue.job_key(f"{_KEY}{job_id}"))
            if job is not None and job.status in _AT_WORK:
                await queue.abort(job, "cancelled")

    async def cancel(self, tenant_id: UUID | None, job_id: UUID, name: str) -> None:
        """Take a job out of its queue, or from among the dead; for a while Redis knows that it was cancelled.

        The caller holds the lock of its row, and removes it: whoever has the job all the same finds nothing to do.
        """
        queue = self._queue(tenant_id)
        key = queue.job_key(f"{_KEY}{job_id}")
        with _redis():
            job = await queue.job(key)
            if job is not None and job.status in {Status.QUEUED, *_AT_WORK}:
                await queue.abort(job, "cancelled")
            if job is None or job.status not in _STOPPED:
                # Not relayed yet, lost by Redis, or dead: there is nothing that could be stopped.
                now = int(time.time() * 1000)
                gone = Job(
                    function=name, key=key, queue=queue, status=Status.ABORTED, completed=now, ttl=_CANCELLED_KEPT
                )
                async with queue.redis.pipeline(transaction=True) as pipe:
                    pipe.zrem(queue.namespace("dead"), gone.id)
                    pipe.set(gone.id, queue.serialize(gone), ex=_CANCELLED_KEPT)
                    await pipe.execute()

    async def forget(self, tenant_id: UUID | None, job_id: UUID) -> None:
        """Leave nothing of a dead job in Redis: it is about to be relayed as a new one."""
        queue = self._queue(tenant_id)
        redis_id = queue.job_id(queue.job_key(f"{_KEY}{job_id}"))
        with _redis():
            async with queue.redis.pipeline(transaction=True) as pipe:
                pipe.zrem(queue.namespace("dead"), redis_id)
                pipe.delete(redis_id)
                await pipe.execute()

    async def workers(self) -> Mapping[str, WorkerInfo]:
        """The workers that have told of themselves within a few seconds, by their ids."""
        queue = self._queue(None)
        with _redis():
            info: dict[str, Any] = dict(await queue.info())
        return info["workers"]  # type: ignore[no-any-return]
