"""Routes of teams."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, delete, get, patch, post
from litestar.di import Provide
from litestar.params import Body, FromPath
from litestar.status_codes import HTTP_200_OK
from sqlalchemy import ColumnElement, or_

from tenantry.domain.identity.step_up import requires_recent_authentication
from tenantry.domain.identity.users.models import User
from tenantry.domain.teams.models import TeamMember
from tenantry.domain.teams.queries import read_team
from tenantry.domain.teams.schemas import (
    MemberCreate,
    MemberRead,
    MemberUpdate,
    OwnershipTransfer,
    TeamCreate,
    TeamRead,
    TeamUpdate,
)
from tenantry.domain.teams.service import TeamMemberService, TeamService, provide_members, provide_teams
from tenantry.kernel.errors import PermissionDeniedException
from tenantry.kernel.schema import Page, changes
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.tenancy.connection import ScopedConnection
from tenantry.tenancy.guards import acting_user_id, principal_of, requires_permission
from tenantry.tenancy.request import provide_connection

__all__ = ("TeamController", "TeamMemberController")


class TeamController(Controller):
    """Groups of people."""

    path = "/teams"
    tags = ["teams"]
    dependencies = {"teams": provide_teams}

    @get(
        "/",
        operation_id="ListTeams",
        summary="List teams",
        guards=[requires_permission("teams:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("name", "slug", "created_at", "updated_at"),
                searched=("name", "slug", "description"),
                default="name",
            )
        },
    )
    async def list_teams(self, teams: Injected[TeamService], listing: Injected[ListQuery]) -> Page[TeamRead]:
        """The organization's teams."""
        return await teams.page(listing, TeamRead)

    @post("/", operation_id="CreateTeam", summary="Make a team", guards=[requires_permission("teams:write")])
    async def create_team(
        self, request: Request[Any, Any, Any], teams: Injected[TeamService], data: Annotated[TeamCreate, Body()]
    ) -> TeamRead:
        """Make a team, owned by the caller."""
        team = await teams.found(
            name=data.name,
            slug=data.slug,
            description=data.description,
            tags=data.tags,
            owner_id=acting_user_id(request),
        )
        return to_struct(team, TeamRead)

    @get(
        "/{team_id:uuid}",
        operation_id="GetTeam",
        summary="Get a team",
        guards=[requires_permission("teams:read")],
        dependencies={"connection": Provide(provide_connection)},
    )
    async def get_team(self, connection: Injected[ScopedConnection], team_id: FromPath[UUID]) -> TeamRead:
        """One team with its tags."""
        return await read_team(connection, team_id)

    @patch(
        "/{team_id:uuid}",
        operation_id="UpdateTeam",
        summary="Change a team",
        guards=[requires_permission("teams:write")],
    )
    async def update_team(
        self,
        request: Request[Any, Any, Any],
        teams: Injected[TeamService],
        team_id: FromPath[UUID],
        data: Annotated[TeamUpdate, Body()],
    ) -> TeamRead:
        """Change what is sent, and nothing else."""
        await teams.require_manager(team_id, principal_of(request))
        return to_struct(await teams.change(team_id, changes(data)), TeamRead)

    @delete(
        "/{team_id:uuid}",
        operation_id="DeleteTeam",
        summary="Delete a team",
        guards=[requires_permission("teams:write")],
    )
    async def delete_team(
        self, request: Request[Any, Any, Any], teams: Injected[TeamService], team_id: FromPath[UUID]
    ) -> None:
        """Delete a team; its members stay in the organization."""
        await teams.require_manager(team_id, principal_of(request))
        await teams.remove(team_id)

    @post(
        "/{team_id:uuid}/transfer-ownership",
        operation_id="TransferTeamOwnership",
        summary="Hand a team over",
        status_code=HTTP_200_OK,
        guards=[requires_permission("teams:write"), requires_recent_authentication()],
        dependencies={"members": provide_members},
    )
    async def transfer_ownership(
        self,
        request: Request[Any, Any, Any],
        teams: Injected[TeamService],
        members: Injected[TeamMemberService],
        team_id: FromPath[UUID],
        data: Annotated[OwnershipTransfer, Body()],
    ) -> MemberRead:
        """Make a member the team's owner; the answer is their new place in it.

        An owner who hands over becomes an administrator of the team. A manager of all teams who does not own this one
        takes it from all who do.
        """
        principal = principal_of(request)
        await teams.require_manager(team_id, principal)
        await teams.get(team_id)
        return _read(await members.transfer_ownership(team_id, data.user_id, by=principal), MemberRead)


