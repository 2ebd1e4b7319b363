"""API keys on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta

from tenantry.events.definition import Payload
from tenantry.kernel.schema import END, BaseStruct, ShortText

__all__ = ("ApiKeyCreate", "ApiKeyCreated", "ApiKeyOf", "ApiKeyRead", "ApiKeyRotate", "ApiKeySecret")

Scope = Annotated[str, Meta(min_length=3, max_length=100, pattern=rf"^[a-z_]+:[a-z_]+{END}")]
Scopes = Annotated[list[Scope], Meta(max_length=200)]


class ApiKeyRead(BaseStruct):
    """A machine's key, of a user or of a service account."""

    id: UUID
    name: str
    hint: str
    """The last four digits."""
    scopes: list[str]
    """Permissions. The key may do what these and its owner's roles both permit."""
    user_id: UUID | None
    service_account_id: UUID | None
    created_by_id: UUID | None
    expires_at: datetime | None
    """None: when it is revoked."""
    last_used_at: datetime | None
    """Up to five minutes old."""
    previous_until: datetime | None
    """Until then the key before the last rotation is good as well."""
    revoked_at: datetime | None
    created_at: datetime
    updated_at: datetime


class ApiKeyCreate(BaseStruct):
    name: ShortText
    scopes: Scopes
    """Permissions that the maker has; GET /api/permissions lists them."""
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    """Within five years. Left out, it is good until it is revoked."""


class ApiKeyCreated(ApiKeyRead):
    """A new key, shown this once."""

    key: str
    """`key_…`, to be sent as `Authorization: Bearer <key>`."""


class ApiKeyRotate(BaseStruct):
    overlap: Annotated[int, Meta(ge=0, le=604_800)] = 86_400
    """Seconds for which the key of before is good as well."""


class ApiKeySecret(BaseStruct):
    """A key with its new secret, shown this once."""

    key: str
    hint: str
    previous_until: datetime | None


class ApiKeyOf(Payload):
    """Of the event: whose key it is, a user's or a service account's."""

    user_id: UUID | None
    service_account_id: UUID | None
