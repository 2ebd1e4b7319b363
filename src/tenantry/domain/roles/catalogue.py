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
        reading = {name for name in self.all if name.endswith(":read")}
        given = {
            p.name for p in self.permissions.values() if (p.name in reading if p.operators is None else p.operators)
        }
        self.operators_reading = frozenset(given & reading)
        """What operators of the platform may do who were let in to look."""
        self.operators_writing = frozenset(given)
        """And those who were let in to change something."""
        if unknown := {role for p in self.permissions.values() for role in p.roles} - BUILTIN_ROLES.keys():
            raise ValueError(f"permissions name roles that do not exist: {', '.join(sorted(unknown))}")

    def granted(self, slug: str, *, builtin: bool, stored: Iterable[str]) -> frozenset[str]:
        """What one role grants. A stored permission that no feature declares any more grants nothing."""
        return self._builtin.get(slug, frozenset()) if builtin else self.all.intersection(stored)

    def of_grants(self, grants: Iterable[str]) -> frozenset[str]:
        """What several roles grant together: `@<slug>` is a built-in role, `=<name> <name>…` lists permissions."""
        granted: set[str] = set()
        for grant in grants:
            if grant.startswith("@"):
                granted |= self._builtin.get(grant[1:], frozenset())
            else:
                granted |= self.all.intersection(grant[1:].split())
        return frozenset(granted)
