"""Running a job: in its tenant's scope, in one transaction with the end of its row in the outbox."""

from __future__ import annotations

import datetime
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import msgspec
import structlog
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from tenantry.jobs.definition import Discard, Hopeless, JobRun, Retry
from tenantry.jobs.metrics import DEAD, running_job
from tenantry.jobs.models import OutboxEntry
from tenantry.jobs.outbox import acknowledge
from tenantry.jobs.ring import tenant_of
from tenantry.jobs.surroundings import surround_job
from tenantry.kernel.errors import UnavailableException
from tenantry.kernel.http.failures import explain_failure, sqlstate_of
from tenantry.tenancy.database import LOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from redis.asyncio import Redis
    from saq.job import Job as SaqJob
    from saq.types import Context
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.jobs.definition import Hint, Job
    from tenantry.jobs.fair import FairQueue
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.registry import TenantRegistry
    from tenantry.tenancy.scope import Scope

__all__ = ("Runner", "attempt")

_ERROR_LENGTH = 2000
_DATABASE = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_OUTAGE_PAUSE = 2.0
"""Seconds."""

_log = structlog.get_logger(__name__)


class _OutageError(Exception):
    """The database cannot be reached."""


class Runner:
    """What a `saq.Worker` calls: one attempt, in one transaction."""

    def __init__(
        self,
        *,
        jobs: Iterable[Job],
        queue: FairQueue,
        database: Database,
        registry: TenantRegistry,
        control: Scope,
        resources: Mapping[type, Any],
    ) -> None:
        """`control` is the control plane's scope, for writing: of the platform's jobs, and of rows that are dead.

        `resources` has one object of each type of `tenantry.jobs.definition.RESOURCES`.
        """
        self._jobs = {job.name: job for job in jobs}
        self._database = database
        self._registry = registry
        self._control = control
        self._resources = resources
        self._redis = queue.ring.redis
        queue.when_dead = self.bury
        queue.strange.knows = self.knows

    @property
    def functions(self) -> list[tuple[str, Any]]:
        """As SAQ's worker wants them."""
        return [(name, self._function(job)) for name, job in self._jobs.items()]

    def knows(self, taken: SaqJob) -> bool:
        """Whether a job that was taken can be run by this release."""
        job = self._jobs.get(taken.function)
        return job is not None and job.fits((taken.kwargs or {}).get("arguments", {}))

    def _function(self, job: Job) -> Any:
        async def run(context: Context, **_: Any) -> Any:
            return await self._run(job, context["job"])

        return run

    async def _run(self, job: Job, taken: SaqJob) -> Any:
        entry, told = taken.meta.get("outbox"), taken.meta.get("told", {})
        with surround_job(job, taken, self._registry) as plan:
            try:
                tenant, scope = self._scope(job, taken)
                with running_job(job.name, plan):
                    return await attempt(
                        self._database,
                        scope,
                        job,
                        entry=None if entry is None else UUID(entry),
                        job_id=entry or taken.key,
                        number=taken.attempts,
                        tenant=tenant,
                        arguments=(taken.kwargs or {}).get("arguments", {}),
                        meta=told,
                        resources=self._resources,
                        report=lambda done: taken.update(progress=done),
                        redis=self._redis,
                    )
            except Discard as reason:
                _log.info("job discarded", reason=str(reason))
                await self._drop(entry)
                return None
            except Retry as again:
                taken.retry_delay, taken.retry_backoff = again.after, False
                raise
            except Hopeless:
                taken.retries = taken.attempts
                raise
            except Exception as error:
                if _is_outage(error):
                    # Not the job's fault, and no reason to spend its attempts on an outage.
                    taken.attempts -= 1
                    taken.retry_delay, taken.retry_backoff = _OUTAGE_PAUSE, False
                raise

    def _scope(self, job: Job, taken: SaqJob) -> tuple[TenantContext | None, Scope]:
        queue = taken.get_queue().name
        tenant_id = tenant_of(queue)
        if job.platform != (tenant_id is None):
            raise Hopeless(f"the job {job.name!r} does not belong to the queue {queue!r}")
        if tenant_id is None:
            return None, self._control
        tenant = self._registry.by_id(tenant_id)
        if tenant is None:
            # It was there when the job was taken.
            raise Retry("the organization is gone", after=1)
        return tenant, tenant.write_scope

    async def _drop(self, entry: str | None) -> None:
        if entry is not None:
            async with self._database.transaction(self._control) as transaction:
                row = await transaction.session.get(OutboxEntry, UUID(entry))
                if row is not None:
                    await transaction.session.delete(row)

    async def bury(self, taken: SaqJob) -> None:
        """Mark the row of a job that is dead, so that it is not relayed for ever.

        Where that fails, the relay sends it once more some day, and it is buried again.
        """
        DEAD.labels(taken.function).inc()
        if (entry := taken.meta.get("outbox")) is None:
            return
        try:
            async with self._database.transaction(self._control) as transaction:
                await transaction.session.execute(
                    update(OutboxEntry)
                    .where(OutboxEntry.id == UUID(entry))
                    .values(
                        status="dead",
                        error=(taken.error or "")[-_ERROR_LENGTH:],
                        updated_at=datetime.datetime.now(datetime.UTC),
                    )
                )
        except LOST as error:
            _log.warning("a dead job's row could not be marked", job=taken.key, error=repr(error))


