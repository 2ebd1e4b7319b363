"""What strangers have asked for."""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary, Text
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import SharedBase, one_of_check

__all__ = ("PUBLIC_KINDS", "PublicRequest")

PUBLIC_KINDS = ("sign-up", "organizations")


class PublicRequest(SharedBase):
    """A mail that somebody without a token has asked for: counted, and forgotten after an hour."""

    __tablename__ = "public_request"
    __table_args__ = (
        one_of_check("kind", PUBLIC_KINDS),
        Index("ix_public_request_created_at_kind", "created_at", "kind"),
    )

    kind: Mapped[str] = mapped_column(Text)
    address: Mapped[bytes] = mapped_column(LargeBinary)
    """Keyed hash of whom the mail is to."""
    client: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Keyed hash of where it was asked from; None where the network does not tell one client from another."""
