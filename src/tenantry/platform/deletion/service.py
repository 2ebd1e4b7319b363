"""Deleting tenants: first they are only refused, and can be undeleted; then they are purged, for good."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import select

from tenantry.kernel.errors import (
    ConflictException,
    ResourceNotFoundException,
    UnavailableException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.service import Service, create_service_provider
from tenantry.platform.audit.service import record
from tenantry.platform.deletion.models import PurgeCertificate
from tenantry.platform.provisioning.models import Operation
from tenantry.platform.provisioning.operations import request_operation, require_idle
from tenantry.platform.provisioning.service import wait_for_operation
from tenantry.platform.tenants.lifecycle import require_state, transition
from tenantry.platform.tenants.service import TenantService

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.models import Tenant
    from tenantry.tenancy.scope import Scope

__all__ = (
    "PURGE_BEGUN",
    "PURGE_FAILED",
    "CertificateService",
    "DeletionService",
    "Purge",
    "Purger",
    "ask_for_purge",
    "provide_certificates",
    "provide_deletion",
)

PURGE_BEGUN = define_problem(
    "purge-begun",
    409,
    "Too late",
    "The purge of the organization has been asked for, and some of its data may be gone: it cannot be undeleted.",
)
PURGE_FAILED = define_problem(
    "purge-failed",
    503,
    "Purge failed",
    "The provisioner has given up for now; `operation` says why. Nobody is let in, nothing is certified, and it can "
    "be asked for again; the provisioner will do so by itself.",
)


class DeletionService(Service[PurgeCertificate]):
    """What an operator may do to a tenant that is to go, in the caller's transaction of the control plane."""

    class Repo(SQLAlchemyAsyncRepository[PurgeCertificate]):
        model_type = PurgeCertificate

    repository_type = Repo

    @property
    def _session(self) -> AsyncSession:
        return self.repository.session  # type: ignore[no-any-return]

    async def delete_tenant(self, slug: str, reason: str | None, *, actor: str, grace: int) -> Tenant:
        """Refuse a tenant's requests everywhere within a second, and purge it after `grace` seconds.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: its state does not allow it, or the provisioner is at work on it.
        """
        tenant = await self._locked(slug)
        require_state(tenant, "delete")
        await require_idle(self._session, tenant.id)
        before = tenant.status
        transition(tenant, "delete", reason=reason)
        tenant.purge_after = tenant.status_changed_at + datetime.timedelta(seconds=grace)
        record(
            self._session,
            actor=actor,
            action="tenant.delete",
            tenant_id=tenant.id,
            reason=reason,
            details={"from": before, "to": tenant.status, "purgeAfter": tenant.purge_after.isoformat()},
        )
        await self._session.flush()
        return tenant

    async def undelete(self, slug: str, *, actor: str) -> Tenant:
        """Bring a deleted tenant back to the state that it was deleted in; all of it is there.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it is not deleted, or its purge has been asked for.
        """
        tenant = await self._locked(slug)
        require_state(tenant, "undelete")
        asked = select(Operation.id).where(Operation.tenant_id == tenant.id, Operation.kind == "purge").limit(1)
        # One that has failed counts as well: it may have removed files before it did.
        if (operation := await self._session.scalar(asked)) is not None:
            raise ConflictException(
                f"The purge of {slug!r} has been asked for: it cannot be undeleted.",
                problem=PURGE_BEGUN,
                operation=str(operation),
            )
        before = tenant.status
        transition(tenant, "undelete")
        tenant.purge_after = None
        record(
            self._session,
            actor=actor,
            action="tenant.undelete",
            tenant_id=tenant.id,
            details={"from": before, "to": tenant.status},
        )
        await self._session.flush()
        return tenant

    async def purge(self, slug: str, reason: str | None, *, actor: str, confirm: str, settle: float) -> Operation:
        """Ask for a tenant's purge now, deleting it first where it is not deleted.

        Args:
            confirm: the slug once more.
            settle: seconds for which a tenant is refused everywhere before it is purged.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: its state does not allow it, or the provisioner is at work on it.
            ValidationFailedException: `confirm` is not the slug.
        """
        tenant = await self._locked(slug)
        if confirm != slug:
            raise ValidationFailedException.of("confirm", "Expected the organization's slug, to be sure.")
        if tenant.status != "purging":
            await self.delete_tenant(slug, reason, actor=actor, grace=0)
        return await ask_for_purge(self._session, tenant, actor=actor, reason=reason, settle=settle)

    async def _locked(self, slug: str) -> Tenant:
        return await TenantService(session=self._session).by_slug(slug, lock=True)


