"""What is going on at this moment, for `tenantry top`: who is busiest, what waits, and what the pools hold.

Rates are the difference of two looks at the counters in Redis, of the tenants that are marked there: those that have
used something lately, however many there are besides. Everything else is a handful of statements on the catalog and the
control plane's tables, whatever the number of tenants.
"""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from redis.exceptions import RedisError
from sqlalchemy import func, select, text

from tenantry.kernel.errors import UnavailableException
from tenantry.platform.provisioning.models import WarmSchema
from tenantry.platform.rollouts.models import Rollout, RolloutTenant
from tenantry.platform.usage.schemas import Top, TopProcess, TopRollout, TopTenant
from tenantry.platform.usage.service import CONNECTIONS
from tenantry.tenancy.models import Tenant, schema_name
from tenantry.tenancy.use import Counters, marked, read_counters, today

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.platform.jobs.schemas import JobStats
    from tenantry.platform.jobs.service import JobControl
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("Sort", "TopReader")

Sort = Literal["requests", "jobs", "waiting", "connections", "today"]

_MOST_QUEUES = 1000
_TENANTS = "^t_[0-9a-f]{32}$"
# Whether a connection is in a transaction pg_stat_activity tells its own login alone, and pg_locks everybody: a
# transaction holds a lock on its own number. What follows a colon is what the transaction says of itself.
_PROCESSES = text("""
SELECT split_part(a.application_name, ':', 1) AS name, count(*) AS connections, count(v.pid) AS in_use
  FROM pg_catalog.pg_stat_activity a
  LEFT JOIN (SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l
              WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock') v ON v.pid = a.pid
 WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
 GROUP BY split_part(a.application_name, ':', 1)
 ORDER BY connections DESC, name
""")


