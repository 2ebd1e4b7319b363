"""A way in for people whom nobody has invited."""

from __future__ import annotations

import datetime

from sqlalchemy import Index, LargeBinary, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, length_check

__all__ = ("SignUp",)


class SignUp(TenantBase):
    """A single-use, expiring credential, mailed to an address, with which its person makes an account."""

    __tablename__ = "sign_up"
    __table_args__ = (
        UniqueConstraint("digest", name="uq_sign_up_digest"),
        Index("ix_sign_up_email", "email"),
        length_check("email", 254, minimum=3),
        {"info": {"secret": True}},
    )

    email: Mapped[str] = mapped_column(Text, info={"personal": "email"})
    """Normalized, in lower case."""
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the credential."""
    expires_at: Mapped[datetime.datetime]
    used_at: Mapped[datetime.datetime | None]
    """When it, or another of the same address, was used."""
