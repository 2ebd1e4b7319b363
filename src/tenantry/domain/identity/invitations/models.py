"""A way in for a person who has no password yet."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tenantry.domain.identity.users.models import User
from tenantry.tenancy.models import TenantBase

__all__ = ("Invitation",)


class Invitation(TenantBase):
    """A single-use, expiring credential with which the invited person sets their password."""

    __tablename__ = "invitation"
    __table_args__ = (UniqueConstraint("digest", name="uq_invitation_digest"), {"info": {"secret": True}})

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the credential."""
    expires_at: Mapped[datetime.datetime]
    accepted_at: Mapped[datetime.datetime | None]
    is_mailed: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Else it was shown to somebody who handed it on, and who comes with it need not read mail at the address."""

    user: Mapped[User] = relationship(lazy="raise", viewonly=True)
