"""Routes of the organization's jobs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Controller, Request, get
from litestar.params import FromPath

from tenantry.domain.jobs.schemas import OwnJobRead
from tenantry.domain.jobs.service import OwnJobService, describe, provide_own_jobs
from tenantry.jobs.state import JobStates
from tenantry.kernel.errors import NotAuthenticatedException
from tenantry.kernel.service import Injected
from tenantry.tenancy.guards import requires_permission
from tenantry.tenancy.request import request_transaction, tenant_request

__all__ = ("JobController",)


class JobController(Controller):
    """What the organization has asked for, and takes its time."""

    path = "/jobs"
    tags = ["jobs"]
    dependencies = {"jobs": provide_own_jobs}

    @get("/{job_id:uuid}", operation_id="GetJob", summary="Get a job", guards=[requires_permission("jobs:read")])
    async def get_job(
        self, request: Request[Any, Any, Any], jobs: Injected[OwnJobService], job_id: FromPath[UUID]
    ) -> OwnJobRead:
        """How far it has come; once it is done its result, for as long as that is kept."""
        tenant = tenant_request(request).tenant
        if tenant is None:
            raise NotAuthenticatedException
        # In this order: a job that ends between the two questions has then ended, and is not lost.
        row = await jobs.row(job_id)
        await request_transaction(request).pause()
        states: JobStates = request.app.state.job_states
        kept = await states.kept([(tenant.id, job_id)])
        return describe(job_id, row, kept.get(job_id))
