"""Where events are written down."""

from __future__ import annotations

import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantRecord, length_check

__all__ = ("AuditEvent",)


class AuditEvent(TenantRecord):
    """One thing that has happened. The tenant's role may write such rows and read them, and never change or delete one.

    No foreign key: the trail outlives what it speaks of.
    """

    __tablename__ = "audit_event"
    __table_args__ = (
        length_check("name", 100, minimum=1),
        length_check("actor", 200, minimum=1),
        length_check("request_id", 200),
        Index("ix_audit_event_occurred_at_id", "occurred_at", "id"),
        Index("ix_audit_event_actor_id", "actor", "id"),
        Index("ix_audit_event_subject_id", "subject", "id"),
    )

    name: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(Text)
    """`user:<id>`, `api_key:<id>`, `operator` or `operator:<id>`, `job:<name>` or `system`."""
    subject: Mapped[UUID]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """Ids, numbers and words of our own: nothing personal, so that it need never be erased."""
    request_id: Mapped[str | None] = mapped_column(Text)
    occurred_at: Mapped[datetime.datetime]