class TopReader:
    """Looks once in a while, and remembers the last look. Its transaction is short and its own."""

    def __init__(
        self,
        *,
        database: Database,
        read_scope: Scope,
        redis: Redis,
        jobs: JobControl,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read_scope` is the control plane's; `clock` is in seconds."""
        self._database = database
        self._read_scope = read_scope
        self._redis = redis
        self._jobs = jobs
        self._clock = clock
        self._day: datetime.date | None = None
        self._known: set[UUID] = set()
        self._before: Mapping[UUID, Counters] = {}
        self._at = 0.0

    async def look(self, *, limit: int = 20, sort: Sort = "requests") -> Top:
        """How it is now; rates are those since the last look, and unknown at the first.

        Args:
            limit: tenants that are listed.
            sort: by what the busiest are.

        Raises:
            OSError, sqlalchemy.exc.SQLAlchemyError: the database is away. Without Redis, what it knows is left out.
        """
        counted, seconds = await self._count()
        stats = await self._stats()
        async with self._database.transaction(self._read_scope) as transaction:
            session = transaction.session
            connections: dict[str, int] = {
                row.schema: row.connections for row in await session.execute(CONNECTIONS, {"schemas": _TENANTS})
            }
            processes = [TopProcess(**row) for row in (await session.execute(_PROCESSES)).mappings()]
            warm = await session.scalar(select(func.count()).select_from(WarmSchema)) or 0
            rollouts = await _rollouts(session)
            rows = self._rows(counted or {}, seconds, stats, connections)
            rows.sort(key=lambda row: _order(row, sort))
            listed = [row for row in rows if _is_busy(row)][:limit]
            await _name(session, listed)
        if counted is not None:
            self._before = counted
        return Top(
            at=datetime.datetime.now(datetime.UTC),
            seconds=seconds,
            is_live=counted is not None and stats is not None,
            requests_per_second=_sum(row.requests_per_second for row in rows),
            jobs_per_second=_sum(row.jobs_per_second for row in rows),
            active_tenants=len(counted or {}),
            tenants=listed,
            queues=None if stats is None else stats.total,
            workers=None if stats is None else len(stats.workers),
            processes=processes,
            warm_schemas=warm,
            rollouts=rollouts,
        )

    async def _count(self) -> tuple[dict[UUID, Counters] | None, float | None]:
        """The counters of today of who is known to use something, and the seconds since they were last looked at."""
        day = today()
        if day != self._day:
            # At midnight all counters begin anew.
            self._day, self._known, self._before, self._at = day, set(), {}, 0.0
        try:
            self._known |= await marked(self._redis, day)
            ids = sorted(self._known)
            now = self._clock()
            found = await read_counters(self._redis, [(day, tenant_id) for tenant_id in ids])
        except (RedisError, OSError, TimeoutError):
            return None, None
        seconds = now - self._at if self._before else None
        self._at = now
        return dict(zip(ids, found, strict=True)), seconds

    async def _stats(self) -> JobStats | None:
        try:
            return await self._jobs.stats(limit=_MOST_QUEUES)
        except UnavailableException:
            return None

    def _rows(
        self,
        counted: Mapping[UUID, Counters],
        seconds: float | None,
        stats: JobStats | None,
        connections: Mapping[str, int],
    ) -> list[TopTenant]:
        queues = {} if stats is None else {row.tenant_id: row for row in stats.tenants if row.tenant_id is not None}
        by_schema = {schema_name(tenant_id): tenant_id for tenant_id in (*counted, *queues)}
        others = {_id_of(schema) for schema in connections if schema not in by_schema}
        rows = []
        for tenant_id in {*counted, *queues, *others}:
            now, before = counted.get(tenant_id, Counters()), self._before.get(tenant_id)
            queue = queues.get(tenant_id)
            rows.append(
                TopTenant(
                    tenant_id=tenant_id,
                    tenant=None,
                    # Of one that was not looked at before nobody knows how much of its count is new.
                    requests_per_second=_rate(now.requests, None if before is None else before.requests, seconds),
                    jobs_per_second=_rate(now.jobs, None if before is None else before.jobs, seconds),
                    requests_today=now.requests,
                    jobs_today=now.jobs,
                    jobs_waiting=0 if queue is None else queue.waiting,
                    jobs_active=0 if queue is None else queue.active,
                    connections=connections.get(schema_name(tenant_id), 0),
                )
            )
        return rows


def _rate(now: int, before: int | None, seconds: float | None) -> float | None:
    if before is None or not seconds:
        return None
    # A counter that Redis has lost meanwhile has begun anew.
    return round(max(0, now - before) / seconds, 2)


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return round(sum(known), 2) if known else None


def _is_busy(row: TopTenant) -> bool:
    return any(
        (row.requests_per_second, row.jobs_per_second, row.jobs_waiting, row.jobs_active, row.connections)
    ) or bool(row.requests_today or row.jobs_today)


def _order(row: TopTenant, sort: Sort) -> tuple[float, ...]:
    by: dict[Sort, float] = {
        "requests": row.requests_per_second or 0,
        "jobs": row.jobs_per_second or 0,
        "waiting": row.jobs_waiting,
        "connections": row.connections,
        "today": row.requests_today,
    }
    return (-by[sort], -(row.requests_per_second or 0), -row.requests_today, row.tenant_id.int)


def _id_of(schema: str) -> UUID:
    return UUID(hex=schema.removeprefix("t_"))


async def _name(session: AsyncSession, rows: Sequence[TopTenant]) -> None:
    if rows:
        named = await session.execute(
            select(Tenant.id, Tenant.slug).where(Tenant.id.in_([row.tenant_id for row in rows]))
        )
        slugs = {row.id: row.slug for row in named}
        for row in rows:
            row.tenant = slugs.get(row.tenant_id)


async def _rollouts(session: AsyncSession) -> list[TopRollout]:
    """Those under way, and those that were halted and wait for somebody."""
    states = {state: func.count().filter(RolloutTenant.status == state) for state in ("pending", "done", "failed")}
    found = await session.execute(
        select(
            Rollout.id,
            Rollout.target,
            Rollout.status,
            *(counted.label(state) for state, counted in states.items()),
        )
        .outerjoin(RolloutTenant, RolloutTenant.rollout_id == Rollout.id)
        .where(Rollout.status.in_(("running", "halted")))
        .group_by(Rollout.id)
        .order_by(Rollout.id.desc())
        .limit(5)
    )
    return [TopRollout(**row) for row in found.mappings()]
