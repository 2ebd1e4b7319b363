"""Operators' access to organizations on the wire, as operators see it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.kernel.schema import END, BaseStruct

__all__ = (
    "TenantAccessAsk",
    "TenantAccessAsked",
    "TenantAccessOpen",
    "TenantAccessOpened",
    "TenantAccessRead",
    "TenantAccessRequestRead",
)

Access = Literal["write", "read"]
AccessReason = Annotated[
    str, Meta(min_length=1, max_length=500, pattern=rf"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*{END}")
]


class TenantAccessOpen(BaseStruct):
    reason: AccessReason
    """Why: a ticket's number, say. The organization's people see it."""
    access: Access = "read"
    break_glass: bool = False
    """Without the organization's consent, in an emergency: its owners are told at once."""
    minutes: Annotated[int, Meta(ge=1, le=480)] | None = None
    """By default as long as the deployment allows."""


class TenantAccessOpened(BaseStruct):
    """A token for the organization's routes under /api. There is no way to renew it."""

    id: UUID
    tenant: str
    access_token: str
    expires_in: int
    """Seconds."""
    expires_at: datetime
    access: Access
    break_glass: bool
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind of token, not one


class TenantAccessRead(BaseStruct):
    id: UUID
    operator_id: UUID
    access: Access
    is_break_glass: bool
    reason: str
    is_open: bool
    expires_at: datetime
    closed_at: datetime | None
    created_at: datetime


class TenantAccessAsk(BaseStruct):
    reason: AccessReason
    """Why: the organization's owners read it."""
    access: Access = "read"
    hours: Annotated[int, Meta(ge=1, le=72)] = 24


class TenantAccessAsked(BaseStruct):
    id: UUID


class TenantAccessRequestRead(BaseStruct):
    """What was asked of the owners, and what they have said."""

    id: UUID
    operator_id: UUID
    access: Access
    hours: int
    reason: str
    status: Literal["pending", "accepted", "declined", "expired"]
    granted_until: datetime | None
    answered_at: datetime | None
    created_at: datetime
