"""Rollouts: bringing every tenant's schema to a revision, and what became of each."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import SharedBase, one_of_check
from tenantry.tenancy.scope import SHARED_SCHEMA

__all__ = ("ROLLOUT_STATES", "ROLLOUT_TENANT_STATES", "Rollout", "RolloutTenant")

ROLLOUT_STATES = ("running", "halted", "done", "cancelled")
ROLLOUT_TENANT_STATES = ("pending", "done", "failed")


class Rollout(SharedBase):
    """One rollout. `running` says that it is to be worked on; whoever does holds an advisory lock, not the row."""

    __tablename__ = "rollout"
    __table_args__ = (
        one_of_check("status", ROLLOUT_STATES),
        CheckConstraint("canary >= 0", name="canary_range"),
        CheckConstraint("concurrency BETWEEN 1 AND 64", name="concurrency_range"),
        CheckConstraint("halt_after >= 1", name="halt_after_range"),
        Index("uq_rollout_running", text("(status)"), unique=True, postgresql_where=text("status = 'running'")),
    )

    target: Mapped[str] = mapped_column(Text)
    """The revision of the tenant tree that every tenant is to have."""
    status: Mapped[str] = mapped_column(Text, default="running")
    canary: Mapped[int]
    """How many tenants go first; one failure among them halts the rollout."""
    concurrency: Mapped[int]
    halt_after: Mapped[int]
    """How many failed tenants halt it."""
    lock_timeout: Mapped[int]
    """Milliseconds that a tenant's migration waits for a lock before it gives way and is tried again later."""
    max_attempts: Mapped[int]
    only: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    """Slugs of the tenants that it is restricted to; None for all."""
    requested_by: Mapped[str] = mapped_column(Text)
    halted_reason: Mapped[str | None] = mapped_column(Text)
    finished_at: Mapped[datetime.datetime | None]


class RolloutTenant(SharedBase):
    """One tenant in a rollout."""

    __tablename__ = "rollout_tenant"
    __table_args__ = (
        UniqueConstraint("rollout_id", "tenant_id", name="uq_rollout_tenant_rollout_id_tenant_id"),
        one_of_check("status", ROLLOUT_TENANT_STATES),
    )

    rollout_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SHARED_SCHEMA}.rollout.id"))
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SHARED_SCHEMA}.tenant.id"), index=True)
    wave: Mapped[int]
    """0 for the canaries, 1 for the rest."""
    status: Mapped[str] = mapped_column(Text, default="pending")
    from_revision: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime.datetime] = mapped_column(default=lambda: datetime.datetime.now(datetime.UTC))
    error: Mapped[str | None] = mapped_column(Text)
    statement: Mapped[str | None] = mapped_column(Text)
    """The statement that failed."""
    duration: Mapped[int | None]
    """Milliseconds that the migration took."""
    finished_at: Mapped[datetime.datetime | None]
