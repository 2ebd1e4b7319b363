"""Sign-ups on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta

from tenantry.kernel.schema import BaseStruct, Email, Password, ShortText, Slug
from tenantry.platform.tenants.schemas import TenantName

__all__ = ("SignUpConfirm", "SignUpConfirmed", "SignUpCreate", "SignUpPending")


class SignUpCreate(BaseStruct):
    organization: TenantName
    """What it is called."""
    email: Email
    slug: Slug | None = None
    """Its short name, in addresses and at log-in. When left out it is made of the name, with a number if need be."""
    name: ShortText | None = None
    """The person's own, who will be the owner."""
    replaces: UUID | None = None
    """The `id` of an earlier answer: its link is worthless from now on. To send the mail again, or elsewhere."""


class SignUpPending(BaseStruct):
    id: UUID
    slug: str
    held_until: datetime
    """For so long nobody else gets the slug; in the past, if it is only had by whoever confirms first."""
    expires_at: datetime
    """Until when the link is good."""


class SignUpConfirm(BaseStruct):
    token: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]
    """From the link: what follows `#token=`."""
    password: Password | None = None
    """The owner's. When left out, the answer has an invitation with which they set one, and they are mailed it."""
    slug: Slug | None = None
    """Another one than was asked for: somebody may have taken that meanwhile."""


class SignUpConfirmed(BaseStruct):
    tenant_id: UUID
    slug: str
    """With it, the address and the password, `POST /api/auth/login` answers tokens."""
    name: str
    status: str
    """`active`, or `provisioning`: ask again with the same token in a moment."""
    email: str
    owner_invitation: str | None
    """For `POST /api/auth/invitations/accept`; shown once, to whoever confirms without a password."""
