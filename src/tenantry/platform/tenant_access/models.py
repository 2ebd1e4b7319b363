"""Operators in organizations, as the control plane lists them."""

from __future__ import annotations

import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import SharedBase, length_check
from tenantry.tenancy.scope import SHARED_SCHEMA

__all__ = ("OperatorAccess",)


class OperatorAccess(SharedBase):
    """One operator's being in one organization, under the same id as there.

    A token is good while both rows are: what the organization ends, and what ends the operator's account or changes
    their role, counts with the next request.
    """

    __tablename__ = "operator_access"
    __table_args__ = (
        length_check("reason", 500, minimum=1),
        Index("ix_operator_access_tenant_id_created_at", "tenant_id", "created_at"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SHARED_SCHEMA}.tenant.id"))
    operator_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SHARED_SCHEMA}.operator.id"))
    operator_role: Mapped[str] = mapped_column(Text)
    """With which they came: with another one it is over."""
    can_write: Mapped[bool] = mapped_column(default=False)
    is_break_glass: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime.datetime]
    """At the latest: the organization's grant may end before."""
    closed_at: Mapped[datetime.datetime | None]

    @property
    def access(self) -> Literal["read", "write"]:
        return "write" if self.can_write else "read"

    @property
    def is_open(self) -> bool:
        return self.closed_at is None and self.expires_at > datetime.datetime.now(datetime.UTC)
