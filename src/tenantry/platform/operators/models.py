"""The people who run the platform."""

from __future__ import annotations

import datetime

from sqlalchemy import Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import SharedBase, length_check, one_of_check

__all__ = ("OPERATOR_ROLES", "Operator")

OPERATOR_ROLES = ("owner", "operator", "support", "auditor")
"""What each may do is in `tenantry.platform.access`."""


class Operator(SharedBase):
    """A platform operator; no tenant knows of them."""

    __tablename__ = "operator"
    __table_args__ = (
        UniqueConstraint("email", name="uq_operator_email"),
        length_check("email", 254, minimum=3),
        length_check("name", 200),
        one_of_check("role", OPERATOR_ROLES),
    )

    email: Mapped[str] = mapped_column(Text)
    name: Mapped[str | None] = mapped_column(Text)
    hashed_password: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    is_active: Mapped[bool] = mapped_column(default=True)
    last_login_at: Mapped[datetime.datetime | None]
