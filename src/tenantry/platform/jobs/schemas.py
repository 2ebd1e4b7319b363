"""Jobs on the wire, as operators see them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from tenantry.jobs.state import JobStatus
from tenantry.kernel.schema import BaseStruct

__all__ = ("JobCounts", "JobDetail", "JobRead", "JobStats", "JobWorkerRead", "TenantJobCounts")


class JobRead(BaseStruct):
    """A job that is not done. Its arguments are the organization's data, and not shown."""

    id: UUID
    tenant_id: UUID | None
    """None: a job of the platform."""
    tenant: str | None
    """The organization's slug."""
    name: str
    key: str | None
    """While a job of that name with this key waits or runs, there is no second one."""
    status: JobStatus
    progress: float
    """From 0 to 1."""
    attempts: int
    """How often it was begun, as far as Redis knows."""
    retries: int
    """How often it is begun at most."""
    created_at: datetime
    due_at: datetime
    """Not before."""
    error: str | None
    """Why it is dead, or why its last attempt failed: the last line."""


class JobDetail(JobRead):
    """One job, with all that is known of it."""

    timeout: int
    """Seconds that one attempt may take."""
    started_at: datetime | None
    """When the present attempt, or the last one, began."""
    finished_at: datetime | None
    worker: str | None
    """The worker that has it, or had it last."""
    meta: dict[str, str]
    """Who asked for it, in which request."""
    traceback: str | None
    """All of the error."""


class JobCounts(BaseStruct):
    """Jobs by their state; those that are done are nowhere."""

    waiting: int
    scheduled: int
    active: int
    dead: int
    oldest_waiting: float | None
    """Seconds since the first of those that wait was due."""


class TenantJobCounts(JobCounts):
    """One organization's."""

    tenant_id: UUID | None
    tenant: str | None
    """Its slug; None: the platform's own jobs."""


class JobWorkerRead(BaseStruct):
    """A worker that has given a sign of life within a few seconds, and how many jobs ended in it."""

    id: str
    complete: int
    failed: int
    retried: int
    aborted: int
    uptime: float
    """Seconds."""


class JobStats(BaseStruct):
    """How the queues are doing."""

    total: JobCounts
    """Of all organizations, listed or not."""
    workers: list[JobWorkerRead]
    tenants: list[TenantJobCounts]
    """Those with a job, the most waiting first."""
