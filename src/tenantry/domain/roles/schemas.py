"""Roles on the wire."""

from __future__ import annotations

from uuid import UUID

from tenantry.kernel.schema import BaseStruct

__all__ = ("PermissionRead", "RoleRead")


class RoleRead(BaseStruct):
    id: UUID
    slug: str
    name: str
    description: str | None
    is_builtin: bool
    permissions: list[str]
    """What the role grants, whether by the manifests or by the organization."""


class PermissionRead(BaseStruct):
    name: str
    description: str
    roles: list[str]
    """The built-in roles that hold it."""
