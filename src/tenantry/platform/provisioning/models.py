"""Work for the provisioner, the only process that may change schemas and roles, and the schemas that it keeps ready."""

from __future__ import annotations

import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import SharedBase, length_check, one_of_check
from tenantry.tenancy.scope import SHARED_SCHEMA

__all__ = ("OPERATION_KINDS", "OPERATION_STATES", "Operation", "WarmSchema")

OPERATION_KINDS = ("create", "archive", "restore", "purge", "clone", "export", "import")
OPERATION_STATES = ("pending", "done", "failed")


class Operation(SharedBase):
    """One piece of such work. There is no state `running`: the row's lock is, so a killed provisioner leaves none."""

    __tablename__ = "operation"
    __table_args__ = (
        one_of_check("kind", OPERATION_KINDS),
        one_of_check("status", OPERATION_STATES),
        length_check("error", 2000),
        Index("ix_operation_pending", "not_before", postgresql_where=text("status = 'pending'")),
        # One at a time for a tenant: an export cannot meet a purge half-way.
        Index("uq_operation_tenant_id_pending", "tenant_id", unique=True, postgresql_where=text("status = 'pending'")),
    )

    kind: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, default="pending")
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SHARED_SCHEMA}.tenant.id"), index=True)
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    """What the work needs. Emptied when it ends: it may hold a password's hash."""
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    """What came of it, for whoever asked; nothing secret."""
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime.datetime] = mapped_column(default=lambda: datetime.datetime.now(datetime.UTC))
    error: Mapped[str | None] = mapped_column(Text)
    requested_by: Mapped[str] = mapped_column(Text)
    finished_at: Mapped[datetime.datetime | None]


class WarmSchema(SharedBase):
    """A schema at head that waits for its tenant; the id will be the tenant's."""

    __tablename__ = "warm_schema"

    revision: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(Text)
