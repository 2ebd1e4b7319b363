"""Routes of accounts."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, get, patch, post
from litestar.params import Body, FromPath, QueryParameter
from sqlalchemy import text

from tenantry.domain.identity.enrolment import ENROLMENT, read_standing
from tenantry.domain.identity.users.authority import require_may_change, require_may_grant
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.providers import provide_users
from tenantry.domain.identity.users.schemas import (
    MeRead,
    MeSecondFactor,
    MeTeam,
    MeUpdate,
    RoleBrief,
    UserCreate,
    UserRead,
    UserUpdate,
)
from tenantry.domain.identity.users.service import UserService
from tenantry.domain.roles.catalogue import PermissionCatalogue
from tenantry.domain.roles.models import Role, UserRole
from tenantry.kernel.personal import current_personal
from tenantry.kernel.schema import Page, Slug, changes
from tenantry.kernel.security.policy import check_new_password
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.tenancy.guards import acting_user_id, principal_of, requires_permission, requires_person
from tenantry.tenancy.request import own_tenant, request_transaction

__all__ = ("UserController", "read_user")

_Role = Annotated[Slug | None, QueryParameter(description="Users who hold the role of this slug.")]


class UserController(Controller):
    """People of the organization."""

    path = "/users"
    tags = ["users"]
    dependencies = {"users": provide_users}

    @get("/me", operation_id="GetMe", summary="Who am I", opt={"any_user": True, "api_keys": True, ENROLMENT: True})
    async def me(self, request: Request[Any, Any, Any], users: Injected[UserService]) -> MeRead:
        """The caller, with roles, permissions and teams; with an API key, its user and what the key permits."""
        return await self._me(request, users)

    @patch("/me", operation_id="UpdateMe", summary="Change my profile", opt={"any_user": True})
    async def update_me(
        self, request: Request[Any, Any, Any], users: Injected[UserService], data: Annotated[MeUpdate, Body()]
    ) -> MeRead:
        """Change what belongs to the caller alone."""
        await users.change(principal_of(request).id, changes(data))
        return await self._me(request, users)

    @get(
        "/",
        operation_id="ListUsers",
        summary="List users",
        guards=[requires_permission("users:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("email", "name", "joined_at", "created_at"),
                searched=("email", "name"),
                default="email",
                others=("role",),
            )
        },
    )
    async def list_users(
        self, users: Injected[UserService], listing: Injected[ListQuery], role: _Role = None
    ) -> Page[UserRead]:
        """The organization's people."""
        filters = [User.roles.any(UserRole.role.has(Role.slug == role))] if role is not None else []
        return await users.page(listing, UserRead, *filters, convert=read_user)

    @post(
        "/",
        operation_id="CreateUser",
        summary="Add a user",
        # A machine that could set a password would be a person with the next request.
        guards=[requires_permission("users:write"), requires_person],
    )
    async def create_user(
        self,
        request: Request[Any, Any, Any],
        users: Injected[UserService],
        data: Annotated[UserCreate, Body()],
    ) -> UserRead:
        """Make an account with a password and roles. Only an owner makes an owner."""
        catalogue: PermissionCatalogue = request.app.state.permissions
        require_may_grant(principal_of(request), await users.roles_by_slug(data.roles), catalogue)
        check_new_password(
            request.app.state.settings,
            data.password,
            email=data.email,
            organization=own_tenant(request).words,
            name=data.name,
        )
        # No connection is held while the password is hashed: the pool is everybody's.
        transaction = request_transaction(request)
        await transaction.pause()
        hashed = await request.app.state.hasher.hash(data.password, key=own_tenant(request).id)
        users = await provide_users(db_session=await transaction.session())
        return read_user(await users.add(email=data.email, hashed_password=hashed, name=data.name, roles=data.roles))

    @get(
        "/{user_id:uuid}",
        operation_id="GetUser",
        summary="Get a user",
        guards=[requires_permission("users:read")],
    )
    async def get_user(self, users: Injected[UserService], user_id: FromPath[UUID]) -> UserRead:
        """One of the organization's people."""
        return read_user(await users.get(user_id))

    @patch(
        "/{user_id:uuid}",
        operation_id="UpdateUser",
        summary="Change a user",
        guards=[requires_permission("users:write")],
    )
    async def update_user(
        self,
        request: Request[Any, Any, Any],
        users: Injected[UserService],
        user_id: FromPath[UUID],
        data: Annotated[UserUpdate, Body()],
    ) -> UserRead:
        """Change an account, its roles, or deactivate it, which ends its sessions with the next request.

        Nobody gives a role, or changes an account, that permits more than their own. To deactivate somebody who is the
        only owner of a team takes POST /api/users/{user_id}/deactivate with somebody to hand it to.
        """
        catalogue: PermissionCatalogue = request.app.state.permissions
        principal, wanted = principal_of(request), changes(data)
        require_may_grant(principal, await users.roles_by_slug(wanted.get("roles", [])), catalogue)
        user, session = await users.get(user_id), users.repository.session
        await require_may_change(principal, user, session, catalogue)
        if wanted.get("is_active") is False and user.is_active:
            await current_personal().let_leave(session, user_id)
        return read_user(await users.change(user_id, wanted))

    @staticmethod
    async def _me(request: Request[Any, Any, Any], users: UserService) -> MeRead:
        principal = principal_of(request)
        user_id = acting_user_id(request)
        user = await users.get(user_id)
        teams = await users.repository.session.execute(_MY_TEAMS, {"user_id": user_id})
        has_factor, enrol_by = await read_standing(users.repository.session, user_id)
        return MeRead(
            **_fields(user),
            permissions=sorted(principal.permissions),
            second_factor=MeSecondFactor(is_enabled=has_factor, enrol_by=enrol_by),
            teams=[MeTeam(id=row.id, slug=row.slug, name=row.name, role=row.role) for row in teams],
        )


# By table name: the teams' package imports this one, not the other way round.
_MY_TEAMS = text(
    "SELECT t.id, t.slug, t.name, m.role FROM team_member m JOIN team t ON t.id = m.team_id"
    " WHERE m.user_id = :user_id ORDER BY t.name, t.id"
)


def _fields(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "avatar_url": user.avatar_url,
        "locale": user.locale,
        "time_zone": user.time_zone,
        "is_active": user.is_active,
        "is_superuser": user.is_superuser,
        "is_verified": user.is_verified,
        "roles": [RoleBrief(slug=held.role.slug, name=held.role.name) for held in user.roles],
        "joined_at": user.joined_at,
        "last_login_at": user.last_login_at,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }


def read_user(user: User, struct: type[UserRead] = UserRead) -> UserRead:
    """An account on the wire; its roles are loaded."""
    return struct(**_fields(user))
