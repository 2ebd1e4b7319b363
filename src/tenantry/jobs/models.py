"""The outbox: jobs that were committed with the data that they are about."""

from __future__ import annotations

import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import SharedBase, length_check, one_of_check
from tenantry.tenancy.scope import SHARED_SCHEMA

__all__ = ("OUTBOX_STATES", "OutboxEntry", "ScheduleEntry")

OUTBOX_STATES = ("pending", "later", "relayed", "dead")
"""`later` becomes `pending` when it is due: among what is `pending` the relay looks for whose turn it is, and it is
not to walk over everybody who has something to do tomorrow."""


class OutboxEntry(SharedBase):
    """A job that is to be done. There is no state `done`: the job deletes its row in the transaction of its effect."""

    __tablename__ = "outbox"
    __table_args__ = (
        one_of_check("status", OUTBOX_STATES),
        length_check("name", 100, minimum=1),
        length_check("key", 200, minimum=1),
        CheckConstraint("pg_column_size(arguments) <= 262144", name="arguments_size"),
        CheckConstraint("retries BETWEEN 2 AND 100", name="retries_range"),
        CheckConstraint("timeout BETWEEN 1 AND 86400", name="timeout_range"),
        Index("ix_outbox_tenant_id_due_pending", "tenant_id", "due", "id", postgresql_where=text("status = 'pending'")),
        Index("ix_outbox_due_later", "due", postgresql_where=text("status = 'later'")),
        Index("ix_outbox_again_at_relayed", "again_at", postgresql_where=text("status = 'relayed'")),
        Index(
            "ix_outbox_tenant_id_updated_at_dead", "tenant_id", "updated_at", postgresql_where=text("status = 'dead'")
        ),
        Index(
            "uq_outbox_key",
            "tenant_id",
            "name",
            "key",
            unique=True,
            postgresql_where=text("key IS NOT NULL AND status <> 'dead'"),
            postgresql_nulls_not_distinct=True,
        ),
    )

    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey(f"{SHARED_SCHEMA}.tenant.id"))
    """None for a job of the platform."""
    name: Mapped[str] = mapped_column(Text)
    arguments: Mapped[dict[str, Any]] = mapped_column(JSONB)
    key: Mapped[str | None] = mapped_column(Text)
    """Of the jobs of a name, only one with this key waits or runs."""
    status: Mapped[str] = mapped_column(Text, default="pending")
    due: Mapped[datetime.datetime]
    retries: Mapped[int]
    timeout: Mapped[int]
    """Seconds."""
    meta: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """Who asked, in which request."""
    again_at: Mapped[datetime.datetime | None]
    """When it is relayed once more, if it is still here: Redis has lost it."""
    error: Mapped[str | None] = mapped_column(Text)


class ScheduleEntry(SharedBase):
    """When a tenant's scheduled job comes next; of the platform's own the tenant is None."""

    __tablename__ = "schedule"
    __table_args__ = (
        length_check("name", 100, minimum=1),
        length_check("timezone", 64, minimum=1),
        UniqueConstraint("tenant_id", "name", name="uq_schedule_tenant_id_name", postgresql_nulls_not_distinct=True),
        Index("ix_schedule_next_run_at_enabled", "next_run_at", postgresql_where=text("enabled")),
    )

    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey(f"{SHARED_SCHEMA}.tenant.id"))
    name: Mapped[str] = mapped_column(Text)
    enabled: Mapped[bool] = mapped_column(default=True)
    timezone: Mapped[str] = mapped_column(Text, default="UTC")
    """In which the crontab line is read (IANA)."""
    timezone_set_at: Mapped[datetime.datetime | None]
    """When somebody chose it; None where nobody has. What is enrolled later takes the zone that was chosen last."""
    next_run_at: Mapped[datetime.datetime]
    last_run_at: Mapped[datetime.datetime | None]
