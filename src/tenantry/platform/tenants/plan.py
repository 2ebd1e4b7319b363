"""What separates the files from the world, and closing the gap.

Plans and tenants are made and changed, never deleted: what is there and in no file is named as unmanaged, and left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from sqlalchemy import select

from tenantry.kernel.errors import ApplicationException
from tenantry.platform.audit.service import record
from tenantry.platform.plans.models import Plan
from tenantry.platform.tenants.files import FilesError, PlanFile, TenantFile, TenantFiles
from tenantry.platform.tenants.limits import change_overrides
from tenantry.platform.tenants.service import TenantService
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.platform.tenants.creation import TenantCreator
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("Applied", "Change", "Difference", "apply", "compare")

_GONE = frozenset({"purging", "purged", "failed"})


class Difference(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """One value, as it is and as it is to be."""

    from_: Any
    to: Any


class Change(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What separates one plan or tenant from its file.

    `unmanaged`: it is there, and in no file. `blocked`: its file cannot be carried out, and `reason` says why.
    """

    kind: Literal["plan", "tenant"]
    slug: str
    action: Literal["create", "change", "unchanged", "unmanaged", "blocked"]
    fields: Mapping[str, Difference] = msgspec.field(default_factory=dict)
    reason: str | None = None


class Applied(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What became of one entry.

    `pending`: recorded, but the provisioner has not finished. `failed`: refused, by what somebody else has done
    meanwhile or by the provisioner.
    """

    kind: Literal["plan", "tenant"]
    slug: str
    action: Literal["created", "changed", "unchanged", "pending", "blocked", "failed"]
    owner_invitation: str | None = None
    """Of a tenant made without a password for its owner; shown once, here."""
    reason: str | None = None
    """Why it is blocked, or has failed."""


async def compare(files: TenantFiles, *, database: Database, read_scope: Scope) -> list[Change]:
    """What `apply` would do, plans first; nothing is written.

    Raises:
        FilesError: a tenant is on a plan that is neither declared nor there.
    """
    async with database.transaction(read_scope) as transaction:
        return await _compare(files, transaction.session)


async def _compare(files: TenantFiles, session: AsyncSession) -> list[Change]:
    plans = {plan.slug: plan for plan in await session.scalars(select(Plan).order_by(Plan.slug))}
    _check_plans(files, set(plans))
    # Purged ones are records of the past, and their slugs are nobody's.
    there = await session.scalars(select(Tenant).where(Tenant.status != "purged").order_by(Tenant.slug))
    tenants = {tenant.slug: tenant for tenant in there}
    changes = [
        _change("plan", slug, plans.get(slug), msgspec.structs.asdict(plan)) for slug, plan in files.plans.items()
    ]
    for slug, wanted in files.tenants.items():
        present = tenants.get(slug)
        if present is not None and present.status in _GONE:
            reason = f"it is {present.status}: undelete or purge it, or take the file away"
            changes.append(Change(kind="tenant", slug=slug, action="blocked", reason=reason))
            continue
        changes.append(_change("tenant", slug, present, _wanted(wanted)))
    changes += [Change(kind="plan", slug=slug, action="unmanaged") for slug in plans if slug not in files.plans]
    changes += [Change(kind="tenant", slug=slug, action="unmanaged") for slug in tenants if slug not in files.tenants]
    return changes


def _wanted(tenant: TenantFile) -> dict[str, Any]:
    """What the file goes on to govern; the owner is read when the tenant is made, and never again."""
    wanted: dict[str, Any] = {"name": tenant.name, "plan": tenant.plan}
    if tenant.limits is not None:
        wanted["limits"] = tenant.limits.stored()
    return wanted


def _change(kind: Literal["plan", "tenant"], slug: str, present: Any, wanted: dict[str, Any]) -> Change:
    if present is None:
        fields = {name: Difference(None, value) for name, value in _flat(wanted).items()}
        return Change(kind=kind, slug=slug, action="create", fields=fields)
    there = {name: getattr(present, "overrides" if name == "limits" else name) for name in wanted}
    before, after = _flat(there), _flat(wanted)
    fields = {
        name: Difference(before.get(name), after.get(name))
        for name in dict.fromkeys((*before, *after))
        # A quota of None has no limit, which is not the same as one of which nothing is said.
        if (name in before, before.get(name)) != (name in after, after.get(name))
    }
    return Change(kind=kind, slug=slug, action="change" if fields else "unchanged", fields=fields)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Each limit by a name of its own: `quotas.seats`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner for key, inner in _flat(value).items()}
        else:
            found[name] = value
    return found


def _check_plans(files: TenantFiles, present: set[str]) -> None:
    known = present | set(files.plans)
    problems = [
        f"{files.places.get(slug, f'{slug}.toml')}: plan: There is no plan {tenant.plan!r}; expected one of "
        f"{', '.join(sorted(known)) or 'none'}"
        for slug, tenant in files.tenants.items()
        if tenant.plan not in known
    ]
    if problems:
        raise FilesError(problems)


async def apply(
    files: TenantFiles,
    *,
    database: Database,
    read_scope: Scope,
    write_scope: Scope,
    creator: TenantCreator,
    requested_by: str,
    owner_passwords: Mapping[str, str] | None = None,
    wait: float = 20.0,
    mail_invitations: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_applied: Callable[[Applied], None] | None = None,
) -> list[Applied]:
    """Bring plans and tenants to what the files declare; plans first. A tenant that fails stops no other.

    Args:
        owner_passwords: passwords of the owners of tenants that are made now, by slug; the others are invited.
        wait: seconds to wait for the provisioner, for each tenant.
        mail_invitations: owners are mailed their invitations, which are returned to nobody then.
        on_progress: called with how many entries are done, and how many there are.
        on_applied: called with each entry as soon as it is done. Where the database is lost on the way, that is all
            that is left of the invitations that were made before.

    Raises:
        FilesError: a tenant is on a plan that is neither declared nor there; nothing was done.
        ConflictException, sqlalchemy.exc.IntegrityError: somebody else has just made or changed one of the plans;
            nothing was done.
    """
    tell = on_applied or (lambda _: None)
    changes = [
        change
        for change in await compare(files, database=database, read_scope=read_scope)
        if change.action != "unmanaged"
    ]
    async with database.transaction(write_scope) as transaction:
        applied = [
            await _apply_plan(transaction.session, change, files.plans[change.slug], requested_by)
            for change in changes
            if change.kind == "plan"
        ]
    for plan in applied:
        tell(plan)
    for change in changes:
        if change.kind == "plan":
            continue
        if on_progress is not None:
            on_progress(len(applied), len(changes))
        slug, wanted = change.slug, files.tenants[change.slug]
        try:
            if change.action == "blocked":
                one = Applied(kind="tenant", slug=slug, action="blocked", reason=change.reason)
            elif change.action == "create":
                created = await creator.create(
                    slug=slug,
                    name=wanted.name,
                    plan=wanted.plan,
                    owner_email=wanted.owner.email,
                    owner_name=wanted.owner.name,
                    owner_password=(owner_passwords or {}).get(slug),
                    requested_by=requested_by,
                    wait=wait,
                    mail_invitation=mail_invitations,
                )
                action: Literal["created", "pending"] = "created" if created.done else "pending"
                if wanted.limits is not None and wanted.limits.stored():
                    async with database.transaction(write_scope) as transaction:
                        await _change_tenant(transaction.session, slug, wanted, requested_by)
                invitation = None if created.is_mailed else created.invitation
                one = Applied(kind="tenant", slug=slug, action=action, owner_invitation=invitation)
            else:
                if change.action == "change":
                    async with database.transaction(write_scope) as transaction:
                        await _change_tenant(transaction.session, slug, wanted, requested_by)
                settled = await _settled(database, read_scope, slug, wait)
                done: Literal["changed", "unchanged"] = "changed" if change.action == "change" else "unchanged"
                one = Applied(kind="tenant", slug=slug, action=done if settled else "pending")
        except ApplicationException as error:
            one = Applied(kind="tenant", slug=slug, action="failed", reason=_reason(error))
        applied.append(one)
        tell(one)
    if on_progress is not None:
        on_progress(len(applied), len(changes))
    return applied


def _reason(error: ApplicationException) -> str:
    return "; ".join(f"{item.field}: {item.message}" for item in error.errors) or error.detail


async def _change_tenant(session: AsyncSession, slug: str, wanted: TenantFile, actor: str) -> None:
    tenants = TenantService(session=session)
    await tenants.change(slug, {"name": wanted.name, "plan": wanted.plan}, actor=actor)
    if (limits := wanted.limits) is not None:
        await change_overrides(tenants, slug, lambda _: limits.stored(), actor=actor)


async def _apply_plan(session: AsyncSession, change: Change, wanted: PlanFile, actor: str) -> Applied:
    if change.action == "create":
        session.add(Plan(slug=change.slug, **msgspec.structs.asdict(wanted)))
        record(session, actor=actor, action="plan.create", target=change.slug)
    elif change.action == "change":
        plan = (await session.scalars(select(Plan).where(Plan.slug == change.slug).with_for_update())).one()
        for name, value in msgspec.structs.asdict(wanted).items():
            setattr(plan, name, value)
        details = {name: msgspec.to_builtins(difference) for name, difference in change.fields.items()}
        record(session, actor=actor, action="plan.change", target=change.slug, details=details)
    await session.flush()
    outcome: dict[str, Literal["created", "changed"]] = {"create": "created", "change": "changed"}
    return Applied(kind="plan", slug=change.slug, action=outcome.get(change.action, "unchanged"))


async def _settled(database: Database, read_scope: Scope, slug: str, wait: float) -> bool:
    """Whether the tenant is made: somebody whose program then ended may have asked for it a moment ago."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    while True:
        async with database.transaction(read_scope) as transaction:
            status = await transaction.session.scalar(select(Tenant.status).where(Tenant.slug == slug))
        if status != "provisioning":
            return True
        if loop.time() > deadline:
            return False
        await asyncio.sleep(0.1)
