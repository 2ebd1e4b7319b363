"""What the dashboard shows of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import text

from tenantry.kernel.feature import DashboardPart
from tenantry.kernel.schema import BaseStruct

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.tenancy.guards import Principal

__all__ = ("JOBS_PART", "FailedJob", "JobsPart")

_MOST = 10
# The tenant is the transaction's, as in `platform.own_job` (migrations/shared, 0007).
_DEAD = text("SELECT id, name, died_at FROM platform.own_dead_jobs(:most)")


class FailedJob(BaseStruct):
    """A job that was given up. Why, is for the operators, who can have it tried again."""

    id: UUID
    name: str
    failed_at: datetime


class JobsPart(BaseStruct):
    failed: list[FailedJob]
    """The last ten of them."""


async def _read(session: AsyncSession, _: Principal) -> JobsPart:
    dead = await session.execute(_DEAD, {"most": _MOST})
    return JobsPart(failed=[FailedJob(id=row.id, name=row.name, failed_at=row.died_at) for row in dead])


JOBS_PART = DashboardPart("jobs", _read, "jobs:read")
