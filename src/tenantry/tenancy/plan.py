"""What a tenant is entitled to, as every process knows it: its plan's limits with the tenant's own overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ("PlanLimits",)


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
