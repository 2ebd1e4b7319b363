"""Jobs that come back by the clock: for every tenant a row, in its own time zone, and for the platform one.

A feature declares a schedule once. Every worker looks once a second for rows that are due, and none leads: in one
transaction the row moves on and the job is in the outbox, so each time happens once, whoever is killed. What was due
while nobody worked happens once as well, not as many times as it was missed.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from croniter import croniter
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from tenantry.jobs.models import OutboxEntry, ScheduleEntry
from tenantry.tenancy.database import LOST
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenantry.jobs.definition import Job
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("Schedule", "Scheduler", "check_timezone")

UTC = "UTC"
_BATCH = 1000
_ENROL_EVERY = 30.0
"""Seconds between two looks for tenants that have no row yet."""

_ADVANCE = text("""
UPDATE platform.schedule s SET next_run_at = n.next_run_at, last_run_at = now(), updated_at = now()
  FROM unnest(CAST(:ids AS uuid[]), CAST(:times AS timestamptz[])) AS n (id, next_run_at) WHERE s.id = n.id
""")

_log = structlog.get_logger(__name__)


def check_timezone(name: str) -> str:
    """The name of a time zone (IANA).

    Raises:
        ValueError: there is none of that name.
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no such time zone: {name!r}") from error
    return name


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job comes back.

    `cron` is a crontab line (five fields) in the row's time zone; where clocks are put forward, what falls into the gap
    happens after it, and where they are put back, what names an hour happens once. `jitter` spreads tenants over so
    many seconds, each always at the same place, so that ten thousand do not come at once. The job needs no arguments.
    """

    job: Job
    cron: str
    jitter: int = 0

    def __post_init__(self) -> None:
        if not croniter.is_valid(self.cron) or len(self.cron.split()) != 5:
            raise ValueError(
                f"schedule of {self.job.name!r}: expected a crontab line of five fields, got {self.cron!r}"
            )
        if not 0 <= self.jitter <= 86_400:
            raise ValueError(f"schedule of {self.job.name!r}: expected a jitter of at most a day, got {self.jitter}")
        self.job.entry(key=None, at=None, arguments={})

    @property
    def name(self) -> str:
        """The job's: a job has one schedule."""
        return self.job.name

    def next_after(
        self, moment: datetime.datetime, *, tenant_id: UUID | None, timezone: str = UTC
    ) -> datetime.datetime:
        """The first time after `moment` (aware) that this tenant's job is due."""
        offset = datetime.timedelta(seconds=self._offset(tenant_id))
        zone = ZoneInfo(timezone)
        # What is due is the clock's time and the offset: it is looked for where the clock's time was.
        local = (moment - offset).astimezone(zone)
        if self.cron.split()[1].startswith("*"):
            # Every so many minutes or hours, also in the hour that comes twice.
            found: datetime.datetime = croniter(self.cron, local).get_next(datetime.datetime)
        else:
            # At an hour of the day: once, also where the clock shows it twice or skips it (as Vixie's cron).
            walls = croniter(self.cron, local.replace(tzinfo=None))
            found = walls.get_next(datetime.datetime).replace(tzinfo=zone)
            # In the second of two equal hours, what the clock shows next has been already. In UTC: of one zone, Python
            # compares what the clocks show.
            while found.astimezone(datetime.UTC) <= moment - offset:
                found = walls.get_next(datetime.datetime).replace(tzinfo=zone)
        return found.astimezone(datetime.UTC) + offset

    def _offset(self, tenant_id: UUID | None) -> int:
        if not self.jitter or tenant_id is None:
            return 0
        digest = hashlib.sha256(tenant_id.bytes + self.name.encode()).digest()
        return int.from_bytes(digest[:8]) % self.jitter


