"""Roles on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.events.definition import Payload
from tenantry.kernel.schema import UNSET, BaseStruct, Description, ShortText, Slug, UnsetType, Update

__all__ = ("PermissionRead", "RoleChanged", "RoleCreate", "RoleRead", "RoleUpdate")

Permissions = Annotated[list[Annotated[str, Meta(min_length=1, max_length=100)]], Meta(max_length=200)]
"""Names of permissions, as `GET /api/permissions` lists them."""


class RoleRead(BaseStruct):
    id: UUID
    slug: str
    name: str
    description: str | None
    is_builtin: bool
    permissions: list[str]
    """What the role grants, whether by the manifests or by the organization."""
    created_at: datetime
    updated_at: datetime


class RoleCreate(BaseStruct):
    name: ShortText
    permissions: Permissions
    """What it grants: names out of the catalogue, none that the caller does not hold."""
    slug: Slug | None = None
    """Follows from the name when left out. By it users are given the role, so it stays."""
    description: Description | None = None


class RoleUpdate(Update):
    name: ShortText | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    permissions: Permissions | UnsetType = UNSET
    """Replaces all of the role's permissions."""


class PermissionRead(BaseStruct):
    name: str
    description: str
    roles: list[str]
    """The built-in roles that hold it."""


class RoleChanged(Payload):
    """Of the event: which fields have another value now."""

    fields: list[Literal["name", "description", "permissions"]]
