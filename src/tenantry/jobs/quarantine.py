"""What a worker in quarantine takes: the jobs of one that was ended, each once, one after the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from saq.job import Status

from tenantry.jobs.fair import FairQueue
from tenantry.jobs.patience import AWAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from saq.job import Job

    from tenantry.jobs.ring import Claim

__all__ = ("QuarantineQueue",)

_log = structlog.get_logger(__name__)


class QuarantineQueue(FairQueue):
    """The queue of a worker whose claims were made for it by the ring's `adopt`.

    A job that was begun under such a claim by a worker that is gone as well has ended two workers: it is dead.
    """

    when_empty: Callable[[], None]
    """Is called when there is nothing left."""

    async def dequeue(self, timeout: float = 0.0, poll_interval: float = 0.0) -> Job | None:  # noqa: ASYNC109 - SAQ's
        try:
            claims = await self.ring.inflight()
        except AWAY:
            await asyncio.sleep(0.5)
            return None
        for claim in claims:
            if self.ring.worker_of(claim) != self.worker_id or claim.name in self._held:
                continue
            self._held.add(claim.name)
            if (job := await self._suspect(claim)) is not None:
                return job
        self.when_empty()
        return None

    async def _suspect(self, claim: Claim) -> Job | None:
        queue = self.queue_of(claim.queue)
        stored = queue.deserialize(await self.redis.get(claim.id))
        if stored is None:
            await self.ring.settle(claim, "finish", value=-1)
            return None
        if stored.status is Status.ABORTING:
            stored.meta["claim"] = claim.name
            await queue.finish(stored, Status.ABORTED, error=stored.error)
            return None
        in_quarantine = bool(stored.meta.get("quarantine"))
        stored.meta |= {"claim": claim.name, "quarantine": True}
        if in_quarantine and stored.status is Status.ACTIVE:
            _log.error("a job has ended two workers", job=claim.id, function=stored.function)
            await queue.finish(stored, Status.FAILED, error="it has ended its worker twice, the second time alone")
            return None
        if stored.status is Status.ACTIVE:
            # The attempt that it shared with a culprit does not count.
            stored.attempts = max(0, stored.attempts - 1)
        return stored
