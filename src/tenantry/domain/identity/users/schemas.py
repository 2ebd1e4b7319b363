"""Accounts on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, field

from tenantry.events.definition import Payload
from tenantry.kernel.schema import (
    UNSET,
    BaseStruct,
    Email,
    HttpsUrl,
    Locale,
    Password,
    ShortText,
    Slug,
    TimeZone,
    UnsetType,
    Update,
)

__all__ = (
    "MeRead",
    "MeSecondFactor",
    "MeTeam",
    "MeUpdate",
    "ProfileCopy",
    "RoleBrief",
    "RoleHeldCopy",
    "UserBrief",
    "UserChanged",
    "UserCreate",
    "UserRead",
    "UserRoles",
    "UserUpdate",
)

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
    locale: str | None
    """The language they would like to be written to in."""
    time_zone: str | None
    """An IANA name."""
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


class MeSecondFactor(BaseStruct):
    """Whether the caller has a second factor, and until when the organization wants one of them."""

    is_enabled: bool
    enrol_by: datetime | None
    """From then on, nothing but setting one up is possible. None where none is asked for, or there is one."""


class MeRead(UserRead):
    """The caller, with what they may do and where they belong."""

    permissions: list[str]
    teams: list[MeTeam]
    second_factor: MeSecondFactor


class UserCreate(BaseStruct):
    email: Email
    password: Password
    name: ShortText | None = None
    roles: Roles = field(default_factory=lambda: ["member"])


class UserUpdate(Update):
    name: ShortText | UnsetType | None = UNSET
    avatar_url: HttpsUrl | UnsetType | None = UNSET
    locale: Locale | UnsetType | None = UNSET
    time_zone: TimeZone | UnsetType | None = UNSET
    is_active: bool | UnsetType = UNSET
    roles: Roles | UnsetType = UNSET


class MeUpdate(Update):
    name: ShortText | UnsetType | None = UNSET
    avatar_url: HttpsUrl | UnsetType | None = UNSET
    locale: Locale | UnsetType | None = UNSET
    time_zone: TimeZone | UnsetType | None = UNSET


class UserRoles(Payload):
    """Of the event: the roles that the user has now."""

    role_ids: list[UUID]


class UserChanged(Payload):
    """Of the event: which fields have another value now."""

    fields: list[Literal["name", "avatar_url", "locale", "time_zone", "email"]]


class ProfileCopy(UserBrief):
    """In the copy of a person's data."""

    locale: str | None
    time_zone: str | None
    is_active: bool
    is_superuser: bool
    is_verified: bool
    verified_at: datetime | None
    joined_at: datetime
    last_login_at: datetime | None
    created_at: datetime
    updated_at: datetime


class RoleHeldCopy(BaseStruct):
    """Likewise: a role that they hold."""

    role: RoleBrief
    created_at: datetime
