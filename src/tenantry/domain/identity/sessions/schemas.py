"""Signing in, on the wire."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.events.definition import Payload
from tenantry.kernel.schema import BaseStruct, Email, Password, Slug

__all__ = ("LoginPayload", "RefreshPayload", "SessionOf", "TokenResponse")

Credential = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]


class LoginPayload(BaseStruct):
    email: Email
    password: Password
    tenant: Slug | None = None
    """The organization's slug; may be left out where the host names it."""


class RefreshPayload(BaseStruct):
    refresh_token: Credential


class TokenResponse(BaseStruct):
    """As RFC 6749 §5.1 has it, in camelCase."""

    access_token: str
    refresh_token: str
    expires_in: int
    """Seconds."""
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind of token, not one


class SessionOf(Payload):
    """Of the event: whose session it is."""

    user_id: UUID
