"""What a tenant is entitled to, as every process knows it: its plan's limits with the tenant's own overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from msgspec import Meta

__all__ = (
    "LIMITS",
    "Concurrency",
    "ConnectionCount",
    "IdleTimeout",
    "JobConcurrency",
    "JobWeight",
    "LockTimeout",
    "PlanLimits",
    "Rate",
    "RequestBurst",
    "StatementTimeout",
    "merge_limits",
)

# In milliseconds. The least of each is what an organization can still be served with: PostgreSQL ends the connection of
# a transaction that idles for longer than it may, and between any two statements of a request it idles.
StatementTimeout = Annotated[int, Meta(ge=100, le=600_000)]
LockTimeout = Annotated[int, Meta(ge=10, le=600_000)]
IdleTimeout = Annotated[int, Meta(ge=1000, le=600_000)]
Rate = Annotated[float, Meta(ge=0.01, le=1_000_000)]
RequestBurst = Annotated[int, Meta(ge=1, le=1_000_000)]
Concurrency = Annotated[int, Meta(ge=1, le=10_000)]
ConnectionCount = Annotated[int, Meta(ge=1, le=1000)]
JobWeight = Annotated[float, Meta(ge=0.01, le=100)]
JobConcurrency = Annotated[int, Meta(ge=1, le=1000)]


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What a tenant's plan grants. None: the plan says nothing of it, and the deployment's setting holds."""

    slug: str
    statement_timeout: int | None = None
    """Milliseconds that one SQL statement may run."""
    lock_timeout: int | None = None
    """Milliseconds that a statement may wait for a lock."""
    idle_in_transaction_timeout: int | None = None
    """Milliseconds that a transaction may stay open without a statement."""
    request_rate: float | None = None
    """Requests of the whole organization per second, over time."""
    request_burst: int | None = None
    """Requests of the whole organization at once, beyond which `request_rate` holds."""
    user_rate: float | None = None
    """As `request_rate`, of one of its users."""
    user_burst: int | None = None
    key_rate: float | None = None
    """As `request_rate`, of one of its API keys."""
    key_burst: int | None = None
    concurrent_requests: int | None = None
    """Requests that one process works on at a time; more of them wait for a moment, and are refused then."""
    connections: int | None = None
    """Of one process' database connections, how many may be the organization's at a time."""
    job_weight: float = 1.0
    """Of the workers' turns, beside the other tenants' weights."""
    job_concurrency: int = 8
    """Jobs at work at a time."""
    quotas: Mapping[str, int] = field(default_factory=dict)
    """How much there may be of what is counted, by name; what is not named has no limit."""
    features: Mapping[str, bool] = field(default_factory=dict)
    """Features that are switched on or off, by name; what is not named is as the feature's manifest says."""


LIMITS: tuple[str, ...] = tuple(
    each.name for each in fields(PlanLimits) if each.name not in {"slug", "quotas", "features"}
)
"""What a plan says by one number each: columns of a plan, and keys of a tenant's overrides."""


def merge_limits(slug: str, plan: Mapping[str, Any], overrides: Mapping[str, Any]) -> PlanLimits:
    """A plan's limits, with those of one tenant in their place.

    Args:
        plan: by the names in `LIMITS`, with `quotas` and `features`; None is what the plan does not say.
        overrides: likewise, only what differs. A quota of None has no limit, whatever the plan says.
    """
    found: dict[str, Any] = {}
    for name in LIMITS:
        if (value := overrides.get(name, plan.get(name))) is not None:
            found[name] = value
    quotas = {**plan.get("quotas", {}), **overrides.get("quotas", {})}
    return PlanLimits(
        slug=slug,
        **found,
        quotas={name: amount for name, amount in quotas.items() if amount is not None},
        features={**plan.get("features", {}), **overrides.get("features", {})},
    )
