"""Operators' access on the wire, as the organization sees it, and in its trail."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.domain.operator_access.models import MOST_HOURS
from tenantry.events.definition import CodeName, Payload
from tenantry.kernel.schema import END, BaseStruct, Email

__all__ = (
    "AccessClosed",
    "AccessGrantCreate",
    "AccessGrantRead",
    "AccessGranted",
    "AccessOpened",
    "AccessRequestAccept",
    "AccessRequestOf",
    "AccessRequestRead",
    "AccessRequested",
    "AccessSessionRead",
    "AccessUsed",
    "GrantOf",
)

Access = Literal["write", "read"]
GrantReason = Annotated[
    str, Meta(min_length=1, max_length=500, pattern=rf"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*{END}")
]
Hours = Annotated[int, Meta(ge=1, le=MOST_HOURS)]


class AccessGrantCreate(BaseStruct):
    """Consent to being looked at."""

    hours: Hours
    reason: GrantReason
    """Why: a ticket's number, say. The operators see it."""
    access: Access = "read"
    operator_email: Email | None = None
    """The address of the one operator whom it is for; without one it is for any of them."""


class AccessGrantRead(BaseStruct):
    """A grant; those that are over stay."""

    id: UUID
    status: Literal["active", "revoked", "expired"]
    access: Access
    reason: str
    operator_id: UUID | None
    operator_email: str | None
    granted_by_id: UUID | None
    expires_at: datetime
    revoked_at: datetime | None
    revoked_by_id: UUID | None
    created_at: datetime


class AccessRequestAccept(BaseStruct):
    """With less than was asked for, if that is enough."""

    hours: Hours | None = None
    access: Access | None = None


class AccessRequestRead(BaseStruct):
    """What an operator has asked for."""

    id: UUID
    status: Literal["pending", "accepted", "declined", "expired"]
    operator_id: UUID
    operator_name: str
    access: Access
    hours: int
    reason: str
    grant_id: UUID | None
    answered_at: datetime | None
    answered_by_id: UUID | None
    created_at: datetime


class AccessSessionRead(BaseStruct):
    """An operator's being there. What they did is in the trail, under this id as its subject."""

    id: UUID
    operator_id: UUID | None
    """None at the command line."""
    operator_name: str
    way: Literal["api", "shell"]
    """By requests, each of which is in the trail; or by `tenantry shell`, of which the trail has beginning and end."""
    access: Access
    reason: str
    grant_id: UUID | None
    is_break_glass: bool
    """Without consent."""
    is_open: bool
    expires_at: datetime
    closed_at: datetime | None
    created_at: datetime


class AccessGranted(Payload):
    """Of the event."""

    can_write: bool
    hours: int
    operator_id: UUID | None = None
    """Who had asked."""


class GrantOf(Payload):
    """Of the event: sessions that ended with it."""

    session_ids: list[UUID]


class AccessRequested(Payload):
    """Of the event."""

    operator_id: UUID
    can_write: bool
    hours: int


class AccessRequestOf(Payload):
    """Of the event: who had asked."""

    operator_id: UUID


class AccessOpened(Payload):
    """Of the event."""

    operator_id: UUID | None
    way: Literal["api", "shell"]
    can_write: bool
    seconds: int
    grant_id: UUID | None = None


class AccessUsed(Payload):
    """Of the event: a request. Neither its query nor its body, which may hold anything."""

    method: CodeName
    route: CodeName
    """With `{name}` for each id."""
    ids: list[UUID]
    """That its path names, in their order."""
    refused: bool
    """It was for something that operators may not do, or this one may not."""


class AccessClosed(Payload):
    """Of the event."""

    operator_id: UUID | None
