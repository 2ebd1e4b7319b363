"""What the queues are, without Redis: the model that tests/jobs/test_queue_machine.py holds them against."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from saq.job import Job

from tenantry.jobs.ring import Claim, Share

__all__ = ("Model", "Work")


@dataclass(slots=True)
class Work:
    """A job that a worker has taken."""

    claim: Claim
    job: Job
    worker: str
    begun: bool = False
    aborting: bool = False


class Model:
    """Every unfinished job is in one of `queued`, `scheduled` (with when it is due), `work` and `dead`."""

    def __init__(self) -> None:
        self.queued: dict[str, list[str]] = defaultdict(list)
        self.scheduled: dict[str, dict[str, float]] = defaultdict(dict)
        self.dead: dict[str, set[str]] = defaultdict(set)
        self.work: dict[str, Work] = {}
        self.shares: dict[str, Share] = {}
        self.paused: set[str] = set()
        self.ready: dict[str, float] = {}
        self.passes: dict[str, float] = {}
        self.clock = 0.0
        self._over: dict[str, int] = {}

    def share(self, queue: str) -> Share:
        return self.shares.get(queue, Share(1.0, 1))

    def active(self, queue: str) -> list[str]:
        return [job_id for job_id, work in self.work.items() if work.claim.queue == queue]

    def allowed(self, queue: str) -> int:
        """How many may be at work: those that were before their cap was lowered may end."""
        at_work = len(self.active(queue))
        self._over[queue] = min(self._over.get(queue, 0), at_work)
        return max(self.share(queue).cap, self._over[queue])

    def unfinished(self) -> list[tuple[str, str]]:
        """The queues and keys of all jobs that wait or are at work."""
        waiting = [(queue, job_id) for queue in self.queued for job_id in [*self.queued[queue], *self.scheduled[queue]]]
        found = waiting + [(work.claim.queue, job_id) for job_id, work in self.work.items()]
        return [(queue, job_id.rpartition(":")[2]) for queue, job_id in found]

    def place(self, queue: str) -> None:
        if self.queued[queue] and len(self.active(queue)) < self.share(queue).cap and queue not in self.paused:
            if queue not in self.ready:
                self.ready[queue] = max(self.passes.pop(queue, 0.0), self.clock)
        elif queue in self.ready:
            left = self.ready.pop(queue)
            if left > self.clock:
                self.passes[queue] = left

    def register(self, queue: str, share: Share) -> None:
        self._over[queue] = len(self.active(queue))
        self.shares[queue] = share
        self.place(queue)

    def enqueue(self, queue: str, job_id: str, due: float, share: Share | None) -> bool:
        if job_id in self.queued[queue] or job_id in self.scheduled[queue] or job_id in self.work:
            return False
        self.dead[queue].discard(job_id)
        if share is not None or queue not in self.shares:
            self._over[queue] = len(self.active(queue))
            self.shares[queue] = share or Share()
        self._wait(queue, job_id, due)
        self.place(queue)
        return True

    def revive(self, queue: str, job_id: str) -> None:
        self.dead[queue].remove(job_id)
        self._wait(queue, job_id, 0)

    def _wait(self, queue: str, job_id: str, due: float) -> None:
        if due:
            self.scheduled[queue][job_id] = due
        else:
            self.queued[queue].append(job_id)
        if not due:
            self.place(queue)

    def claim(self, wanted: int) -> list[tuple[str, str]]:
        """Whose turn it is; `work` is to be filled in by whoever has made the claims."""
        claimed: list[tuple[str, str]] = []
        before = dict(self.work)
        while len(claimed) < wanted and self.ready:
            queue = min(self.ready, key=lambda name: (self.ready[name], name))
            job_id = self.queued[queue].pop(0)
            self.clock = max(self.clock, self.ready[queue])
            self.ready[queue] += 1 / self.share(queue).weight
            claimed.append((queue, job_id))
            self.work[job_id] = Work(Claim(queue, job_id, "", b""), Job("f"), "")
            self.place(queue)
        self.work = before
        return claimed

    def finish(self, work: Work) -> None:
        del self.work[work.claim.id]
        self.place(work.claim.queue)

    def bury(self, work: Work) -> None:
        self.dead[work.claim.queue].add(work.claim.id)
        self.finish(work)

    def release(self, work: Work) -> None:
        if not work.aborting:
            self.queued[work.claim.queue].insert(0, work.claim.id)
        self.finish(work)

    def retry(self, work: Work, due: float) -> None:
        if work.aborting:
            pass
        elif due:
            self.scheduled[work.claim.queue][work.claim.id] = due
        else:
            self.queued[work.claim.queue].append(work.claim.id)
        self.finish(work)

    def abort(self, queue: str, job_id: str) -> Literal["aborted", "aborting", "gone"]:
        if job_id in self.work:
            self.work[job_id].aborting = True
            return "aborting"
        if job_id in self.queued[queue]:
            self.queued[queue].remove(job_id)
        elif self.scheduled[queue].pop(job_id, None) is None:
            return "gone"
        self.place(queue)
        return "aborted"

    def schedule(self) -> list[str]:
        """Line up all that waits for its time."""
        found: list[str] = []
        due = {queue: jobs for queue, jobs in self.scheduled.items() if jobs}
        for queue in sorted(due, key=lambda name: (self._next_due(name), name)):
            jobs = sorted(due[queue], key=lambda job_id: (due[queue][job_id], job_id))
            self.scheduled[queue] = {}
            self.queued[queue] += jobs
            found += jobs
            self.place(queue)
        return found

    def _next_due(self, queue: str) -> float:
        return min(self.scheduled[queue].values())

    def lose(self, parts: set[str]) -> None:
        """The ring is gone, and some of what belongs to it; `heal` finds out."""
        self.ready.clear()
        if "passes" in parts:
            self.passes.clear()
        if "inflight" in parts:
            for job_id, work in list(self.work.items()):
                del self.work[job_id]
                if not work.aborting:
                    self.queued[work.claim.queue].insert(0, job_id)

    def heal(self) -> None:
        for queue in self.shares:
            self.place(queue)

    def forget(self, queue: str) -> list[Work]:
        """Nothing of a queue is left; what its workers believe to have."""
        lost = [work for work in self.work.values() if work.claim.queue == queue]
        for work in lost:
            del self.work[work.claim.id]
        for places in (self.queued, self.scheduled, self.dead, self.shares, self.passes, self.ready, self._over):
            places.pop(queue, None)
        self.paused.discard(queue)
        return lost
