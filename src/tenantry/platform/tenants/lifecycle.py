"""A tenant's states, and the events that lead from one to another.

provisioning ── activate ──▶ active ◀── resume ─── suspended
     │                        │  ▲  └── suspend ──▶  │
    fail                   archive └─ restore ─┐     │
     ▼                        ▼                │     │
   failed                  archived ───────────┘◀─ archive
     │                        │
     └─────── delete ─────────┴──▶ purging ── purge ──▶ purged
                                   (undelete leads back to where it came from)
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from tenantry.kernel.errors import ConflictException, define_problem

if TYPE_CHECKING:
    from tenantry.tenancy.models import Tenant

__all__ = ("EVENTS", "TRANSITION", "Event", "allowed_events", "require_living", "require_state", "transition")

TRANSITION = define_problem(
    "invalid-transition",
    409,
    "Not from this state",
    "The organization's present state does not allow this; `state` names it, `allowed` what it does allow.",
)

Event = Literal[
    "activate", "fail", "suspend", "resume", "archive", "restore", "delete", "undelete", "purge", "clone", "export"
]


class _Rule(NamedTuple):
    sources: frozenset[str]
    target: str | None
    """None: the state that `status_before` names, or no change."""


def _rule(sources: str, target: str | None) -> _Rule:
    return _Rule(frozenset(sources.split()), target)


EVENTS: Mapping[Event, _Rule] = MappingProxyType(
    {
        "activate": _rule("provisioning", "active"),
        "fail": _rule("provisioning", "failed"),
        "suspend": _rule("active", "suspended"),
        "resume": _rule("suspended", "active"),
        "archive": _rule("active suspended", "archived"),
        "restore": _rule("archived", "active"),
        "delete": _rule("active suspended archived failed", "purging"),
        "undelete": _rule("purging", None),
        "purge": _rule("purging", "purged"),
        # These leave the state as it is.
        "clone": _rule("active suspended", None),
        "export": _rule("active suspended", None),
    }
)

_INTERNAL: frozenset[str] = frozenset({"activate", "fail"})


def allowed_events(status: str) -> list[Event]:
    """What an operator may ask for in this state, sorted."""
    return sorted(event for event, rule in EVENTS.items() if status in rule.sources and event not in _INTERNAL)


def require_state(tenant: Tenant, event: Event) -> None:
    """Refuse an event that the tenant's present state does not allow.

    Raises:
        ConflictException: naming the state and the events that it allows.
    """
    if tenant.status not in EVENTS[event].sources:
        raise _refusal(tenant, event)


def require_living(tenant: Tenant, what: str) -> None:
    """Refuse `what` to a tenant that was purged: its row is a record of the past.

    Raises:
        ConflictException: it was.
    """
    if tenant.status == "purged":
        raise _refusal(tenant, what)


def _refusal(tenant: Tenant, what: str) -> ConflictException:
    allowed = allowed_events(tenant.status)
    return ConflictException(
        f"{tenant.slug!r} is {tenant.status}: {what} is not possible"
        f" (possible: {', '.join(allowed) or 'nothing any more'}).",
        problem=TRANSITION,
        state=tenant.status,
        allowed=list(allowed),
    )


def transition(tenant: Tenant, event: Event, *, reason: str | None = None) -> None:
    """Move a tenant, whose row the caller has locked, to the state that the event leads to.

    Raises:
        ConflictException: the present state does not allow it.
    """
    require_state(tenant, event)
    source, target = tenant.status, EVENTS[event].target
    if event == "undelete":
        target = tenant.status_before or "suspended"
    if target is None:
        return
    tenant.status_before = source if event == "delete" else None
    tenant.status, tenant.status_reason = target, reason
    tenant.status_changed_at = datetime.datetime.now(datetime.UTC)
