"""Writing down what Redis has counted, and what there is to be measured.

A counter is read and never changed. Its row has how far it was read, and both are written in one transaction: a reader
that is killed has either written both or neither, and the next one goes on from there. Readers take turns by a lock
that they hold while they read, so that nobody writes down what is older than what is written.
"""

from __future__ import annotations

import datetime
from itertools import islice
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import delete, func, select, text

from tenantry.platform.usage.models import usage_day
from tenantry.tenancy.database import LOST
from tenantry.tenancy.models import Tenant
from tenantry.tenancy.use import COUNTED_DAYS, read_counters, release_marks, take_marks, today

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from uuid import UUID

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.jobs.definition import Transactions
    from tenantry.tenancy.use import Mark

__all__ = (
    "KEPT",
    "MEASURED_EVERY",
    "MeasuringError",
    "days_of",
    "drain_marked",
    "forget_old",
    "measure_due",
    "write_down",
)

KEPT = 800
"""Days that use is kept: two years, and some to send the last bills."""
MEASURED_EVERY = datetime.timedelta(hours=6)
MEASURED_STATES = ("active", "suspended", "archived")
"""Of those that are on their way in or out there is nothing to measure, or nothing to bill."""
_LOCK = 2118803210
"""Of PostgreSQL's advisory locks."""
_BATCH = 200
_TOGETHER = 500
"""Tenants that one run measures: a few seconds' work, in which their worker has a slot less."""

_log = structlog.get_logger(__name__)

# Of an epoch that was met before, what is beyond what was seen; of a new one all. A counter that has come back from
# an older copy of Redis' data shows less than was seen: that much is counted once, and what comes after it waits until
# it is beyond that. `plan` of a day that is over stays.
_WRITE = text("""
INSERT INTO platform.usage_day AS u
       (tenant_id, day, plan, requests, requests_epoch, requests_seen, jobs, jobs_epoch, jobs_seen)
SELECT c.tenant_id, c.day, t.plan, c.requests, c.requests_epoch, c.requests, c.jobs, c.jobs_epoch, c.jobs
  FROM unnest(CAST(:tenants AS uuid[]), CAST(:days AS date[]), CAST(:requests AS bigint[]),
              CAST(:requests_epochs AS text[]), CAST(:jobs AS bigint[]), CAST(:jobs_epochs AS text[]))
       AS c (tenant_id, day, requests, requests_epoch, jobs, jobs_epoch)
  JOIN platform.tenant t ON t.id = c.tenant_id
    ON CONFLICT (tenant_id, day) DO UPDATE SET
       plan = CASE WHEN u.day = CAST(:today AS date) THEN EXCLUDED.plan ELSE u.plan END,
       requests = u.requests + CASE WHEN EXCLUDED.requests_epoch IS NULL THEN 0
           WHEN u.requests_epoch IS DISTINCT FROM EXCLUDED.requests_epoch THEN EXCLUDED.requests_seen
           ELSE greatest(EXCLUDED.requests_seen - u.requests_seen, 0) END,
       requests_seen = CASE WHEN EXCLUDED.requests_epoch IS NULL THEN u.requests_seen
           WHEN u.requests_epoch IS DISTINCT FROM EXCLUDED.requests_epoch THEN EXCLUDED.requests_seen
           ELSE greatest(EXCLUDED.requests_seen, u.requests_seen) END,
       requests_epoch = coalesce(EXCLUDED.requests_epoch, u.requests_epoch),
       jobs = u.jobs + CASE WHEN EXCLUDED.jobs_epoch IS NULL THEN 0
           WHEN u.jobs_epoch IS DISTINCT FROM EXCLUDED.jobs_epoch THEN EXCLUDED.jobs_seen
           ELSE greatest(EXCLUDED.jobs_seen - u.jobs_seen, 0) END,
       jobs_seen = CASE WHEN EXCLUDED.jobs_epoch IS NULL THEN u.jobs_seen
           WHEN u.jobs_epoch IS DISTINCT FROM EXCLUDED.jobs_epoch THEN EXCLUDED.jobs_seen
           ELSE greatest(EXCLUDED.jobs_seen, u.jobs_seen) END,
       jobs_epoch = coalesce(EXCLUDED.jobs_epoch, u.jobs_epoch)
 WHERE (coalesce(EXCLUDED.requests_epoch, u.requests_epoch), EXCLUDED.requests_seen,
        coalesce(EXCLUDED.jobs_epoch, u.jobs_epoch), EXCLUDED.jobs_seen)
       IS DISTINCT FROM (u.requests_epoch, u.requests_seen, u.jobs_epoch, u.jobs_seen)
""")
_MEASURE = text("""
INSERT INTO platform.usage_day AS u (tenant_id, day, plan, storage_bytes, seats, measured_at)
SELECT t.id, CAST(:today AS date), t.plan, m.storage_bytes, m.seats, now()
  FROM platform.tenant t, LATERAL platform.measure_tenant(t.id) m
 WHERE t.id = :tenant_id
    ON CONFLICT (tenant_id, day) DO UPDATE SET plan = EXCLUDED.plan, measured_at = EXCLUDED.measured_at,
       storage_bytes = greatest(u.storage_bytes, EXCLUDED.storage_bytes), seats = greatest(u.seats, EXCLUDED.seats)
""")


