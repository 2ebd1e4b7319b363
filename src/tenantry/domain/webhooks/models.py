"""Where an organization is told of its events, and what became of each telling."""

from __future__ import annotations

import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, TenantRecord, length_check, one_of_check

__all__ = ("DELIVERY_STATES", "WebhookAttempt", "WebhookDelivery", "WebhookEndpoint")

DELIVERY_STATES = ("pending", "delivered", "failed", "cancelled")

# A copy of an organization must not speak to the customer's systems in the original's name: none of it is copied.
_SECRET = {"info": {"secret": True}}


class WebhookEndpoint(TenantBase):
    """An address of the organization's own."""

    __tablename__ = "webhook_endpoint"
    __table_args__ = (
        length_check("url", 2000, minimum=1),
        length_check("description", 500),
        length_check("disabled_reason", 500),
        CheckConstraint("cardinality(events) <= 100", name="events_range"),
        _SECRET,
    )

    url: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    events: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """Names of events, `team.*`, or `*`."""
    is_enabled: Mapped[bool] = mapped_column(default=True)
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    """Why it was disabled, where nobody did so by hand."""
    secret: Mapped[bytes] = mapped_column(LargeBinary, deferred=True, deferred_group="secret")
    """Sealed by the deployment's vault."""
    previous_secret: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True, deferred_group="secret")
    previous_until: Mapped[datetime.datetime | None]
    """Until then messages are signed with the secret before as well."""
    failing_since: Mapped[datetime.datetime | None]
    """When the first attempt failed of those after which none has succeeded."""
    next_attempt_at: Mapped[datetime.datetime | None]
    """Nothing is sent before; None while nothing has to wait."""
    deleted_at: Mapped[datetime.datetime | None]
    """Nobody sees it from then on; a job deletes it, when its deliveries are."""
    worker_job: Mapped[UUID | None]
    """The job that sends now: of several one sends, or there would be no order."""
    worker_run: Mapped[UUID | None]
    """The attempt at that job: who was taken for dead, and was only slow, sends nothing more."""
    worker_until: Mapped[datetime.datetime | None]
    """When that job is given up, whatever has become of it."""


class WebhookDelivery(TenantBase):
    """One event that an endpoint is told of."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        UniqueConstraint("endpoint_id", "event_id", name="uq_webhook_delivery_endpoint_id_event_id"),
        one_of_check("status", DELIVERY_STATES),
        CheckConstraint("attempt_count >= 0", name="attempt_count_range"),
        Index(
            "ix_webhook_delivery_endpoint_id_turn", "endpoint_id", "turn", postgresql_where=text("status = 'pending'")
        ),
        Index("ix_webhook_delivery_endpoint_id_created_at", "endpoint_id", "created_at"),
        Index("ix_webhook_delivery_updated_at", "updated_at"),
        _SECRET,
    )

    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey("webhook_endpoint.id", ondelete="CASCADE"))
    event_id: Mapped[UUID] = mapped_column(ForeignKey("audit_event.id"), index=True)
    event_name: Mapped[str] = mapped_column(Text)
    turn: Mapped[UUID]
    """An endpoint's pending deliveries are sent in this order: the event's id, or a later one where it is replayed."""
    status: Mapped[str] = mapped_column(Text, default="pending")
    attempt_count: Mapped[int] = mapped_column(default=0)
    """Since it was last put into the line."""
    finished_at: Mapped[datetime.datetime | None]


class WebhookAttempt(TenantRecord):
    """One request, and what came back."""

    __tablename__ = "webhook_attempt"
    __table_args__ = (length_check("error", 500), _SECRET)

    delivery_id: Mapped[UUID] = mapped_column(ForeignKey("webhook_delivery.id", ondelete="CASCADE"), index=True)
    started_at: Mapped[datetime.datetime]
    duration_ms: Mapped[int]
    url: Mapped[str] = mapped_column(Text)
    request_headers: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """The body follows from the event, which never changes."""
    status_code: Mapped[int | None]
    """None where there was no answer."""
    response_headers: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    response_body: Mapped[str | None] = mapped_column(Text)
    """The beginning of it, as text."""
    error: Mapped[str | None] = mapped_column(Text)
