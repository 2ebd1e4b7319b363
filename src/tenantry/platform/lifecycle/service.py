"""Having tenants archived, restored, cloned, exported and imported: what is asked for, and waiting for it."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
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
from tenantry.kernel.security import INVITATION, Credential
from tenantry.kernel.security.policy import check_new_password
from tenantry.kernel.service import create_service_provider
from tenantry.platform.archives.format import ArchiveError
from tenantry.platform.archives.reader import verify_archive
from tenantry.platform.audit.service import record
from tenantry.platform.lifecycle.files import check_import_key, export_key
from tenantry.platform.lifecycle.importing import REFUSED, check_revision
from tenantry.platform.provisioning.creation import owner_payload
from tenantry.platform.provisioning.models import Operation
from tenantry.platform.provisioning.operations import request_operation
from tenantry.platform.provisioning.service import OperationService, wait_for_operation
from tenantry.platform.tenants.lifecycle import require_state
from tenantry.platform.tenants.service import SLUG_TAKEN, TenantService, check_slug
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.security import PasswordHasher
    from tenantry.kernel.settings import Settings
    from tenantry.kernel.storage import Storage
    from tenantry.platform.archives.format import Manifest
    from tenantry.platform.lifecycle.schemas import TenantClone, TenantImport
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = (
    "EXPORT_NOT_READY",
    "OPERATION_FAILED",
    "ExportService",
    "Lifecycle",
    "NewTenant",
    "Outcome",
    "provide_exports",
    "verify_import",
)

OPERATION_FAILED = define_problem(
    "operation-failed",
    503,
    "Not carried out",
    "The provisioner has given up; the detail says why, `operation` is its id. The organization is as it was before, "
    "or, if it was to be made, failed and without data.",
)
EXPORT_NOT_READY = define_problem(
    "export-not-ready",
    409,
    "No file to fetch",
    "The export is still being made, has failed, or has expired; its status says which.",
)


@dataclass(frozen=True, slots=True)
class NewTenant:
    """What a clone or an import is to be; what is None comes from what it is made of."""

    slug: str
    name: str | None = None
    plan: str | None = None
    owner_email: str | None = None
    owner_password: str | None = None
    owner_name: str | None = None

    @classmethod
    def of(cls, asked: TenantClone | TenantImport) -> NewTenant:
        """As it was asked for."""
        return cls(
            slug=asked.slug,
            name=asked.name,
            plan=asked.plan,
            owner_email=asked.owner_email,
            owner_password=asked.owner_password,
            owner_name=asked.owner_name,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request; the operation is `pending` when the provisioner has not finished in time."""

    operation: Operation
    tenant: Tenant
    invitation: str | None = None
    """The owner's, of a new tenant."""

    @property
    def done(self) -> bool:
        return self.operation.status == "done"


class ExportService(OperationService):
    """Exports of a tenant, which are operations."""

    async def of_tenant(self, tenant_id: UUID, operation_id: UUID) -> Operation:
        """One export of this tenant.

        Raises:
            ResourceNotFoundException: there is none, or it is another's.
        """
        statement = select(Operation).where(
            Operation.id == operation_id, Operation.tenant_id == tenant_id, Operation.kind == "export"
        )
        found: Operation | None = await self.repository.session.scalar(statement)
        if found is None:
            raise ResourceNotFoundException("There is no such export of this organization.")
        return found


provide_exports = create_service_provider(ExportService)


async def verify_import(path: Path, *, size_limit: int) -> Manifest:
    """Check all of an archive before anything is written because of it; in threads.

    Raises:
        ArchiveError: it is damaged, foreign, too large, or of a revision that this release does not know.
    """
    manifest = await verify_archive(path, size_limit=size_limit)
    check_revision(manifest)
    return manifest


