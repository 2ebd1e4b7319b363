"""Metrics of the database's pools, transactions and slow statements, and of the registry."""

from __future__ import annotations

from collections import Counter as Tally
from time import monotonic
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import Pool

    from tenantry.tenancy.registry import TenantRegistry
    from tenantry.tenancy.scope import Scope

__all__ = (
    "CLOSED",
    "OPENED",
    "sample_pool",
    "sample_registry",
    "statement_was_slow",
    "transaction_ended",
    "waited",
)

_WAITS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_TIMES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

_connections = Gauge(
    "tenantry_database_connections",
    "Connections of a pool, by whether a transaction has them (in_use) or not (idle).",
    ("pool", "state"),
    multiprocess_mode="livesum",
)
_waiting = Gauge(
    "tenantry_database_waiting",
    "Transactions that wait for a connection of a pool now.",
    ("pool",),
    multiprocess_mode="livesum",
)
OPENED = Counter("tenantry_database_connections_opened", "Connections that a pool has opened.", ("pool",))
CLOSED = Counter(
    "tenantry_database_connections_closed",
    "Connections that a pool has closed: surplus ones (surplus), doubtful or lost ones (invalid), all of them when the "
    "process ends (end), or for another reason that whoever closed it has named.",
    ("pool", "reason"),
)
_wait = Histogram(
    "tenantry_database_wait_seconds", "How long transactions have waited for a connection.", ("pool",), buckets=_WAITS
)
_transactions = Histogram(
    "tenantry_database_transaction_seconds",
    "Time of transactions, from their BEGIN to the return of the connection, by plane: tenant, platform, or none.",
    ("plane",),
    buckets=_TIMES,
)
_slow = Counter(
    "tenantry_slow_statements",
    "Statements that took longer than TENANTRY_SLOW_STATEMENT, by the tenant's plan; the platform's own as _platform.",
    ("plan",),
)
_tenants = Gauge(
    "tenantry_registry_tenants",
    "Tenants that this process knows, by plan and status; the largest of several processes' figures.",
    ("plan", "status"),
    multiprocess_mode="livemax",
)
_age = Gauge(
    "tenantry_registry_age_seconds",
    "How old what this process knows of the tenants is; beyond TENANTRY_REGISTRY_STALE_AFTER it answers 503.",
    multiprocess_mode="livemax",
)

# Looking children up costs more than counting does; and pools and planes are few.
_observe_wait: dict[str, Callable[[float], None]] = {}
_observe_transaction = {plane: _transactions.labels(plane).observe for plane in ("tenant", "platform", "none")}


def waited(pool: str, seconds: float) -> None:
    """A transaction has got its connection, after so long."""
    try:
        observe = _observe_wait[pool]
    except KeyError:
        observe = _observe_wait[pool] = _wait.labels(pool).observe
    observe(seconds)


def transaction_ended(scope: Scope, seconds: float) -> None:
    """A transaction has taken so long."""
    _observe_transaction[scope.plane](seconds)


def statement_was_slow(scope: Scope | None) -> None:
    """Count a statement that took too long."""
    _slow.labels(scope.plan if scope is not None and scope.plan else "_platform").inc()


def sample_pool(name: str, pool: Pool, waiting: int = 0) -> None:
    """Look how many connections a pool has, and who waits for one."""
    in_use: int = getattr(pool, "checkedout", int)()
    idle: int = getattr(pool, "checkedin", int)()
    _connections.labels(name, "in_use").set(in_use)
    _connections.labels(name, "idle").set(idle)
    _waiting.labels(name).set(waiting)


_sampled: set[tuple[str, str]] = set()


def sample_registry(registry: TenantRegistry) -> None:
    """Look what the registry knows, and how old that is; without end, where it has not been read yet."""
    _age.set(max(0.0, monotonic() - registry.fresh_at))
    tally = Tally((tenant.plan.slug, tenant.status) for tenant in registry.all())
    # What there was, and is not any more, is none and not the last number that there was.
    for labels in _sampled | tally.keys():
        _tenants.labels(*labels).set(tally[labels])
    _sampled.update(tally)
