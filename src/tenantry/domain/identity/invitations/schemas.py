"""Invitations on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, field

from tenantry.domain.identity.sessions.schemas import SigningIn
from tenantry.events.definition import Payload
from tenantry.kernel.schema import BaseStruct, Email, Password, ShortText, Slug

__all__ = ("AcceptPayload", "InvitationCopy", "InvitationCreate", "InvitationOf", "InvitationRead")


class AcceptPayload(SigningIn):
    token: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]
    password: Password
    name: ShortText | None = None


class InvitationCreate(BaseStruct):
    email: Email
    name: ShortText | None = None
    roles: Annotated[list[Slug], Meta(max_length=20)] = field(default_factory=lambda: ["member"])


class InvitationCopy(BaseStruct):
    """In the copy of a person's data: how they were asked in."""

    id: UUID
    expires_at: datetime
    accepted_at: datetime | None
    created_at: datetime


class InvitationRead(BaseStruct):
    """An invitation; its link is in the mail alone."""

    id: UUID
    user_id: UUID
    email: str
    name: str | None
    status: Literal["pending", "accepted", "expired"]
    """`expired` as well where it was revoked."""
    expires_at: datetime
    accepted_at: datetime | None
    created_at: datetime
    updated_at: datetime


class InvitationOf(Payload):
    """Of the event: who was invited."""

    user_id: UUID