class TeamMemberController(Controller):
    """Who is in a team, and as what."""

    path = "/teams/{team_id:uuid}/members"
    tags = ["teams"]
    dependencies = {"teams": provide_teams, "members": provide_members}

    @get(
        "/",
        operation_id="ListTeamMembers",
        summary="List a team's members",
        guards=[requires_permission("teams:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "role"),
                searched=("email", "name"),
                default="created_at",
                search_elsewhere=True,
            )
        },
    )
    async def list_members(
        self,
        teams: Injected[TeamService],
        members: Injected[TeamMemberService],
        listing: Injected[ListQuery],
        team_id: FromPath[UUID],
    ) -> Page[MemberRead]:
        """The members of one team."""
        await teams.get(team_id)
        filters: list[ColumnElement[bool]] = [TeamMember.team_id == team_id]
        if listing.search:
            filters.append(
                TeamMember.user.has(
                    or_(
                        User.email.icontains(listing.search, autoescape=True),
                        User.name.icontains(listing.search, autoescape=True),
                    )
                )
            )
        return await members.page(listing, MemberRead, *filters, convert=_read)

    @post("/", operation_id="AddTeamMember", summary="Add a member", guards=[requires_permission("teams:write")])
    async def add_member(
        self,
        request: Request[Any, Any, Any],
        teams: Injected[TeamService],
        members: Injected[TeamMemberService],
        team_id: FromPath[UUID],
        data: Annotated[MemberCreate, Body()],
    ) -> MemberRead:
        """Put a user of the organization into the team. Only an owner makes an owner."""
        as_owner = await teams.require_manager(team_id, principal_of(request))
        await teams.get(team_id)
        return _read(await members.join(team_id, data.user_id, data.role, as_owner=as_owner), MemberRead)

    @patch(
        "/{user_id:uuid}",
        operation_id="UpdateTeamMember",
        summary="Change a member's role",
        guards=[requires_permission("teams:write")],
    )
    async def update_member(
        self,
        request: Request[Any, Any, Any],
        teams: Injected[TeamService],
        members: Injected[TeamMemberService],
        team_id: FromPath[UUID],
        user_id: FromPath[UUID],
        data: Annotated[MemberUpdate, Body()],
    ) -> MemberRead:
        """Give a member another role. A team always keeps an owner; only an owner makes one, or demotes one."""
        as_owner = await teams.require_manager(team_id, principal_of(request))
        role = changes(data).get("role")
        if role is None:
            return _read(await members.member(team_id, user_id), MemberRead)
        member = await members.assign_role(team_id, user_id, role, as_owner=as_owner)
        return _read(member, MemberRead)

    @delete(
        "/{user_id:uuid}",
        operation_id="RemoveTeamMember",
        summary="Remove a member",
        guards=[requires_permission("teams:read")],
    )
    async def remove_member(
        self,
        request: Request[Any, Any, Any],
        teams: Injected[TeamService],
        members: Injected[TeamMemberService],
        team_id: FromPath[UUID],
        user_id: FromPath[UUID],
    ) -> None:
        """Take a member out of the team. Everybody may take themselves out."""
        principal = principal_of(request)
        oneself = user_id == principal.user_id
        # A key that may only read takes nobody out, its own user neither.
        if (not oneself or principal.api_key_id is not None) and "teams:write" not in principal.permissions:
            raise PermissionDeniedException("The permission 'teams:write' is needed.", permission="teams:write")
        as_owner = oneself or await teams.require_manager(team_id, principal)
        await members.leave(team_id, user_id, as_owner=as_owner)


def _read(member: TeamMember, struct: type[MemberRead]) -> MemberRead:
    return struct(
        user_id=member.user_id,
        email=member.user.email,
        name=member.user.name,
        role=member.role,  # type: ignore[arg-type] # the table's CHECK has the same words
        created_at=member.created_at,
        updated_at=member.updated_at,
    )
