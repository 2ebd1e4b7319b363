"""One executor's work on a rollout: waves, retries, thresholds."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from tenantry.platform.rollouts.migration import (
    MigrationError,
    NoSchemaError,
    OtherRevisionError,
    is_lost,
    migrate,
    prepare,
    raise_cancelled,
)
from tenantry.platform.rollouts.planning import UncompilableError, segments
from tenantry.tenancy.revisions import RevisionError, UnknownRevisionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from tenantry.platform.rollouts.ledger import Ledger, Progress, Settings
    from tenantry.platform.rollouts.migration import Job
    from tenantry.platform.rollouts.online import OnlineMigrations
    from tenantry.tenancy.connection import DriverConnection

__all__ = ("Execution",)

_log = structlog.get_logger(__name__)


class Execution:
    """Works a rollout off; whoever makes one holds the advisory lock."""

    def __init__(
        self,
        rollout_id: UUID,
        *,
        lock: DriverConnection,
        ledger: Ledger,
        connect: Callable[[], AbstractAsyncContextManager[DriverConnection]],
        owner_url: str,
        poll_interval: float,
        settle: float,
        backoff: float,
        patience: float,
        tell: Callable[[Progress], None],
    ) -> None:
        """`lock` is the connection that holds it, and is asked whether to go on; the rest is as in `RolloutRunner`."""
        self._id = rollout_id
        self._lock = lock
        self._ledger = ledger
        self._connect = connect
        self._owner_url = owner_url
        self._poll_interval = poll_interval
        self._settle = settle
        self._backoff = backoff
        self._patience = patience
        self._tell = tell
        self._online: OnlineMigrations | None = None
        self._settings: Settings
        self._progress: Progress
        self._stop = asyncio.Event()
        """No further tenant is begun: it halts, was cancelled, or cannot go on."""
        self._halted: str | None = None
        self._error: Exception | None = None
        self._lost_since: float | None = None
        self._free: list[DriverConnection] = []

    async def run(self) -> Progress:
        """Until it is done, halted or cancelled; how it ended.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError: the database was lost.
        """
        self._settings = await self._ledger.settings()
        await self._ledger.begin()
        ended = asyncio.Event()
        watch = asyncio.create_task(self._watch(ended))
        try:
            async with AsyncExitStack() as stack:
                await self._waves(stack)
        finally:
            ended.set()
            await watch
            if self._online is not None:
                await self._online.close()
        if self._error is not None:
            raise self._error
        if self._halted is not None:
            await self._ledger.end("halted", self._halted)
        elif not self._stop.is_set():
            await self._ledger.end("done")
        self._progress = await self._ledger.progress()
        self._tell(self._progress)
        _log.info("rollout ended", rollout=str(self._id), status=self._progress.status, failed=self._progress.failed)
        return self._progress

    def stop(self) -> None:
        """Begin no further tenant."""
        self._stop.set()

    async def _watch(self, ended: asyncio.Event) -> None:
        """Look again and again whether it is still to go on, and whether the lock is still held."""
        while not ended.is_set():
            try:
                status = await self._lock.fetchval("SELECT status FROM platform.rollout WHERE id = $1", self._id)
            except Exception as error:
                # Somebody else may hold the lock by now.
                return self._fail(error)
            if status != "running" and self._halted is None:
                self._stop.set()
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_interval):
                    await ended.wait()
        return None

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._stop.set()

    def _halt(self, reason: str) -> None:
        self._halted = self._halted or reason
        self._stop.set()

    async def _waves(self, stack: AsyncExitStack) -> None:
        settled_by: float | None = None
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            # In this order: who was made before the first look is seen by the second.
            unsettled = await self._ledger.unsettled()
            added = await self._ledger.fill()
            self._progress = await self._ledger.progress()
            self._tell(self._progress)
            await self._check_failures()
            for wave in (0, 1):
                if not self._stop.is_set():
                    await self._wave(wave, stack)
            if self._stop.is_set() or added:
                continue
            if settled_by is None:
                settled_by = loop.time() + self._settle
            if not unsettled or loop.time() > settled_by:
                return
            await self._pause(self._poll_interval)

    async def _wave(self, wave: int, stack: AsyncExitStack) -> None:
        jobs = await self._ledger.jobs(wave, self._settings)
        try:
            for revision in {job.revision for job in jobs}:
                with contextlib.suppress(UnknownRevisionError):  # one tenant's failure, when it is its turn
                    segments(revision, self._settings.target)
        except (UncompilableError, RevisionError) as error:
            return self._halt(str(error))
        loop = asyncio.get_running_loop()
        while jobs and not self._stop.is_set():
            now = loop.time()
            due = deque(job for job in jobs if job.not_before <= now)
            later = [job for job in jobs if job.not_before > now]
            if not due:
                await self._pause(min(job.not_before for job in later) - now)
                continue
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.concurrency, len(due))):
                    group.create_task(self._work(due, later, stack))
            jobs = later
        return None

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.01)):
                await self._stop.wait()

    async def _work(self, due: deque[Job], later: list[Job], stack: AsyncExitStack) -> None:
        """One of `concurrency` workers, each with a connection."""
        connection: DriverConnection | None = None
        while due and not self._stop.is_set():
            job = due.popleft()
            try:
                if connection is None or connection.is_closed():
                    connection = await self._connection(stack)
                await self._one(connection, job, later)
                self._lost_since = None
            except Exception as error:
                raise_cancelled(error)
                if not is_lost(error):
                    return self._fail(error)
                # Nobody knows what became of it; the next attempt finds out.
                due.appendleft(job)
                if connection is not None:
                    connection.terminate()
                await self._outlast(error)
        if connection is not None:
            self._free.append(connection)
        return None

    async def _connection(self, stack: AsyncExitStack) -> DriverConnection:
        while self._free:
            if not (connection := self._free.pop()).is_closed():
                return connection
        connection = await stack.enter_async_context(self._connect())
        await prepare(connection, self._settings.lock_timeout)
        return connection

    async def _outlast(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        self._lost_since = self._lost_since or now
        if self._ledger.is_closed or now - self._lost_since > self._patience:
            return self._fail(error)
        _log.warning("a migration's connection was lost", rollout=str(self._id), error=repr(error))
        await self._pause(self._poll_interval)
        return None

    async def _one(self, connection: DriverConnection, job: Job, later: list[Job]) -> None:
        try:
            await self._migrate(connection, job)
        except NoSchemaError:
            await self._ledger.drop(job)
            self._advance(total=-1)
        except MigrationError as error:
            await self._failed(job, error, later)
        else:
            self._advance(done=1)

    async def _migrate(self, connection: DriverConnection, job: Job) -> None:
        # Whoever is tried again is watched more closely.
        stepwise = job.attempts > 0 or self._settings.max_attempts == 1
        while True:
            try:
                if job.is_online:
                    await self._online_migrations().migrate(job)
                else:
                    await migrate(connection, job, stepwise=stepwise)
            except OtherRevisionError as other:
                # The ledger was wrong. A second surprise means that somebody is at it at this moment.
                _log.warning("ledger and schema differ", tenant=job.slug, ledger=job.revision, schema=other.found)
                if other.found == job.revision:
                    raise MigrationError("its revision is being changed", transient=True) from other
                job.revision = other.found
            except (RevisionError, UncompilableError) as error:
                raise MigrationError(f"its schema is at {job.revision!r}: {error}") from error
            except MigrationError as error:
                if error.statement is not None or error.transient or stepwise:
                    raise
                # The data, not a lock: the second attempt will end in the same way, and say where.
                stepwise = True
            else:
                return

    async def _failed(self, job: Job, error: MigrationError, later: list[Job]) -> None:
        job.attempts += 1
        again = error.transient and job.attempts < self._settings.max_attempts
        pause = self._backoff * 2 ** (job.attempts - 1) * random.uniform(1, 2) if again else None
        await self._ledger.note(job, error, again_in=pause)
        log = _log.bind(rollout=str(self._id), tenant=job.slug, attempt=job.attempts)
        if pause is not None:
            log.info("migration is tried again", error=str(error), seconds=round(pause, 2))
            job.not_before = asyncio.get_running_loop().time() + pause
            later.append(job)
            return
        # No warning: whoever runs this tells of all of them at its end, and a terminal shows a progress bar until then.
        log.info("migration failed", error=str(error))
        self._advance(failed=1)
        await self._check_failures()

    async def _check_failures(self) -> None:
        failed, canary = await self._ledger.failures()
        if canary is not None:
            self._halt(f"the canary {canary} failed")
        elif failed >= self._settings.halt_after:
            self._halt(f"{failed} tenants failed" if failed > 1 else "1 tenant failed")

    def _advance(self, *, done: int = 0, failed: int = 0, total: int = 0) -> None:
        old = self._progress
        self._progress = replace(old, done=old.done + done, failed=old.failed + failed, total=old.total + total)
        self._tell(self._progress)

    def _online_migrations(self) -> OnlineMigrations:
        if self._online is None:
            # SQLAlchemy's asyncio and ORM, which hardly any rollout needs; see the package.
            module = importlib.import_module("tenantry.platform.rollouts.online")
            self._online = module.OnlineMigrations(self._owner_url, self._settings.concurrency)
        return self._online
