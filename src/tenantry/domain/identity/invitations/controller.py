"""Routes of invitations."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, post
from litestar.params import Body
from litestar.status_codes import HTTP_200_OK

from tenantry.domain.identity.invitations.schemas import AcceptPayload
from tenantry.domain.identity.invitations.service import Invitations
from tenantry.domain.identity.sessions.controller import token_response
from tenantry.domain.identity.sessions.schemas import TokenResponse
from tenantry.tenancy.request import tenant_request

__all__ = ("InvitationController",)


class InvitationController(Controller):
    """Accepting an invitation."""

    path = "/auth/invitations"
    tags = ["auth"]

    @post(
        "/accept",
        operation_id="AcceptInvitation",
        summary="Accept an invitation",
        status_code=HTTP_200_OK,
        opt={"public": True},
    )
    async def accept(self, request: Request[Any, Any, Any], data: Annotated[AcceptPayload, Body()]) -> TokenResponse:
        """Set a password with a single-use invitation, and sign in."""
        invitations: Invitations = request.app.state.invitations
        issued = await invitations.accept(
            data.token,
            data.password,
            name=data.name,
            host_tenant=tenant_request(request).host_tenant,
            user_agent=request.headers.get("user-agent"),
        )
        return token_response(issued)
