"""What people are told, and what they want to be told."""

from __future__ import annotations

import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, TenantRecord, length_check

__all__ = ("Notification", "NotificationInbox", "NotificationPreference")


class NotificationInbox(TenantRecord):
    """How many notifications a user was ever given; the id is the user's.

    Its row is locked from the first notification of a transaction to the commit: a user's notifications become visible
    in the order of their positions, so that whoever has seen one has missed none before it. Ids and times are made
    before the commit, and do not have that order. A position is given once, also when what had it is deleted.
    """

    __tablename__ = "notification_inbox"
    __table_args__ = (CheckConstraint("position > 0", name="position_range"),)

    id: Mapped[UUID] = mapped_column(
        ForeignKey("user_account.id", ondelete="CASCADE"), primary_key=True, sort_order=-100
    )
    position: Mapped[int] = mapped_column(BigInteger)
    """The last one that was given."""


class Notification(TenantBase):
    """What one user is told of one event. Everything in it is as impersonal as the event is."""

    __tablename__ = "notification"
    __table_args__ = (
        # Jobs run at least once: a user is told of an event once.
        UniqueConstraint("user_id", "event_id", name="uq_notification_user_id_event_id"),
        UniqueConstraint("user_id", "position", name="uq_notification_user_id_position"),
        length_check("kind", 100, minimum=1),
        length_check("actor", 200, minimum=1),
        Index("ix_notification_user_id_unread", "user_id", postgresql_where=text("read_at IS NULL")),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(BigInteger)
    """Among the user's own."""
    kind: Mapped[str] = mapped_column(Text)
    """The event's name."""
    event_id: Mapped[UUID]
    """No foreign key: as the trail says, an event may outlive what it speaks of, and a notification the trail."""
    actor: Mapped[str] = mapped_column(Text)
    """`user:<id>`, `api_key:<id>`, `operator`, `job:<name>` or `system`."""
    subject: Mapped[UUID]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    read_at: Mapped[datetime.datetime | None]


class NotificationPreference(TenantBase):
    """What a user has chosen for one kind; without a row the kind says."""

    __tablename__ = "notification_preference"
    __table_args__ = (
        UniqueConstraint("user_id", "kind", name="uq_notification_preference_user_id_kind"),
        length_check("kind", 100, minimum=1),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Text)
    in_app: Mapped[bool]
