"""A way back in for a person who has forgotten their password."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase

__all__ = ("PasswordReset",)


class PasswordReset(TenantBase):
    """A single-use, expiring credential, mailed to the account's address, with which its person sets a password."""

    __tablename__ = "password_reset"
    __table_args__ = (UniqueConstraint("digest", name="uq_password_reset_digest"), {"info": {"secret": True}})

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the credential."""
    expires_at: Mapped[datetime.datetime]
    used_at: Mapped[datetime.datetime | None]
    """When it, or another of the same person, was used."""
