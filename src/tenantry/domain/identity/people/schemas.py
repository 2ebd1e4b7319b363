"""Letting people go, on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.kernel.schema import BaseStruct, Password

__all__ = (
    "CopyOf",
    "OwnErasurePayload",
    "PersonalDataCopy",
    "TypedAddress",
    "UserDeactivatePayload",
    "UserErasePayload",
)

TypedAddress = Annotated[str, Meta(min_length=1, max_length=254, description="Typed once more.")]
"""To be compared with one that is known, and so in no form of its own."""


class UserDeactivatePayload(BaseStruct):
    successor_id: UUID | None = None
    """An active user, who is to own the teams that the user alone owns. It takes the permission `teams:manage`."""


class UserErasePayload(UserDeactivatePayload):
    email: TypedAddress
    """The user's address, typed once more: what is erased cannot be brought back."""


class OwnErasurePayload(BaseStruct):
    password: Password
    """The caller's own."""
    successor_id: UUID | None = None
    """An active user, who is to own the teams that the caller alone owns."""


class CopyOf(BaseStruct):
    """The organization that hands out the copy."""

    id: UUID
    slug: str
    name: str


class PersonalDataCopy(BaseStruct):
    """All that an organization keeps of one person."""

    format: Literal["tenantry-personal-data"]
    version: Literal[1]
    """Of the format. Sections and fields may be added to it."""
    organization: CopyOf
    generated_at: datetime
    data: dict[str, list[dict[str, Any]]]
    """By section; docs/personal-data.md lists them."""
