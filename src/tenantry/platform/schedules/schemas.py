"""Schedules on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta

from tenantry.kernel.schema import UNSET, BaseStruct, UnsetType, Update

__all__ = ("ScheduleRead", "ScheduleRun", "ScheduleUpdate", "TenantSchedules", "TimeZone", "TimeZoneUpdate")

TimeZone = Annotated[
    str,
    Meta(min_length=1, max_length=64, description="An IANA name.", examples=["Europe/Berlin", "UTC"]),
]


class ScheduleRead(BaseStruct):
    """When a job comes back, for one organization or for the platform."""

    name: str
    """The job's: a job has one schedule."""
    tenant_id: UUID | None
    """None: the platform's own."""
    tenant: str | None
    """The organization's slug."""
    enabled: bool
    time_zone: str
    """In which `cron` is read."""
    cron: str | None
    """A crontab line of five fields; None where this release does not know the schedule, which then rests."""
    jitter: int | None
    """Seconds over which organizations are spread; each is always at the same place."""
    next_run_at: datetime
    """Not before, if it is enabled."""
    last_run_at: datetime | None
    """When the clock last enqueued it; what an operator ran by hand does not count."""


class ScheduleUpdate(Update):
    """What to change of a schedule."""

    enabled: bool | UnsetType = UNSET
    time_zone: TimeZone | UnsetType = UNSET


class TimeZoneUpdate(BaseStruct):
    """The time zone of all of an organization's schedules."""

    time_zone: TimeZone


class TenantSchedules(BaseStruct):
    """All schedules of an organization that this release knows."""

    items: list[ScheduleRead]


class ScheduleRun(BaseStruct):
    """The job that does what a schedule is for, now."""

    job_id: UUID
    already_waiting: bool
    """One waits or runs already, and it is that one: there is no second."""
