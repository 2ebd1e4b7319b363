"""What is sent: an event as JSON, signed as Standard Webhooks says (https://www.standardwebhooks.com, version 1).

webhook-id: 0199…                     the event's id: the same in every attempt and in every replay
webhook-timestamp: 1764000000         seconds since 1970, of this attempt
webhook-signature: v1,K5oZ… v1,9dk…   HMAC-SHA256 of `id.timestamp.body`, in base64; while a secret is being
                                      replaced, one of the new and one of the old

{"type": "team.member_added", "timestamp": "2026-11-23T09:00:00Z", "data": {"id": …, "actor": …, …}}
"""

from __future__ import annotations

import base64
import datetime
import hmac
import secrets
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

import msgspec

from tenantry import __version__

__all__ = ("SECRET_PREFIX", "headers_of", "new_secret", "secret_text", "write_body")

SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with, and no secret
_SECRET_LENGTH = 32
"""Bytes; Standard Webhooks asks for 24 to 64."""


class _Event(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def name(self) -> str: ...
    @property
    def actor(self) -> str: ...
    @property
    def subject(self) -> UUID: ...
    @property
    def payload(self) -> dict[str, Any]: ...
    @property
    def request_id(self) -> str | None: ...
    @property
    def occurred_at(self) -> datetime.datetime: ...


def new_secret() -> bytes:
    """A secret of an endpoint's own."""
    return secrets.token_bytes(_SECRET_LENGTH)


def secret_text(secret: bytes) -> str:
    """As receivers' libraries take it: `whsec_` and base64."""
    return SECRET_PREFIX + base64.b64encode(secret).decode("ascii")


def write_body(event: _Event) -> bytes:
    """The event as JSON: the same octets whenever it is sent, since events never change."""
    return msgspec.json.encode(
        {
            "type": event.name,
            "timestamp": event.occurred_at.astimezone(datetime.UTC),
            "data": {
                "id": event.id,
                "actor": event.actor,
                "subject": event.subject,
                "payload": event.payload,
                "requestId": event.request_id,
            },
        }
    )


def headers_of(
    event_id: UUID, body: bytes, *, sent_at: datetime.datetime, signed_with: Iterable[bytes]
) -> Mapping[str, str]:
    """The headers of a request, signed with every secret that counts."""
    message_id, timestamp = str(event_id), str(int(sent_at.timestamp()))
    content = f"{message_id}.{timestamp}.".encode("ascii") + body
    signatures = (
        "v1," + base64.b64encode(hmac.digest(secret, content, sha256)).decode("ascii") for secret in signed_with
    )
    return {
        "content-type": "application/json",
        "user-agent": f"Tenantry-Webhooks/{__version__}",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }
