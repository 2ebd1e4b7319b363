"""Routes by which an organization lets operators of the platform in, and puts them out."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, delete, get, post
from litestar.params import Body, FromPath
from litestar.status_codes import HTTP_200_OK

from tenantry.domain.identity.step_up import requires_recent_authentication
from tenantry.domain.operator_access.schemas import (
    AccessGrantCreate,
    AccessGrantRead,
    AccessRequestAccept,
    AccessRequestRead,
    AccessSessionRead,
)
from tenantry.domain.operator_access.service import (
    AccessGrantService,
    AccessRequestService,
    AccessSessionService,
    provide_access_requests,
    provide_access_sessions,
    provide_grants,
)
from tenantry.kernel.schema import Page
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.tenancy.guards import acting_user_id, principal_of, requires_permission, requires_person

__all__ = ("OperatorAccessController",)


class OperatorAccessController(Controller):
    """The platform's operators in the organization: whom its owners have let in, and who came."""

    path = "/operator-access"
    tags = ["operator access"]
    dependencies = {
        "grants": provide_grants,
        "access_requests": provide_access_requests,
        "access_sessions": provide_access_sessions,
    }

    @get(
        "/grants",
        operation_id="ListAccessGrants",
        summary="List grants",
        guards=[requires_permission("operator_access:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "expires_at"), searched=("reason",), default="created_at", descending=True
            )
        },
    )
    async def list_grants(
        self, grants: Injected[AccessGrantService], listing: Injected[ListQuery]
    ) -> Page[AccessGrantRead]:
        """What owners have granted to operators, the newest first; those that are over as well."""
        return await grants.page(listing, AccessGrantRead)

    @post(
        "/grants",
        operation_id="CreateAccessGrant",
        summary="Let operators in",
        guards=[requires_permission("operator_access:manage"), requires_person, requires_recent_authentication()],
    )
    async def create_grant(
        self,
        request: Request[Any, Any, Any],
        grants: Injected[AccessGrantService],
        data: Annotated[AccessGrantCreate, Body()],
    ) -> AccessGrantRead:
        """Let operators of the platform look at the organization for some hours, or change something in it as well.

        It is for any operator, or for the one of `operatorEmail`. What they do is in the audit trail.
        """
        made = await grants.grant(
            acting_user_id(request),
            hours=data.hours,
            can_write=data.access == "write",
            reason=data.reason,
            operator_email=data.operator_email,
        )
        return to_struct(made, AccessGrantRead)

    @get(
        "/grants/{grant_id:uuid}",
        operation_id="GetAccessGrant",
        summary="Get a grant",
        guards=[requires_permission("operator_access:read")],
    )
    async def get_grant(self, grants: Injected[AccessGrantService], grant_id: FromPath[UUID]) -> AccessGrantRead:
        """One grant."""
        return to_struct(await grants.get(grant_id), AccessGrantRead)

    @delete(
        "/grants/{grant_id:uuid}",
        operation_id="RevokeAccessGrant",
        summary="Revoke a grant",
        guards=[requires_permission("operator_access:manage")],
    )
    async def revoke_grant(
        self, request: Request[Any, Any, Any], grants: Injected[AccessGrantService], grant_id: FromPath[UUID]
    ) -> None:
        """Take it back. Whom it has let in is refused with their next request, in every process."""
        await grants.revoke(grant_id, principal_of(request).user_id)

    @get(
        "/requests",
        operation_id="ListAccessRequests",
        summary="List requests of operators",
        guards=[requires_permission("operator_access:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "status"),
                searched=("reason", "operator_name"),
                default="created_at",
                descending=True,
            )
        },
    )
    async def list_requests(
        self, access_requests: Injected[AccessRequestService], listing: Injected[ListQuery]
    ) -> Page[AccessRequestRead]:
        """What operators have asked for, the newest first."""
        return await access_requests.page(listing, AccessRequestRead)

    @post(
        "/requests/{access_request_id:uuid}/accept",
        operation_id="AcceptAccessRequest",
        summary="Accept a request",
        status_code=HTTP_200_OK,
        guards=[requires_permission("operator_access:manage"), requires_person, requires_recent_authentication()],
    )
    async def accept_request(
        self,
        request: Request[Any, Any, Any],
        access_requests: Injected[AccessRequestService],
        access_request_id: FromPath[UUID],
        data: Annotated[AccessRequestAccept | None, Body()] = None,
    ) -> AccessRequestRead:
        """Let the operator in who has asked, and nobody else: as they have asked, or for less."""
        wanted = data or AccessRequestAccept()
        answered = await access_requests.accept(
            access_request_id,
            acting_user_id(request),
            hours=wanted.hours,
            can_write=None if wanted.access is None else wanted.access == "write",
        )
        return to_struct(answered, AccessRequestRead)

    @post(
        "/requests/{access_request_id:uuid}/decline",
        operation_id="DeclineAccessRequest",
        summary="Decline a request",
        status_code=HTTP_200_OK,
        guards=[requires_permission("operator_access:manage"), requires_person],
    )
    async def decline_request(
        self,
        request: Request[Any, Any, Any],
        access_requests: Injected[AccessRequestService],
        access_request_id: FromPath[UUID],
    ) -> AccessRequestRead:
        """Say no. They can ask again."""
        return to_struct(await access_requests.decline(access_request_id, acting_user_id(request)), AccessRequestRead)

    @get(
        "/sessions",
        operation_id="ListAccessSessions",
        summary="List operators who came in",
        guards=[requires_permission("operator_access:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "expires_at"),
                searched=("reason", "operator_name"),
                default="created_at",
                descending=True,
            )
        },
    )
    async def list_sessions(
        self, access_sessions: Injected[AccessSessionService], listing: Injected[ListQuery]
    ) -> Page[AccessSessionRead]:
        """Who of the platform was in the organization, when and why, the newest first.

        What they did: `GET /api/audit?subject=<id>`.
        """
        return await access_sessions.page(listing, AccessSessionRead)

    @delete(
        "/sessions/{access_session_id:uuid}",
        operation_id="EndAccessSession",
        summary="Put an operator out",
        guards=[requires_permission("operator_access:manage")],
    )
    async def end_session(
        self, access_sessions: Injected[AccessSessionService], access_session_id: FromPath[UUID]
    ) -> None:
        """End a session, also of one who came in without consent: their next request is refused."""
        await access_sessions.end(access_session_id)
