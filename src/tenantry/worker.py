"""Composition root of a worker: one SAQ worker over all queues, and the relay."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import structlog
from redis.asyncio import Redis
from uuid_utils.compat import uuid7

from tenantry.features import JOBS, MAILS, SCHEDULES
from tenantry.jobs.fair import FairQueue
from tenantry.jobs.gate import Gate
from tenantry.jobs.patience import end
from tenantry.jobs.prompt import PromptWorker
from tenantry.jobs.quarantine import QuarantineQueue
from tenantry.jobs.relay import TOGETHER, Relay
from tenantry.jobs.runner import Runner
from tenantry.jobs.schedule import Scheduler
from tenantry.jobs.supervisor import beat
from tenantry.kernel.line import Line
from tenantry.kernel.mail import Mailer
from tenantry.kernel.metrics import sampling
from tenantry.kernel.redis import create_redis, sample_redis
from tenantry.kernel.security import Vault
from tenantry.kernel.settings import Settings
from tenantry.tenancy.cache import TenantCache
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.metrics import sample_registry
from tenantry.tenancy.registry import TenantRegistry
from tenantry.tenancy.wiring import create_database, create_redis_breaker, open_vault, required, scope_times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenantry.jobs.definition import Job
    from tenantry.jobs.schedule import Schedule

__all__ = ("WorkerProcess",)

_BESIDES = 3
"""Connections besides one for each job: the relay's, the schedules', and one to mark what is dead."""

_UPKEEP = 12
"""Connections to Redis for SAQ's timers, the claims and the sign of life."""

_log = structlog.get_logger(__name__)


class WorkerProcess:
    """One process's worker; several share the work, and none leads."""

    def __init__(
        self,
        settings: Settings,
        *,
        worker_id: str | None = None,
        quarantine: bool = False,
        jobs: Sequence[Job] = JOBS,
        schedules: Sequence[Schedule] = SCHEDULES,
        signals: bool = True,
    ) -> None:
        """In `quarantine` it works off what the ring has made it adopt, one job at a time, and ends.

        With `signals`, SIGTERM and SIGINT end it; else `stop` alone does.

        Raises:
            SettingsError: the settings have no addresses.
            VaultError: the vault that they name cannot be opened.
            TemplateProblem: one of TENANTRY_MAIL_TEMPLATES is wrong.
        """
        times = scope_times(settings)
        control = control_scope(times, read_only=False)
        address = required(settings.redis_url)
        self.id = worker_id or f"{socket.gethostname()}-{uuid7().hex[-8:]}"
        self._quarantine = quarantine
        # Not made here: what there is to open was sealed by the API.
        self.vault = open_vault(settings, create=False)
        mailer = Mailer(settings, MAILS.folders)
        # Now, and not when the first invitation is dead.
        MAILS.check(mailer.templates)
        self.database = create_database(
            settings,
            application_name="tenantry-worker",
            pool_size=settings.worker_concurrency + _BESIDES,
        )
        self.registry = TenantRegistry(
            settings.database_listen_url or required(settings.database_url),
            times=times,
            poll_interval=settings.registry_poll_interval,
            stale_after=settings.registry_stale_after,
        )
        self._redis = create_redis(
            address, timeout=5.0, max_connections=settings.worker_concurrency + TOGETHER + _UPKEEP
        )
        # What jobs change ends what the API has cached of it.
        self._breaker = create_redis_breaker(self._redis)
        self._line = Line(self._redis, self._breaker, timeout=settings.redis_timeout)
        self.database.followers.append(TenantCache(self._line).follow)
        # It waits for a second at a time, and must not be cut off meanwhile.
        self._blocking = create_redis(address, timeout=10.0, max_connections=2)
        gate = Gate(self.registry)
        kind = QuarantineQueue if quarantine else FairQueue
        self.queue = kind(self._redis, self._blocking, worker_id=self.id, gate=gate)
        runner = Runner(
            jobs=jobs,
            queue=self.queue,
            database=self.database,
            registry=self.registry,
            control=control,
            resources={Settings: settings, Vault: self.vault, Mailer: mailer, Redis: self._redis},
        )
        self.relay = Relay(
            queue=self.queue,
            database=self.database,
            control=control,
            jobs={job.name: job for job in jobs},
            gate=gate,
        )
        self.scheduler = Scheduler(schedules=schedules, database=self.database, control=control)
        self.worker = PromptWorker(
            self.queue,
            runner.functions,
            id=self.id,
            concurrency=1 if quarantine else settings.worker_concurrency,
            # Slots that wait notice within a second that the worker is to end.
            dequeue_timeout=1.0,
            timers={"schedule": 1, "worker_info": 4, "sweep": 5, "abort": 1},
            shutdown_grace_period_s=max(1, round(settings.worker_grace)),
        )

        self.queue.is_ending = self._is_ending
        if isinstance(self.queue, QuarantineQueue):
            self.queue.when_empty = self.stop
        if not signals:
            self.worker.SIGNALS = []

    def stop(self) -> None:
        """Take no more jobs; `run` returns when those at work have ended, or the grace time is over."""
        self.worker.event.set()

    def _is_ending(self) -> bool:
        # Looked up each time: SAQ makes a new event when it starts.
        return self.worker.event.is_set()

    def _sample(self) -> None:
        sample_registry(self.registry)
        sample_redis(self._redis, self._blocking)

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT, then let what is at work come to its end for the grace time."""
        await self.registry.start()
        beside = [asyncio.create_task(beat(), name="beat")]
        if not self._quarantine:
            beside.append(asyncio.create_task(self.relay.run(), name="job-relay"))
            beside.append(asyncio.create_task(self.scheduler.run(), name="job-schedules"))
        try:
            _log.info("worker started", worker=self.id, jobs=sorted(self.worker.functions))
            with sampling(self.database.sample, self._sample):
                await self.worker.start()
        finally:
            await end(*beside)
            await self.queue.close()
            await self.registry.stop()
            await self.database.close()
            await self._breaker.stop()
            await self._line.close()
            await self._redis.aclose()
            await self._blocking.aclose()
            _log.info("worker ended", worker=self.id)
