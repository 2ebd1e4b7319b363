"""Routes of tenants, for operators."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, Response, get, patch, post, put
from litestar.datastructures import ResponseHeader
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body, FromPath, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED, HTTP_202_ACCEPTED

from tenantry.kernel.schema import Page, changes
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.platform.access import actor_of
from tenantry.platform.tenants.creation import TenantCreator
from tenantry.platform.tenants.limits import (
    LimitOverrides,
    TenantLimits,
    change_overrides,
    read_entitled,
    stored_overrides,
)
from tenantry.platform.tenants.schemas import (
    SuspendPayload,
    TenantCreate,
    TenantCreated,
    TenantRead,
    TenantStatus,
    TenantUpdate,
)
from tenantry.platform.tenants.service import TenantService, in_state, provide_tenants
from tenantry.tenancy.context import TenantContext, control_scope
from tenantry.tenancy.guards import requires_permission
from tenantry.tenancy.models import Tenant
from tenantry.tenancy.plan import PlanLimits
from tenantry.tenancy.request import request_transaction
from tenantry.tenancy.wiring import scope_times

__all__ = ("TenantController",)


class TenantController(Controller):
    """The customer organizations."""

    path = "/tenants"
    tags = ["platform"]
    dependencies = {"tenants": provide_tenants}

    @get(
        "/",
        operation_id="ListTenants",
        summary="List tenants",
        guards=[requires_permission("tenants:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("slug", "name", "plan", "status", "created_at"),
                searched=("slug", "name", "owner_email"),
                default="slug",
                others=("status",),
            )
        },
    )
    async def list_tenants(
        self,
        tenants: Injected[TenantService],
        listing: Injected[ListQuery],
        status: Annotated[
            TenantStatus | None, QueryParameter(description="In this state alone; by default in all but `purged`.")
        ] = None,
    ) -> Page[TenantRead]:
        """All organizations of this deployment; what is left of purged ones only where it is asked for."""
        return await tenants.page(listing, TenantRead, in_state(status))

    @post(
        "/",
        operation_id="CreateTenant",
        summary="Create a tenant",
        guards=[requires_permission("tenants:write")],
        response_headers=[
            ResponseHeader(name="Location", description="The new tenant's address.", documentation_only=True)
        ],
        responses={
            HTTP_202_ACCEPTED: ResponseSpec(
                TenantCreated, description="Recorded; the provisioner has not finished yet. Location is the operation."
            )
        },
    )
    async def create_tenant(
        self, request: Request[Any, Any, Any], data: Annotated[TenantCreate, Body()]
    ) -> Response[TenantCreated]:
        """Make an organization with its owner. Answered 201 when it can be logged in to."""
        # It has transactions of its own, and waits between them: a request that held one while it asked for another
        # would, as soon as the pool had as many of them as connections, wait for itself.
        await request_transaction(request).pause()
        creator: TenantCreator = request.app.state.tenant_creator
        created = await creator.create(
            slug=data.slug,
            name=data.name,
            plan=data.plan,
            owner_email=data.owner_email,
            owner_password=data.owner_password,
            owner_name=data.owner_name,
            requested_by=actor_of(request),
            mail_invitation=data.mail_invitation,
        )
        tenant = created.tenant
        body = TenantCreated(
            **{name: getattr(tenant, name) for name in TenantRead.__struct_fields__},
            owner_invitation=created.invitation,
        )
        if created.done:
            return Response(
                body, status_code=HTTP_201_CREATED, headers={"Location": f"/platform/tenants/{tenant.slug}"}
            )
        return Response(
            body,
            status_code=HTTP_202_ACCEPTED,
            headers={"Location": f"/platform/operations/{created.operation_id}", "Retry-After": "1"},
        )

    @get("/{slug:str}", operation_id="GetTenant", summary="Get a tenant", guards=[requires_permission("tenants:read")])
    async def get_tenant(self, tenants: Injected[TenantService], slug: FromPath[str]) -> TenantRead:
        """One organization."""
        return to_struct(await tenants.by_slug(slug), TenantRead)

    @patch(
        "/{slug:str}",
        operation_id="UpdateTenant",
        summary="Change a tenant",
        guards=[requires_permission("tenants:write")],
    )
    async def update_tenant(
        self,
        request: Request[Any, Any, Any],
        tenants: Injected[TenantService],
        slug: FromPath[str],
        data: Annotated[TenantUpdate, Body()],
    ) -> TenantRead:
        """Rename it, or move it to another plan. Both take effect within a second."""
        return to_struct(await tenants.change(slug, changes(data), actor=actor_of(request)), TenantRead)

    @get(
        "/{slug:str}/limits",
        operation_id="GetTenantLimits",
        summary="See what a tenant is entitled to",
        guards=[requires_permission("tenants:read")],
    )
    async def get_limits(
        self, request: Request[Any, Any, Any], tenants: Injected[TenantService], slug: FromPath[str]
    ) -> TenantLimits:
        """Its plan's limits, its own in their place, and of each quota how much it uses."""
        tenant = await tenants.by_slug(slug)
        await request_transaction(request).pause()
        return await _entitled(request, tenant)

    @put(
        "/{slug:str}/limits",
        operation_id="SetTenantLimits",
        summary="Give a tenant limits of its own",
        guards=[requires_permission("tenants:write")],
    )
    async def set_limits(
        self, request: Request[Any, Any, Any], slug: FromPath[str], data: Annotated[LimitOverrides, Body()]
    ) -> TenantLimits:
        """Put these in the place of its plan's: all that differs from it, nothing else. They hold within a second.

        A quota below what there is takes nothing away, and lets nothing more be made.
        """
        wanted = stored_overrides(data)
        # It goes on to read as the tenant, which is another transaction.
        await request_transaction(request).pause()
        state = request.app.state
        scope = control_scope(scope_times(state.settings), read_only=False)
        async with state.database.transaction(scope) as transaction:
            tenants = TenantService(session=transaction.session)
            tenant = await change_overrides(tenants, slug, lambda _: wanted, actor=actor_of(request))
        return await _entitled(request, tenant)

    @post(
        "/{slug:str}/suspend",
        operation_id="SuspendTenant",
        summary="Suspend a tenant",
        status_code=HTTP_200_OK,
        guards=[requires_permission("tenants:suspend")],
    )
    async def suspend_tenant(
        self,
        request: Request[Any, Any, Any],
        tenants: Injected[TenantService],
        slug: FromPath[str],
        data: Annotated[SuspendPayload | None, Body()] = None,
    ) -> TenantRead:
        """Refuse its requests, in every process within a second. Its data stay."""
        reason = data.reason if data else None
        return to_struct(await tenants.suspend(slug, reason, actor=actor_of(request)), TenantRead)

    @post(
        "/{slug:str}/resume",
        operation_id="ResumeTenant",
        summary="Resume a tenant",
        status_code=HTTP_200_OK,
        guards=[requires_permission("tenants:suspend")],
    )
    async def resume_tenant(
        self, request: Request[Any, Any, Any], tenants: Injected[TenantService], slug: FromPath[str]
    ) -> TenantRead:
        """Serve it again."""
        return to_struct(await tenants.resume(slug, actor=actor_of(request)), TenantRead)


async def _entitled(request: Request[Any, Any, Any], tenant: Tenant) -> TenantLimits:
    state = request.app.state
    times = scope_times(state.settings)
    context = TenantContext.build(
        tenant_id=tenant.id,
        slug=tenant.slug,
        name=tenant.name,
        status=tenant.status,
        # Without the plan's own time limits: it is the operator who reads.
        plan=PlanLimits(slug=tenant.plan),
        times=times,
    )
    scope = control_scope(times, read_only=True)
    return await read_entitled(tenant, context, database=state.database, read_scope=scope)
