"""Metrics of the jobs that a worker runs. What waits in the outbox, the provisioner looks at: `platform.gauges`."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from tenantry.jobs.definition import Discard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from saq.job import Job as SaqJob

__all__ = ("DEAD", "NO_PLAN", "job_waited", "running_job")

NO_PLAN = "_platform"
"""The label of jobs that are no tenant's; no plan's name has an underscore."""

_jobs = Counter(
    "tenantry_jobs",
    "Attempts at jobs that have ended, by the job's name, the tenant's plan, and how: done, discarded, failed (tried "
    "again or dead), cancelled (too long, aborted, or the worker ends).",
    ("job", "plan", "outcome"),
)
DEAD = Counter("tenantry_jobs_dead", "Jobs that have no attempt left, by name.", ("job",))
_seconds = Histogram(
    "tenantry_job_seconds",
    "Time of attempts at jobs, by the tenant's plan.",
    ("plan",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
_waits = Histogram(
    "tenantry_job_wait_seconds",
    "How long jobs have waited in their queue for their first attempt, by the tenant's plan.",
    ("plan",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0),
)
_running = Gauge("tenantry_jobs_running", "Jobs at work now.", multiprocess_mode="livesum")


def job_waited(taken: SaqJob, plan: str) -> None:
    """A job is begun: observe what it has waited, if this is its first attempt."""
    since = max(taken.queued / 1000, taken.scheduled)
    if taken.attempts <= 1 and since:
        _waits.labels(plan).observe(max(0.0, time.time() - since))


@contextmanager
def running_job(job: str, plan: str) -> Iterator[None]:
    """Count one attempt, which the block makes."""
    begun = time.perf_counter()
    outcome = "failed"
    _running.inc()
    try:
        yield
        outcome = "done"
    except Discard:
        outcome = "discarded"
        raise
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    finally:
        _running.dec()
        _jobs.labels(job, plan, outcome).inc()
        _seconds.labels(plan).observe(time.perf_counter() - begun)
