"""What an organization asks of accounts, and who may make one."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, one_of_check

__all__ = ("MAX_DOMAINS", "ONLY", "SIGN_UP_MODES", "AccountPolicy")

SIGN_UP_MODES = ("domains", "open", "off")
MAX_DOMAINS = 50
ONLY = UUID(int=1)
"""The id of the one row; without it, everything is as its defaults say."""


class AccountPolicy(TenantBase):
    """One row, or none while nobody has changed anything."""

    __tablename__ = "account_policy"
    __table_args__ = (
        one_of_check("sign_up", SIGN_UP_MODES),
        CheckConstraint(f"cardinality(domains) <= {MAX_DOMAINS}", name="domains_range"),
    )

    sign_up: Mapped[str] = mapped_column(Text, default="off")
    """Who may make an account without being invited: nobody, people of the `domains`, or everybody."""
    domains: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    """Of addresses, in the form in which those are stored."""
    role_id: Mapped[UUID | None] = mapped_column(ForeignKey("role.id", ondelete="RESTRICT"), index=True)
    """That newcomers are given. While it is, it cannot be deleted: who signs up next would get another."""
    verified_only: Mapped[bool] = mapped_column(default=False)
    """Nobody is let in whose address is not confirmed."""
