"""Tags on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from tenantry.events.definition import Payload
from tenantry.kernel.schema import UNSET, BaseStruct, Description, ShortText, UnsetType, Update

__all__ = ("TagBrief", "TagChanged", "TagCreate", "TagMerge", "TagMerged", "TagRead", "TagUpdate")


class TagBrief(BaseStruct):
    id: UUID
    slug: str
    name: str


class TagRead(TagBrief):
    description: str | None
    created_at: datetime
    updated_at: datetime


class TagCreate(BaseStruct):
    name: ShortText
    description: Description | None = None


class TagUpdate(Update):
    name: ShortText | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET


class TagMerge(BaseStruct):
    into_tag_id: UUID
    """The tag that stays."""


class TagMerged(Payload):
    """Of the event: the tag that what carried this one carries now."""

    into_tag_id: UUID


class TagChanged(Payload):
    """Of the event: which fields have another value now."""

    fields: list[Literal["name", "slug", "description"]]
