"""What tenants use, on the wire."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Literal
from uuid import UUID

import msgspec

from tenantry.kernel.schema import END, BaseStruct
from tenantry.platform.jobs.schemas import JobCounts
from tenantry.platform.tenants.usage import TenantUsage

__all__ = (
    "MONTH",
    "ExportFormat",
    "ExportRows",
    "MeteredUsage",
    "Top",
    "TopProcess",
    "TopRollout",
    "TopTenant",
    "UsageDayRead",
    "UsageLine",
    "UsageTotal",
    "month_of",
)

ExportFormat = Literal["csv", "jsonl"]
ExportRows = Literal["tenant", "day"]
"""A line for each tenant and the plan that it was on, or for each of its days."""
MONTH = rf"^2[0-9]{{3}}-(0[1-9]|1[0-2]){END}"


class UsageTotal(BaseStruct):
    """What was used in some days."""

    requests: int
    jobs: int
    """That were done; the nightly upkeep and whatever else comes by a schedule is not among them."""
    storage_bytes: int | None
    """The most that its tables, indexes included, took up; null: nobody has looked."""
    seats: int | None
    """The most active accounts that there were; likewise."""


class UsageDayRead(UsageTotal):
    """What was used on a day."""

    day: date
    """In UTC."""
    plan: str


class MeteredUsage(TenantUsage):
    """What a tenant takes up now, and what it has used in some days."""

    days: list[UsageDayRead] = msgspec.field(default_factory=list)
    """Those of which there is anything, the first one first."""
    today: UsageDayRead | None = None
    total: UsageTotal | None = None
    """Of `days` together."""
    is_live: bool = False
    """Whether what was counted in the last minute is in the numbers; not while Redis is away."""
    jobs: JobCounts | None = None
    """In the queue; null while Redis is away."""
    connections: int | None = None
    """Of the database, that are in the tenant's tables at this moment, of all processes."""


class UsageLine(BaseStruct):
    """A line of the export for billing."""

    period: str
    """The month (`2026-11`), or the day (`2026-11-23`)."""
    tenant_id: UUID
    tenant: str
    """Its slug; of one that was purged, what is left in the slug's place."""
    plan: str
    days: int
    """On which it was on that plan, and anything was written down."""
    requests: int
    jobs: int
    storage_bytes_max: int | None
    storage_bytes_mean: int | None
    """Of the days on which it was measured, as is the next one."""
    seats_max: int | None
    seats_mean: float | None


class TopTenant(BaseStruct):
    """A tenant at this moment."""

    tenant_id: UUID
    tenant: str | None
    """Its slug."""
    requests_per_second: float | None
    """Since the last look; null: this one was the first."""
    jobs_per_second: float | None
    requests_today: int
    """As Redis counts them, in UTC."""
    jobs_today: int
    jobs_waiting: int
    jobs_active: int
    connections: int
    """Of the database, that are in its tables, of all processes."""


class TopProcess(BaseStruct):
    """The connections of a kind of process."""

    name: str
    """What the connections are called (`application_name`): `tenantry-api`, `tenantry-worker`."""
    connections: int
    in_use: int
    """In a transaction."""


class TopRollout(BaseStruct):
    """A rollout that runs, or was halted."""

    id: UUID
    target: str
    status: str
    pending: int
    """Tenants."""
    done: int
    failed: int


class Top(BaseStruct):
    """The deployment at this moment."""

    at: datetime
    seconds: float | None
    """Since the last look, over which the rates are."""
    is_live: bool
    """Whether Redis answers; without it counts and queues are left out."""
    requests_per_second: float | None
    """Of all tenants."""
    jobs_per_second: float | None
    active_tenants: int
    """That have used something since this began to look."""
    tenants: list[TopTenant]
    """The busiest ones first."""
    queues: JobCounts | None
    workers: int | None
    """That are alive."""
    processes: list[TopProcess]
    warm_schemas: int
    """Schemas that wait for their tenant."""
    rollouts: list[TopRollout]


def month_of(text: str) -> tuple[date, date]:
    """The first and the last day of a `Month`.

    Raises:
        ValueError: it is none.
    """
    if not re.search(MONTH, text):
        raise ValueError(f"expected a month such as 2026-11, got {text!r}")
    first = date.fromisoformat(f"{text}-01")
    following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return first, date.fromordinal(following.toordinal() - 1)
