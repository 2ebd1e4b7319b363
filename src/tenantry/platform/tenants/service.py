"""Tenants: making them, changing them, suspending them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import select
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
from tenantry.platform.provisioning.operations import request_operation
from tenantry.platform.provisioning.service import wait_for_operation
from tenantry.platform.tenants.lifecycle import Event, transition
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("RESERVED_SLUGS", "SLUG_TAKEN", "Creation", "TenantCreator", "TenantService", "provide_tenants")

RESERVED_SLUGS = frozenset({"admin", "api", "app", "auth", "health", "metrics", "platform", "schema", "static", "www"})
"""Names that hosts and paths need for themselves."""

SLUG_TAKEN = define_problem("slug-taken", 409, "Slug taken", "Another organization has this slug. Choose another.")
PROVISIONING_FAILED = define_problem(
    "provisioning-failed",
    503,
    "Provisioning failed",
    "The organization's schema could not be made. Nothing of it is left but the record of the attempt.",
)


class TenantService(Service[Tenant]):
    """Tenants in the control plane."""

    class Repo(SQLAlchemyAsyncRepository[Tenant]):
        model_type = Tenant

    repository_type = Repo
    match_fields = ["slug"]

    async def by_slug(self, slug: str, *, lock: bool = False) -> Tenant:
        """The tenant of that slug.

        Raises:
            ResourceNotFoundException: there is none.
        """
        statement = select(Tenant).where(Tenant.slug == slug)
        found: Tenant | None = await self.repository.session.scalar(statement.with_for_update() if lock else statement)
        if found is None:
            raise ResourceNotFoundException(f"There is no organization {slug!r}.")
        return found

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
    operation_id: UUID
    done: bool
    invitation: str | None


class TenantCreator:
    """Has tenants made: records the wish, and waits for the provisioner to carry it out.

    No process that serves requests may change schemas or roles, so this one only writes rows.
    """

    def __init__(
        self, *, database: Database, read_scope: Scope, write_scope: Scope, hasher: PasswordHasher, settings: Settings
    ) -> None:
        self._database = database
        self._read_scope = read_scope
        self._write_scope = write_scope
        self._hasher = hasher
        self._settings = settings

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
            wait: seconds to wait for the provisioner; the deployment's setting by default.

        Raises:
            ConflictException: the slug is taken.
            ValidationFailedException: the slug is reserved, the plan unknown or the address none.
            UnavailableException: the provisioner tried and failed.
        """
        check_slug(slug)
        owner_email = normalize_email(owner_email, field="ownerEmail")
        if owner_password is not None and len(owner_password) < self._settings.password_min_length:
            raise ValidationFailedException.of(
                "ownerPassword", f"Expected at least {self._settings.password_min_length} characters."
            )
        tenant_id = uuid7()
        invitation: str | None = None
        digest: bytes | None = None
        hashed: str | None = None
        if owner_password is not None:
            hashed = await self._hasher.hash(owner_password)
        else:
            invitation, digest = Credential.new(INVITATION, tenant_id)
        owner = Owner(
            email=owner_email,
            id=uuid7(),
            name=owner_name,
            password_hash=hashed,
            invitation_hash=digest,
            invitation_ttl=self._settings.invitation_ttl,
        )
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            service = TenantService(session=session)
            await service.check_plan(plan)
            tenant = Tenant(id=tenant_id, slug=slug, name=name, plan=plan, owner_email=owner_email)
            session.add(tenant)
            await service.flush_slug(slug)
            record(session, actor=requested_by, action="tenant.create", tenant_id=tenant_id, details={"plan": plan})
            operation = await request_operation(
                session,
                kind="create",
                tenant_id=tenant_id,
                payload={"owner": owner_payload(owner)},
                requested_by=requested_by,
            )
        ended = await wait_for_operation(
            self._database,
            self._read_scope,
            operation.id,
            self._settings.provision_wait if wait is None else wait,
        )
        if ended.status == "failed":
            raise UnavailableException(problem=PROVISIONING_FAILED, operation=str(operation.id))
        done = ended.status == "done"
        if done:
            async with self._database.transaction(self._read_scope) as transaction:
                tenant = await transaction.session.get_one(Tenant, tenant_id)
        return Creation(tenant=tenant, operation_id=operation.id, done=done, invitation=invitation)


provide_tenants = create_service_provider(
    TenantService,
    error_messages={
        "duplicate_key": "Another organization has this slug.",
        "integrity": "The organization cannot be changed like this.",
        "not_found": "There is no such organization.",
    },
)
