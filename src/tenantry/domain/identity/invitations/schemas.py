"""Invitations on the wire."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from msgspec import Meta

from tenantry.events.definition import Payload
from tenantry.kernel.schema import BaseStruct, Password, ShortText

__all__ = ("AcceptPayload", "InvitationOf")


class AcceptPayload(BaseStruct):
    token: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]
    password: Password
    name: ShortText | None = None


class InvitationOf(Payload):
    """Of the event: who was invited."""

    user_id: UUID
