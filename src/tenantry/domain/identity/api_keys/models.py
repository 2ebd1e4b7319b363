"""A machine's credential."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, length_check

__all__ = ("ApiKey",)


class ApiKey(TenantBase):
    """A key of a user or of a service account. Every request by it looks it up, so that an end of it counts at once."""

    __tablename__ = "api_key"
    __table_args__ = (
        UniqueConstraint("digest", name="uq_api_key_digest"),
        UniqueConstraint("previous_digest", name="uq_api_key_previous_digest"),
        CheckConstraint("num_nonnulls(user_id, service_account_id) = 1", name="one_owner"),
        CheckConstraint("cardinality(scopes) <= 200", name="scopes_range"),
        length_check("name", 100, minimum=1),
        length_check("hint", 20, minimum=1),
        # In a copy of the organization nobody shall have a key whom nobody has given one.
        {"info": {"secret": True}},
    )

    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    service_account_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("service_account.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(Text)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """Names of permissions. What it may do is what these and its owner's roles both permit."""
    digest: Mapped[bytes] = mapped_column(LargeBinary, deferred=True, deferred_group="secret")
    """SHA-256 of the whole key: 256 random bits need no slow hash."""
    hint: Mapped[str] = mapped_column(Text)
    """Its last four digits, by which people tell one from another."""
    previous_digest: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True, deferred_group="secret")
    previous_until: Mapped[datetime.datetime | None]
    """Until then the key before the last rotation is good as well."""
    expires_at: Mapped[datetime.datetime | None]
    created_by_id: Mapped[UUID | None] = mapped_column(ForeignKey("user_account.id", ondelete="SET NULL"), index=True)
    last_used_at: Mapped[datetime.datetime | None]
    """Up to five minutes old: see `tenantry.domain.identity.api_keys.last_use`."""
    revoked_at: Mapped[datetime.datetime | None]
