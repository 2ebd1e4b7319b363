"""Service accounts on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, field

from tenantry.domain.identity.users.schemas import RoleBrief
from tenantry.events.definition import Payload
from tenantry.kernel.schema import UNSET, BaseStruct, Description, ShortText, Slug, UnsetType, Update

__all__ = (
    "ServiceAccountChanged",
    "ServiceAccountCreate",
    "ServiceAccountRead",
    "ServiceAccountRoles",
    "ServiceAccountUpdate",
)

Roles = Annotated[list[Slug], Meta(max_length=20)]


class ServiceAccountRead(BaseStruct):
    """A machine that acts by its API keys."""

    id: UUID
    name: str
    description: str | None
    is_active: bool
    roles: list[RoleBrief]
    created_at: datetime
    updated_at: datetime


class ServiceAccountCreate(BaseStruct):
    name: ShortText
    """Of which the organization has one."""
    description: Description | None = None
    roles: Roles = field(default_factory=list)
    """What it may do at most: not more than whoever gives it them, and never `owner`."""


class ServiceAccountUpdate(Update):
    name: ShortText | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    is_active: bool | UnsetType = UNSET
    """While it is not, its API keys are refused."""
    roles: Roles | UnsetType = UNSET


class ServiceAccountRoles(Payload):
    """Of the event: the roles that it has."""

    role_ids: list[UUID]


class ServiceAccountChanged(Payload):
    """Of the event: which fields have another value now, and the roles that it has."""

    fields: list[Literal["name", "description", "is_active", "roles"]]
    role_ids: list[UUID]
