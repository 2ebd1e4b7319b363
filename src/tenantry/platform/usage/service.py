"""What operators are told of use: of one tenant now and day by day, and of all for the bills of a month."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import RedisError
from sqlalchemy import BigInteger, Float, cast, func, literal_column, select, text

from tenantry.kernel.errors import UnavailableException
from tenantry.platform.tenants.usage import read_usage
from tenantry.platform.usage.models import usage_day
from tenantry.platform.usage.schemas import MeteredUsage, UsageDayRead, UsageLine, UsageTotal, month_of
from tenantry.tenancy.models import Tenant, schema_name
from tenantry.tenancy.use import Uncounted, read_uncounted, today

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from datetime import date
    from uuid import UUID

    from redis.asyncio import Redis
    from sqlalchemy import Select

    from tenantry.kernel.feature import UsageHook
    from tenantry.platform.jobs.service import JobControl
    from tenantry.platform.usage.schemas import ExportFormat, ExportRows
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("CONNECTIONS", "MEDIA_TYPES", "Metering", "add_up", "export_pieces")

MEDIA_TYPES = {"csv": "text/csv; charset=utf-8; header=present", "jsonl": "application/x-ndjson"}
_CHUNK = 500
"""Tenants whose lines are read, and sent, at a time."""

# Whoever is in a tenant's table holds a lock on it, which everybody may see; whose transaction it is, in
# pg_stat_activity, only its own login may.
CONNECTIONS = text("""
SELECT n.nspname AS schema, count(DISTINCT l.pid) AS connections
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_class c ON c.oid = l.relation
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE l.locktype = 'relation'
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
   AND n.nspname ~ :schemas
 GROUP BY n.nspname
