"""How much of everything a tenant has, for its operators."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, text

from tenantry.kernel.schema import BaseStruct
from tenantry.platform.provisioning.models import Operation
from tenantry.tenancy.models import schema_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tenantry.kernel.feature import UsageHook
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("TenantUsage", "read_usage")

# Of every table with its indexes and TOAST; the catalog is open to all, what is in the tables is not.
_SIZE = text(
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relkind IN ('r', 'p')"
)


class TenantUsage(BaseStruct):
    """What a tenant takes up, and when it was last used; null is what nobody knows, since there is no schema."""

    size: int
    """Bytes of its tables, indexes included."""
    users: int | None = None
    last_activity_at: datetime | None = None
    pending_operation: str | None = None
    """What the provisioner has not finished for it."""


async def read_usage(
    context: TenantContext, *, database: Database, read_scope: Scope, hooks: Sequence[UsageHook]
) -> TenantUsage:
    """What one tenant takes up.

    Two transactions, one after the other: the control plane's, and one in the tenant's own scope, since no other may
    read what is in its tables. The caller must hold none.
    """
    size, pending = await _read_control(context.id, database, read_scope)
    found: dict[str, Any] = {}
    if context.revision is not None:
        async with database.transaction(context.read_scope.with_times_of(read_scope)) as transaction:
            for hook in hooks:
                found |= await hook(transaction.session)
    return TenantUsage(size=size, pending_operation=pending, **found)


async def _read_control(tenant_id: UUID, database: Database, read_scope: Scope) -> tuple[int, str | None]:
    async with database.transaction(read_scope) as transaction:
        size: int = (await transaction.session.execute(_SIZE, {"schema": schema_name(tenant_id)})).scalar_one()
        pending = await transaction.session.scalar(
            select(Operation.kind).where(Operation.tenant_id == tenant_id, Operation.status == "pending")
        )
    return size, pending
