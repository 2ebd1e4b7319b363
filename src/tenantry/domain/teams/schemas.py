"""Teams on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.domain.tags.schemas import TagBrief
from tenantry.events.definition import Payload
from tenantry.kernel.schema import UNSET, BaseStruct, Description, ShortText, Slug, UnsetType, Update

__all__ = (
    "MemberCreate",
    "MemberLeft",
    "MemberPlaced",
    "MemberRead",
    "MemberUpdate",
    "MembershipCopy",
    "OwnershipTransfer",
    "OwnershipTransferred",
    "TeamChanged",
    "TeamCreate",
    "TeamFounded",
    "TeamName",
    "TeamRead",
    "TeamRole",
    "TeamUpdate",
)

TeamRole = Literal["owner", "admin", "member"]
TagNames = Annotated[list[ShortText], Meta(max_length=20)]


class TeamRead(BaseStruct):
    id: UUID
    slug: str
    name: str
    description: str | None
    is_active: bool
    tags: list[TagBrief]
    created_at: datetime
    updated_at: datetime


class TeamName(BaseStruct):
    id: UUID
    slug: str
    name: str


class MembershipCopy(BaseStruct):
    """In the copy of a person's data: a team that they are in, and as what."""

    team: TeamName
    role: TeamRole
    created_at: datetime


class TeamCreate(BaseStruct):
    name: ShortText
    slug: Slug | None = None
    """Follows from the name when left out."""
    description: Description | None = None
    tags: TagNames = []
    """Names of tags; those that do not exist yet are made."""


class TeamUpdate(Update):
    name: ShortText | UnsetType = UNSET
    slug: Slug | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    is_active: bool | UnsetType = UNSET
    tags: TagNames | UnsetType = UNSET
    """Replaces all of the team's tags."""


class MemberRead(BaseStruct):
    user_id: UUID
    email: str
    name: str | None
    role: TeamRole
    created_at: datetime
    updated_at: datetime


class MemberCreate(BaseStruct):
    user_id: UUID
    role: TeamRole = "member"


class MemberUpdate(Update):
    role: TeamRole | UnsetType = UNSET


class OwnershipTransfer(BaseStruct):
    user_id: UUID
    """A member of the team, who is to own it."""


class OwnershipTransferred(Payload):
    """Of the event: who owns the team now, and who stepped back to administer it."""

    owner_id: UUID
    former_owner_ids: list[UUID]


class TeamFounded(Payload):
    """Of the event. A team that a directory made has no owner."""

    owner_id: UUID | None
    tag_ids: list[UUID]


class TeamChanged(Payload):
    """Of the event: which fields have another value now."""

    fields: list[Literal["name", "slug", "description", "is_active", "tags"]]


class MemberPlaced(Payload):
    """Of the event."""

    user_id: UUID
    role: TeamRole


class MemberLeft(Payload):
    """Of the event."""

    user_id: UUID
