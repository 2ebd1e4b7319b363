"""Webhooks on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.events.definition import Payload
from tenantry.kernel.schema import END, UNSET, BaseStruct, Description, UnsetType, Update

__all__ = (
    "AttemptRead",
    "DeliveriesReplay",
    "DeliveryDetail",
    "DeliveryRead",
    "DeliveryStatus",
    "EventTypeRead",
    "SecretRotate",
    "WebhookChanged",
    "WebhookCreate",
    "WebhookCreated",
    "WebhookDisabled",
    "WebhookRead",
    "WebhookReplayed",
    "WebhookSecret",
    "WebhookUpdate",
)

DeliveryStatus = Literal["pending", "delivered", "failed", "cancelled"]

Url = Annotated[str, Meta(min_length=1, max_length=2000, pattern=rf"^[\x21-\x7e]+{END}")]
EventFilter = Annotated[str, Meta(pattern=rf"^(?:\*|[a-z][a-z_]{{0,40}}\.(?:\*|[a-z][a-z_]{{0,40}})){END}")]
EventFilters = Annotated[list[EventFilter], Meta(min_length=1, max_length=100)]


class WebhookRead(BaseStruct):
    """An endpoint that is told of events."""

    id: UUID
    url: str
    description: str | None
    events: list[str]
    is_enabled: bool
    disabled_reason: str | None
    """Why it was disabled, where nobody did so by hand."""
    failing_since: datetime | None
    """Since when no attempt has succeeded."""
    next_attempt_at: datetime | None
    """Nothing is sent before."""
    previous_until: datetime | None
    """Until then messages are signed with the secret before as well."""
    created_at: datetime
    updated_at: datetime


class WebhookCreate(BaseStruct):
    url: Url
    """Absolute, `https://`, in ASCII; it must resolve to public addresses."""
    events: EventFilters
    """Names of events, `team.*` for all of a resource, `*` for all there are and will be."""
    description: Description | None = None


class WebhookUpdate(Update):
    url: Url | UnsetType = UNSET
    events: EventFilters | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    is_enabled: bool | UnsetType = UNSET
    """Enabled again, it is sent first what was pending when it was disabled; what has happened since is not, unless it
    is replayed."""


class WebhookCreated(WebhookRead):
    """A new endpoint, with the secret that its messages are signed with: it is shown this once."""

    secret: str
    """`whsec_…`, as the libraries of Standard Webhooks take it."""


class SecretRotate(BaseStruct):
    overlap: Annotated[int, Meta(ge=0, le=604_800)] = 86_400
    """Seconds for which messages are signed with the secret before as well."""


class WebhookSecret(BaseStruct):
    """A new secret: it is shown this once."""

    secret: str
    previous_until: datetime | None


class EventTypeRead(BaseStruct):
    """An event that there can be."""

    name: str
    description: str
    payload: dict[str, Any]
    """JSON Schema of `data.payload`."""


class DeliveryRead(BaseStruct):
    """One event that an endpoint is told of."""

    id: UUID
    event_id: UUID
    """The message's `webhook-id`."""
    event_name: str
    status: DeliveryStatus
    """`pending`: to be sent, or sent again; `failed`: no attempt is left; `cancelled`: taken out of the line."""
    attempt_count: int
    """Since it was last put into the line."""
    created_at: datetime
    finished_at: datetime | None


class AttemptRead(BaseStruct):
    """One request, and what came back."""

    id: UUID
    started_at: datetime
    duration_ms: int
    url: str
    request_headers: dict[str, str]
    status_code: int | None
    """None where there was no answer."""
    response_headers: dict[str, str] | None
    response_body: str | None
    """The first 4,096 bytes, as text."""
    error: str | None


class DeliveryDetail(DeliveryRead):
    """The same, with what was sent and what came back."""

    request_body: str
    attempts: list[AttemptRead]
    """The latest first, at most fifty."""


class DeliveriesReplay(BaseStruct):
    since: Annotated[datetime, Meta(tz=True)]
    """Events from this moment on."""
    until: Annotated[datetime, Meta(tz=True)] | None = None
    """And before this one; until now by default."""
    include: Literal["undelivered", "all"] = "undelivered"
    """`undelivered`: those of which the endpoint was never told, or in vain; `all`: those that it knows as well."""


class WebhookReplayed(BaseStruct):
    count: int
    """How many deliveries were put into the line."""


class WebhookChanged(Payload):
    """Of the event: which fields have another value now."""

    fields: list[Literal["url", "events", "description", "is_enabled"]]


class WebhookDisabled(Payload):
    """Of the event: `gone` means that the endpoint has answered 410."""

    reason: Literal["failing", "gone"]
