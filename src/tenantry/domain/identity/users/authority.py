"""Who may do what to whose account: nobody reaches above themselves, and owners are owners' business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Select, select

from tenantry.domain.identity.principal import UserPrincipal
from tenantry.domain.identity.users.models import User
from tenantry.domain.roles.models import Role, UserRole
from tenantry.domain.roles.service import require_held
from tenantry.kernel.errors import PermissionDeniedException

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.roles.catalogue import PermissionCatalogue
    from tenantry.tenancy.guards import Principal

__all__ = ("Standing", "require_may_change", "require_may_grant", "standing_of")


@dataclass(frozen=True, slots=True)
class Standing:
    """What a user may do, who is not the one that asks."""

    id: UUID
    is_superuser: bool
    is_owner: bool
    permissions: frozenset[str]
    api_key_id: UUID | None = None
    operator_access_id: None = None

    @property
    def user_id(self) -> UUID:
        return self.id


async def standing_of(session: AsyncSession, user_id: UUID, catalogue: PermissionCatalogue) -> Standing | None:
    """What the user may do at this moment, or None if there is none, or only a deactivated one."""
    user = (await session.execute(select(User.is_active, User.is_superuser).where(User.id == user_id))).one_or_none()
    if user is None or not user.is_active:
        return None
    held = [
        (is_builtin and slug == "owner", catalogue.granted(slug, builtin=is_builtin, stored=permissions))
        for slug, is_builtin, permissions in await session.execute(_held_by(user_id))
    ]
    return Standing(
        id=user_id,
        is_superuser=user.is_superuser,
        is_owner=any(is_owner for is_owner, _ in held),
        permissions=catalogue.all if user.is_superuser else frozenset().union(*(granted for _, granted in held)),
    )


def require_may_grant(principal: Principal, roles: Iterable[Role], catalogue: PermissionCatalogue) -> None:
    """Nobody hands out more than they hold themselves, an owner's role least of all.

    Raises:
        PermissionDeniedException: one of the roles permits more than the caller's own.
    """
    for role in roles:
        if role.is_builtin and role.slug == "owner":
            _require_owner(principal)
        granted = catalogue.granted(role.slug, builtin=role.is_builtin, stored=role.permissions)
        require_held(principal.permissions, granted, f"The role {role.slug!r} permits")


async def require_may_change(
    principal: Principal, user: User, session: AsyncSession, catalogue: PermissionCatalogue
) -> None:
    """Nobody changes, demotes or deactivates whoever may do more than they do.

    An administrator could otherwise take the organization over by deactivating its owners, and somebody who only adds
    people could shut out its administrators.

    Raises:
        PermissionDeniedException: the user may do more than the caller.
    """
    if user.is_superuser:
        _require_owner(principal)
    for slug, is_builtin, permissions in await session.execute(_held_by(user.id)):
        if is_builtin and slug == "owner":
            _require_owner(principal)
        granted = catalogue.granted(slug, builtin=is_builtin, stored=permissions)
        require_held(principal.permissions, granted, "The user may do")


def _held_by(user_id: UUID) -> Select[str, bool, list[str]]:
    return (
        select(Role.slug, Role.is_builtin, Role.permissions)
        .join(UserRole, UserRole.role_id == Role.id)
        .where(UserRole.user_id == user_id)
    )


def _require_owner(principal: Principal) -> None:
    # Administrators hold every permission as well, so permissions do not tell. No API key is an owner, whoever's it is:
    # its scopes are permissions, and this is none.
    if not isinstance(principal, UserPrincipal | Standing) or not (principal.is_owner or principal.is_superuser):
        raise PermissionDeniedException("Only an owner may do this to an owner, or make one.")
