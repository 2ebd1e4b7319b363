"""Changes of address on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from tenantry.domain.identity.verification.schemas import LinkToken
from tenantry.kernel.schema import BaseStruct, Email, Password

__all__ = (
    "EmailChangeConfirm",
    "EmailChangeConfirmed",
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
