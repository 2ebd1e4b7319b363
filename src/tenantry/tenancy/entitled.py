"""What a tenant is entitled to, on the wire: for its own people and for operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tenantry.kernel.schema import BaseStruct
from tenantry.tenancy.entitlements import current_entitlements
from tenantry.tenancy.plan import (
    LIMITS,
    Concurrency,
    ConnectionCount,
    IdleTimeout,
    JobConcurrency,
    JobWeight,
    LockTimeout,
    Rate,
    RequestBurst,
    StatementTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.tenancy.plan import PlanLimits

__all__ = ("FeatureState", "LimitsRead", "QuotaUse", "read_features", "read_limits", "read_quotas")


class LimitsRead(BaseStruct):
    """Rates, times and shares; null is what the deployment's settings say."""

    statement_timeout: StatementTimeout | None = None
    """Milliseconds that one SQL statement may run."""
    lock_timeout: LockTimeout | None = None
    """Milliseconds that a statement may wait for a lock."""
    idle_in_transaction_timeout: IdleTimeout | None = None
    """Milliseconds that a transaction may stay open without a statement."""
    request_rate: Rate | None = None
    """Requests of the whole organization per second, over time."""
    request_burst: RequestBurst | None = None
    """Requests of the whole organization at once."""
    user_rate: Rate | None = None
    """As `requestRate`, of one user."""
    user_burst: RequestBurst | None = None
    key_rate: Rate | None = None
    """As `requestRate`, of one API key."""
    key_burst: RequestBurst | None = None
    concurrent_requests: Concurrency | None = None
    """Requests that one process works on at a time."""
    connections: ConnectionCount | None = None
    """Of one process' database connections, how many at a time."""
    job_weight: JobWeight | None = None
    """Of the workers' turns, beside the others' weights."""
    job_concurrency: JobConcurrency | None = None
    """Jobs at work at a time."""


class FeatureState(BaseStruct):
    """One thing that a plan includes or does not."""

    name: str
    description: str
    is_included: bool


class QuotaUse(BaseStruct):
    """How much there is of something, and how much there may be."""

    name: str
    description: str
    unit: Literal["count", "bytes"]
    used: int | None
    """Null where nobody can look: there is no schema."""
    allowed: int | None
    """Null where there is no limit."""


def read_limits(plan: PlanLimits) -> LimitsRead:
    """The plain numbers of what a tenant is entitled to."""
    return LimitsRead(**{name: getattr(plan, name) for name in LIMITS})


def read_features(plan: PlanLimits) -> list[FeatureState]:
    """Everything that can be included, and whether it is."""
    return [
        FeatureState(
            name=switch.name,
            description=switch.description,
            is_included=plan.features.get(switch.name, switch.default),
        )
        for switch in current_entitlements().switches.values()
    ]


def read_quotas(plan: PlanLimits, used: Mapping[str, int] | None) -> list[QuotaUse]:
    """Everything that is counted; `used` by the quotas' names, None where nobody can look."""
    return [
        QuotaUse(
            name=quota.name,
            description=quota.description,
            unit=quota.unit,
            used=None if used is None else used[quota.name],
            allowed=plan.quotas.get(quota.name),
        )
        for quota in current_entitlements().quotas.values()
    ]
