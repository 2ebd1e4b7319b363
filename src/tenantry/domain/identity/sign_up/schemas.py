"""Signing up, on the wire."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from tenantry.domain.identity.sessions.schemas import SigningIn
from tenantry.domain.identity.verification.schemas import LinkToken
from tenantry.kernel.schema import BaseStruct, Email, Password, ShortText, Slug

__all__ = ("SignUpAccept", "SignUpCopy", "SignUpRequest")


class SignUpRequest(BaseStruct):
    email: Email
    tenant: Slug | None = None
    """The organization's slug; may be left out where the host names it."""


class SignUpAccept(SigningIn):
    token: LinkToken
    """From the link: what follows `#token=`."""
    password: Password
    name: ShortText | None = None


class SignUpCopy(BaseStruct):
    """In the copy of a person's data: that they wanted an account."""

    id: UUID
    email: str
    expires_at: datetime
    used_at: datetime | None
    created_at: datetime
