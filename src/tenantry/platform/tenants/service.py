"""Tenants: making them, changing them, suspending them."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from prometheus_client import Counter
from sqlalchemy import delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from uuid_utils.compat import uuid7

from tenantry.kernel.errors import (
    ConflictException,
    ResourceNotFoundException,
    UnavailableException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.feature import Owner
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import INVITATION, Credential, PasswordHasher
from tenantry.kernel.service import Service, create_service_provider
from tenantry.platform.audit.service import record
from tenantry.platform.plans.models import Plan
from tenantry.platform.provisioning.creation import owner_payload
from tenantry.platform.provisioning.models import WarmSchema
from tenantry.platform.provisioning.operations import request_operation
from tenantry.platform.provisioning.service import wait_for_operation
from tenantry.platform.tenants.lifecycle import Event, transition
from tenantry.tenancy.context import PlanLimits, TenantContext, control_scope
from tenantry.tenancy.models import Tenant
from tenantry.tenancy.release import served_range

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

    from sqlalchemy.sql.dml import ReturningDelete

    from tenantry.kernel.feature import ProvisionHook
    from tenantry.kernel.settings import Settings
    from tenantry.platform.provisioning.models import Operation
    from tenantry.tenancy.context import ScopeTimes
    from tenantry.tenancy.database import Database, Transaction

__all__ = ("RESERVED_SLUGS", "SLUG_TAKEN", "Creation", "TenantCreator", "TenantService", "provide_tenants")

RESERVED_SLUGS = frozenset({"admin", "api", "app", "auth", "health", "metrics", "platform", "schema", "static", "www"})
"""Names that hosts and paths need for themselves."""

_COMPARED = 500
"""Slugs that an unknown one is compared with."""

SLUG_TAKEN = define_problem("slug-taken", 409, "Slug taken", "Another organization has this slug. Choose another.")
PROVISIONING_FAILED = define_problem(
    "provisioning-failed",
    503,
    "Provisioning failed",
    "The organization's schema could not be made. Nothing of it is left but the record of the attempt.",
)

_created = Counter("tenantry_tenants_created", "Tenants asked for, by where their schema comes from.", ("schema",))


class TenantService(Service[Tenant]):
    """Tenants in the control plane."""

    class Repo(SQLAlchemyAsyncRepository[Tenant]):
        model_type = Tenant

    repository_type = Repo
    match_fields = ["slug"]

    async def by_slug(self, slug: str, *, lock: bool = False) -> Tenant:
        """The tenant of that slug.

        Raises:
            ResourceNotFoundException: there is none; `nearest` lists those spelled like it. For operators alone.
        """
        statement = select(Tenant).where(Tenant.slug == slug)
        found: Tenant | None = await self.repository.session.scalar(statement.with_for_update() if lock else statement)
        if found is None:
            raise await self._unknown(slug)
        return found

    async def _unknown(self, slug: str) -> ResourceNotFoundException:
        """That there is no such tenant, and which slugs are spelled like it."""
        # Those that may be meant, as far as an index-free look can tell: comparing with all of ten thousand would keep
        # the event loop for a tenth of a second.
        alike = (
            select(Tenant.slug)
            .where(
                func.abs(func.char_length(Tenant.slug) - len(slug)) <= 2,
                or_(func.left(Tenant.slug, 1) == slug[:1], func.right(Tenant.slug, 2) == slug[-2:]),
            )
            .order_by(func.abs(func.char_length(Tenant.slug) - len(slug)), Tenant.slug)
            .limit(_COMPARED)
        )
        nearest = get_close_matches(slug, list(await self.repository.session.scalars(alike)))
        hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        return ResourceNotFoundException(f"There is no organization {slug!r}.{hint}", nearest=nearest)

    async def suspend(self, slug: str, reason: str | None, *, actor: str) -> Tenant:
        """Refuse a tenant's requests, everywhere within a second; its data stay.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it is not active.
        """
        return await self.move(slug, "suspend", reason=reason, actor=actor)

    async def resume(self, slug: str, *, actor: str) -> Tenant:
        """Serve a suspended tenant again.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it is not suspended.
        """
        return await self.move(slug, "resume", actor=actor)

    async def move(self, slug: str, event: Event, *, actor: str, reason: str | None = None) -> Tenant:
        """Let an event happen to a tenant, and write it down.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: its present state does not allow it.
        """
        tenant = await self.by_slug(slug, lock=True)
        before = tenant.status
        transition(tenant, event, reason=reason)
        record(
            self.repository.session,
            actor=actor,
            action=f"tenant.{event}",
            tenant_id=tenant.id,
            reason=reason,
            details={"from": before, "to": tenant.status},
        )
        await self.repository.session.flush()
        return tenant

    async def change(self, slug: str, changes: dict[str, Any], *, actor: str) -> Tenant:
        """Rename a tenant or move it to another plan; neither touches its schema.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: the new slug is taken.
            ValidationFailedException: the new slug is reserved, or there is no such plan.
        """
        tenant = await self.by_slug(slug, lock=True)
        if (wanted := changes.get("slug")) and wanted != tenant.slug:
            check_slug(wanted)
        if plan := changes.get("plan"):
            await self.check_plan(plan)
        before = {name: getattr(tenant, name) for name in changes}
        changed = {name: value for name, value in changes.items() if before[name] != value}
        if not changed:
            return tenant
        for name, value in changed.items():
            setattr(tenant, name, value)
        record(
            self.repository.session,
            actor=actor,
            action="tenant.change",
            tenant_id=tenant.id,
            # An organization's name may be a person's: of that, only that it changed.
            details={
                name: {"from": before[name], "to": value} if name in {"slug", "plan"} else True
                for name, value in changed.items()
            },
        )
        await self.flush_slug(tenant.slug)
        return tenant

    async def check_plan(self, plan: str) -> None:
        """Refuse a plan that does not exist.

        Raises:
            ValidationFailedException: naming those that do.
        """
        known = sorted(await self.repository.session.scalars(select(Plan.slug)))
        if plan not in known:
            raise ValidationFailedException.of(
                "plan", f"Expected one of the plans: {', '.join(known) or 'there is none'}."
            )

    async def flush_slug(self, slug: str) -> None:
        """Flush, and say so if the slug is taken.

        Raises:
            ConflictException: it is.
        """
        try:
            await self.repository.session.flush()
        except IntegrityError as error:
            if "uq_tenant_slug" in str(error.orig):
                raise ConflictException(f"The slug {slug!r} is taken.", problem=SLUG_TAKEN) from error
            raise


def check_slug(slug: str) -> None:
    """Refuse a slug that hosts and paths need for themselves.

    Raises:
        ValidationFailedException: it is one of them.
    """
    if slug in RESERVED_SLUGS:
        raise ValidationFailedException.of("slug", "This name is reserved.")


@dataclass(frozen=True, slots=True)
class Creation:
    """What became of a request for a tenant; `done` is False when the provisioner has not answered in time."""

    tenant: Tenant
    operation_id: UUID | None
    """None where a warm schema was taken, which needs no provisioner."""
    done: bool
    invitation: str | None


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
    ) -> None:
        """`hooks` write what depends on the owner into the tenant's schema, in this order."""
        self._database = database
        self._times = times
        self._read_scope = control_scope(times, read_only=True)
        self._write_scope = control_scope(times, read_only=False)
        self._hasher = hasher
        self._settings = settings
        self._hooks = tuple(hooks)
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
    ) -> Creation:
        """Make a tenant with its owner.

        Args:
            requested_by: who asked, as the audit trail names them.
            wait: seconds to wait for the provisioner, where no warm schema is left; the deployment's setting by
                default.

        Raises:
            ConflictException: the slug is taken.
            ValidationFailedException: the slug is reserved, the plan unknown or the address none.
            UnavailableException: the provisioner tried and failed.
        """
        check_slug(slug)
        owner_email = normalize_email(owner_email, field="ownerEmail")
        hashed: str | None = None
        if owner_password is not None:
            if len(owner_password) < self._settings.password_min_length:
                raise ValidationFailedException.of(
                    "ownerPassword", f"Expected at least {self._settings.password_min_length} characters."
                )
            hashed = await self._hasher.hash(owner_password)
        operation: Operation | None = None
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            service = TenantService(session=session)
            await service.check_plan(plan)
            warm = (await session.execute(self._claim)).one_or_none()
            tenant = Tenant(
                id=uuid7() if warm is None else warm.id,
                slug=slug,
                name=name,
                plan=plan,
                owner_email=owner_email,
                status="provisioning" if warm is None else "active",
                revision=None if warm is None else warm.revision,
            )
            session.add(tenant)
            record(session, actor=requested_by, action="tenant.create", tenant_id=tenant.id, details={"plan": plan})
            await service.flush_slug(slug)
            owner, invitation = self._owner(tenant, name=owner_name, hashed=hashed)
            if warm is None:
                operation = await request_operation(
                    session,
                    kind="create",
                    tenant_id=tenant.id,
                    payload={"owner": owner_payload(owner)},
                    requested_by=requested_by,
                )
            else:
                await self._move_in(transaction, tenant, owner)
        _created.labels("cold" if warm is None else "warm").inc()
        if operation is None:
            return Creation(tenant=tenant, operation_id=None, done=True, invitation=invitation)
        return await self._wait(tenant, operation.id, invitation, wait)

    def _owner(self, tenant: Tenant, *, name: str | None, hashed: str | None) -> tuple[Owner, str | None]:
        """The tenant's first user, and the invitation that they need without a password: it names the tenant."""
        invitation, digest = (None, None) if hashed is not None else Credential.new(INVITATION, tenant.id)
        owner = Owner(
            email=tenant.owner_email,
            id=uuid7(),
            name=name,
            password_hash=hashed,
            invitation_hash=digest,
            invitation_ttl=self._settings.invitation_ttl,
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

    async def _wait(self, tenant: Tenant, operation_id: UUID, invitation: str | None, wait: float | None) -> Creation:
        seconds = self._settings.provision_wait if wait is None else wait
        ended = await wait_for_operation(self._database, self._read_scope, operation_id, seconds)
        if ended.status == "failed":
            raise UnavailableException(problem=PROVISIONING_FAILED, operation=str(operation_id))
        done = ended.status == "done"
        if done:
            async with self._database.transaction(self._read_scope) as transaction:
                tenant = await transaction.session.get_one(Tenant, tenant.id)
        return Creation(tenant=tenant, operation_id=operation_id, done=done, invitation=invitation)


def _claim(best: str, served: Collection[str]) -> ReturningDelete[UUID, str]:
    """Take a warm schema that nobody else is taking; the row is back if the transaction does not commit."""
    free = (
        select(WarmSchema.id)
        .where(WarmSchema.revision.in_(sorted(served)))
        .order_by((WarmSchema.revision == best).desc(), WarmSchema.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return (
        delete(WarmSchema)
        .where(WarmSchema.id == free.scalar_subquery())
        .returning(WarmSchema.id, WarmSchema.revision)
        .execution_options(synchronize_session=False)
    )


provide_tenants = create_service_provider(
    TenantService,
    error_messages={
        "duplicate_key": "Another organization has this slug.",
        "integrity": "The organization cannot be changed like this.",
        "not_found": "There is no such organization.",
    },
)
