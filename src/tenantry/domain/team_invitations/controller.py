"""Routes of invitations to teams."""

from __future__ import annotations

import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, delete, get, post
from litestar.params import Body, FromPath
from litestar.status_codes import HTTP_200_OK, HTTP_204_NO_CONTENT
from sqlalchemy import func

from tenantry.domain.identity.sessions.controller import client_for, token_answer
from tenantry.domain.identity.sessions.schemas import TokenResponse
from tenantry.domain.team_invitations.joining import TeamInvitations
from tenantry.domain.team_invitations.models import TeamInvitation
from tenantry.domain.team_invitations.schemas import (
    InvitingTeam,
    InvitingUser,
    TeamInvitationAccept,
    TeamInvitationCreate,
    TeamInvitationCreated,
    TeamInvitationDecline,
    TeamInvitationRead,
)
from tenantry.domain.team_invitations.service import (
    TeamInvitationService,
    provide_team_invitations,
)
from tenantry.domain.teams.schemas import MemberRead
from tenantry.domain.teams.service import TeamService, provide_teams
from tenantry.kernel.schema import Page
from tenantry.kernel.security import named_tenant_id
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.tenancy.guards import principal_of, requires_permission, requires_person
from tenantry.tenancy.request import tenant_request

__all__ = ("OwnTeamInvitationController", "TeamInvitationController", "TeamInvitationTokenController")

_LISTING = {
    "listing": create_list_query(
        sortable=("created_at", "expires_at", "email", "status"),
        searched=("email",),
        default="created_at",
        descending=True,
    )
}


class TeamInvitationController(Controller):
    """Asking people into a team."""

    path = "/teams/{team_id:uuid}/invitations"
    tags = ["teams"]
    dependencies = {"teams": provide_teams, "invitations": provide_team_invitations}

    @get(
        "/",
        operation_id="ListTeamInvitations",
        summary="List a team's invitations",
        guards=[requires_permission("teams:write")],
        dependencies=_LISTING,
    )
    async def list_invitations(
        self,
        request: Request[Any, Any, Any],
        teams: Injected[TeamService],
        invitations: Injected[TeamInvitationService],
        listing: Injected[ListQuery],
        team_id: FromPath[UUID],
    ) -> Page[TeamInvitationRead]:
        """The invitations of one team, those that have ended included, for those who run it."""
        await teams.require_manager(team_id, principal_of(request))
        await teams.get(team_id)
        return await invitations.page(
            listing, TeamInvitationRead, TeamInvitation.team_id == team_id, convert=lambda row, _: _read(row)
        )

    @post(
        "/",
        operation_id="CreateTeamInvitation",
        summary="Ask somebody into a team",
        guards=[requires_permission("teams:write"), requires_person],
    )
    async def create_invitation(
        self,
        request: Request[Any, Any, Any],
        teams: Injected[TeamService],
        invitations: Injected[TeamInvitationService],
        team_id: FromPath[UUID],
        data: Annotated[TeamInvitationCreate, Body()],
    ) -> TeamInvitationCreated:
        """Ask the person with an e-mail address into the team.

        A user of the organization finds it at `GET /api/team-invitations`, and joins if they want to. An address
        without an account is invited to the organization as well, by whoever may add people and only with a role that
        permits no more than theirs; the answer has the credential, this once.
        """
        principal = principal_of(request)
        as_owner = await teams.require_manager(team_id, principal)
        await teams.get(team_id)
        made, token = await invitations.invite(
            team_id,
            email=data.email,
            role=data.role,
            organization_role=data.organization_role,
            by=principal,
            as_owner=as_owner,
            **_terms(request),
        )
        return _created(made, token)


