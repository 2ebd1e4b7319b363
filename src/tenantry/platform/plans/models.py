"""What a tenant is entitled to."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, FetchedValue, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import SharedBase, length_check

__all__ = ("Plan",)


class Plan(SharedBase):
    """A plan, as `tenants/plans.toml` declares it."""

    __tablename__ = "plan"
    __table_args__ = (
        UniqueConstraint("slug", name="uq_plan_slug"),
        CheckConstraint("slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'", name="slug_form"),
        length_check("name", 200, minimum=1),
        length_check("description", 1000),
        CheckConstraint("statement_timeout BETWEEN 1 AND 600000", name="statement_timeout_range"),
        CheckConstraint("job_weight BETWEEN 0.01 AND 100", name="job_weight_range"),
        CheckConstraint("job_concurrency BETWEEN 1 AND 1000", name="job_concurrency_range"),
    )

    slug: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    statement_timeout: Mapped[int | None]
    """Milliseconds that one statement of a tenant on this plan may run; None is the deployment's setting."""
    job_weight: Mapped[float] = mapped_column(default=1.0, server_default=text("1"))
    """A tenant's part of the workers' turns, beside the weights of the others."""
    job_concurrency: Mapped[int] = mapped_column(default=8, server_default=text("8"))
    """How many jobs of a tenant are at work at a time."""
    changed_xid: Mapped[int] = mapped_column(
        BigInteger, index=True, server_default=FetchedValue(), server_onupdate=FetchedValue()
    )
    """The transaction that last changed the row, set by a trigger; the registries follow it."""
