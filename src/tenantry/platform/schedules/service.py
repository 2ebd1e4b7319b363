"""What operators see of schedules, and change in them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from litestar import Request
from litestar.di import NamedDependency, Provide
from litestar.params import SkipValidation
from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.jobs.models import ScheduleEntry
from tenantry.jobs.schedule import Schedule, check_timezone, enqueue_now, enrol_one, zone_chosen
from tenantry.kernel.errors import ResourceNotFoundException, UnavailableException, ValidationFailedException
from tenantry.kernel.schema import Page
from tenantry.kernel.service import Service
from tenantry.platform.audit.service import record
from tenantry.platform.schedules.schemas import ScheduleRead
from tenantry.platform.tenants.lifecycle import require_living
from tenantry.platform.tenants.service import TenantService
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.kernel.service import ListQuery

__all__ = ("ScheduleControl", "ScheduleService", "provide_schedules")


class ScheduleService(Service[ScheduleEntry]):
    """Rows of schedules."""

    class Repo(SQLAlchemyAsyncRepository[ScheduleEntry]):
        model_type = ScheduleEntry

    repository_type = Repo


class ScheduleControl:
    """On a session in the control plane's scope; `tenant` is a slug throughout, None the platform itself."""

    def __init__(self, session: AsyncSession, schedules: Mapping[str, Schedule]) -> None:
        """`schedules` are those that this release knows, by name."""
        self._session = session
        self._schedules = schedules

    async def page(
        self,
        listing: ListQuery,
        *,
        tenant: str | None = None,
        platform: bool = False,
        name: str | None = None,
        enabled: bool | None = None,
    ) -> Page[ScheduleRead]:
        """Schedules that tenants and the platform have rows of; `platform` for its own alone.

        Raises:
            ResourceNotFoundException: there is no such tenant.
            ValidationFailedException: both a tenant and the platform were asked for.
        """
        wanted: list[ColumnElement[bool]] = []
        if platform and tenant is not None:
            raise ValidationFailedException.of(
                "platform", "The platform's schedules are no organization's: leave out one of the two.", source="query"
            )
        if platform:
            wanted.append(ScheduleEntry.tenant_id.is_(None))
        if tenant is not None:
            wanted.append(ScheduleEntry.tenant_id == (await TenantService(session=self._session).by_slug(tenant)).id)
        if name is not None:
            wanted.append(ScheduleEntry.name == name)
        if enabled is not None:
            wanted.append(ScheduleEntry.enabled.is_(enabled))
        rows, total = await ScheduleService(session=self._session).get_many_and_count(
            *listing.filters(), *wanted, count_with_window_function=False
        )
        ids = {row.tenant_id for row in rows if row.tenant_id is not None}
        named = await self._session.execute(select(Tenant.id, Tenant.slug).where(Tenant.id.in_(ids)))
        slugs = {row.id: row.slug for row in named}
        items = [self._read(row, slugs.get(row.tenant_id)) for row in rows]
        return Page(items=items, total=total, page=listing.page, page_size=listing.page_size)

    async def read(self, tenant: str | None, name: str) -> ScheduleRead:
        """One schedule; as it is going to be, where there is no row of it yet.

        Raises:
            ResourceNotFoundException: there is no such tenant, or it has no such schedule in this release.
        """
        schedule, owner = self._schedule(name, tenant), await self._owner(tenant)
        row = await self._session.scalar(_row_of(owner, name))
        if row is None:
            zone: str = await self._session.scalar(select(zone_chosen(_id(owner)))) or "UTC"
            row = ScheduleEntry(
                tenant_id=_id(owner),
                name=name,
                enabled=True,
                timezone=zone,
                next_run_at=schedule.next_after(_now(), tenant_id=_id(owner), timezone=zone),
            )
        return self._read(row, tenant)

    async def change(self, tenant: str | None, name: str, changes: Mapping[str, Any], *, actor: str) -> ScheduleRead:
        """Switch a schedule on or off, or have it follow another clock; its row is made where there is none yet.

        What was missed while it was off stays missed: it is next due when the clock next says so.

        Args:
            tenant: whose it is.
            name: the schedule's.
            changes: `enabled` and `time_zone`, or one of them.
            actor: for the audit trail.

        Raises:
            ResourceNotFoundException: there is no such tenant, or it has no such schedule in this release.
            ValidationFailedException: there is no such time zone.
            ConflictException: the tenant was purged.
        """
        schedule = self._schedule(name, tenant)
        zone = None if (wanted := changes.get("time_zone")) is None else _checked(wanted)
        owner = await self._owner(tenant, lock=True)
        if not changes:
            return await self.read(tenant, name)
        row, made = await self._locked(schedule, owner)
        told: dict[str, Any] = {"made": True} if made else {}
        enabled = changes.get("enabled", row.enabled)
        if enabled != row.enabled:
            told["enabled"] = {"from": row.enabled, "to": enabled}
        if zone is not None and zone != row.timezone:
            told["timeZone"] = {"from": row.timezone, "to": zone}
        if zone is not None:
            # Also where it is the same: now somebody has chosen it.
            row.timezone_set_at = _now()
            row.timezone = zone
        if "timeZone" in told or (enabled and not row.enabled):
            row.next_run_at = schedule.next_after(_now(), tenant_id=row.tenant_id, timezone=row.timezone)
        row.enabled = enabled
        if told or zone is not None:
            record(
                self._session,
                actor=actor,
                action="schedule.change",
                tenant_id=row.tenant_id,
                target=name,
                details=told or {"timeZone": {"from": zone, "to": zone}},
            )
        await self._session.flush()
        return self._read(row, tenant)

    async def set_timezone(self, tenant: str, timezone: str, *, actor: str) -> list[ScheduleRead]:
        """Have all schedules of a tenant follow one clock, also those that it is going to get.

        Raises:
            ResourceNotFoundException: there is no such tenant.
            ValidationFailedException: there is no such time zone.
            ConflictException: the tenant was purged.
        """
        zone = _checked(timezone)
        owner = await self._owner(tenant, lock=True)
        changed: list[ScheduleRead] = []
        now = _now()
        for _, schedule in sorted(self._schedules.items()):
            if schedule.job.platform:
                continue
            row, _ = await self._locked(schedule, owner)
            if row.timezone != zone:
                row.next_run_at = schedule.next_after(now, tenant_id=row.tenant_id, timezone=zone)
            row.timezone, row.timezone_set_at = zone, now
            changed.append(self._read(row, tenant))
        record(
            self._session,
            actor=actor,
            action="schedule.set_timezone",
            tenant_id=_id(owner),
            details={"timeZone": zone, "schedules": [item.name for item in changed]},
        )
        await self._session.flush()
        return changed

    async def run(self, tenant: str | None, name: str, *, actor: str) -> tuple[UUID, bool]:
        """Have a schedule's job run now, also one that is switched off; the clock goes on as before.

        Returns the job's id, and whether it is a new one: while one waits or runs, it is that one.

        Raises:
            ResourceNotFoundException: there is no such tenant, or it has no such schedule in this release.
            ConflictException: the tenant was purged.
            UnavailableException: the one that ran ends at this very moment; it may be asked for again.
        """
        schedule = self._schedule(name, tenant)
        owner = await self._owner(tenant, lock=True)
        try:
            job_id, made = await enqueue_now(self._session, schedule, _id(owner), actor=actor)
        except LookupError as error:
            raise UnavailableException("The job that ran ends at this very moment: ask again.") from error
        record(
            self._session,
            actor=actor,
            action="schedule.run",
            tenant_id=_id(owner),
            target=name,
            details={"job": str(job_id), "new": made},
        )
        await self._session.flush()
        return job_id, made

    def _schedule(self, name: str, tenant: str | None) -> Schedule:
        found = self._schedules.get(name)
        if found is None or found.job.platform != (tenant is None):
            whose = "The platform has" if tenant is None else "Organizations have"
            raise ResourceNotFoundException(f"{whose} no schedule {name!r} in this release.")
        return found

    async def _owner(self, tenant: str | None, *, lock: bool = False) -> Tenant | None:
        """The tenant; with `lock` it stays what it is: a purge that has begun counts what there is of it."""
        if tenant is None:
            return None
        found = await TenantService(session=self._session).by_slug(tenant, lock=lock, key_share=True)
        if lock:
            require_living(found, "a change of its schedules")
        return found

    async def _locked(self, schedule: Schedule, owner: Tenant | None) -> tuple[ScheduleEntry, bool]:
        """The row, as whoever had it last has left it, and whether it was made just now."""
        locked = _row_of(owner, schedule.name).with_for_update()
        if (row := await self._session.scalar(locked)) is not None:
            return row, False
        await enrol_one(self._session, schedule, _id(owner))
        # A worker may have been first: then that one's.
        return (await self._session.scalars(locked)).one(), True

    def _read(self, row: ScheduleEntry, tenant: str | None) -> ScheduleRead:
        known = self._schedules.get(row.name)
        return ScheduleRead(
            name=row.name,
            tenant_id=row.tenant_id,
            tenant=tenant,
            enabled=row.enabled,
            time_zone=row.timezone,
            cron=None if known is None else known.cron,
            jitter=None if known is None else known.jitter,
            next_run_at=row.next_run_at,
            last_run_at=row.last_run_at,
        )


def _row_of(owner: Tenant | None, name: str) -> Any:
    return select(ScheduleEntry).where(
        ScheduleEntry.tenant_id.is_not_distinct_from(_id(owner)), ScheduleEntry.name == name
    )


def _id(owner: Tenant | None) -> UUID | None:
    return None if owner is None else owner.id


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _checked(name: str) -> str:
    try:
        return check_timezone(name)
    except ValueError:
        raise ValidationFailedException.of(
            "timeZone", f"Expected the name of a time zone, as Europe/Berlin; there is none called {name!r}."
        ) from None


async def _provide(
    request: Request[Any, Any, Any], db_session: NamedDependency[SkipValidation[AsyncSession]]
) -> ScheduleControl:
    return ScheduleControl(db_session, request.app.state.schedules)


provide_schedules = Provide(_provide)
