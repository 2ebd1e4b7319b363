"""Confirming addresses, on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta

from tenantry.kernel.schema import BaseStruct, Email, Slug

__all__ = (
    "EmailVerificationConfirm",
    "EmailVerificationCopy",
    "EmailVerificationRequest",
    "LinkToken",
)

LinkToken = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]
"""From a mailed link: what follows `#token=`."""


class EmailVerificationRequest(BaseStruct):
    email: Email
    tenant: Slug | None = None
    """The organization's slug; may be left out where the host names it."""


class EmailVerificationConfirm(BaseStruct):
    token: LinkToken
    """From the link: what follows `#token=`."""


class EmailVerificationCopy(BaseStruct):
    """In the copy of a person's data: a link that would confirm their address."""

    id: UUID
    email: str
    expires_at: datetime
    used_at: datetime | None
    created_at: datetime
