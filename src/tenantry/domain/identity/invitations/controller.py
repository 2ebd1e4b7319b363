"""Routes of invitations."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, delete, get, post
from litestar.params import Body, FromPath
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED
from sqlalchemy import or_

from tenantry.domain.identity.invitations.models import Invitation
from tenantry.domain.identity.invitations.schemas import AcceptPayload, InvitationCreate, InvitationRead
from tenantry.domain.identity.invitations.service import (
    Invitations,
    InvitationService,
    provide_invitations,
    read_invitation,
)
from tenantry.domain.identity.sessions.controller import client_for, token_answer
from tenantry.domain.identity.sessions.schemas import TokenResponse
from tenantry.domain.identity.users.authority import require_may_change, require_may_grant
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.providers import provide_users
from tenantry.domain.identity.users.service import UserService
from tenantry.kernel.schema import Page, normalize_email
from tenantry.kernel.security import named_tenant_id
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.mail.definition import require_mail
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.guards import principal_of, requires_permission, requires_person
from tenantry.tenancy.request import tenant_request

__all__ = ("AcceptController", "InvitationController")


class AcceptController(Controller):
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
    async def accept(
        self, request: Request[Any, Any, Any], data: Annotated[AcceptPayload, Body()]
    ) -> Response[TokenResponse]:
        """Set a password with a single-use invitation, and sign in."""
        invitations: Invitations = request.app.state.invitations
        issued = await invitations.accept(
            data.token,
            data.password,
            name=data.name,
            host_tenant=tenant_request(request).host_tenant,
            client=client_for(request, data, named_tenant_id(data.token)),
        )
        return token_answer(request, issued, cookie=data.cookie)


class InvitationController(Controller):
    """Inviting people by mail."""

    path = "/invitations"
    tags = ["users"]
    dependencies = {"users": provide_users, "invitations": provide_invitations}

    @get(
        "/",
        operation_id="ListInvitations",
        summary="List invitations",
        guards=[requires_permission("users:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "expires_at"),
                searched=("email", "name"),
                default="created_at",
                descending=True,
                search_elsewhere=True,
            )
        },
    )
    async def list_invitations(
        self, invitations: Injected[InvitationService], listing: Injected[ListQuery]
    ) -> Page[InvitationRead]:
        """Who was invited, and what became of it; a month after it ended it is forgotten."""
        found = (
            [
                Invitation.user.has(
                    or_(
                        User.email.icontains(listing.search, autoescape=True),
                        User.name.icontains(listing.search, autoescape=True),
                    )
                )
            ]
            if listing.search
            else []
        )
        return await invitations.page(listing, InvitationRead, *found, convert=read_invitation)

    @post(
        "/",
        operation_id="CreateInvitation",
        summary="Invite somebody",
        guards=[requires_permission("users:write"), requires_person],
    )
    async def create_invitation(
        self,
        request: Request[Any, Any, Any],
        users: Injected[UserService],
        invitations: Injected[InvitationService],
        data: Annotated[InvitationCreate, Body()],
    ) -> InvitationRead:
        """Make an account without a password, and mail its person a link with which they set one.

        An account that a directory has made, and that nobody has come into, is taken as it is, with its name and roles.
        """
        state = request.app.state
        require_mail(state.settings)
        require_may_grant(principal_of(request), await users.roles_by_slug(data.roles), state.permissions)
        await self._count(request, normalize_email(data.email))
        user = await invitations.waiting(normalize_email(data.email))
        if user is None:
            user = await users.add(email=data.email, hashed_password=None, name=data.name, roles=data.roles)
        else:
            await require_may_change(principal_of(request), user, users.repository.session, state.permissions)
        made = await invitations.invite(
            user.id,
            _tenant_of(request),
            vault=state.vault,
            settings=state.settings,
        )
        return read_invitation(made)

    @post(
        "/{invitation_id:uuid}/resend",
        operation_id="ResendInvitation",
        summary="Send an invitation again",
        status_code=HTTP_202_ACCEPTED,
        guards=[requires_permission("users:write"), requires_person],
        opt={"idempotent": True},
    )
    async def resend_invitation(
        self,
        request: Request[Any, Any, Any],
        invitations: Injected[InvitationService],
        invitation_id: FromPath[UUID],
    ) -> InvitationRead:
        """Mail a new link, good from now on; the one before is good no more."""
        state = request.app.state
        require_mail(state.settings)
        invitation = await invitations.open_one(invitation_id)
        await self._count(request, invitation.user.email)
        await invitations.renew(
            invitation,
            _tenant_of(request),
            vault=state.vault,
            settings=state.settings,
        )
        return read_invitation(invitation)

    @delete(
        "/{invitation_id:uuid}",
        operation_id="RevokeInvitation",
        summary="Revoke an invitation",
        guards=[requires_permission("users:write"), requires_person],
    )
    async def revoke_invitation(self, invitations: Injected[InvitationService], invitation_id: FromPath[UUID]) -> None:
        """Make its link worthless. The account stays, without a password, until the invitation is sent again."""
        await invitations.revoke(invitation_id)

    @staticmethod
    async def _count(request: Request[Any, Any, Any], email: str) -> None:
        """Nobody's mailbox is to be filled by way of ours.

        Raises:
            TooManyRequestsException: enough was mailed to that address today.
        """
        tenant = _tenant_of(request)
        throttle = request.app.state.invitation_throttle
        await throttle.check(tenant, tenant.slug, email)
        await throttle.failed(tenant, tenant.slug, email)


def _tenant_of(request: Request[Any, Any, Any]) -> TenantContext:
    tenant = tenant_request(request).tenant
    assert tenant is not None  # noqa: S101 - these routes ask for a token, which names one
    return tenant