class MeasuringError(Exception):
    """Some tenants could not be measured; the others were."""


async def write_down(session: AsyncSession, redis: Redis, marks: Sequence[Mark]) -> None:
    """Write down what is counted of some tenants and days; whoever calls commits, and soon: others wait for it.

    Tenants that are not known are passed over.

    Args:
        session: in the control plane's scope, or the owner's.
        redis: where it is counted.
        marks: each once.

    Raises:
        redis.RedisError: Redis is away.
    """
    await session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    counted = await read_counters(redis, marks, claim=True)
    found = [(mark, counters) for mark, counters in zip(marks, counted, strict=True) if counters]
    if not found:
        return
    await session.execute(
        _WRITE,
        {
            "tenants": [tenant_id for (_, tenant_id), _ in found],
            "days": [day for (day, _), _ in found],
            # One that was lost a moment ago, and has begun anew without an epoch, is the next reader's.
            "requests": [each.requests if each.requests_epoch else 0 for _, each in found],
            "requests_epochs": [each.requests_epoch if each.requests else None for _, each in found],
            "jobs": [each.jobs if each.jobs_epoch else 0 for _, each in found],
            "jobs_epochs": [each.jobs_epoch if each.jobs else None for _, each in found],
            "today": today(),
        },
    )


async def drain_marked(begin: Transactions, redis: Redis) -> int:
    """Write down the counters of all who are marked, a transaction for some hundred of them; how many there were.

    Raises:
        redis.RedisError: Redis is away; what is committed by then is written down.
    """
    marks = await take_marks(redis)
    for some in _batches(marks, _BATCH):
        async with begin() as session:
            await write_down(session, redis, some)
        # After the commit: who is killed in between leaves marks that are looked at once more, and for nothing.
        await release_marks(redis, some)
    return len(marks)


async def measure_due(begin: Transactions, redis: Redis, *, limit: int = _TOGETHER) -> int:
    """Measure the tenants that were not measured for long, today at the least; how many were.

    Their counters are written down as well, of all days of which there may be any: a process that was killed before it
    could mark whom it served leaves no other trace of them.

    Args:
        begin: a transaction in the control plane's scope, committed at the end of its block.
        redis: where requests and jobs are counted.
        limit: tenants at most; the others are for the next call.

    Raises:
        MeasuringError: some could not be measured; what they are is in the log.
        redis.RedisError: Redis is away.
    """
    day = today()
    async with begin() as session:
        measured = select(usage_day.c.tenant_id).where(
            usage_day.c.tenant_id == Tenant.id,
            usage_day.c.day == day,
            usage_day.c.measured_at > datetime.datetime.now(datetime.UTC) - MEASURED_EVERY,
        )
        due = select(Tenant.id).where(Tenant.status.in_(MEASURED_STATES), ~measured.exists())
        ids = list(await session.scalars(due.order_by(Tenant.id).limit(limit)))
    failed = 0
    for tenant_id in ids:
        try:
            async with begin() as session:
                await session.execute(_MEASURE, {"tenant_id": tenant_id, "today": day})
        except LOST as error:
            # Somebody holds one of its tables, a migration say. The others are not to wait for it.
            failed += 1
            _log.warning("a tenant was not measured", tenant_id=str(tenant_id), error=repr(error))
    for some in _batches((mark for tenant_id in ids for mark in days_of(tenant_id)), _BATCH):
        async with begin() as session:
            await write_down(session, redis, some)
    if failed:
        raise MeasuringError(f"{failed} of {len(ids)} tenants were not measured")
    return len(ids)


async def forget_old(session: AsyncSession) -> int:
    """Remove what is older than `KEPT` days; how many rows there were."""
    oldest = today() - datetime.timedelta(days=KEPT)
    gone = await session.execute(delete(usage_day).where(usage_day.c.day <= oldest).returning(usage_day.c.day))
    return len(gone.all())


def days_of(tenant_id: UUID) -> list[Mark]:
    """A tenant with all days of which there may be counters."""
    return [(today() - datetime.timedelta(days=age), tenant_id) for age in range(COUNTED_DAYS)]


def _batches(marks: Iterable[Mark], size: int) -> Iterator[list[Mark]]:
    rest = iter(marks)
    while some := list(islice(rest, size)):
        yield some