async def attempt(
    database: Database,
    scope: Scope,
    job: Job,
    *,
    entry: UUID | None,
    job_id: str,
    number: int,
    tenant: TenantContext | None,
    arguments: dict[str, Any],
    meta: dict[str, Any],
    resources: Mapping[type, Any],
    report: Callable[[float], Awaitable[None]],
    redis: Redis | None = None,
) -> Any:
    """Run a job once, in one transaction with the end of its row; its result, as JSON has it.

    A job that begins its transactions itself is run outside of any, and its row ends in one of its own after it. Its
    hints are said in `redis`, if that is given.

    Raises:
        Hopeless: the arguments do not fit, or the result is not JSON.
        Exception: whatever the job raises; nothing is written then, but what it has committed itself.
    """

    @asynccontextmanager
    async def begin() -> AsyncIterator[AsyncSession]:
        async with AsyncExitStack() as stack:
            try:
                transaction = await stack.enter_async_context(database.transaction(scope))
            except LOST as error:
                raise _OutageError(str(error)) from error
            yield transaction.session

    def run_on(session: AsyncSession | None) -> JobRun:
        return JobRun(
            job_id=job_id,
            name=job.name,
            attempt=number,
            attempts=job.retries,
            session=session,
            open=begin,
            tenant=tenant,
            meta=meta,
            resources=resources,
            report=report,
        )

    if job.opens_transactions:
        run = run_on(None)
        result = _as_json(await job.run(run, arguments))
    async with begin() as session:
        ended = entry is not None and not await acknowledge(session, entry, platform=tenant is None)
        if not job.opens_transactions:
            if ended:
                # Its effect is committed: the worker that did it died before it could say so.
                return None
            run = run_on(session)
            # Before the commit: what cannot be kept would else be done again.
            result = _as_json(await job.run(run, arguments))
    if redis is not None:
        await _say(run.hints, redis)
    return result


def _as_json(result: Any) -> Any:
    try:
        return msgspec.to_builtins(result, str_keys=True)
    except (TypeError, ValueError) as error:
        raise Hopeless(f"the result is not JSON: {error}") from error


async def _say(hints: Iterable[Hint], redis: Redis) -> None:
    for hint in hints:
        try:
            await hint(redis)
        except Exception as error:
            # What it is about is committed: the job has ended well, and is not to be tried again for this.
            _log.warning("a job's hint was not said", error=repr(error))


def _is_outage(error: Exception) -> bool:
    """Whether the database went away under a job. What the job itself wanted to reach is its own business."""
    if isinstance(error, _OutageError):
        return True
    if not isinstance(error, _DATABASE):
        return False
    state = sqlstate_of(error)
    # A lock that is held, or a deadlock, is answered 503 as well, but may be the job's own doing.
    gone = state is None or state.startswith(("08", "57P"))
    return gone and isinstance(explain_failure(error), UnavailableException)
