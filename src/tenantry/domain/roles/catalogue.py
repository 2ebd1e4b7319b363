"""What can be permitted: the union of all features' manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.domain.roles.models import BUILTIN_ROLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tenantry.kernel.feature import Permission

__all__ = ("PermissionCatalogue",)


class PermissionCatalogue:
    """All permissions, and which of them each built-in role holds."""

    def __init__(self, permissions: Iterable[Permission]) -> None:
        self.permissions = {permission.name: permission for permission in permissions}
        self.all = frozenset(self.permissions)
        self._builtin = {
            role: self.all
            if role == "owner"
            else frozenset(p.name for p in self.permissions.values() if role in p.roles)
            for role in BUILTIN_ROLES
        }
        if unknown := {role for p in self.permissions.values() for role in p.roles} - BUILTIN_ROLES.keys():
            raise ValueError(f"permissions name roles that do not exist: {', '.join(sorted(unknown))}")

    def granted(self, slug: str, *, builtin: bool, stored: Iterable[str]) -> frozenset[str]:
        """What one role grants. A stored permission that no feature declares any more grants nothing."""
        return self._builtin.get(slug, frozenset()) if builtin else self.all.intersection(stored)

    def of_roles(self, builtin: Iterable[str], stored: Iterable[str]) -> frozenset[str]:
        """What several roles grant together: the built-in ones by name, the others by what they store."""
        names = tuple(builtin)
        if len(names) == 1 and not stored:
            return self._builtin.get(names[0], frozenset())
        return self.all.intersection(stored).union(*(self._builtin.get(name, frozenset()) for name in names))
