"""Notifications on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.kernel.schema import END, UNSET, BaseStruct, UnsetType, Update

__all__ = (
    "NotificationEvent",
    "NotificationPreferenceChoice",
    "NotificationPreferenceCopy",
    "NotificationPreferenceRead",
    "NotificationPreferences",
    "NotificationPreferencesPayload",
    "NotificationRead",
    "NotificationUpdate",
    "NotificationsReadPayload",
    "UnreadCount",
)

KindName = Annotated[str, Meta(min_length=3, max_length=100, pattern=rf"^[a-z][a-z_]*\.[a-z][a-z_]*{END}")]


class NotificationRead(BaseStruct):
    """What the caller is told of one event."""

    id: UUID
    kind: str
    """The event's name: `team.member_added`."""
    event_id: UUID
    actor: str
    """`user:<id>`, `api_key:<id>`, `operator` or `operator:<id>`, `job:<name>` or `system`."""
    subject: UUID
    """What it happened to."""
    payload: dict[str, Any]
    """What else there is to know, by the kind: ids and words, nothing personal."""
    created_at: datetime
    read_at: datetime | None


class NotificationUpdate(Update):
    is_read: bool | UnsetType = UNSET


class NotificationsReadPayload(BaseStruct):
    """Up to where the caller has read: exactly one of the two."""

    notification_id: UUID | None = None
    """This notification, and all that came before it."""
    moment: Annotated[datetime, Meta(tz=True)] | None = None
    """What was made by then (RFC 3339, with an offset)."""


class UnreadCount(BaseStruct):
    unread: int


class NotificationPreferenceRead(BaseStruct):
    """One kind of notification, and whether the caller wants it."""

    kind: str
    description: str
    in_app: bool
    default: bool
    """What it is for those who have not chosen."""


class NotificationPreferences(BaseStruct):
    items: list[NotificationPreferenceRead]


class NotificationPreferenceChoice(BaseStruct):
    kind: KindName
    in_app: bool


class NotificationPreferencesPayload(BaseStruct):
    """All that the caller has chosen; for kinds that are not in it, the default holds again."""

    items: Annotated[list[NotificationPreferenceChoice], Meta(max_length=500)]


class NotificationPreferenceCopy(BaseStruct):
    """In the copy of a person's data: what they have chosen."""

    kind: str
    in_app: bool
    created_at: datetime
    updated_at: datetime


class NotificationEvent(BaseStruct):
    """One event of a stream, field by field (WHATWG HTML §9.2.6)."""

    event: Literal["ready", "notification"]
    id: str
    """For Last-Event-ID: the place of the last notification among the caller's own."""
    data: str
    """Of `ready` an UnreadCount, of `notification` a NotificationRead, in JSON."""
