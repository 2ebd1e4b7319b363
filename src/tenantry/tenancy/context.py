"""The resolved tenant of a request or a job."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tenantry.tenancy.entitlements import current_entitlements
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.scope import CONTROL_ROLE, SHARED_SCHEMA, Scope

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.tenancy.plan import PlanLimits

__all__ = ("ScopeTimes", "TenantContext", "control_scope")


@dataclass(frozen=True, slots=True)
class ScopeTimes:
    """Time limits of a transaction, in milliseconds; a plan may lower or raise them."""

    statement: int = 5000
    lock: int = 2000
    idle_in_transaction: int = 10000


@dataclass(frozen=True, slots=True)
class TenantContext:
    """Everything that a request needs to know of its tenant, resolved once and shared by all its requests."""

    id: UUID
    slug: str
    name: str
    status: str
    status_reason: str | None
    plan: PlanLimits
    revision: str | None
    served: bool
    """Whether this release can serve a schema of that revision."""
    schema: str
    read_scope: Scope
    write_scope: Scope

    @classmethod
    def build(
        cls,
        *,
        tenant_id: UUID,
        slug: str,
        name: str,
        status: str,
        plan: PlanLimits,
        times: ScopeTimes,
        status_reason: str | None = None,
        revision: str | None = None,
        served: bool = True,
    ) -> TenantContext:
        """A context with both of its scopes, whose statements are thereby composed once and not per request.

        `served` is the registry's to say, where requests get their tenants from; operators' tools work on any revision.
        """
        schema = schema_name(tenant_id)
        read, write = (
            Scope(
                role=schema,
                search_path=schema,
                read_only=read_only,
                statement_timeout=times.statement if plan.statement_timeout is None else plan.statement_timeout,
                lock_timeout=times.lock if plan.lock_timeout is None else plan.lock_timeout,
                idle_in_transaction_timeout=(
                    times.idle_in_transaction
                    if plan.idle_in_transaction_timeout is None
                    else plan.idle_in_transaction_timeout
                ),
                connections=plan.connections or 0,
                tenant=slug,
                plan=plan.slug,
            )
            for read_only in (True, False)
        )
        return cls(
            id=tenant_id,
            slug=slug,
            name=name,
            status=status,
            status_reason=status_reason,
            plan=plan,
            revision=revision,
            served=served,
            schema=schema,
            read_scope=read,
            write_scope=write,
        )

    @property
    def is_active(self) -> bool:
        return self.status == "active"

    @property
    def words(self) -> tuple[str, str]:
        """What its people would think of first, for a password say."""
        return self.name, self.slug

    def allows(self, feature: str) -> bool:
        """Whether its plan includes a feature that can be switched on and off.

        Raises:
            LookupError: no manifest declares such a switch.
        """
        default = current_entitlements().switch(feature).default
        return self.plan.features.get(feature, default)

    def quota(self, name: str) -> int | None:
        """How much of something there may be, or None where there may be any number.

        As this process knows it, at most a second old: to show. What makes more of it asks `use_quota`.

        Raises:
            LookupError: no manifest declares such a quota.
        """
        return self.plan.quotas.get(current_entitlements().quota(name).name)

    def scope(self, *, read_only: bool) -> Scope:
        return self.read_scope if read_only else self.write_scope

    def reading_only(self) -> TenantContext:
        """The same, for whoever may change nothing: PostgreSQL refuses it to every transaction of theirs."""
        return replace(self, write_scope=self.read_scope)


def control_scope(times: ScopeTimes, *, read_only: bool) -> Scope:
    """The control plane's scope: the shared schema alone, and no tenant's."""
    return Scope(
        role=CONTROL_ROLE,
        search_path=SHARED_SCHEMA,
        read_only=read_only,
        statement_timeout=times.statement,
        lock_timeout=times.lock,
        idle_in_transaction_timeout=times.idle_in_transaction,
        tenant="platform",
    )
