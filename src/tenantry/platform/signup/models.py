"""Organizations that somebody wants, and has not confirmed yet."""

from __future__ import annotations

import datetime
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, Index, LargeBinary, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import SharedBase, length_check

__all__ = ("SignUp",)


class SignUp(SharedBase):
    """A stranger's wish for an organization, which a link that is mailed to them confirms."""

    __tablename__ = "signup"
    __table_args__ = (
        UniqueConstraint("digest", name="uq_signup_digest"),
        length_check("organization", 200, minimum=1),
        CheckConstraint("slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'", name="slug_form"),
        length_check("email", 254, minimum=3),
        length_check("name", 100),
        Index("ix_signup_slug", "slug"),
        Index("ix_signup_expires_at", "expires_at"),
        Index("ix_signup_tenant_id", "tenant_id", postgresql_where=text("tenant_id IS NOT NULL")),
    )

    # Whoever knows it may ask for the mail again, so it is all chance: a UUID of version 7 tells when it was made.
    id: Mapped[UUID] = mapped_column(default=uuid4, primary_key=True, insert_sentinel=True, sort_order=-100)
    organization: Mapped[str] = mapped_column(Text)
    """The name that it is to have."""
    slug: Mapped[str] = mapped_column(Text)
    email: Mapped[str] = mapped_column(Text)
    """Normalized; nobody knows yet whether it is theirs."""
    name: Mapped[str | None] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the credential in the link."""
    expires_at: Mapped[datetime.datetime]
    held_until: Mapped[datetime.datetime | None]
    """For so long nobody else gets the slug; None where somebody had it held already."""
    confirmed_at: Mapped[datetime.datetime | None]
    tenant_id: Mapped[UUID | None]
    """What has become of it. No foreign key: it is written before the tenant, so that of two only one makes it."""
