"""Changes of address on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from tenantry.domain.identity.verification.schemas import LinkToken
from tenantry.kernel.schema import BaseStruct, Email, Password

__all__ = (
    "EmailChangeConfirm",
    "EmailChangeConfirmed",
    "EmailChangeCopy",
    "EmailChangeCreate",
    "EmailChangeRead",
    "EmailChangeState",
)


class EmailChangeCreate(BaseStruct):
    email: Email
    password: Password
    """The caller's present one."""


class EmailChangeRead(BaseStruct):
    """A change that waits for both addresses, or for one of them."""

    email: str
    """The new one."""
    old_confirmed: bool
    new_confirmed: bool
    expires_at: datetime
    created_at: datetime


class EmailChangeState(BaseStruct):
    pending: EmailChangeRead | None


class EmailChangeConfirm(BaseStruct):
    token: LinkToken
    """From the link to either address: what follows `#token=`."""


class EmailChangeConfirmed(BaseStruct):
    status: Literal["pending", "changed"]
    """`pending`: the other address has to confirm as well."""


class EmailChangeCopy(BaseStruct):
    """In the copy of a person's data: that they wanted another address."""

    id: UUID
    old_email: str
    new_email: str
    expires_at: datetime
    old_confirmed_at: datetime | None
    new_confirmed_at: datetime | None
    ended_at: datetime | None
    created_at: datetime
