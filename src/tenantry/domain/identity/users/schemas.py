"""Accounts on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, field

from tenantry.events.definition import Payload
from tenantry.kernel.schema import END, UNSET, BaseStruct, Email, Password, ShortText, Slug, UnsetType, Update

__all__ = (
    "MeRead",
    "MeTeam",
    "MeUpdate",
    "RoleBrief",
    "UserBrief",
    "UserChanged",
    "UserCreate",
    "UserRead",
    "UserRoles",
    "UserUpdate",
)

AvatarUrl = Annotated[str, Meta(min_length=1, max_length=500, pattern=rf"^https?://[^\s\x00-\x1f]+{END}")]
Roles = Annotated[list[Slug], Meta(max_length=20)]


class UserBrief(BaseStruct):
    """A person as others see them."""

    id: UUID
    email: str
    name: str | None
    avatar_url: str | None


class RoleBrief(BaseStruct):
    slug: str
    name: str


class UserRead(UserBrief):
    is_active: bool
    is_superuser: bool
    is_verified: bool
    roles: list[RoleBrief]
    joined_at: datetime
    last_login_at: datetime | None
    created_at: datetime
    updated_at: datetime


class MeTeam(BaseStruct):
    """A team that the caller is in, and as what."""

    id: UUID
    slug: str
    name: str
    role: str


class MeRead(UserRead):
    """The caller, with what they may do and where they belong."""

    permissions: list[str]
    teams: list[MeTeam]


class UserCreate(BaseStruct):
    email: Email
    password: Password
    name: ShortText | None = None
    roles: Roles = field(default_factory=lambda: ["member"])


class UserUpdate(Update):
    name: ShortText | UnsetType | None = UNSET
    avatar_url: AvatarUrl | UnsetType | None = UNSET
    is_active: bool | UnsetType = UNSET
    roles: Roles | UnsetType = UNSET


class MeUpdate(Update):
    name: ShortText | UnsetType | None = UNSET
    avatar_url: AvatarUrl | UnsetType | None = UNSET


class UserRoles(Payload):
    """Of the event: the roles that the user has now."""

    role_ids: list[UUID]


class UserChanged(Payload):
    """Of the event: which fields have another value now."""

    fields: list[Literal["name", "avatar_url"]]
