"""What a directory may do to whom.

Whoever holds `scim:manage` speaks for the organization's directory: it makes accounts with what a member may do,
names people, and shuts anybody out but the last owner, since its word that somebody has left must count for those who
may most above all. What could give somebody more is bound as it is for everybody (`users.authority`): beyond a
member's, the directory hands out, lets in again and renames no account that may do more than its own key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.domain.identity.users.authority import Standing, require_may_change, require_may_grant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.users.models import User
    from tenantry.domain.roles.catalogue import PermissionCatalogue
    from tenantry.domain.roles.models import Role
    from tenantry.tenancy.guards import Principal

__all__ = ("DEFAULT_ROLE", "DirectoryAuthority")

DEFAULT_ROLE = "member"
"""Of a user who comes with no roles."""


class DirectoryAuthority:
    """The bounds of one request."""

    def __init__(self, principal: Principal, session: AsyncSession, catalogue: PermissionCatalogue) -> None:
        self._session = session
        self._catalogue = catalogue
        self._standing = Standing(
            id=principal.id,
            is_superuser=principal.is_superuser,
            # No key is an owner, whoever's it is.
            is_owner=bool(getattr(principal, "is_owner", False)),
            permissions=principal.permissions | catalogue.granted(DEFAULT_ROLE, builtin=True, stored=()),
            api_key_id=principal.api_key_id,
        )

    def require_grant(self, roles: Iterable[Role]) -> None:
        """Refuse roles that permit more than a member's, and more than the key.

        Raises:
            PermissionDeniedException: one of them does.
        """
        require_may_grant(self._standing, roles, self._catalogue)

    async def require_reach(self, user: User) -> None:
        """Refuse what could give somebody more, where they may do more than a member, and more than the key.

        Raises:
            PermissionDeniedException: they do.
        """
        await require_may_change(self._standing, user, self._session, self._catalogue)
