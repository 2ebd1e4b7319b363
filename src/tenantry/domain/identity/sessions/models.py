"""Signed-in devices, those that have been, and attempts to be one."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, length_check

__all__ = ("KnownDevice", "LoginAttempt", "SpentRefreshToken", "UserSession")


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
    device: Mapped[str | None] = mapped_column(Text)
    """What the user agent is, in words: `Firefox on Windows`; made here, and short."""
    address: Mapped[str | None] = mapped_column(Text)
    """From which it was opened, or its refresh token last traded."""
    expires_at: Mapped[datetime.datetime]
    last_used_at: Mapped[datetime.datetime]
    """Up to a minute old: see `tenantry.domain.identity.sessions.last_use`."""
    revoked_at: Mapped[datetime.datetime | None]
    authenticated_at: Mapped[datetime.datetime | None]
    """When its person last proved who they are, by whatever: renewing the session proves nothing."""
    enrol_by: Mapped[datetime.datetime | None]
    """When it is good for nothing but setting a second factor up; see `tenantry.domain.identity.enrolment`."""


class SpentRefreshToken(TenantBase):
    """A refresh token that was traded for another: whoever presents it again has a stolen token, or was stolen from."""

    __tablename__ = "spent_refresh_token"
    __table_args__ = (UniqueConstraint("digest", name="uq_spent_refresh_token_digest"), {"info": {"secret": True}})

    session_id: Mapped[UUID] = mapped_column(ForeignKey("user_session.id", ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)


class KnownDevice(TenantBase):
    """A device on which somebody has logged in: of the next one that is not like any of them, its person is told.

    Known again by a token of its own, or else by the program, the system and the network.
    """

    __tablename__ = "known_device"
    __table_args__ = (
        UniqueConstraint("digest", name="uq_known_device_digest"),
        length_check("browser", 100),
        length_check("system", 100),
        length_check("network", 50),
        {"info": {"secret": True}},
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    """SHA-256 of its token, where it was given one."""
    browser: Mapped[str] = mapped_column(Text)
    system: Mapped[str] = mapped_column(Text)
    network: Mapped[str | None] = mapped_column(Text)
    """Where it was last; None where no address tells clients apart."""
    last_seen_at: Mapped[datetime.datetime]


class LoginAttempt(TenantBase):
    """A tally of failed attempts to log in, counted here while Redis is away; see `tenantry…sessions.guessing`.

    Nothing in it says whose they are: an account that does not exist has tallies as well.
    """

    __tablename__ = "login_attempt"
    __table_args__ = (
        UniqueConstraint("subject", "field", name="uq_login_attempt_subject_field"),
        Index("ix_login_attempt_last_at", "last_at"),
        length_check("field", 100),
        {"info": {"secret": True}},
    )

    subject: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of an e-mail address, or of a client's."""
    field: Mapped[str] = mapped_column(Text)
    failures: Mapped[int]
    refused_until: Mapped[int] = mapped_column(BigInteger)
    """A Unix time in milliseconds, as the one below: Redis and Python compute with the same."""
    last_at: Mapped[int] = mapped_column(BigInteger)
