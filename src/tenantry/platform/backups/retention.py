"""Which backups are kept: the last of each of so many days, weeks and months, and always the last good one."""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.platform.audit.service import record
from tenantry.platform.backups.store import by_folder
from tenantry.platform.backups.swapping import drop_kept, kept_schemas
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.platform.backups.format import BackupName
    from tenantry.platform.backups.store import BackupStore
    from tenantry.platform.backups.swapping import KeptSchema

__all__ = ("Keep", "PrunePlan", "plan_prune", "prune", "to_keep")

_WRITTEN_FOR = datetime.timedelta(days=1)
"""For so long a file without a manifest may still be somebody's who writes."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How many of each; days, weeks (ISO 8601) and months are UTC's. `purged` is in days."""

    daily: int
    weekly: int
    monthly: int
    purged: int


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What would be removed, and what cannot be."""

    backups: tuple[BackupName, ...]
    files: tuple[str, ...]
    """Of backups that were never finished."""
    kept: tuple[KeptSchema, ...]
    """Schemas that were replaced by a restore, and whose time is over."""
    stuck: tuple[str, ...]
    """Folders of which nothing is removed, since no backup in them is good."""

    @property
    def is_empty(self) -> bool:
        return not (self.backups or self.files or self.kept)


def to_keep(names: Iterable[BackupName], keep: Keep) -> set[BackupName]:
    """Of one tenant's backups, or the shared schema's, those that are kept by the calendar.

    The newest of each of the last `daily` days that have one, and likewise of weeks and months: where nothing was
    backed up for a while, nothing is lost by that.
    """
    newest_first = sorted(names, key=lambda name: name.id, reverse=True)
    kept: set[BackupName] = set()
    for count, period in ((keep.daily, _day), (keep.weekly, _week), (keep.monthly, _month)):
        kept.update(_newest_of(newest_first, count, period))
    return kept


def _newest_of(
    newest_first: Sequence[BackupName], count: int, period: Callable[[datetime.datetime], Hashable]
) -> list[BackupName]:
    found: dict[Hashable, BackupName] = {}
    for name in newest_first:
        found.setdefault(period(name.moment), name)
    return list(found.values())[:count]


def _day(moment: datetime.datetime) -> Hashable:
    return moment.date()


def _week(moment: datetime.datetime) -> Hashable:
    return moment.isocalendar()[:2]


def _month(moment: datetime.datetime) -> Hashable:
    return moment.year, moment.month


async def plan_prune(engine: AsyncEngine, store: BackupStore, keep: Keep) -> PrunePlan:
    """Look at everything; change nothing.

    Of tenants that were purged, all backups go when their time is over: they are the last of their people's data. Of
    the others, the last good one stays, however old it is.
    """
    now = datetime.datetime.now(datetime.UTC)
    listing = await store.list()
    async with AsyncSession(engine) as session:
        purged: dict[UUID, datetime.datetime] = {
            row.id: row.status_changed_at
            for row in await session.execute(
                select(Tenant.id, Tenant.status_changed_at).where(Tenant.status == "purged")
            )
        }
    doomed: list[BackupName] = []
    stuck: list[str] = []
    for tenant_id, names in by_folder(listing.good).items():
        if tenant_id is not None and tenant_id in purged:
            if purged[tenant_id] + datetime.timedelta(days=keep.purged) <= now:
                doomed += names
            continue
        leaving = [name for name in names if name not in to_keep(names, keep)]
        if not leaving:
            continue
        last_good = await _last_good(store, names)
        if last_good is None:
            stuck.append(names[0].folder)
            continue
        doomed += [name for name in leaving if name != last_good]
    files = tuple(key for key, modified in listing.partial if modified + _WRITTEN_FOR <= now)
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        kept = tuple(found for found in await kept_schemas(driver) if found.until <= now)  # type: ignore[arg-type]
    return PrunePlan(tuple(doomed), files, kept, tuple(stuck))


async def _last_good(store: BackupStore, newest_first: Sequence[BackupName]) -> BackupName | None:
    for name in newest_first:
        if await store.is_whole(name):
            return name
    return None


async def prune(engine: AsyncEngine, store: BackupStore, plan: PrunePlan, *, actor: str) -> None:
    """Remove what the plan says, and write that down first: what is removed cannot be asked any more.

    Raises:
        StorageUnavailableError: the place is away; the rest goes the next time.
    """
    async with AsyncSession(engine) as session, session.begin():
        record(
            session,
            actor=actor,
            action="backup.pruned",
            details={
                "backups": len(plan.backups),
                "files": len(plan.files),
                "oldest": min((name.id for name in plan.backups), default=None),
                "schemas": [kept.name for kept in plan.kept],
            },
        )
    for kept in plan.kept:
        async with engine.begin() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            await drop_kept(driver, kept)  # type: ignore[arg-type]
    for name in plan.backups:
        await store.delete(name)
    for key in plan.files:
        await store.delete_file(key)