class Lifecycle:
    """Writes down what is asked for, in a transaction with the tenant's new state and the audit trail, and waits.

    No transaction is open while it waits, hashes or reads files: the caller must hold none either.
    """

    def __init__(
        self,
        *,
        database: Database,
        read_scope: Scope,
        write_scope: Scope,
        hasher: PasswordHasher,
        settings: Settings,
        storage: Callable[[], Storage],
    ) -> None:
        """`storage` opens it; a process that never needs it does without a folder to write to."""
        self._database = database
        self._read_scope = read_scope
        self._write_scope = write_scope
        self._hasher = hasher
        self._settings = settings
        self._storage = storage
        # Inflating an archive takes a core for as long as it lasts: one at a time in a process that serves.
        self._checking = asyncio.Lock()

    async def archive(self, slug: str, reason: str | None, *, actor: str, wait: float | None = None) -> Outcome:
        """Refuse a tenant's requests from now on, and move its data into the storage.

        Args:
            wait: seconds to wait for the provisioner, here and below; the deployment's setting by default.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: its state does not allow it, or the provisioner is at work on it.
            UnavailableException: the provisioner tried and failed; the tenant is in the state that it was in.
        """
        # By then every process that keeps up has noticed, and nobody meets tables that are gone. What the archive
        # holds does not depend on it: the tables are locked first.
        settle = min(self._settings.registry_stale_after, 2 * self._settings.registry_poll_interval)
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            tenants = TenantService(session=session)
            tenant = await tenants.by_slug(slug, lock=True)
            before = {"status": tenant.status, "reason": tenant.status_reason}
            await tenants.move(slug, "archive", reason=reason, actor=actor)
            operation = await request_operation(
                session, kind="archive", tenant_id=tenant.id, payload={"before": before}, requested_by=actor
            )
            operation.not_before = tenant.status_changed_at + datetime.timedelta(seconds=settle)
        return await self._wait(operation, tenant, wait)

    async def restore(self, slug: str, *, actor: str, wait: float | None = None) -> Outcome:
        """Bring an archived tenant's data back, and serve it again.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it is not archived, or the provisioner is at work on it.
            UnavailableException: the provisioner tried and failed; it is still archived.
        """
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            tenant = await TenantService(session=session).by_slug(slug, lock=True)
            require_state(tenant, "restore")
            operation = await self._request(session, tenant, "restore", {}, actor)
        return await self._wait(operation, tenant, wait)

    async def export(self, slug: str, *, credentials: bool, actor: str, wait: float | None = None) -> Outcome:
        """Have an archive of a tenant made that can be fetched for a while; it is served meanwhile.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: its state does not allow it, or the provisioner is at work on it.
            UnavailableException: the provisioner tried and failed.
        """
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            tenant = await TenantService(session=session).by_slug(slug, lock=True)
            require_state(tenant, "export")
            operation = await self._request(session, tenant, "export", {"credentials": credentials}, actor)
        return await self._wait(operation, tenant, wait)

    async def clone(self, slug: str, new: NewTenant, *, mask: bool, actor: str, wait: float | None = None) -> Outcome:
        """Make a tenant with the rows of another; with `mask`, without what identifies people.

        Raises:
            ResourceNotFoundException: there is nothing to clone.
            ConflictException: its state does not allow it, or the new slug is taken.
            ValidationFailedException: the new slug is reserved, the plan unknown, the address none, or missing where
                nobody could log in without it.
            UnavailableException: the provisioner tried and failed; the new tenant is `failed`.
        """
        if new.owner_email is None:
            if mask:
                raise ValidationFailedException.of(
                    "ownerEmail", "Expected an address: with everybody masked, nobody else could log in."
                )
            if new.owner_password is not None or new.owner_name is not None:
                raise ValidationFailedException.of("ownerEmail", "Expected the address of the owner as well.")
        new, hashed = await self._checked(new)
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            source = await TenantService(session=session).by_slug(slug)
            require_state(source, "clone")
            new = replace(new, plan=new.plan or source.plan)
            payload = {"source": str(source.id), "mask": mask}
            tenant, operation, invitation = await self._found(
                session, new, "clone", payload, fallback=source.owner_email, hashed=hashed, actor=actor
            )
        return await self._wait(operation, tenant, wait, invitation)

    async def import_tenant(
        self, key: str, new: NewTenant, *, actor: str, manifest: Manifest | None = None, wait: float | None = None
    ) -> Outcome:
        """Make a tenant of an archive in the storage, which is checked from end to end before anything is written.

        Args:
            manifest: of the archive, where the caller has checked it already with `verify_import`.

        Raises:
            ArchiveError: the archive is none, or not one that can be loaded here.
            ConflictException: the slug is taken.
            ValidationFailedException: the key is none of an archive, the slug reserved, the plan unknown, ….
            UnavailableException: the provisioner tried and failed; the new tenant is `failed`.
        """
        check_import_key(key)
        new, hashed = await self._checked(new)
        async with self._database.transaction(self._read_scope) as transaction:
            # Before a large file is read for nothing.
            tenants = TenantService(session=transaction.session)
            if await transaction.session.scalar(select(Tenant.id).where(Tenant.slug == new.slug)) is not None:
                raise ConflictException(f"The slug {new.slug!r} is taken.", problem=SLUG_TAKEN)
            if new.plan is not None:
                await tenants.check_plan(new.plan)
        if manifest is None:
            manifest = await self._check_import(key)
        new = replace(new, name=new.name or manifest.tenant.name, plan=new.plan or manifest.tenant.plan)
        async with self._database.transaction(self._write_scope) as transaction:
            tenant, operation, invitation = await self._found(
                transaction.session, new, "import", {"key": key}, fallback="", hashed=hashed, actor=actor
            )
        return await self._wait(operation, tenant, wait, invitation)

    async def _check_import(self, key: str) -> Manifest:
        storage, limit = self._storage(), self._settings.import_size_limit
        info = await storage.head(key)
        if info is None:
            raise ValidationFailedException.of("key", "There is no such file in the storage.")
        if info.size > limit:
            raise ArchiveError.of("", f"expected at most {limit} bytes, found {info.size}")
        async with self._checking, storage.scratch() as folder:
            path = folder / "archive.zip"
            await storage.fetch_to(key, path)
            return await verify_import(path, size_limit=limit)

    async def _checked(self, new: NewTenant) -> tuple[NewTenant, str | None]:
        """The new tenant with its owner's address normalized, and the hash of the password."""
        check_slug(new.slug)
        if new.owner_email is None:
            return new, None
        new = replace(new, owner_email=normalize_email(new.owner_email, field="ownerEmail"))
        if new.owner_password is None:
            return new, None
        check_new_password(
            self._settings,
            new.owner_password,
            email=new.owner_email or "",
            organization=(new.name or "", new.slug),
            name=new.owner_name,
            field="ownerPassword",
        )
        return new, await self._hasher.hash(new.owner_password, key="owners")

    async def _found(
        self,
        session: AsyncSession,
        new: NewTenant,
        kind: str,
        payload: dict[str, Any],
        *,
        fallback: str,
        hashed: str | None,
        actor: str,
    ) -> tuple[Tenant, Operation, str | None]:
        """Write down a tenant that is to be made; `fallback` is the owner's address where none was given."""
        tenants = TenantService(session=session)
        assert new.name is not None  # noqa: S101 - the callers have seen to both
        assert new.plan is not None  # noqa: S101
        await tenants.check_plan(new.plan)
        tenant = Tenant(
            id=uuid7(), slug=new.slug, name=new.name, plan=new.plan, owner_email=new.owner_email or fallback
        )
        session.add(tenant)
        await tenants.flush_slug(new.slug)
        invitation: str | None = None
        if new.owner_email is not None:
            digest: bytes | None = None
            if hashed is None:
                invitation, digest = Credential.new(INVITATION, tenant.id)
            owner = Owner(
                email=new.owner_email,
                id=uuid7(),
                name=new.owner_name,
                password_hash=hashed,
                invitation_hash=digest,
                invitation_ttl=self._settings.invitation_ttl,
            )
            payload = {**payload, "owner": owner_payload(owner)}
        operation = await self._request(session, tenant, kind, payload, actor)
        return tenant, operation, invitation

    @staticmethod
    async def _request(
        session: AsyncSession, tenant: Tenant, kind: str, payload: dict[str, Any], actor: str
    ) -> Operation:
        operation = await request_operation(
            session, kind=kind, tenant_id=tenant.id, payload=payload, requested_by=actor
        )
        told: dict[str, Any] = {name: payload[name] for name in ("credentials", "source", "mask") if name in payload}
        record(
            session,
            actor=actor,
            action=f"tenant.{kind}",
            tenant_id=tenant.id,
            details={"operation": str(operation.id), **told},
        )
        await session.flush()
        return operation

    async def _wait(
        self, operation: Operation, tenant: Tenant, wait: float | None, invitation: str | None = None
    ) -> Outcome:
        seconds = self._settings.provision_wait if wait is None else wait
        ended = await wait_for_operation(self._database, self._read_scope, operation.id, seconds)
        if ended.status == "failed":
            error = ended.error or ""
            if ended.kind == "import" and error.startswith(REFUSED):
                raise ArchiveError(error.removeprefix(REFUSED), member="", operation=str(ended.id))
            raise UnavailableException(error, problem=OPERATION_FAILED, operation=str(ended.id), retry_after=60)
        if ended.status == "done":
            async with self._database.transaction(self._read_scope) as transaction:
                tenant = await transaction.session.get_one(Tenant, tenant.id)
        return Outcome(ended, tenant, invitation)

    async def open_export(self, operation: Operation) -> tuple[str, int]:
        """The key and the size in bytes of an export's file, which is there now.

        Raises:
            ConflictException: there is none to fetch.
        """
        key = export_key(operation.tenant_id, operation.id)
        result = operation.result or {}
        if operation.status == "done" and not result.get("removed") and result.get("key") == key:
            info = await self._storage().head(key)
            if info is not None:
                return key, info.size
        raise ConflictException(
            "There is no file to fetch.",
            problem=EXPORT_NOT_READY,
            exportStatus="expired" if operation.status == "done" else operation.status,
        )
