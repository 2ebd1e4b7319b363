"""What single tenants have in place of their plan's limits, and what they are entitled to in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import select

from tenantry.kernel.errors import FieldError, ValidationFailedException
from tenantry.kernel.schema import BaseStruct
from tenantry.platform.audit.service import record
from tenantry.platform.plans.models import Plan
from tenantry.platform.tenants.lifecycle import require_living
from tenantry.tenancy.entitled import FeatureState, LimitsRead, QuotaUse, read_features, read_limits, read_quotas
from tenantry.tenancy.entitlements import current_entitlements
from tenantry.tenancy.plan import LIMITS, PlanLimits, merge_limits
from tenantry.tenancy.quotas import read_use
from tenantry.tenancy.release import served_revisions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tenantry.platform.tenants.service import TenantService
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.models import Tenant
    from tenantry.tenancy.scope import Scope

__all__ = (
    "LimitOverrides",
    "TenantLimits",
    "change_overrides",
    "differences",
    "limits_of",
    "plan_values",
    "read_entitled",
    "stored_overrides",
)

Name = Annotated[str, Meta(min_length=1, max_length=100)]


class LimitOverrides(LimitsRead):
    """What differs from the plan; what is null or not named is as the plan says.

    An amount is a number, or a size such as `10 GB` where bytes are counted; null, or `unlimited`, lifts the plan's.
    """

    quotas: Annotated[dict[Name, int | str | None], Meta(max_length=100)] = msgspec.field(default_factory=dict)
    features: Annotated[dict[Name, bool], Meta(max_length=100)] = msgspec.field(default_factory=dict)


class TenantLimits(BaseStruct):
    """What an organization is entitled to: its plan, with `overrides` in its place."""

    plan: str
    overrides: LimitOverrides
    limits: LimitsRead
    features: list[FeatureState]
    quotas: list[QuotaUse]


def stored_overrides(data: LimitOverrides) -> dict[str, Any]:
    """Overrides as the tenant's row has them: only what differs, by Python's names.

    Raises:
        ValidationFailedException: there is no such quota or feature, or an amount is none.
    """
    amounts, wrong = current_entitlements().check(data.quotas, data.features)
    if wrong:
        raise ValidationFailedException(errors=[FieldError(field=name, message=f"{said}.") for name, said in wrong])
    found: dict[str, Any] = {name: value for name in LIMITS if (value := getattr(data, name)) is not None}
    if amounts:
        found["quotas"] = amounts
    if data.features:
        found["features"] = data.features
    return found


async def change_overrides(
    tenants: TenantService, slug: str, change: Callable[[dict[str, Any]], dict[str, Any]], *, actor: str
) -> Tenant:
    """Give a tenant other limits of its own; every process has them within a second.

    Args:
        change: what they are to be, of what they are: as `stored_overrides` has made them.

    Raises:
        ResourceNotFoundException: there is no such tenant.
        ConflictException: it was purged.
    """
    tenant = await tenants.by_slug(slug, lock=True)
    require_living(tenant, "a change")
    before, wanted = tenant.overrides, change(dict(tenant.overrides))
    if changed := differences(before, wanted):
        tenant.overrides = wanted
        details = {name: {"from": was, "to": is_} for name, (was, is_) in changed.items()}
        session = tenants.repository.session
        record(session, actor=actor, action="tenant.limits", tenant_id=tenant.id, details=details)
        await session.flush()
    return tenant


_NOT_THERE = "-"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What separates two sets of limits, by name: `quotas.seats` is one of them. A quota of None has no limit.

    What is in one alone is None on the other side, or `-` where None would be something else.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys((*before, *after)):
        was, is_ = before.get(name), after.get(name)
        if name == "features" or name == "quotas":
            was, is_ = was or {}, is_ or {}
            for key in sorted({*was, *is_}):
                pair = (was.get(key, _NOT_THERE), is_.get(key, _NOT_THERE))
                if pair[0] != pair[1]:
                    found[f"{name}.{key}"] = pair
        elif was != is_:
            found[name] = (was, is_)
    return found


def plan_values(plan: Plan) -> dict[str, Any]:
    """A plan's limits, as `merge_limits` takes them."""
    return {name: getattr(plan, name) for name in (*LIMITS, "quotas", "features")}


def limits_of(tenant: Tenant, plan: Plan) -> PlanLimits:
    """What a tenant is entitled to, by its plan and what it has in its place."""
    return merge_limits(plan.slug, plan_values(plan), tenant.overrides)


async def read_entitled(
    tenant: Tenant, context: TenantContext, *, database: Database, read_scope: Scope
) -> TenantLimits:
    """What a tenant is entitled to, and how much of it it uses.

    Two transactions, one after the other: the control plane's, and one in the tenant's scope, since no other may read
    what is in its tables. The caller must hold none.
    """
    async with database.transaction(read_scope) as transaction:
        plan = (await transaction.session.scalars(select(Plan).where(Plan.slug == tenant.plan))).one()
        limits = limits_of(tenant, plan)
    used = None
    # A schema at another release's revision may lack what is to be counted.
    if tenant.revision in served_revisions():
        async with database.transaction(context.read_scope.with_times_of(read_scope)) as transaction:
            used = await read_use(transaction.session)
    return TenantLimits(
        plan=tenant.plan,
        overrides=LimitOverrides(**tenant.overrides),
        limits=read_limits(limits),
        features=read_features(limits),
        quotas=read_quotas(limits, used),
    )
