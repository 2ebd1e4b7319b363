"""How an address is confirmed."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, length_check

__all__ = ("EmailVerification",)


class EmailVerification(TenantBase):
    """A single-use, expiring credential, mailed to an address: whoever brings it back reads mail there."""

    __tablename__ = "email_verification"
    __table_args__ = (
        UniqueConstraint("digest", name="uq_email_verification_digest"),
        length_check("email", 254, minimum=3),
        {"info": {"secret": True}},
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    email: Mapped[str] = mapped_column(Text, info={"personal": "email"})
    """Which address is confirmed by it: the account may have got another one meanwhile."""
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the credential."""
    expires_at: Mapped[datetime.datetime]
    used_at: Mapped[datetime.datetime | None]
    """When it, or another of the same person, was used."""
