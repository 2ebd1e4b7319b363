"""A signed-in device."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, length_check

__all__ = ("SpentRefreshToken", "UserSession")


class UserSession(TenantBase):
    """One sign-in, the `sid` of its access tokens. Every request looks it up, so that an end of it counts at once."""

    __tablename__ = "user_session"
    __table_args__ = (
        UniqueConstraint("refresh_digest", name="uq_user_session_refresh_digest"),
        length_check("user_agent", 500),
        {"info": {"secret": True}},
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    refresh_digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the refresh token that is good now."""
    user_agent: Mapped[str | None] = mapped_column(Text)
    expires_at: Mapped[datetime.datetime]
    last_used_at: Mapped[datetime.datetime]
    revoked_at: Mapped[datetime.datetime | None]


class SpentRefreshToken(TenantBase):
    """A refresh token that was traded for another: whoever presents it again has a stolen token, or was stolen from."""

    __tablename__ = "spent_refresh_token"
    __table_args__ = (UniqueConstraint("digest", name="uq_spent_refresh_token_digest"), {"info": {"secret": True}})

    session_id: Mapped[UUID] = mapped_column(ForeignKey("user_session.id", ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
