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
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from croniter import croniter
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from tenantry.jobs.models import OutboxEntry, ScheduleEntry
from tenantry.jobs.outbox import put_for
from tenantry.tenancy.database import LOST
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenantry.jobs.definition import Job
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("UTC", "Schedule", "Scheduler", "check_timezone", "enqueue_now", "enrol_one", "zone_chosen")

UTC = "UTC"
KEY = "schedule"
"""Of the jobs that come by the clock: the one before may be at work still, and there is no use in a second."""
_NOT_EVERYWHERE = ("posix/", "right/", "posixrules", "localtime", "Factory")
"""Files among the time zones whose names are none, or that mean something else on another machine."""
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
    if name.startswith(_NOT_EVERYWHERE):
        raise ValueError(f"no such time zone: {name!r}")
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
            times.append(_next(schedule, row.tenant_id, row.timezone, now))
            entries.append(
                {
                    "id": uuid7(),
                    "tenant_id": row.tenant_id,
                    "name": job.name,
                    "arguments": {},
                    "key": KEY,
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
                if schedule.job.platform:
                    own = await session.scalar(
                        select(ScheduleEntry.id).where(
                            ScheduleEntry.tenant_id.is_(None), ScheduleEntry.name == schedule.name
                        )
                    )
                    if own is None:
                        await enrol_one(session, schedule, None)
                    continue
                missing = (
                    await session.execute(
                        select(Tenant.id, zone_chosen(correlated=True).label("zone"))
                        .where(Tenant.status == "active", ~known.exists())
                        .limit(5 * _BATCH)
                    )
                ).all()
                if missing:
                    await session.execute(
                        insert(ScheduleEntry).on_conflict_do_nothing(),
                        [_row(schedule, row.id, row.zone or UTC, now) for row in missing],
                    )


def zone_chosen(tenant_id: UUID | None = None, *, correlated: bool = False) -> Any:
    """Of a tenant's time zones (None: the platform's), as a scalar subquery, the one that was chosen last; or NULL.

    `correlated` is for a statement that selects from tenants: of each its own.
    """
    own = ScheduleEntry.tenant_id
    chosen = (
        select(ScheduleEntry.timezone)
        .where(
            own == Tenant.id if correlated else own.is_not_distinct_from(tenant_id),
            ScheduleEntry.timezone_set_at.is_not(None),
        )
        .order_by(ScheduleEntry.timezone_set_at.desc(), ScheduleEntry.id.desc())
        .limit(1)
    )
    return chosen.correlate(Tenant).scalar_subquery() if correlated else chosen.scalar_subquery()


async def enrol_one(session: AsyncSession, schedule: Schedule, tenant_id: UUID | None) -> None:
    """Give one tenant (None: the platform) its row of a schedule, if it has none."""
    zone: str = await session.scalar(select(zone_chosen(tenant_id))) or UTC
    row = _row(schedule, tenant_id, zone, datetime.datetime.now(datetime.UTC))
    await session.execute(insert(ScheduleEntry).values(row).on_conflict_do_nothing())


async def enqueue_now(
    session: AsyncSession, schedule: Schedule, tenant_id: UUID | None, *, actor: str
) -> tuple[UUID, bool]:
    """Have a schedule's job run at once, whatever the clock says; its id, and whether none waited or ran already.

    Raises:
        LookupError: the one that did has ended at this very moment.
    """
    return await put_for(session, tenant_id, schedule.job.entry(key=KEY, at=None, arguments={}), actor=actor)


def _row(schedule: Schedule, tenant_id: UUID | None, zone: str, now: datetime.datetime) -> dict[str, Any]:
    return {
        "id": uuid7(),
        "tenant_id": tenant_id,
        "name": schedule.name,
        "enabled": True,
        "timezone": zone,
        "next_run_at": _next(schedule, tenant_id, zone, now),
        "created_at": now,
        "updated_at": now,
    }


def _next(schedule: Schedule, tenant_id: UUID | None, zone: str, now: datetime.datetime) -> datetime.datetime:
    try:
        return schedule.next_after(now, tenant_id=tenant_id, timezone=zone)
    except ZoneInfoNotFoundError:
        # Known where it was chosen and not here, where the time zones are older: it must not keep all others waiting.
        _log.warning("time zone unknown on this machine: read in UTC", schedule=schedule.name, timezone=zone)
        return schedule.next_after(now, tenant_id=tenant_id)
