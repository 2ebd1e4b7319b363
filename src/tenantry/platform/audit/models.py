"""What was done to the platform, by whom and why."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import SharedBase, length_check

__all__ = ("AuditEntry",)


class AuditEntry(SharedBase):
    """One act. The control plane's role may write such rows and read them, and never change or delete one."""

    __tablename__ = "audit_entry"
    __table_args__ = (
        length_check("actor", 200, minimum=1),
        length_check("action", 100, minimum=1),
        length_check("reason", 1000),
        Index("ix_audit_entry_tenant_id_id", "tenant_id", "id"),
        Index("ix_audit_entry_actor_id", "actor", "id"),
        # The last of these is looked for every few seconds, in a trail that has them once a night.
        Index("ix_audit_entry_backup_completed", "id", postgresql_where=text("action = 'backup.completed'")),
    )

    actor: Mapped[str] = mapped_column(Text)
    """`operator:<id>`, `cli:<account of the system>`, `user:<tenant id>/<user id>`, `provisioner`, or, of a stranger,
    `sign-up` and `sign-up:<id>`."""
    action: Mapped[str] = mapped_column(Text)
    """`<resource>.<verb>`."""
    tenant_id: Mapped[UUID | None]
    """No foreign key: the trail outlives everything that it speaks of."""
    target: Mapped[str | None] = mapped_column(Text)
    """What else it was done to: an operator's or a rollout's id, a plan's slug."""
    reason: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default=text("'{}'"))
    """Ids, names of fields, states: nothing personal and nothing secret, so that it need never be erased."""
    request_id: Mapped[str | None] = mapped_column(Text)
