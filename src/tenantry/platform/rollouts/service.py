"""What rollouts do, as operators see it; `steering` starts and ends them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import ColumnElement, Interval, cast, func, select

from tenantry.kernel.errors import ResourceNotFoundException, ValidationFailedException
from tenantry.kernel.schema import Page
from tenantry.kernel.service import Service, create_service_provider, to_struct
from tenantry.platform.rollouts.models import Rollout, RolloutTenant
from tenantry.platform.rollouts.planning import UnknownSlugError, plan
from tenantry.platform.rollouts.schemas import (
    RevisionRead,
    RolloutDetail,
    RolloutGroup,
    RolloutPlan,
    RolloutRead,
    RolloutTenantRead,
    RolloutWave,
)
from tenantry.platform.rollouts.steering import fetch_in
from tenantry.tenancy.models import Tenant
from tenantry.tenancy.revisions import UnknownRevisionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.service import ListQuery

__all__ = ("RolloutService", "RolloutTenantService", "provide_rollout_tenants", "provide_rollouts", "read_plan")

_RECENT = datetime.timedelta(seconds=30)
"""What the rate is measured over: a rollout speeds up and slows down with the sizes of its tenants."""
_MISSING = "There is no such rollout."


class RolloutService(Service[Rollout]):
    """Rollouts, and how far they are."""

    class Repo(SQLAlchemyAsyncRepository[Rollout]):
        model_type = Rollout

    repository_type = Repo

    async def detail(self, rollout_id: UUID) -> RolloutDetail:
        """A rollout with its tenants counted by status and wave.

        Raises:
            ResourceNotFoundException: there is none of that id.
        """
        rollout = await self.get_one_or_none(id=rollout_id)
        if rollout is None:
            raise ResourceNotFoundException(_MISSING)
        session = self.repository.session
        status, finished_at = RolloutTenant.status, RolloutTenant.finished_at
        recent = finished_at > func.now() - _RECENT
        # A tenant that failed before it began has no duration.
        began_at: ColumnElement[datetime.datetime | None] = finished_at - cast(
            func.concat(func.coalesce(RolloutTenant.duration, 0), " milliseconds"), Interval
        )
        rows = (
            await session.execute(
                select(
                    RolloutTenant.wave,
                    func.count().label("total"),
                    *(func.count().filter(status == name).label(name) for name in ("pending", "done", "failed")),
                    func.count().filter(recent).label("recent"),
                    func.min(began_at).filter(recent).label("since"),
                    func.now().label("now"),
                )
                .where(RolloutTenant.rollout_id == rollout_id)
                .group_by(RolloutTenant.wave)
                .order_by(RolloutTenant.wave)
            )
        ).all()
        waves = [to_struct(row, RolloutWave) for row in rows]
        pending = sum(wave.pending for wave in waves)
        rate = _rate(rows) if rollout.status == "running" else None
        return RolloutDetail(
            **{name: getattr(rollout, name) for name in RolloutRead.__struct_fields__},
            total=sum(wave.total for wave in waves),
            pending=pending,
            done=sum(wave.done for wave in waves),
            failed=sum(wave.failed for wave in waves),
            waves=waves,
            rate=rate,
            estimated_end=rows[0].now + datetime.timedelta(seconds=pending / rate) if rate else None,
        )


def _rate(rows: Sequence[Any]) -> float | None:
    recent = sum(row.recent for row in rows)
    if not recent:
        return None
    # The database's clock throughout. Its `now()` is the transaction's beginning, which a tenant may end after.
    took: datetime.timedelta = rows[0].now - min(row.since for row in rows if row.since is not None)
    return round(float(recent) / max(took.total_seconds(), 0.001), 3)


class RolloutTenantService(Service[RolloutTenant]):
    """The tenants of rollouts."""

    class Repo(SQLAlchemyAsyncRepository[RolloutTenant]):
        model_type = RolloutTenant

    repository_type = Repo

    async def of_rollout(
        self, rollout_id: UUID, listing: ListQuery, *, status: str | None = None
    ) -> Page[RolloutTenantRead]:
        """A page of what became of each tenant; `search` is in their slugs.

        Raises:
            ResourceNotFoundException: there is no such rollout.
        """
        session = self.repository.session
        if await session.scalar(select(Rollout.id).where(Rollout.id == rollout_id)) is None:
            raise ResourceNotFoundException(_MISSING)
        wanted: list[ColumnElement[bool]] = [RolloutTenant.rollout_id == rollout_id]
        if status is not None:
            wanted.append(RolloutTenant.status == status)
        if listing.search:
            named = select(Tenant.id).where(Tenant.slug.icontains(listing.search, autoescape=True))
            wanted.append(RolloutTenant.tenant_id.in_(named))
        rows, total = await self.get_many_and_count(*listing.filters(), *wanted, count_with_window_function=False)
        named_now = select(Tenant.id, Tenant.slug).where(Tenant.id.in_([row.tenant_id for row in rows]))
        slugs = {row.id: row.slug for row in await session.execute(named_now)}
        fields = [name for name in RolloutTenantRead.__struct_fields__ if name != "slug"]
        return Page(
            items=[
                RolloutTenantRead(slug=slugs[row.tenant_id], **{name: getattr(row, name) for name in fields})
                for row in rows
            ],
            total=total,
            page=listing.page,
            page_size=listing.page_size,
        )


async def read_plan(session: AsyncSession, target: str | None, only: list[str] | None) -> RolloutPlan:
    """What a rollout would do.

    Raises:
        ValidationFailedException: there is no such revision, or no such slug.
    """
    try:
        found = await plan(fetch_in(session), target, only)
    except UnknownRevisionError as error:
        raise ValidationFailedException.of(
            "target", f"Expected a revision of this release: {error}.", source="query"
        ) from error
    except UnknownSlugError as error:
        raise ValidationFailedException.of("only", str(error), source="query") from error
    return RolloutPlan(
        target=found.target,
        tenants=found.tenants,
        current=found.current,
        stale=found.stale,
        groups=[
            RolloutGroup(
                revision=group.revision,
                tenants=group.tenants,
                steps=[to_struct(step, RevisionRead) for step in group.steps],
            )
            for group in found.groups
        ],
        unknown=found.unknown,
        provisioning=found.provisioning,
    )


provide_rollouts = create_service_provider(RolloutService, error_messages={"not_found": _MISSING})
provide_rollout_tenants = create_service_provider(RolloutTenantService)