async def ask_for_purge(
    session: AsyncSession, tenant: Tenant, *, actor: str, reason: str | None, settle: float
) -> Operation:
    """Write down the purge of a tenant that is `purging` and whose row is locked.

    It begins once every process has noticed, `settle` seconds after the tenant was deleted: until then a request may
    be under way that writes to Redis what was just removed.

    Raises:
        ConflictException: the provisioner is at work on it.
    """
    require_state(tenant, "purge")
    now = datetime.datetime.now(datetime.UTC)
    operation = await request_operation(
        session,
        kind="purge",
        tenant_id=tenant.id,
        payload={"reason": reason if reason is not None else tenant.status_reason, "requested_at": now.isoformat()},
        requested_by=actor,
    )
    operation.not_before = max(now, tenant.status_changed_at + datetime.timedelta(seconds=settle))
    # The grace time is over with it: where the purge is given up, it is asked for again soon, not in thirty days.
    tenant.purge_after = min(tenant.purge_after or now, now)
    record(
        session,
        actor=actor,
        action="tenant.purge",
        tenant_id=tenant.id,
        reason=reason,
        details={"operation": str(operation.id)},
    )
    await session.flush()
    return operation


@dataclass(frozen=True, slots=True)
class Purge:
    """What became of a purge; `certificate` is None when the provisioner has not answered in time."""

    operation: Operation
    certificate: PurgeCertificate | None


class Purger:
    """Has tenants purged: writes the wish down, and waits for the provisioner to carry it out."""

    def __init__(self, *, database: Database, read_scope: Scope, write_scope: Scope, settings: Settings) -> None:
        self._database = database
        self._read_scope = read_scope
        self._write_scope = write_scope
        self._settings = settings

    async def purge(
        self, slug: str, reason: str | None, *, actor: str, confirm: str, wait: float | None = None
    ) -> Purge:
        """Purge a tenant, now.

        Args:
            confirm: the slug once more.
            wait: seconds to wait for the provisioner; the deployment's setting by default.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: its state does not allow it, or the provisioner is at work on it.
            ValidationFailedException: `confirm` is not the slug.
            UnavailableException: the provisioner tried and failed.
        """
        async with self._database.transaction(self._write_scope) as transaction:
            operation = await DeletionService(session=transaction.session).purge(
                slug, reason, actor=actor, confirm=confirm, settle=self._settings.registry_stale_after
            )
        ended = await wait_for_operation(
            self._database,
            self._read_scope,
            operation.id,
            self._settings.provision_wait if wait is None else wait,
        )
        if ended.status == "failed":
            raise UnavailableException(problem=PURGE_FAILED, operation=str(operation.id))
        if ended.status != "done":
            return Purge(ended, None)
        async with self._database.transaction(self._read_scope) as transaction:
            certificate = await CertificateService(session=transaction.session).of_tenant(operation.tenant_id)
        return Purge(ended, certificate)


class CertificateService(Service[PurgeCertificate]):
    """What is left of purged tenants."""

    class Repo(SQLAlchemyAsyncRepository[PurgeCertificate]):
        model_type = PurgeCertificate

    repository_type = Repo

    async def of_tenant(self, tenant_id: UUID) -> PurgeCertificate:
        """The certificate of one tenant's purge.

        Raises:
            ResourceNotFoundException: there is none.
        """
        return await self._one(PurgeCertificate.tenant_id == tenant_id)

    async def of_slug(self, slug: str) -> PurgeCertificate:
        """The certificate of the tenant that had this slug, the last one where several had it.

        Raises:
            ResourceNotFoundException: there is none.
        """
        return await self._one(PurgeCertificate.slug == slug)

    async def _one(self, condition: Any) -> PurgeCertificate:
        statement = select(PurgeCertificate).where(condition).order_by(PurgeCertificate.id.desc()).limit(1)
        found: PurgeCertificate | None = await self.repository.session.scalar(statement)
        if found is None:
            raise ResourceNotFoundException("There is no such certificate.")
        return found


provide_deletion = create_service_provider(DeletionService)
provide_certificates = create_service_provider(CertificateService)
