"""Routes of the organization itself."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Controller, Request, Response, get, post
from litestar.datastructures import ResponseHeader
from litestar.params import FromPath
from litestar.response import Stream
from litestar.status_codes import HTTP_202_ACCEPTED
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.step_up import requires_recent_authentication
from tenantry.domain.organization.jobs import announce_export, pause_before
from tenantry.domain.organization.schemas import OrganizationExport, OrganizationRead, TenantSelf
from tenantry.domain.organization.service import OrganizationService, find_file, provide_organization
from tenantry.kernel.errors import NotAuthenticatedException
from tenantry.kernel.schema import Page
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.kernel.storage import Storage
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.guards import acting_user_id, requires_permission
from tenantry.tenancy.request import request_transaction, tenant_request

__all__ = ("OrganizationController", "TenantController")


class OrganizationController(Controller):
    """The caller's own organization."""

    path = "/organization"
    tags = ["organization"]
    dependencies = {"organization": provide_organization}

    @get(
        "/",
        operation_id="GetOrganization",
        summary="Get the organization",
        guards=[requires_permission("organization:read")],
    )
    async def get_organization(
        self, request: Request[Any, Any, Any], organization: Injected[OrganizationService]
    ) -> OrganizationRead:
        """The organization's name, the slug that its addresses begin with, and its plan."""
        return await organization.read(_tenant(request))

    @post(
        "/exports",
        operation_id="CreateExport",
        summary="Export the organization",
        status_code=HTTP_202_ACCEPTED,
        guards=[requires_permission("organization:export"), requires_recent_authentication()],
        response_headers=[ResponseHeader(name="Location", description="The export.", documentation_only=True)],
        opt={"idempotent": True},
    )
    async def create_export(
        self,
        request: Request[Any, Any, Any],
        organization: Injected[OrganizationService],
        db_session: Injected[AsyncSession],
    ) -> Response[OrganizationExport]:
        """Have a copy of all the organization's data made, without passwords and sessions; one at a time.

        Whoever has asked is told when it is ready.
        """
        user_id = acting_user_id(request)
        made = await organization.request_export(user_id)
        await announce_export.schedule(db_session, pause_before(0), export_id=made.id, user_id=user_id)
        return Response(
            made,
            status_code=HTTP_202_ACCEPTED,
            headers={"Location": f"/api/organization/exports/{made.id}", "Retry-After": "1"},
        )

    @get(
        "/exports",
        operation_id="ListExports",
        summary="List exports",
        guards=[requires_permission("organization:export")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "status"), searched=("status",), default="created_at", descending=True
            )
        },
    )
    async def list_exports(
        self, organization: Injected[OrganizationService], listing: Injected[ListQuery]
    ) -> Page[OrganizationExport]:
        """The exports that the organization's people have asked for, the newest first."""
        return await organization.exports(listing)

    @get(
        "/exports/{export_id:uuid}",
        operation_id="GetExport",
        summary="Get an export",
        guards=[requires_permission("organization:export")],
    )
    async def get_export(
        self, organization: Injected[OrganizationService], export_id: FromPath[UUID]
    ) -> OrganizationExport:
        """How far it has come."""
        return await organization.export(export_id)

    @get(
        "/exports/{export_id:uuid}/content",
        operation_id="GetExportContent",
        summary="Fetch an export",
        media_type="application/zip",
        guards=[requires_permission("organization:export"), requires_recent_authentication()],
        opt={"transfer": True},
    )
    async def get_export_content(
        self, request: Request[Any, Any, Any], organization: Injected[OrganizationService], export_id: FromPath[UUID]
    ) -> Stream:
        """The file, a ZIP of CSV files with a manifest."""
        tenant = _tenant(request)
        key = await organization.export_key(tenant, export_id)
        # The storage may be slow, and so may whoever fetches: no connection is held for either.
        await request_transaction(request).pause()
        storage: Storage = request.app.state.open_storage()
        size = await find_file(storage, key)
        return Stream(
            storage.stream(key),
            media_type="application/zip",
            headers={
                "Content-Disposition": f'attachment; filename="{tenant.slug}-{export_id}.zip"',
                "Content-Length": str(size),
                # It is somebody's data: no cache on the way keeps them.
                "Cache-Control": "no-store",
            },
        )


class TenantController(Controller):
    """What the caller's organization is entitled to."""

    path = "/tenant"
    tags = ["organization"]
    dependencies = {"organization": provide_organization}

    @get(
        "/",
        operation_id="GetOwnTenant",
        summary="See the plan and its use",
        guards=[requires_permission("organization:read")],
    )
    async def get_own_tenant(
        self, request: Request[Any, Any, Any], organization: Injected[OrganizationService]
    ) -> TenantSelf:
        """The organization's plan, its limits, which features it includes, and of each quota how much is used."""
        return await organization.entitlements(_tenant(request))


def _tenant(request: Request[Any, Any, Any]) -> TenantContext:
    tenant = tenant_request(request).tenant
    if tenant is None:
        raise NotAuthenticatedException
    return tenant
