"""Routes of schedules, for operators."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, get, patch, post
from litestar.datastructures import ResponseHeader
from litestar.params import Body, FromPath, QueryParameter
from litestar.status_codes import HTTP_202_ACCEPTED

from tenantry.kernel.schema import Page, Slug, changes
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.platform.access import actor_of
from tenantry.platform.schedules.schemas import (
    ScheduleRead,
    ScheduleRun,
    ScheduleUpdate,
    TenantSchedules,
    TimeZoneUpdate,
)
from tenantry.platform.schedules.service import ScheduleControl, provide_schedules
from tenantry.tenancy.guards import requires_permission

__all__ = ("ScheduleController", "TenantScheduleController")

_JOB = [ResponseHeader(name="Location", description="The job's address.", documentation_only=True)]


class ScheduleController(Controller):
    """Jobs that come back by the clock: those of all organizations, and the platform's own."""

    path = "/schedules"
    tags = ["platform"]
    dependencies = {"schedules": provide_schedules}

    @get(
        "/",
        operation_id="ListSchedules",
        summary="List schedules",
        guards=[requires_permission("jobs:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("next_run_at", "last_run_at", "name"),
                searched=("name",),
                default="next_run_at",
                others=("tenant", "platform", "name", "enabled"),
            )
        },
    )
    async def list_schedules(
        self,
        schedules: Injected[ScheduleControl],
        listing: Injected[ListQuery],
        tenant: Annotated[Slug | None, QueryParameter(description="This organization's alone: its slug.")] = None,
        platform: Annotated[bool, QueryParameter(description="The platform's own alone.")] = False,
        name: Annotated[
            str | None, QueryParameter(min_length=1, max_length=100, description="Of this job alone.")
        ] = None,
        enabled: Annotated[bool | None, QueryParameter(description="Those alone that are switched on, or off.")] = None,
    ) -> Page[ScheduleRead]:
        """Schedules, the next that is due first. An organization that was made a moment ago gets its own within a
        minute."""
        return await schedules.page(listing, tenant=tenant, platform=platform, name=name, enabled=enabled)

    @get(
        "/{name:str}",
        operation_id="GetPlatformSchedule",
        summary="Get a schedule of the platform",
        guards=[requires_permission("jobs:read")],
    )
    async def get_schedule(self, schedules: Injected[ScheduleControl], name: FromPath[str]) -> ScheduleRead:
        """One of the platform's own."""
        return await schedules.read(None, name)

    @patch(
        "/{name:str}",
        operation_id="UpdatePlatformSchedule",
        summary="Change a schedule of the platform",
        guards=[requires_permission("jobs:write")],
    )
    async def update_schedule(
        self,
        request: Request[Any, Any, Any],
        schedules: Injected[ScheduleControl],
        name: FromPath[str],
        data: Annotated[ScheduleUpdate, Body()],
    ) -> ScheduleRead:
        """Switch it on or off, or have it follow another clock. What was missed while it was off stays missed."""
        return await schedules.change(None, name, changes(data), actor=actor_of(request))

    @post(
        "/{name:str}/run",
        operation_id="RunPlatformSchedule",
        summary="Run a schedule of the platform now",
        status_code=HTTP_202_ACCEPTED,
        guards=[requires_permission("jobs:write")],
        response_headers=_JOB,
    )
    async def run_schedule(
        self, request: Request[Any, Any, Any], schedules: Injected[ScheduleControl], name: FromPath[str]
    ) -> Response[ScheduleRun]:
        """Have its job run now; while one waits or runs, it is that one. The clock goes on as before."""
        return _accepted(*await schedules.run(None, name, actor=actor_of(request)))


class TenantScheduleController(Controller):
    """One organization's jobs that come back by the clock."""

    path = "/tenants/{slug:str}/schedules"
    tags = ["platform"]
    dependencies = {"schedules": provide_schedules}

    @patch(
        "/",
        operation_id="SetTenantTimeZone",
        summary="Set the time zone of all schedules of a tenant",
        guards=[requires_permission("jobs:write")],
    )
    async def set_time_zone(
        self,
        request: Request[Any, Any, Any],
        schedules: Injected[ScheduleControl],
        slug: FromPath[str],
        data: Annotated[TimeZoneUpdate, Body()],
    ) -> TenantSchedules:
        """Have all of them follow one clock. Schedules that it gets later follow the one that was chosen last."""
        return TenantSchedules(items=await schedules.set_timezone(slug, data.time_zone, actor=actor_of(request)))

    @get(
        "/{name:str}",
        operation_id="GetTenantSchedule",
        summary="Get a schedule of a tenant",
        guards=[requires_permission("jobs:read")],
    )
    async def get_schedule(
        self, schedules: Injected[ScheduleControl], slug: FromPath[str], name: FromPath[str]
    ) -> ScheduleRead:
        """One of them; as it is going to be, where the organization was made a moment ago."""
        return await schedules.read(slug, name)

    @patch(
        "/{name:str}",
        operation_id="UpdateTenantSchedule",
        summary="Change a schedule of a tenant",
        guards=[requires_permission("jobs:write")],
    )
    async def update_schedule(
        self,
        request: Request[Any, Any, Any],
        schedules: Injected[ScheduleControl],
        slug: FromPath[str],
        name: FromPath[str],
        data: Annotated[ScheduleUpdate, Body()],
    ) -> ScheduleRead:
        """Switch it on or off, or have it follow another clock. What was missed while it was off stays missed."""
        return await schedules.change(slug, name, changes(data), actor=actor_of(request))

    @post(
        "/{name:str}/run",
        operation_id="RunTenantSchedule",
        summary="Run a schedule of a tenant now",
        status_code=HTTP_202_ACCEPTED,
        guards=[requires_permission("jobs:write")],
        response_headers=_JOB,
    )
    async def run_schedule(
        self,
        request: Request[Any, Any, Any],
        schedules: Injected[ScheduleControl],
        slug: FromPath[str],
        name: FromPath[str],
    ) -> Response[ScheduleRun]:
        """Have its job run now; while one waits or runs, it is that one. The clock goes on as before."""
        return _accepted(*await schedules.run(slug, name, actor=actor_of(request)))


def _accepted(job_id: UUID, made: bool) -> Response[ScheduleRun]:
    body = ScheduleRun(job_id=job_id, already_waiting=not made)
    return Response(body, status_code=HTTP_202_ACCEPTED, headers={"Location": f"/platform/jobs/{job_id}"})
