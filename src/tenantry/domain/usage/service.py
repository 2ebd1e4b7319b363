"""The organization's use: the control plane's rows, for which a tenant asks by a function, and what is not in them yet.

The function takes the tenant from the transaction's role, never from an argument (migrations/shared, 0010).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar.di import NamedDependency, Provide
from litestar.params import SkipValidation
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.usage.schemas import OwnUsage, OwnUsageDay, OwnUsageTotal
from tenantry.tenancy.use import Uncounted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

__all__ = ("OwnUsageService", "provide_own_usage", "put_together")

_OWN_USE = text("SELECT * FROM platform.own_use(:since, :until)")


class OwnUsageService:
    """What is written down of an organization's use, on a session in its own scope."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def written(self, since: date, until: date) -> dict[date, Any]:
        """Rows by their day, from the one to the other, both included."""
        found = await self._session.execute(_OWN_USE, {"since": since, "until": until})
        return {row.day: row for row in found}


def put_together(
    since: date, until: date, written: Mapping[date, Any], uncounted: Mapping[date, Uncounted] | None
) -> OwnUsage:
    """The answer: what is written down, and what is not yet (None: nobody knows)."""
    more, days = uncounted or {}, []
    for day in sorted({*written, *more}):
        row, added = written.get(day), more.get(day, Uncounted())
        days.append(
            OwnUsageDay(
                day=day,
                requests=added.requests if row is None else row.requests + added.requests,
                jobs=added.jobs if row is None else row.jobs + added.jobs,
                storage_bytes=None if row is None else row.storage_bytes,
                seats=None if row is None else row.seats,
            )
        )
    return OwnUsage(
        since=since,
        until=until,
        days=days,
        total=OwnUsageTotal(
            requests=sum(day.requests for day in days),
            jobs=sum(day.jobs for day in days),
            storage_bytes=max((day.storage_bytes for day in days if day.storage_bytes is not None), default=None),
            seats=max((day.seats for day in days if day.seats is not None), default=None),
        ),
        is_live=uncounted is not None,
    )


async def _provide(db_session: NamedDependency[SkipValidation[AsyncSession]]) -> OwnUsageService:
    return OwnUsageService(db_session)


provide_own_usage = Provide(_provide)