class Scheduler:
    """Looks once a second, in every worker."""

    def __init__(
        self, *, schedules: Sequence[Schedule], database: Database, control: Scope, interval: float = 1.0
    ) -> None:
        self._schedules = {schedule.name: schedule for schedule in schedules}
        if len(self._schedules) != len(schedules):
            raise ValueError("a job has one schedule")
        self._database = database
        self._control = control
        self._interval = interval
        self._enrolled_at = float("-inf")

    async def run(self) -> None:
        """Until it is cancelled."""
        away = False
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            more = 0
            try:
                if begun - self._enrolled_at >= _ENROL_EVERY:
                    await self.enrol()
                    self._enrolled_at = begun
                more = await self.tick()
                away = False
            except LOST as error:
                if not away:
                    _log.warning("schedules wait", error=repr(error))
                away = True
            if more < _BATCH:
                await asyncio.sleep(max(0.0, self._interval - (loop.time() - begun)))

    async def tick(self) -> int:
        """Enqueue what is due, and say when it is due next; how many rows.

        Raises:
            OSError, sqlalchemy.exc.SQLAlchemyError, asyncpg.PostgresError: the database is away.
        """
        async with self._database.transaction(self._control) as transaction:
            session = transaction.session
            rows = list(
                await session.scalars(
                    select(ScheduleEntry)
                    .where(
                        ScheduleEntry.enabled,
                        ScheduleEntry.next_run_at <= text("now()"),
                        # A release that has been taken back leaves rows that nobody here knows.
                        ScheduleEntry.name.in_(list(self._schedules)),
                    )
                    .order_by(ScheduleEntry.next_run_at)
                    .limit(_BATCH)
                    .with_for_update(skip_locked=True)
                )
            )
            if rows:
                await self._enqueue(session, rows)
        return len(rows)

    async def _enqueue(self, session: AsyncSession, rows: Sequence[ScheduleEntry]) -> None:
        now = datetime.datetime.now(datetime.UTC)
        entries = []
        times = []
        for row in rows:
            schedule = self._schedules[row.name]
            job = schedule.job
            times.append(schedule.next_after(now, tenant_id=row.tenant_id, timezone=row.timezone))
            entries.append(
                {
                    "id": uuid7(),
                    "tenant_id": row.tenant_id,
                    "name": job.name,
                    "arguments": {},
                    # The one before may be at work still: there is no use in a second.
                    "key": "schedule",
                    "status": "pending",
                    "due": now,
                    "retries": job.retries,
                    "timeout": job.timeout,
                    "meta": {"actor": "schedule"},
                    "created_at": now,
                    "updated_at": now,
                }
            )
        await session.execute(insert(OutboxEntry).on_conflict_do_nothing(), entries)
        await session.execute(_ADVANCE, {"ids": [row.id for row in rows], "times": times})

    async def enrol(self) -> None:
        """Give every tenant that is active a row of each schedule, and the platform its own."""
        now = datetime.datetime.now(datetime.UTC)
        async with self._database.transaction(self._control) as transaction:
            session = transaction.session
            for schedule in self._schedules.values():
                known = select(ScheduleEntry.id).where(
                    ScheduleEntry.tenant_id == Tenant.id, ScheduleEntry.name == schedule.name
                )
                missing: list[UUID | None]
                if schedule.job.platform:
                    own = await session.scalar(
                        select(ScheduleEntry.id).where(
                            ScheduleEntry.tenant_id.is_(None), ScheduleEntry.name == schedule.name
                        )
                    )
                    missing = [] if own is not None else [None]
                else:
                    missing = list(
                        await session.scalars(
                            select(Tenant.id).where(Tenant.status == "active", ~known.exists()).limit(5 * _BATCH)
                        )
                    )
                if missing:
                    await self._add(session, schedule, missing, now)

    @staticmethod
    async def _add(
        session: AsyncSession, schedule: Schedule, tenants: Sequence[UUID | None], now: datetime.datetime
    ) -> None:
        await session.execute(
            insert(ScheduleEntry).on_conflict_do_nothing(),
            [
                {
                    "id": uuid7(),
                    "tenant_id": tenant_id,
                    "name": schedule.name,
                    "enabled": True,
                    "timezone": UTC,
                    "next_run_at": schedule.next_after(now, tenant_id=tenant_id),
                    "created_at": now,
                    "updated_at": now,
                }
                for tenant_id in tenants
            ],
        )
