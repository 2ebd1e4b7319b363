"""Routes of jobs, for operators."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, get, post
from litestar.params import FromPath, QueryParameter
from litestar.status_codes import HTTP_200_OK

from tenantry.kernel.schema import Page, Slug
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.platform.access import actor_of
from tenantry.platform.jobs.queries import ListedStatus
from tenantry.platform.jobs.schemas import JobDetail, JobRead, JobStats
from tenantry.platform.jobs.service import JobControl
from tenantry.tenancy.guards import requires_permission
from tenantry.tenancy.request import request_transaction

__all__ = ("JobController",)

_WAIT = 5.0
"""Seconds that a worker gets to stop a job, while the client waits for its answer."""

_Tenant = Annotated[Slug | None, QueryParameter(description="This organization's alone: its slug.")]


class JobController(Controller):
    """Jobs of all organizations, until they are done."""

    path = "/jobs"
    tags = ["platform"]

    @get(
        "/",
        operation_id="ListJobs",
        summary="List jobs",
        guards=[requires_permission("jobs:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "due", "name"),
                searched=("name", "key"),
                default="created_at",
                descending=True,
                others=("tenant", "status", "name"),
            )
        },
    )
    async def list_jobs(
        self,
        request: Request[Any, Any, Any],
        listing: Injected[ListQuery],
        tenant: _Tenant = None,
        status: Annotated[ListedStatus | None, QueryParameter(description="In this state alone.")] = None,
        name: Annotated[
            str | None, QueryParameter(min_length=1, max_length=100, description="Of this name alone.")
        ] = None,
    ) -> Page[JobRead]:
        """Jobs that wait, run or are dead, the newest first. Those that are done are not kept."""
        return await (await _control(request)).page(listing, tenant=tenant, status=status, name=name)

    @get("/stats", operation_id="GetJobStats", summary="Count jobs", guards=[requires_permission("jobs:read")])
    async def get_stats(
        self,
        request: Request[Any, Any, Any],
        tenant: _Tenant = None,
        limit: Annotated[int, QueryParameter(ge=1, le=1000, description="Organizations that are listed.")] = 100,
    ) -> JobStats:
        """How many jobs of which organization wait, run or are dead, since when, and which workers are alive."""
        return await (await _control(request)).stats(tenant=tenant, limit=limit)

    @get("/{job_id:uuid}", operation_id="GetAnyJob", summary="Get a job", guards=[requires_permission("jobs:read")])
    async def get_job(self, request: Request[Any, Any, Any], job_id: FromPath[UUID]) -> JobDetail:
        """One job that is not done, with its last error."""
        return await (await _control(request)).read(job_id)

    @post(
        "/{job_id:uuid}/retry",
        operation_id="RetryJob",
        summary="Run a dead job again",
        status_code=HTTP_200_OK,
        guards=[requires_permission("jobs:write")],
    )
    async def retry_job(self, request: Request[Any, Any, Any], job_id: FromPath[UUID]) -> JobDetail:
        """Put a dead job back, with all of its attempts."""
        actor = actor_of(request)
        return await (await _control(request)).retry(job_id, actor=actor)

    @post(
        "/{job_id:uuid}/cancel",
        operation_id="CancelJob",
        summary="Cancel a job",
        status_code=HTTP_200_OK,
        guards=[requires_permission("jobs:write")],
    )
    async def cancel_job(self, request: Request[Any, Any, Any], job_id: FromPath[UUID]) -> JobDetail:
        """See to it that a job has no effect any more; one at work is stopped, and what it wrote is rolled back."""
        actor = actor_of(request)
        return await (await _control(request)).cancel(job_id, actor=actor, wait=_WAIT)


async def _control(request: Request[Any, Any, Any]) -> JobControl:
    # It has transactions of its own, and a request holds one connection.
    await request_transaction(request).pause()
    return request.app.state.job_control  # type: ignore[no-any-return]
