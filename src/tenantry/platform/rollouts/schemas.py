"""Rollouts on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.kernel.schema import END, BaseStruct, Slug

__all__ = (
    "RevisionRead",
    "RolloutCreate",
    "RolloutDetail",
    "RolloutEvent",
    "RolloutGroup",
    "RolloutPlan",
    "RolloutRead",
    "RolloutTenantRead",
    "RolloutWave",
)

Revision = Annotated[str, Meta(min_length=1, max_length=64, pattern=rf"^[A-Za-z0-9_.\-]+{END}")]


class RolloutCreate(BaseStruct):
    target: Revision | None = None
    """The revision of the tenant tree that the tenants are brought to; by default the newest of this release."""
    canary: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    """How many tenants go first; if one of them fails, nobody else is touched."""
    concurrency: Annotated[int, Meta(ge=1, le=64)] | None = None
    """How many tenants are migrated at once; by default as TENANTRY_ROLLOUT_CONCURRENCY says."""
    halt_after: Annotated[int, Meta(ge=1, le=1_000_000)] = 5
    """How many failed tenants halt the rollout."""
    lock_timeout: Annotated[int, Meta(ge=1, le=600_000)] | None = None
    """Milliseconds that a tenant's migration waits for a lock, and the tenant's requests behind it, before it gives
    way and is tried again; by default as TENANTRY_ROLLOUT_LOCK_TIMEOUT says."""
    max_attempts: Annotated[int, Meta(ge=1, le=20)] | None = None
    """How often a tenant that locks keep out is tried; by default as TENANTRY_ROLLOUT_ATTEMPTS says."""
    only: Annotated[list[Slug], Meta(min_length=1, max_length=1000)] | None = None
    """Slugs of the tenants that it is restricted to."""


class RolloutRead(BaseStruct):
    id: UUID
    target: str
    status: str
    """`running`, `halted`, `done` or `cancelled`."""
    canary: int
    concurrency: int
    halt_after: int
    lock_timeout: int
    """Milliseconds."""
    max_attempts: int
    only: list[str] | None
    requested_by: str
    halted_reason: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class RolloutWave(BaseStruct):
    """The tenants of one wave by their status. Tenants that were never stale are in none."""

    wave: int
    """0 for the canaries, 1 for the rest."""
    total: int
    pending: int
    done: int
    failed: int


class RolloutDetail(RolloutRead):
    total: int
    """Tenants that were found stale so far; 0 until a provisioner has taken the rollout up."""
    pending: int
    done: int
    failed: int
    waves: list[RolloutWave]
    rate: float | None
    """Tenants per second over the last half minute; null where nothing is known of it, or it does not run."""
    estimated_end: datetime | None
    """When the last tenant would be done at that rate."""


class RolloutEvent(BaseStruct):
    """One event of a stream, field by field (WHATWG HTML §9.2.6)."""

    event: Literal["progress", "end"]
    id: str
    """For Last-Event-ID: the same for the same state of the rollout."""
    data: str
    """A RolloutDetail in JSON."""


class RolloutTenantRead(BaseStruct):
    """What became of one tenant."""

    tenant_id: UUID
    slug: str
    wave: int
    status: str
    """`pending`, `done` or `failed`."""
    from_revision: str | None
    attempts: int
    error: str | None
    """What the database said, without the values of rows."""
    statement: str | None
    """The SQL that failed."""
    duration: int | None
    """Milliseconds."""
    not_before: datetime
    """When a pending tenant is tried, at the earliest."""
    finished_at: datetime | None


class RevisionRead(BaseStruct):
    """One step of the tenant tree."""

    id: str
    doc: str
    online: bool
    """It has logic of its own, and runs tenant by tenant through Alembic."""
    irreversible: str | None
    """Why there is no way back; null where there is one."""


class RolloutGroup(BaseStruct):
    """The tenants that are at one revision before the target, and the steps from there."""

    revision: str
    tenants: int
    steps: list[RevisionRead]


class RolloutPlan(BaseStruct):
    """What a rollout would do at this moment."""

    target: str
    tenants: int
    """Those with a schema."""
    current: int
    """Those that are at the target."""
    stale: int
    groups: list[RolloutGroup]
    """The stale ones, oldest revision first."""
    unknown: dict[str, int]
    """Tenants by revisions that do not lead to the target, which are left alone: a newer release's, mostly."""
    provisioning: int
    """Tenants that are being made."""
