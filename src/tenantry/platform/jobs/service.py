"""What operators see of jobs, and do to them."""

from __future__ import annotations

import asyncio
import datetime
from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import IntegrityError

from tenantry.jobs.models import OutboxEntry
from tenantry.jobs.state import moment, status_of
from tenantry.kernel.errors import ConflictException, ResourceNotFoundException, UnavailableException, define_problem
from tenantry.kernel.schema import Page
from tenantry.kernel.service import Service
from tenantry.platform.audit.service import record
from tenantry.platform.jobs.queries import ListedStatus, count_jobs, in_state
from tenantry.platform.jobs.schemas import JobCounts, JobDetail, JobRead, JobStats, JobWorkerRead, TenantJobCounts
from tenantry.platform.tenants.service import TenantService
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from saq.job import Job as SaqJob
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.jobs.state import JobStates
    from tenantry.kernel.service import ListQuery
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("JOB_ENDED", "JOB_KEY_TAKEN", "JOB_NOT_DEAD", "JobControl", "JobService")

JOB_NOT_DEAD = define_problem(
    "job-not-dead", 409, "The job is not dead", "Only a dead job can be run again; `jobStatus` is what this one is."
)
JOB_KEY_TAKEN = define_problem(
    "job-key-taken", 409, "Another one waits", "A job of this name with the same key waits or runs already."
)
JOB_ENDED = define_problem(
    "job-ended", 409, "Too late", "The job came to its end before it could be stopped; its effect is there."
)

_LOOK = 0.1
"""Seconds between two looks whether a worker has let go of a job."""
_STATES = ("waiting", "scheduled", "active", "dead")


class JobService(Service[OutboxEntry]):
    """Rows of the outbox."""

    class Repo(SQLAlchemyAsyncRepository[OutboxEntry]):
        model_type = OutboxEntry

    repository_type = Repo


