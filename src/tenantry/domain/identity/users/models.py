"""A person's account in one organization."""

from __future__ import annotations

import datetime

from sqlalchemy import Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tenantry.domain.roles.models import UserRole
from tenantry.tenancy.models import TenantBase, length_check

__all__ = ("User",)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class User(TenantBase):
    """An account. The same person in two organizations has two, and neither knows of the other.

    Relationships between packages point one way, as their imports do: a team knows its members, a user's teams are
    asked of the teams.
    """

    __tablename__ = "user_account"
    __table_args__ = (
        UniqueConstraint("email", name="uq_user_account_email"),
        Index("ix_user_account_email_is_active", "email", "is_active"),
        length_check("email", 254, minimum=3),
        length_check("name", 100),
        length_check("avatar_url", 500),
        length_check("locale", 35),
        length_check("time_zone", 64),
    )

    email: Mapped[str] = mapped_column(Text, info={"personal": "email"})
    """Normalized, in lower case."""
    hashed_password: Mapped[str | None] = mapped_column(
        Text, deferred=True, deferred_group="secret", info={"secret": True}
    )
    """argon2id; None until an invitation is accepted. Deferred, so that no list carries it about."""
    name: Mapped[str | None] = mapped_column(Text, info={"personal": "name"})
    avatar_url: Mapped[str | None] = mapped_column(Text, info={"personal": "url"})
    locale: Mapped[str | None] = mapped_column(Text)
    time_zone: Mapped[str | None] = mapped_column(Text)
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    is_verified: Mapped[bool] = mapped_column(default=False)
    verified_at: Mapped[datetime.datetime | None]
    joined_at: Mapped[datetime.datetime] = mapped_column(default=_now)
    last_login_at: Mapped[datetime.datetime | None]

    roles: Mapped[list[UserRole]] = relationship(lazy="selectin", cascade="all, delete-orphan", passive_deletes=True)