""")
_encode_lines = msgspec.json.Encoder().encode_lines


class Metering:
    """Its transactions are short and its own, one after the other; the caller must hold none."""

    def __init__(
        self, *, database: Database, read_scope: Scope, redis: Redis, jobs: JobControl, hooks: Sequence[UsageHook]
    ) -> None:
        """`read_scope` is the control plane's; `hooks` count what there is in a tenant's own."""
        self._database = database
        self._read_scope = read_scope
        self._redis = redis
        self._jobs = jobs
        self._hooks = hooks

    async def of(self, context: TenantContext, since: date, until: date) -> MeteredUsage:
        """What one tenant takes up, and what it has used from the one day to the other, both included."""
        # Where there is no schema there is nothing to look at; the days stay.
        taken_up = await read_usage(context, database=self._database, read_scope=self._read_scope, hooks=self._hooks)
        found = await self.days(context.id, since, until)
        found.size, found.users = taken_up.size, taken_up.users
        found.last_activity_at, found.pending_operation = taken_up.last_activity_at, taken_up.pending_operation
        async with self._database.transaction(self._read_scope) as transaction:
            row = (
                await transaction.session.execute(CONNECTIONS, {"schemas": f"^{schema_name(context.id)}$"})
            ).one_or_none()
        found.connections = 0 if row is None else row.connections
        try:
            found.jobs = (await self._jobs.stats(tenant=context.slug, limit=1)).total
        except (UnavailableException, RedisError, OSError, TimeoutError):
            # Redis is away; the rest is known all the same.
            found.jobs = None
        return found

    async def days(self, tenant_id: UUID, since: date, until: date) -> MeteredUsage:
        """What it has used, and nothing of what it takes up now: all that there is of a purged one."""
        now = today()
        async with self._database.transaction(self._read_scope) as transaction:
            session = transaction.session
            plan = await session.scalar(select(Tenant.plan).where(Tenant.id == tenant_id))
            rows = (
                await session.execute(
                    select(usage_day)
                    .where(usage_day.c.tenant_id == tenant_id, usage_day.c.day.between(since, until))
                    .order_by(usage_day.c.day)
                )
            ).all()
        written = {row.day: row for row in rows}
        live = await read_uncounted(self._redis, tenant_id, since, until, written)
        days = [
            UsageDayRead(
                day=day,
                plan=(plan or "") if row is None else row.plan,
                requests=(0 if row is None else row.requests) + more.requests,
                jobs=(0 if row is None else row.jobs) + more.jobs,
                storage_bytes=None if row is None else row.storage_bytes,
                seats=None if row is None else row.seats,
            )
            for day in sorted({*written, *(live or {})})
            for row, more in [(written.get(day), (live or {}).get(day, Uncounted()))]
        ]
        return MeteredUsage(
            size=0,
            days=days,
            today=next((each for each in days if each.day == now), None),
            total=add_up(days),
            is_live=live is not None,
        )


def add_up(days: Iterable[UsageDayRead]) -> UsageTotal:
    """Of some days the sum of what was done, and the most of what there was."""
    rows = list(days)
    return UsageTotal(
        requests=sum(row.requests for row in rows),
        jobs=sum(row.jobs for row in rows),
        storage_bytes=max((row.storage_bytes for row in rows if row.storage_bytes is not None), default=None),
        seats=max((row.seats for row in rows if row.seats is not None), default=None),
    )


async def export_pieces(
    database: Database, scope: Scope, month: str, *, rows: ExportRows, form: ExportFormat, chunk: int = _CHUNK
) -> AsyncIterator[bytes]:
    """The use of all tenants in a month, purged ones included; a transaction for each piece, none while it is sent.

    As it is written down: of the present day all but the last minute or so.

    Args:
        scope: the control plane's, for reading.
        chunk: tenants whose lines are in a piece.

    Raises:
        ValueError: `month` is none.
    """
    since, until = month_of(month)
    async with database.transaction(scope) as transaction:
        ids = list(
            await transaction.session.scalars(
                select(usage_day.c.tenant_id)
                .where(usage_day.c.day.between(since, until))
                .distinct()
                .order_by(usage_day.c.tenant_id)
            )
        )
    if form == "csv":
        yield _csv([UsageLine.__struct_encode_fields__])
    for start in range(0, len(ids), chunk):
        async with database.transaction(scope) as transaction:
            wanted = _lines(ids[start : start + chunk], since, until, rows)
            found = [UsageLine(**row) for row in (await transaction.session.execute(wanted)).mappings()]
        yield _encode_lines(found) if form == "jsonl" else _csv(map(_cells, found))


def _lines(ids: Sequence[UUID], since: date, until: date, rows: ExportRows) -> Select[Any]:
    use = usage_day.c
    # Written out: as a parameter it would be another one in GROUP BY than in the list.
    name = func.to_char(use.day, literal_column("'YYYY-MM'" if rows == "tenant" else "'YYYY-MM-DD'"))
    return (
        select(
            name.label("period"),
            use.tenant_id,
            Tenant.slug.label("tenant"),
            use.plan,
            func.count().label("days"),
            # A sum of bigint is numeric, and JSON has it as text.
            cast(func.sum(use.requests), BigInteger).label("requests"),
            cast(func.sum(use.jobs), BigInteger).label("jobs"),
            func.max(use.storage_bytes).label("storage_bytes_max"),
            cast(func.round(func.avg(use.storage_bytes)), BigInteger).label("storage_bytes_mean"),
            func.max(use.seats).label("seats_max"),
            cast(func.round(func.avg(use.seats), 2), Float).label("seats_mean"),
        )
        .join(Tenant, Tenant.id == use.tenant_id)
        .where(use.tenant_id.in_(ids), use.day.between(since, until))
        .group_by(name, use.tenant_id, Tenant.slug, use.plan)
        .order_by(use.tenant_id, name, use.plan)
    )


def _cells(line: UsageLine) -> list[object]:
    return ["" if value is None else value for value in msgspec.structs.astuple(line)]


def _csv(rows: Iterable[Iterable[object]]) -> bytes:
    # RFC 4180: lines end in CRLF. No cell can begin a spreadsheet's formula: slugs, words of plans, and numbers.
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode()
