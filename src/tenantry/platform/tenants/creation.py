"""Having tenants made: with a schema of the warm pool in one transaction, else by the provisioner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import Counter
from sqlalchemy import Text, cast, delete, func, literal, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from uuid_utils.compat import uuid7

from tenantry.kernel.errors import UnavailableException, define_problem
from tenantry.kernel.feature import Owner
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import INVITATION, Credential
from tenantry.kernel.security.policy import check_new_password
from tenantry.mail.definition import current_mails
from tenantry.platform.audit.service import record
from tenantry.platform.plans.models import Plan
from tenantry.platform.provisioning.creation import owner_payload
from tenantry.platform.provisioning.models import WarmSchema
from tenantry.platform.provisioning.operations import request_operation
from tenantry.platform.tenants.service import TenantService, check_plan, check_slug
from tenantry.tenancy.context import TenantContext, control_scope
from tenantry.tenancy.models import Tenant
from tenantry.tenancy.plan import PlanLimits
from tenantry.tenancy.release import served_range

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from uuid import UUID

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.feature import ProvisionHook
    from tenantry.kernel.security import PasswordHasher, Vault
    from tenantry.kernel.settings import Settings
    from tenantry.platform.provisioning.models import Operation
    from tenantry.tenancy.context import ScopeTimes
    from tenantry.tenancy.database import Database, Transaction
    from tenantry.tenancy.registry import TenantRegistry

    Before = Callable[[AsyncSession, UUID], Awaitable[None]]

__all__ = ("Creation", "TenantCreator")

PROVISIONING_FAILED = define_problem(
    "provisioning-failed",
    503,
    "Provisioning failed",
    "The organization's schema could not be made. Nothing of it is left but the record of the attempt.",
)

_INVITATION_MAIL = "invitation"
"""Of the identity domain, which this package knows by name alone."""

_DISTRUST = 1.0
"""Seconds after which the database is asked, where the registry hears nothing."""

_created = Counter("tenantry_tenants_created", "Tenants asked for, by where their schema comes from.", ("schema",))


@dataclass(frozen=True, slots=True)
class Creation:
    """What became of a request for a tenant; `done` is False when the provisioner has not answered in time."""

    tenant: Tenant
    operation_id: UUID | None
    """None where a warm schema was taken, which needs no provisioner."""
    done: bool
    invitation: str | None
    is_mailed: bool
    """Whether the owner is sent it as well."""


class TenantCreator:
    """Has tenants made: in one transaction with a schema of the warm pool, else by the provisioner.

    No process that serves requests may change schemas or roles, so this one only writes rows: of the control plane,
    and with a warm schema those of the tenant's owner as well, as the tenant.
    """

    def __init__(
        self,
        *,
        database: Database,
        times: ScopeTimes,
        hasher: PasswordHasher,
        settings: Settings,
        hooks: Sequence[ProvisionHook],
        registry: TenantRegistry | None = None,
        vault: Callable[[], Vault] | None = None,
    ) -> None:
        """`hooks` write what depends on the owner into the tenant's schema, in this order.

        `vault` opens the one that seals invitations which are mailed; without it, none is.
        With the process's registry, waiting for the provisioner costs nothing: it learns of a tenant's new state.
        """
        self._database = database
        self._times = times
        self._read_scope = control_scope(times, read_only=True)
        self._write_scope = control_scope(times, read_only=False)
        self._hasher = hasher
        self._settings = settings
        self._hooks = tuple(hooks)
        self._registry = registry
        self._vault = vault
        # An older release's revision will do while its rollout runs, this one's is better.
        served = served_range()
        self._claim = _claim(served.newest, served.revisions)

    async def create(
        self,
        *,
        slug: str,
        name: str,
        plan: str,
        owner_email: str,
        owner_password: str | None,
        owner_name: str | None = None,
        requested_by: str,
        wait: float | None = None,
        mail_invitation: bool = True,
        verified: bool = False,
        before: Before | None = None,
    ) -> Creation:
        """Make a tenant with its owner.

        Args:
            requested_by: who asked, as the audit trail names them.
            mail_invitation: mail the owner their invitation as well, where mail is sent at all.
            verified: the owner's address is known to be theirs.
            before: is called in the transaction, in the control plane's scope, with the id that the tenant will have,
                before there is any; what it raises ends the attempt, and nothing of it is left.
            wait: seconds to wait for the provisioner, where no warm schema is left; the deployment's setting by
                default.

        Raises:
            ConflictException: the slug is taken.
            ValidationFailedException: the slug is reserved, the plan unknown, the address none, or the password too
                short or the owner's own address or name.
            UnavailableException: the provisioner tried and failed.
        """
        check_slug(slug)
        owner_email = normalize_email(owner_email, field="ownerEmail")
        hashed: str | None = None
        if owner_password is not None:
            check_new_password(
                self._settings,
                owner_password,
                email=owner_email,
                organization=(name, slug),
                name=owner_name,
                field="ownerPassword",
            )
            hashed = await self._hasher.hash(owner_password, key="owners")
        operation: Operation | None = None
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            service = TenantService(session=session)
            plans, warm_id, revision = (await session.execute(self._claim)).one()
            check_plan(plan, plans)
            tenant_id = warm_id or uuid7()
            if before is not None:
                await before(session, tenant_id)
            tenant = Tenant(
                id=tenant_id,
                slug=slug,
                name=name,
                plan=plan,
                owner_email=owner_email,
                status="provisioning" if warm_id is None else "active",
                revision=revision,
            )
            session.add(tenant)
            record(session, actor=requested_by, action="tenant.create", tenant_id=tenant.id, details={"plan": plan})
            await service.flush_slug(slug)
            owner, invitation = self._owner(tenant, name=owner_name, hashed=hashed, verified=verified)
            is_mailed = mail_invitation and await self._mail(session, tenant, owner, invitation)
            if warm_id is None:
                operation = await request_operation(
                    session,
                    kind="create",
                    tenant_id=tenant.id,
                    payload={"owner": owner_payload(owner)},
                    requested_by=requested_by,
                    new=True,
                )
            else:
                await self._move_in(transaction, tenant, owner)
        _created.labels("cold" if warm_id is None else "warm").inc()
        if operation is None:
            return Creation(tenant=tenant, operation_id=None, done=True, invitation=invitation, is_mailed=is_mailed)
        tenant = await self._settled(tenant.id, self._settings.provision_wait if wait is None else wait)
        if tenant.status == "failed":
            raise UnavailableException(problem=PROVISIONING_FAILED, operation=str(operation.id))
        done = tenant.status != "provisioning"
        return Creation(tenant=tenant, operation_id=operation.id, done=done, invitation=invitation, is_mailed=is_mailed)

    async def _mail(self, session: AsyncSession, tenant: Tenant, owner: Owner, invitation: str | None) -> bool:
        """Have the owner's invitation mailed once the tenant is active, if it comes to be; False where none can be.

        The credential waits sealed, as in every mail: neither the operation nor the provisioner has it.
        """
        if invitation is None or owner.invitation_id is None or self._vault is None or self._settings.mail_url is None:
            return False
        mail = current_mails().mails[_INVITATION_MAIL]
        await mail.send_for(session, tenant.id, about=owner.invitation_id, secret=invitation, vault=self._vault())
        return True

    def _owner(
        self, tenant: Tenant, *, name: str | None, hashed: str | None, verified: bool
    ) -> tuple[Owner, str | None]:
        """The tenant's first user, and the invitation that they need without a password: it names the tenant."""
        invitation, digest = (None, None) if hashed is not None else Credential.new(INVITATION, tenant.id)
        owner = Owner(
            email=tenant.owner_email,
            id=uuid7(),
            name=name,
            password_hash=hashed,
            invitation_hash=digest,
            invitation_ttl=self._settings.invitation_ttl,
            invitation_id=uuid7() if digest is not None else None,
            is_verified=verified,
        )
        return owner, invitation

    async def _move_in(self, transaction: Transaction, tenant: Tenant, owner: Owner) -> None:
        """Write what depends on the owner, as the tenant, in the transaction that took its schema."""
        context = TenantContext.build(
            tenant_id=tenant.id,
            slug=tenant.slug,
            name=tenant.name,
            status=tenant.status,
            # Without the plan's own time limit: it is for what the tenant does.
            plan=PlanLimits(slug=tenant.plan),
            times=self._times,
        )
        await transaction.descend(context.write_scope)
        for hook in self._hooks:
            await hook(transaction.session, owner)

    async def _settled(self, tenant_id: UUID, seconds: float) -> Tenant:
        """The tenant when the provisioner is done with it, or as it is after `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        pause = 0.01
        while True:
            left = deadline - loop.time()
            if self._registry is not None:
                await _until_settled(self._registry, tenant_id, left)
            elif left > 0:
                await asyncio.sleep(min(pause, left))
                pause = min(pause * 1.5, 0.25)
            async with self._database.transaction(self._read_scope) as transaction:
                tenant = await transaction.session.get_one(Tenant, tenant_id)
            if tenant.status != "provisioning" or loop.time() >= deadline:
                return tenant


async def _until_settled(registry: TenantRegistry, tenant_id: UUID, seconds: float) -> None:
    """Wait until the registry has it that a tenant is made, or has failed; `seconds` at most.

    While it keeps up, nobody asks the database: a hundred who wait for the same provisioner would take from it, every
    second, what it needs to get on. Where it does not, that is over after a second.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while (left := deadline - loop.time()) > 0:
        fresh = registry.is_fresh
        known = registry.by_id(tenant_id) if fresh else None
        if known is not None and known.status != "provisioning":
            return
        await registry.next_poll(min(left, _DISTRUST))
        if not fresh:
            return


def _claim(best: str, served: Collection[str]) -> Select[list[str], UUID | None, str | None]:
    """The slugs of the plans; id and revision of a warm schema that is taken herewith, None where there is none left.

    One statement, since each costs a round trip. The schema is back in the pool if the transaction does not commit.
    """
    free = (
        select(WarmSchema.id)
        .where(WarmSchema.revision.in_(sorted(served)))
        .order_by((WarmSchema.revision == best).desc(), WarmSchema.id)
        .limit(1)
        # Whoever comes at the same moment takes another one.
        .with_for_update(skip_locked=True)
    )
    taken = (
        delete(WarmSchema)
        .where(WarmSchema.id == free.scalar_subquery())
        .returning(WarmSchema.id, WarmSchema.revision)
        .cte("taken")
    )
    plans = select(func.coalesce(func.array_agg(Plan.slug), cast([], ARRAY(Text)))).scalar_subquery()
    always = select(literal(1)).subquery("always")
    return select(plans, taken.c.id, taken.c.revision).select_from(always.outerjoin(taken, true()))
