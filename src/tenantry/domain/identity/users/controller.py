"""Routes of accounts."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, get, patch, post
from litestar.params import Body, FromPath
from sqlalchemy import text

from tenantry.domain.identity.principal import UserPrincipal
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.providers import provide_users
from tenantry.domain.identity.users.schemas import (
    MeRead,
    MeTeam,
    MeUpdate,
    RoleBrief,
    UserCreate,
    UserRead,
    UserUpdate,
)
from tenantry.domain.identity.users.service import UserService
from tenantry.domain.roles.catalogue import PermissionCatalogue
from tenantry.kernel.errors import PermissionDeniedException
from tenantry.kernel.schema import Page, changes
from tenantry.kernel.security.policy import check_new_password
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.tenancy.guards import acting_user_id, principal_of, requires_permission, requires_person
from tenantry.tenancy.request import request_transaction

__all__ = ("UserController",)


class UserController(Controller):
    """People of the organization."""

    path = "/users"
    tags = ["users"]
    dependencies = {"users": provide_users}

    @get("/me", operation_id="GetMe", summary="Who am I", opt={"any_user": True, "api_keys": True})
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
                sortable=("email", "name", "joined_at", "created_at"), searched=("email", "name"), default="email"
            )
        },
    )
    async def list_users(self, users: Injected[UserService], listing: Injected[ListQuery]) -> Page[UserRead]:
        """The organization's people."""
        return await users.page(listing, UserRead, convert=_read)

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
        await _require_may_grant(request, users, data.roles)
        check_new_password(request.app.state.settings, data.password, email=data.email, name=data.name)
        # No connection is held while the password is hashed: the pool is everybody's.
        transaction = request_transaction(request)
        await transaction.pause()
        hashed = await request.app.state.hasher.hash(data.password)
        users = await provide_users(db_session=await transaction.session())
        return _read(
            await users.add(email=data.email, hashed_password=hashed, name=data.name, roles=data.roles), UserRead
        )

    @get(
        "/{user_id:uuid}",
        operation_id="GetUser",
        summary="Get a user",
        guards=[requires_permission("users:read")],
    )
    async def get_user(self, users: Injected[UserService], user_id: FromPath[UUID]) -> UserRead:
        """One of the organization's people."""
        return _read(await users.get(user_id), UserRead)

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
        """Change an account, its roles, or deactivate it, which ends its sessions with the next request."""
        wanted = changes(data)
        await _require_may_grant(request, users, wanted.get("roles", []))
        user = await users.get(user_id)
        if any(held.role.slug == "owner" for held in user.roles):
            # An administrator could otherwise take the organization over by deactivating its owners.
            _require_owner(request)
        return _read(await users.change(user_id, wanted), UserRead)

    @staticmethod
    async def _me(request: Request[Any, Any, Any], users: UserService) -> MeRead:
        principal = principal_of(request)
        user_id = acting_user_id(request)
        user = await users.get(user_id)
        teams = await users.repository.session.execute(_MY_TEAMS, {"user_id": user_id})
        return MeRead(
            **_fields(user),
            permissions=sorted(principal.permissions),
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
        "is_active": user.is_active,
        "is_superuser": user.is_superuser,
        "is_verified": user.is_verified,
        "roles": [RoleBrief(slug=held.role.slug, name=held.role.name) for held in user.roles],
        "joined_at": user.joined_at,
        "last_login_at": user.last_login_at,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }


def _read(user: User, struct: type[UserRead]) -> UserRead:
    return struct(**_fields(user))


def _require_owner(request: Request[Any, Any, Any]) -> None:
    principal = principal_of(request)
    # No API key is an owner, whoever's it is: its scopes are permissions, and this is none.
    if not isinstance(principal, UserPrincipal) or not (principal.is_owner or principal.is_superuser):
        raise PermissionDeniedException("Only an owner may do this to an owner, or make one.")


async def _require_may_grant(request: Request[Any, Any, Any], users: UserService, slugs: list[str]) -> None:
    """Nobody hands out more than they hold themselves, an owner's role least of all.

    Raises:
        PermissionDeniedException: one of the roles permits more than the caller's own.
        ValidationFailedException: there is no role of one of the names.
    """
    if not slugs:
        return
    if "owner" in slugs:
        _require_owner(request)
    held = principal_of(request).permissions
    catalogue: PermissionCatalogue = request.app.state.permissions
    for role in await users.roles_by_slug(slugs):
        if not held.issuperset(catalogue.granted(role.slug, builtin=role.is_builtin, stored=role.permissions)):
            raise PermissionDeniedException(f"The role {role.slug!r} permits more than you may do yourself.")
