"""Routes by which operators come into organizations."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, delete, get, post
from litestar.params import Body, FromPath

from tenantry.kernel.schema import Page
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.platform.access import actor_of
from tenantry.platform.tenant_access.models import OperatorAccess
from tenantry.platform.tenant_access.schemas import (
    TenantAccessAsk,
    TenantAccessAsked,
    TenantAccessOpen,
    TenantAccessOpened,
    TenantAccessRead,
    TenantAccessRequestRead,
)
from tenantry.platform.tenant_access.service import OPEN, OperatorAccessService, TenantAccess, provide_operator_access
from tenantry.platform.tenants.service import TenantService, provide_tenants
from tenantry.tenancy.guards import principal_of, requires_permission
from tenantry.tenancy.request import request_transaction

__all__ = ("TenantAccessController",)


class TenantAccessController(Controller):
    """Operators in one organization."""

    path = "/tenants/{slug:str}/access"
    tags = ["platform"]
    dependencies = {"tenants": provide_tenants, "accesses": provide_operator_access}

    @get(
        "/",
        operation_id="ListTenantAccess",
        summary="List operators in a tenant",
        guards=[requires_permission("access:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "expires_at"), searched=("reason",), default="created_at", descending=True
            )
        },
    )
    async def list_access(
        self,
        tenants: Injected[TenantService],
        accesses: Injected[OperatorAccessService],
        listing: Injected[ListQuery],
        slug: FromPath[str],
    ) -> Page[TenantAccessRead]:
        """Which operators were in the organization, when and why, the newest first."""
        tenant = await tenants.by_slug(slug)
        return await accesses.page(listing, TenantAccessRead, OperatorAccess.tenant_id == tenant.id)

    @post("/", operation_id="OpenTenantAccess", summary="Come into a tenant", guards=[requires_permission(OPEN)])
    async def open_access(
        self, request: Request[Any, Any, Any], slug: FromPath[str], data: Annotated[TenantAccessOpen, Body()]
    ) -> TenantAccessOpened:
        """Get a token for the organization's own routes, if one of its owners has granted it.

        It is good for minutes, to look unless `access` says otherwise, and every request by it is in the organization's
        audit trail. Without a grant, `breakGlass` takes the permission `access:break-glass`, and tells the owners.
        """
        # It has a transaction of its own, which goes on as the tenant.
        await request_transaction(request).pause()
        service: TenantAccess = request.app.state.tenant_access
        opened = await service.open(
            slug,
            operator_id=principal_of(request).id,
            actor=actor_of(request),
            reason=data.reason,
            can_write=data.access == "write",
            break_glass=data.break_glass,
            minutes=data.minutes,
        )
        return TenantAccessOpened(
            id=opened.id,
            tenant=opened.tenant.slug,
            access_token=opened.token,
            expires_in=opened.seconds,
            expires_at=opened.expires_at,
            access=data.access,
            break_glass=data.break_glass,
        )

    @delete(
        "/{access_id:uuid}",
        operation_id="CloseTenantAccess",
        summary="Leave a tenant",
        guards=[requires_permission(OPEN)],
    )
    async def close_access(
        self, request: Request[Any, Any, Any], slug: FromPath[str], access_id: FromPath[UUID]
    ) -> None:
        """End one's own access, or another operator's: its token is refused from now on."""
        await request_transaction(request).pause()
        service: TenantAccess = request.app.state.tenant_access
        await service.close(slug, access_id, actor=actor_of(request), operator_id=principal_of(request).id)

    @post("/requests", operation_id="AskForTenantAccess", summary="Ask for access", guards=[requires_permission(OPEN)])
    async def ask(
        self, request: Request[Any, Any, Any], slug: FromPath[str], data: Annotated[TenantAccessAsk, Body()]
    ) -> TenantAccessAsked:
        """Ask the organization's owners to be let in. They are told by mail, and accept or decline."""
        await request_transaction(request).pause()
        service: TenantAccess = request.app.state.tenant_access
        asked_id = await service.ask(
            slug,
            operator_id=principal_of(request).id,
            actor=actor_of(request),
            reason=data.reason,
            can_write=data.access == "write",
            hours=data.hours,
        )
        return TenantAccessAsked(id=asked_id)

    @get(
        "/requests",
        operation_id="ListTenantAccessRequests",
        summary="List what was asked for",
        guards=[requires_permission("access:read")],
    )
    async def list_requests(
        self, request: Request[Any, Any, Any], slug: FromPath[str]
    ) -> list[TenantAccessRequestRead]:
        """The last requests to the organization's owners, the newest first, and what they have answered."""
        await request_transaction(request).pause()
        service: TenantAccess = request.app.state.tenant_access
        return [
            TenantAccessRequestRead(
                id=asked.id,
                operator_id=asked.operator_id,
                access="write" if asked.can_write else "read",
                hours=asked.hours,
                reason=asked.reason,
                status=asked.status,  # type: ignore[arg-type]
                granted_until=asked.granted_until,
                answered_at=asked.answered_at,
                created_at=asked.created_at,
            )
            for asked in await service.asked(slug)
        ]
