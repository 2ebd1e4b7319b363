"""Tenants on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.kernel.schema import END, UNSET, BaseStruct, Email, Password, ShortText, Slug, UnsetType, Update

__all__ = ("SuspendPayload", "TenantCreate", "TenantCreated", "TenantRead", "TenantStatus", "TenantUpdate")

TenantName = Annotated[
    str, Meta(min_length=1, max_length=200, pattern=rf"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*{END}")
]
TenantStatus = Literal["provisioning", "active", "suspended", "archived", "purging", "purged", "failed"]
Reason = Annotated[str, Meta(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


class TenantRead(BaseStruct):
    id: UUID
    slug: str
    name: str
    status: str
    status_reason: str | None
    status_changed_at: datetime
    plan: str
    owner_email: str
    revision: str | None
    """The revision of the tenant's schema; null where it has none, since it is archived or purged."""
    purge_after: datetime | None
    """When the data of a deleted organization are removed; until then it can be undeleted."""
    created_at: datetime
    updated_at: datetime


class TenantCreate(BaseStruct):
    slug: Slug
    name: TenantName
    plan: Slug
    owner_email: Email
    owner_password: Password | None = None
    """When left out, the answer carries an invitation with which the owner sets one."""
    owner_name: ShortText | None = None
    mail_invitation: bool = True
    """Mail the invitation to the owner as well, where mail is sent at all."""


class TenantCreated(TenantRead):
    owner_invitation: str | None
    """A single-use credential for `POST /api/auth/invitations/accept`; shown once, here."""


class TenantUpdate(Update):
    slug: Slug | UnsetType = UNSET
    name: TenantName | UnsetType = UNSET
    plan: Slug | UnsetType = UNSET


class SuspendPayload(BaseStruct):
    reason: Reason | None = None
