"""Jobs in tests: see what was enqueued, and run it here and now, without Redis and without a worker.

    box = JobBox(database, control, JOBS)                # a Database, and the control plane's scope for writing

    await client.post("/api/users", json=…)              # the code under test
    [mail] = await box.enqueued(acme, send_email)        # what it has enqueued, and nothing else of this name
    assert mail.arguments == {"user_id": …, "template": "welcome"}

    await box.drain(acme)                                # run acme's jobs that are due, and what those enqueue
    await box.drain(acme, at=tomorrow)                   # and those that would be due by then

A job runs as a worker runs it: in the tenant's scope, in one transaction with the end of its row. What it raises is
raised, after what it wrote was rolled back; its row stays, so that it can be run once more. Every attempt is the first.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import select

from tenantry.jobs.definition import Discard
from tenantry.jobs.models import OutboxEntry
from tenantry.jobs.runner import attempt
from tenantry.kernel.tracing import continued

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from redis.asyncio import Redis

    from tenantry.jobs.definition import Job
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("Enqueued", "JobBox")

_MOST = 1000


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A job that waits."""

    id: UUID
    name: str
    arguments: dict[str, Any]
    key: str | None
    due: datetime.datetime
    meta: dict[str, Any]


class JobBox:
    """The outbox, as a test looks into it."""

    def __init__(
        self,
        database: Database,
        control: Scope,
        jobs: Iterable[Job],
        resources: Mapping[type, Any] | None = None,
        *,
        redis: Redis | None = None,
    ) -> None:
        """`jobs` are those that `drain` can run: `tenantry.features.JOBS`, or a test's own.

        `resources` is what jobs may ask for besides, by type: `{Settings: settings}`. With `redis` their hints are
        said, as a worker says them.
        """
        self._redis = redis
        self._database = database
        self._control = control
        self._jobs = {job.name: job for job in jobs}
        self._resources = resources or {}

    async def enqueued(self, tenant: TenantContext | None, job: Job | None = None) -> list[Enqueued]:
        """What waits of a tenant (None: of the platform), the first that was enqueued first."""
        statement = (
            select(OutboxEntry)
            .where(
                OutboxEntry.tenant_id == tenant.id if tenant is not None else OutboxEntry.tenant_id.is_(None),
                OutboxEntry.status.in_(("pending", "later")),
            )
            .order_by(OutboxEntry.id)
        )
        if job is not None:
            statement = statement.where(OutboxEntry.name == job.name)
        async with self._database.transaction(self._control) as transaction:
            return [
                Enqueued(row.id, row.name, row.arguments, row.key, row.due, row.meta)
                for row in await transaction.session.scalars(statement)
            ]

    async def drain(self, tenant: TenantContext | None, *, at: datetime.datetime | None = None) -> list[Any]:
        """Run what is due (by `at`), until nothing is any more; the results, in the order of the runs.

        Raises:
            AssertionError: there is no end to it.
            LookupError: a job is none of those that were given.
            Exception: whatever a job raises.
        """
        results: list[Any] = []
        while True:
            moment = at or datetime.datetime.now(datetime.UTC)
            due = [entry for entry in await self.enqueued(tenant) if entry.due <= moment]
            if not due:
                return results
            for entry in due:
                if len(results) >= _MOST:
                    raise AssertionError(
                        f"{_MOST} jobs were run, and there are more: does {entry.name!r} enqueue itself?"
                    )
                results.append(await self._run(tenant, entry))

    async def _run(self, tenant: TenantContext | None, entry: Enqueued) -> Any:
        if (job := self._jobs.get(entry.name)) is None:
            raise LookupError(f"no job {entry.name!r} was given to the box")

        async def report(done: float) -> None:
            """Nobody looks."""

        told = dict(entry.meta)
        trace = continued(f"job {job.name}", told.pop("traceparent", None), {})
        try:
            with trace, structlog.contextvars.bound_contextvars(**told, job=str(entry.id), job_name=job.name):
                return await attempt(
                    self._database,
                    self._control if tenant is None else tenant.write_scope,
                    job,
                    entry=entry.id,
                    job_id=str(entry.id),
                    number=1,
                    tenant=tenant,
                    arguments=entry.arguments,
                    meta=entry.meta,
                    resources=self._resources,
                    report=report,
                    redis=self._redis,
                )
        except Discard:
            async with self._database.transaction(self._control) as transaction:
                row = await transaction.session.get(OutboxEntry, entry.id)
                if row is not None:
                    await transaction.session.delete(row)
            return None
