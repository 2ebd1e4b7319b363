"""Forgotten passwords on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta

from tenantry.kernel.schema import BaseStruct, Email, Password, Slug

__all__ = ("PasswordChange", "PasswordResetConfirm", "PasswordResetCopy", "PasswordResetRequest")


class PasswordChange(BaseStruct):
    old_password: Password
    new_password: Password


class PasswordResetRequest(BaseStruct):
    email: Email
    tenant: Slug | None = None
    """The organization's slug; may be left out where the host names it."""


class PasswordResetConfirm(BaseStruct):
    token: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]
    """From the link: what follows `#token=`."""
    password: Password


class PasswordResetCopy(BaseStruct):
    """In the copy of a person's data: that a link was asked for."""

    id: UUID
    expires_at: datetime
    used_at: datetime | None
    created_at: datetime
