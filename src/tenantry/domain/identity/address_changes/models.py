"""An account on its way from one address to another."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, length_check

__all__ = ("EmailChange",)


class EmailChange(TenantBase):
    """What both addresses have to agree to, each by a single-use credential of its own."""

    __tablename__ = "email_change"
    __table_args__ = (
        UniqueConstraint("old_digest", name="uq_email_change_old_digest"),
        UniqueConstraint("new_digest", name="uq_email_change_new_digest"),
        length_check("old_email", 254, minimum=3),
        length_check("new_email", 254, minimum=3),
        {"info": {"secret": True}},
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    session_id: Mapped[UUID | None] = mapped_column(ForeignKey("user_session.id", ondelete="SET NULL"), index=True)
    """That asked for it, and stays when the others end."""
    old_email: Mapped[str] = mapped_column(Text, info={"personal": "email"})
    new_email: Mapped[str] = mapped_column(Text, info={"personal": "email"})
    old_digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the credential that is mailed to the old address."""
    new_digest: Mapped[bytes] = mapped_column(LargeBinary)
    """Likewise, to the new one; where that has an account already, of a credential that nobody has."""
    expires_at: Mapped[datetime.datetime]
    old_confirmed_at: Mapped[datetime.datetime | None]
    new_confirmed_at: Mapped[datetime.datetime | None]
    ended_at: Mapped[datetime.datetime | None]
    """When it was carried out, cancelled, or replaced by another."""
