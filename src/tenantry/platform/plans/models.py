"""What a tenant is entitled to."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, FetchedValue, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
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
        CheckConstraint("lock_timeout BETWEEN 1 AND 600000", name="lock_timeout_range"),
        CheckConstraint("idle_in_transaction_timeout BETWEEN 1 AND 600000", name="idle_in_transaction_timeout_range"),
        *(
            CheckConstraint(f"{kind}_rate BETWEEN 0.01 AND 1000000", name=f"{kind}_rate_range")
            for kind in ("request", "user", "key")
        ),
        *(
            CheckConstraint(f"{kind}_burst BETWEEN 1 AND 1000000", name=f"{kind}_burst_range")
            for kind in ("request", "user", "key")
        ),
        CheckConstraint("concurrent_requests BETWEEN 1 AND 10000", name="concurrent_requests_range"),
        CheckConstraint("connections BETWEEN 1 AND 1000", name="connections_range"),
        CheckConstraint("job_weight BETWEEN 0.01 AND 100", name="job_weight_range"),
        CheckConstraint("job_concurrency BETWEEN 1 AND 1000", name="job_concurrency_range"),
        CheckConstraint("jsonb_typeof(quotas) = 'object'", name="quotas_object"),
        CheckConstraint("jsonb_typeof(features) = 'object'", name="features_object"),
    )

    slug: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    statement_timeout: Mapped[int | None]
    """Milliseconds that one statement of a tenant on this plan may run; None is the deployment's setting."""
    lock_timeout: Mapped[int | None]
    idle_in_transaction_timeout: Mapped[int | None]
    request_rate: Mapped[float | None]
    """What these mean, `tenantry.tenancy.plan.PlanLimits` says, into which the registries put them."""
    request_burst: Mapped[int | None]
    user_rate: Mapped[float | None]
    user_burst: Mapped[int | None]
    key_rate: Mapped[float | None]
    key_burst: Mapped[int | None]
    concurrent_requests: Mapped[int | None]
    connections: Mapped[int | None]
    job_weight: Mapped[float] = mapped_column(default=1.0, server_default=text("1"))
    """A tenant's part of the workers' turns, beside the weights of the others."""
    job_concurrency: Mapped[int] = mapped_column(default=8, server_default=text("8"))
    """How many jobs of a tenant are at work at a time."""
    quotas: Mapped[dict[str, int]] = mapped_column(JSONB, default=dict, server_default=text("'{}'"))
    """How much there may be of what is counted; what is not named has no limit."""
    features: Mapped[dict[str, bool]] = mapped_column(JSONB, default=dict, server_default=text("'{}'"))
    """What is included and what is not; what is not named is as its manifest says."""
    changed_xid: Mapped[int] = mapped_column(
        BigInteger, index=True, server_default=FetchedValue(), server_onupdate=FetchedValue()
    )
    """The transaction that last changed the row, set by a trigger; the registries follow it."""