class JobControl:
    """Its transactions are short and its own: none is open while a worker is waited for."""

    def __init__(self, *, database: Database, read_scope: Scope, write_scope: Scope, states: JobStates) -> None:
        self._database = database
        self._read_scope = read_scope
        self._write_scope = write_scope
        self._states = states

    async def page(
        self,
        listing: ListQuery,
        *,
        tenant: str | None = None,
        status: ListedStatus | None = None,
        name: str | None = None,
    ) -> Page[JobRead]:
        """Jobs that are not done; `tenant` is a slug.

        Raises:
            ResourceNotFoundException: there is no such tenant.
            UnavailableException: Redis is away.
        """
        active = await self._states.active()
        async with self._database.transaction(self._read_scope) as transaction:
            session = transaction.session
            wanted: list[ColumnElement[bool]] = []
            if tenant is not None:
                wanted.append(OutboxEntry.tenant_id == (await TenantService(session=session).by_slug(tenant)).id)
            if status is not None:
                wanted.append(in_state(status, active))
            if name is not None:
                wanted.append(OutboxEntry.name == name)
            rows, total = await JobService(session=session).get_many_and_count(
                *listing.filters(), *wanted, count_with_window_function=False
            )
            slugs = await _slugs(session, rows)
        kept = await self._states.kept([(row.tenant_id, row.id) for row in rows])
        items = [JobRead(**_fields(row, kept.get(row.id), slugs)) for row in rows]
        return Page(items=items, total=total, page=listing.page, page_size=listing.page_size)

    async def read(self, job_id: UUID) -> JobDetail:
        """One job that is not done.

        Raises:
            ResourceNotFoundException: there is none.
            UnavailableException: Redis is away.
        """
        async with self._database.transaction(self._read_scope) as transaction:
            row = await transaction.session.get(OutboxEntry, job_id)
            if row is None:
                raise _unknown()
            slugs = await _slugs(transaction.session, [row])
        kept = await self._states.kept([(row.tenant_id, row.id)])
        return _detail(row, kept.get(row.id), slugs)

    async def retry(self, job_id: UUID, *, actor: str) -> JobDetail:
        """Have a dead job run again, with all of its attempts.

        It goes back into the outbox, and nothing of it is left in Redis when that is committed: the relay enqueues it
        as any other, once.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it is not dead, or another one with its key waits.
            UnavailableException: Redis is away.
        """
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            row = await _lock(session, job_id)
            if row is None:
                if await session.get(OutboxEntry, job_id) is None:
                    raise _unknown()
                raise ConflictException("The job is at work.", problem=JOB_NOT_DEAD, jobStatus="active")
            slugs = await _slugs(session, [row])
            kept = (await self._states.kept([(row.tenant_id, row.id)])).get(row.id)
            if (status := status_of(row.status, row.due, kept)) != "dead":
                raise ConflictException(f"The job is {status}.", problem=JOB_NOT_DEAD, jobStatus=status)
            row.status, row.error, row.again_at = "pending", None, None
            row.due = datetime.datetime.now(datetime.UTC)
            self._record(session, row, actor, "retry", was="dead")
            try:
                await session.flush()
            except IntegrityError as error:
                if "uq_outbox_key" not in str(error.orig):
                    raise
                raise ConflictException(problem=JOB_KEY_TAKEN) from error
            # Last, and before the commit: what is committed is relayed at once, and must find nothing of the dead one.
            await self._states.forget(row.tenant_id, row.id)
        return _detail(row, None, slugs)

    async def cancel(self, job_id: UUID, *, actor: str, wait: float) -> JobDetail:
        """See to it that a job has no effect any more: one that waits is gone, one at work is stopped by its worker.

        A job at work holds the lock of its row until its transaction has ended. So whoever gets the lock knows that
        nothing was committed, and that nothing can be any more once the row is gone. One that begins its transactions
        itself is stopped first, and what it has committed by then stays.

        Args:
            job_id: which; a dead one may be cancelled as well, and is then forgotten.
            actor: for the audit trail.
            wait: seconds that its worker gets to stop.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it has come to its end meanwhile.
            UnavailableException: Redis is away, or the worker has not stopped in time; it may be asked again.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        seen = False
        while True:
            # One that begins its transactions itself holds no lock while it works.
            is_at_work = job_id in await self._states.active()
            async with self._database.transaction(self._write_scope) as transaction:
                session = transaction.session
                if (row := await _lock(session, job_id)) is not None and not is_at_work:
                    return await self._cancel(session, row, actor)
                held = await session.get(OutboxEntry, job_id)
            if held is None:
                raise ConflictException(problem=JOB_ENDED) if seen else _unknown()
            seen = True
            await self._states.stop(held.tenant_id, held.id)
            if loop.time() >= deadline:
                raise UnavailableException("Its worker has not stopped the job yet: ask again.", retry_after=2)
            await asyncio.sleep(_LOOK)

    async def _cancel(self, session: AsyncSession, row: OutboxEntry, actor: str) -> JobDetail:
        slugs = await _slugs(session, [row])
        kept = (await self._states.kept([(row.tenant_id, row.id)])).get(row.id)
        was = status_of(row.status, row.due, kept)
        detail = _detail(row, kept, slugs)
        self._record(session, row, actor, "cancel", was=was)
        await session.delete(row)
        await session.flush()
        # Last: without Redis nothing is cancelled, and the row stays.
        await self._states.cancel(row.tenant_id, row.id, row.name)
        detail.status, detail.finished_at = "cancelled", datetime.datetime.now(datetime.UTC)
        return detail

    async def stats(self, *, tenant: str | None = None, limit: int = 100) -> JobStats:
        """How many jobs are in which state, and which workers are alive; at most `limit` tenants are listed.

        Raises:
            ResourceNotFoundException: there is no such tenant.
            UnavailableException: Redis is away.
        """
        active = await self._states.active()
        workers = await self._states.workers()
        async with self._database.transaction(self._read_scope) as transaction:
            session = transaction.session
            only = None if tenant is None else await TenantService(session=session).by_slug(tenant)
            counted = (await session.execute(count_jobs(active, None if only is None else only.id))).all()
            counted = sorted(counted, key=lambda row: (-row.waiting, str(row.tenant_id)))
            slugs = await _slugs(session, counted[:limit])
        now = datetime.datetime.now(datetime.UTC)
        first = min((row.first for row in counted if row.first is not None), default=None)
        return JobStats(
            total=JobCounts(
                **{state: sum(getattr(row, state) for row in counted) for state in _STATES},
                oldest_waiting=_age(first, now),
            ),
            workers=[
                JobWorkerRead(
                    id=worker,
                    **{name: stats[name] for name in ("complete", "failed", "retried", "aborted")},
                    uptime=stats["uptime"] / 1000,
                )
                for worker, info in sorted(workers.items())
                if (stats := info["stats"]) is not None
            ],
            tenants=[
                TenantJobCounts(
                    tenant_id=row.tenant_id,
                    tenant=slugs.get(row.tenant_id),
                    **{state: getattr(row, state) for state in _STATES},
                    oldest_waiting=_age(row.first, now),
                )
                for row in counted[:limit]
            ],
        )

    @staticmethod
    def _record(session: AsyncSession, row: OutboxEntry, actor: str, verb: str, *, was: str | None) -> None:
        details = {"name": row.name, "from": was}
        record(session, actor=actor, action=f"job.{verb}", tenant_id=row.tenant_id, target=str(row.id), details=details)


async def _lock(session: AsyncSession, job_id: UUID) -> OutboxEntry | None:
    """The row, locked; None where there is none, or a job at work has it."""
    locked = select(OutboxEntry).where(OutboxEntry.id == job_id).with_for_update(skip_locked=True)
    return await session.scalar(locked)


async def _slugs(session: AsyncSession, rows: Iterable[Any]) -> dict[UUID | None, str]:
    ids = {row.tenant_id for row in rows if row.tenant_id is not None}
    if not ids:
        return {}
    named = await session.execute(select(Tenant.id, Tenant.slug).where(Tenant.id.in_(ids)))
    return {row.id: row.slug for row in named}


def _unknown() -> ResourceNotFoundException:
    return ResourceNotFoundException("There is no such job, or it is done.")


def _age(first: datetime.datetime | None, now: datetime.datetime) -> float | None:
    return None if first is None else round(max(0.0, (now - first).total_seconds()), 3)


def _fields(row: OutboxEntry, kept: SaqJob | None, slugs: dict[UUID | None, str]) -> dict[str, Any]:
    lines: Sequence[str] = (_error(row, kept) or "").strip().splitlines()
    return {
        "id": row.id,
        "tenant_id": row.tenant_id,
        "tenant": slugs.get(row.tenant_id),
        "name": row.name,
        "key": row.key,
        "status": status_of(row.status, row.due, kept),
        "progress": 0.0 if kept is None else kept.progress,
        "attempts": 0 if kept is None else kept.attempts,
        "retries": row.retries,
        "created_at": row.created_at,
        "due_at": row.due,
        "error": lines[-1] if lines else None,
    }


def _error(row: OutboxEntry, kept: SaqJob | None) -> str | None:
    return row.error or (None if kept is None else kept.error)


def _detail(row: OutboxEntry, kept: SaqJob | None, slugs: dict[UUID | None, str]) -> JobDetail:
    fields = _fields(row, kept, slugs)
    finished = None if kept is None else moment(kept.completed)
    return JobDetail(
        **fields,
        timeout=row.timeout,
        started_at=None if kept is None else moment(kept.started),
        finished_at=finished or (row.updated_at if fields["status"] == "dead" else None),
        worker=None if kept is None else kept.worker_id,
        meta={name: str(value) for name, value in row.meta.items()},
        traceback=_error(row, kept),
    )