class OwnTeamInvitationController(Controller):
    """An invitation to a team: for whoever was asked, and for whoever runs the team."""

    path = "/team-invitations"
    tags = ["teams"]
    dependencies = {"teams": provide_teams, "invitations": provide_team_invitations}

    @get(
        "/",
        operation_id="ListMyTeamInvitations",
        summary="List my invitations to teams",
        opt={"any_user": True},
        dependencies=_LISTING,
    )
    async def list_mine(
        self,
        request: Request[Any, Any, Any],
        invitations: Injected[TeamInvitationService],
        listing: Injected[ListQuery],
    ) -> Page[TeamInvitationRead]:
        """What the caller was asked, and can still answer."""
        return await invitations.page(
            listing,
            TeamInvitationRead,
            TeamInvitation.user_id == principal_of(request).id,
            TeamInvitation.status == "pending",
            TeamInvitation.expires_at > func.now(),
            convert=lambda row, _: _read(row),
        )

    @post(
        "/{team_invitation_id:uuid}/accept",
        operation_id="AcceptTeamInvitation",
        summary="Join a team",
        status_code=HTTP_200_OK,
        opt={"any_user": True},
    )
    async def accept(
        self,
        request: Request[Any, Any, Any],
        invitations: Injected[TeamInvitationService],
        team_invitation_id: FromPath[UUID],
    ) -> MemberRead:
        """Join the team that the caller was asked into; the answer is their place in it."""
        member = await invitations.accept(team_invitation_id, principal_of(request).id, request.app.state.permissions)
        return MemberRead(
            user_id=member.user_id,
            email=member.user.email,
            name=member.user.name,
            role=member.role,  # type: ignore[arg-type] # the table's CHECK has the same words
            created_at=member.created_at,
            updated_at=member.updated_at,
        )

    @post(
        "/{team_invitation_id:uuid}/decline",
        operation_id="DeclineTeamInvitation",
        summary="Stay out of a team",
        status_code=HTTP_204_NO_CONTENT,
        opt={"any_user": True},
    )
    async def decline(
        self,
        request: Request[Any, Any, Any],
        invitations: Injected[TeamInvitationService],
        team_invitation_id: FromPath[UUID],
    ) -> None:
        """Stay out of the team that the caller was asked into."""
        await invitations.decline(team_invitation_id, principal_of(request).id)

    @post(
        "/{team_invitation_id:uuid}/resend",
        operation_id="ResendTeamInvitation",
        summary="Renew an invitation",
        status_code=HTTP_200_OK,
        guards=[requires_permission("teams:write"), requires_person],
        opt={"idempotent": True},
    )
    async def resend(
        self,
        request: Request[Any, Any, Any],
        teams: Injected[TeamService],
        invitations: Injected[TeamInvitationService],
        team_invitation_id: FromPath[UUID],
    ) -> TeamInvitationCreated:
        """Let an open or expired invitation begin anew; a credential from before is no good any more."""
        principal = principal_of(request)
        as_owner = await teams.require_manager((await invitations.get(team_invitation_id)).team_id, principal)
        renewed, token = await invitations.renew(team_invitation_id, by=principal, as_owner=as_owner, **_terms(request))
        return _created(renewed, token)

    @delete(
        "/{team_invitation_id:uuid}",
        operation_id="RevokeTeamInvitation",
        summary="Take an invitation back",
        guards=[requires_permission("teams:write"), requires_person],
    )
    async def revoke(
        self,
        request: Request[Any, Any, Any],
        teams: Injected[TeamService],
        invitations: Injected[TeamInvitationService],
        team_invitation_id: FromPath[UUID],
    ) -> None:
        """Take back an invitation that was not answered; its credential is no good any more."""
        await teams.require_manager((await invitations.get(team_invitation_id)).team_id, principal_of(request))
        await invitations.revoke(team_invitation_id)


class TeamInvitationTokenController(Controller):
    """Answers of people who have no account yet."""

    path = "/auth/team-invitations"
    tags = ["auth"]

    @post(
        "/accept",
        operation_id="AcceptTeamInvitationToken",
        summary="Accept an invitation to a team",
        status_code=HTTP_200_OK,
        opt={"public": True},
    )
    async def accept(
        self, request: Request[Any, Any, Any], data: Annotated[TeamInvitationAccept, Body()]
    ) -> Response[TokenResponse]:
        """Make an account with a single-use invitation to a team, join the team, and sign in."""
        invitations: TeamInvitations = request.app.state.team_invitations
        issued = await invitations.accept(
            data.token,
            data.password,
            name=data.name,
            host_tenant=tenant_request(request).host_tenant,
            client=client_for(request, data, named_tenant_id(data.token)),
            catalogue=request.app.state.permissions,
        )
        return token_answer(request, issued, cookie=data.cookie)

    @post(
        "/decline",
        operation_id="DeclineTeamInvitationToken",
        summary="Decline an invitation to a team",
        status_code=HTTP_204_NO_CONTENT,
        opt={"public": True},
    )
    async def decline(self, request: Request[Any, Any, Any], data: Annotated[TeamInvitationDecline, Body()]) -> None:
        """Stay out; the invitation is no good any more."""
        invitations: TeamInvitations = request.app.state.team_invitations
        await invitations.decline(data.token, host_tenant=tenant_request(request).host_tenant)


def _terms(request: Request[Any, Any, Any]) -> dict[str, Any]:
    tenant = tenant_request(request).tenant
    assert tenant is not None  # noqa: S101 - the middleware has let nobody in without one
    return {
        "catalogue": request.app.state.permissions,
        "ttl": request.app.state.settings.invitation_ttl,
        "tenant_id": tenant.id,
    }


def _created(invitation: TeamInvitation, token: str | None) -> TeamInvitationCreated:
    return TeamInvitationCreated(**msgspec.structs.asdict(_read(invitation)), token=token)


def _read(invitation: TeamInvitation) -> TeamInvitationRead:
    team, inviter, role = invitation.team, invitation.invited_by, invitation.organization_role
    is_over = invitation.status == "pending" and invitation.expires_at <= datetime.datetime.now(datetime.UTC)
    return TeamInvitationRead(
        id=invitation.id,
        team=InvitingTeam(id=team.id, slug=team.slug, name=team.name),
        email=invitation.email,
        user_id=invitation.user_id,
        role=invitation.role,  # type: ignore[arg-type] # the table's CHECK has the same words
        organization_role=role.slug if role is not None else None,
        status="expired" if is_over else invitation.status,  # type: ignore[arg-type] # likewise
        invited_by=InvitingUser(id=inviter.id, email=inviter.email, name=inviter.name),
        expires_at=invitation.expires_at,
        ended_at=invitation.ended_at,
        created_at=invitation.created_at,
        updated_at=invitation.updated_at,
    )
