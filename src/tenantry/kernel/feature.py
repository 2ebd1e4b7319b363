"""What a package contributes: its manifest.

Routes, the permission catalogue, Alembic's metadata and the generated isolation suite are all derived from the
manifests that `tenantry.features` lists, so a resource that is registered is served, guarded, migrated and tested.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

if TYPE_CHECKING:
    from litestar import Controller
    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.personal import EraseHook, LeaveHook

__all__ = (
    "DashboardPart",
    "Feature",
    "Owner",
    "Permission",
    "ProvisionHook",
    "Quota",
    "SeedHook",
    "Switch",
    "UsageHook",
)


@dataclass(frozen=True, slots=True)
class Permission:
    """One thing that a caller may be allowed to do, named `<resource>:<verb>`.

    `roles` are the built-in roles that hold it; `owner` holds every permission and is not listed.
    """

    name: str
    description: str
    roles: tuple[str, ...] = ("admin",)
    operators: bool | None = None
    """Whether operators of the platform have it in an organization that has let them in; where nothing is said, those
    to read (`<resource>:read`) and no others. What changes something they have only where they may write."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The first user of a new organization.

    Exactly one of `password_hash` (an argon2 hash) and `invitation_hash` (SHA-256 of a single-use secret) is set.
    """

    email: str
    id: UUID
    name: str | None = None
    password_hash: str | None = None
    invitation_hash: bytes | None = None
    invitation_ttl: int = 0
    invitation_id: UUID | None = None
    """That the invitation is to have, where it is mailed as well: the mail was written down before it."""
    is_verified: bool = False
    """Whether the address is known to be theirs."""


DashboardRead = Callable[..., Awaitable[Any]]

ProvisionHook = Callable[["AsyncSession", Owner], Awaitable[None]]
SeedHook = Callable[["AsyncSession"], Awaitable[None]]
UsageHook = Callable[["AsyncSession"], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class DashboardPart:
    """What people see of a feature when they come in: `GET /api/dashboard`.

    `read` is given a session of its own, which only reads, and the caller (`tenantry.tenancy.guards.Principal`), and
    returns a struct. Whoever does not hold `permission` does not get the part; None is for what is the caller's own.
    Where it is the same for everybody who gets it, it may be a `tenantry.tenancy.cache.cached` read, of the session
    alone.
    """

    name: str
    """Of the field, in camelCase: `apiKeys`."""
    read: DashboardRead
    permission: str | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """Something of which a plan may say how much there is, such as seats.

    `count` says how much there is now: one number, in the tenant's scope. Whatever makes more of it calls
    `tenantry.tenancy.quotas.use_quota` before, in the same transaction.
    """

    name: str
    """As files and the API spell it: `webhook_endpoints`."""
    description: str
    count: Select[Any]
    unit: Literal["count", "bytes"] = "count"


@dataclass(frozen=True, slots=True)
class Switch:
    """Something that a plan includes or does not, such as single sign-on: `requires_feature` asks for it."""

    name: str
    """As files and the API spell it: `audit_export`."""
    description: str
    default: bool = True
    """What holds where the plan says nothing of it."""


@dataclass(frozen=True, slots=True)
class Feature:
    """The manifest of one package.

    `identifiers` maps the name of an id as it appears in a path or a body (`team_id`, `user_id`) to the model that it
    identifies: the isolation suite plants a foreign row for each and tries it on every route.
    `seed` writes the rows that every tenant begins with, when its schema is made, ahead of need: it knows of no tenant.
    `provision` writes those that depend on the owner, in the transaction in which the tenant becomes active; it may
    run in a process that serves, so it is quick and writes nothing but rows.
    `usage` counts, in a tenant's scope, what operators are shown of it: fields of `TenantUsage`.
    Of `quotas` and `switches` plans have their say: docs/plans.md.
    """

    name: str
    controllers: tuple[type[Controller], ...] = ()
    public_controllers: tuple[type[Controller], ...] = ()
    """Of a package of the control plane: routes under /api, for people who have no token of anybody yet."""
    models: tuple[type[Any], ...] = ()
    permissions: tuple[Permission, ...] = ()
    identifiers: Mapping[str, type[Any]] = field(default_factory=dict)
    seed: SeedHook | None = None
    provision: ProvisionHook | None = None
    usage: UsageHook | None = None
    jobs: tuple[Any, ...] = ()
    """What `tenantry.jobs.definition.job` has made."""
    schedules: tuple[Any, ...] = ()
    """When some of them come back by themselves: `tenantry.jobs.schedule.Schedule`."""
    events: tuple[Any, ...] = ()
    """What its services record: `tenantry.events.definition.Event`."""
    listener: Callable[..., Awaitable[None]] | None = None
    """Is called with a session and every event, in the transaction that records it; see the same."""
    mails: tuple[Any, ...] = ()
    """What it writes to people: `tenantry.mail.definition.Mail`."""
    handlers: Mapping[str, Any] = field(default_factory=dict)
    """Jobs that are enqueued with an event, by its name, or by `*` with every one; see `tenantry.events.definition`."""
    notifications: tuple[Any, ...] = ()
    """Of which events people are told, and who: `tenantry.events.notification.NotificationKind`."""
    personal_data: tuple[Any, ...] = ()
    """Which of its rows are about a person: `tenantry.kernel.personal.PersonalData`, or why not `NotCopied`."""
    leaving: LeaveHook | None = None
    """Hands over, or refuses, what would be nobody's when a user is shut out or erased; see the same."""
    erasing: EraseHook | None = None
    """Removes what is an erased person's and no foreign key finds; see the same."""
    dashboard: tuple[DashboardPart, ...] = ()
    """What people see of it when they come in."""
    quotas: tuple[Quota, ...] = ()
    """What it counts, for plans to say how much of it there may be."""
    switches: tuple[Switch, ...] = ()
    """What of it a plan can include or leave out."""
