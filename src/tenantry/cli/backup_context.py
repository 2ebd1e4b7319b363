"""What the commands of `tenantry backup` have in common: the place, the owner's connections, and how they tell."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.cli.problems import CommandError
from tenantry.kernel.errors import ApplicationException
from tenantry.kernel.home import complete
from tenantry.kernel.logging import configure_logging
from tenantry.kernel.settings import SettingsError, load_settings
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.backups.format import BackupManifest, BackupName
from tenantry.platform.backups.sealing import BackupDamagedError
from tenantry.platform.backups.store import BackupStore, damaged
from tenantry.platform.lifecycle.building import RowsDifferError, SchemaDiffersError
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.platform.tenants.service import TenantService
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.kernel.settings import Settings
    from tenantry.platform.backups.creating import BackupWriter
    from tenantry.platform.backups.restoring import BackupRestorer

__all__ = ("BackupContext", "age_of", "backup_context", "expected_errors", "manifest_row", "open_store", "said")


@dataclass
class BackupContext:
    """A deployment as its owner sees it, and its backups."""

    settings: Settings
    owner_url: str
    engine: AsyncEngine

    @cached_property
    def store(self) -> BackupStore:
        return BackupStore.open(self.settings)

    @property
    def actor(self) -> str:
        return cli_actor()

    @property
    def writer(self) -> BackupWriter:
        from tenantry.features import TENANT_METADATA
        from tenantry.platform.archives.format import ArchiveTables
        from tenantry.platform.backups.creating import BackupWriter

        return BackupWriter(self.engine, self.store, tables=ArchiveTables.of(TENANT_METADATA), actor=self.actor)

    @property
    def restorer(self) -> BackupRestorer:
        from tenantry.domain.identity.sessions.service import end_everybodys
        from tenantry.platform.backups.restoring import BackupRestorer

        return BackupRestorer(
            self.engine, self.store, actor=self.actor, undo=self.settings.backup_undo, end_sessions=end_everybodys
        )

    async def tenant(self, slug: str) -> Tenant:
        """The tenant of that slug.

        Raises:
            ResourceNotFoundException: there is none.
        """
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            return await TenantService(session=session).by_slug(slug)

    async def waiting(self) -> list[Tenant]:
        """Tenants that should have a schema and have none, as after the shared schema was restored, by slug."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            found = await session.scalars(
                select(Tenant)
                .where(
                    Tenant.revision.is_(None),
                    Tenant.archive_key.is_(None),
                    Tenant.status.in_(("active", "suspended", "purging")),
                )
                .order_by(Tenant.slug)
            )
            return list(found)


@asynccontextmanager
async def backup_context() -> AsyncIterator[BackupContext]:
    """Open one, with the settings of the environment, completed from the home folder.

    Raises:
        SettingsError: they are wrong, or there is no address of the owner.
    """
    settings = complete(load_settings(), owner=True, redis=False)
    if settings.database_owner_url is None:
        raise SettingsError(["TENANTRY_DATABASE_OWNER_URL: expected an address"])
    configure_logging("WARNING", settings.log_format)
    owner_url = settings.database_owner_url.get_secret_value()
    engine = owner_engine(owner_url, pool_size=2 * settings.backup_concurrency + 2)
    try:
        yield BackupContext(settings, owner_url, engine)
    finally:
        await engine.dispose()


def open_store() -> BackupStore:
    """The place of backups alone, for what needs no database."""
    settings = load_settings()
    configure_logging("WARNING", settings.log_format)
    return BackupStore.open(settings)


@contextmanager
def expected_errors() -> Iterator[None]:
    """What may be wrong with a backup, as commands end with it."""
    try:
        yield
    except BackupDamagedError as error:
        raise damaged(error) from error
    except (OperationFailed, RowsDifferError, SchemaDiffersError) as error:
        raise CommandError(str(error)) from error


def said(error: Exception) -> str:
    """One line for one of several that failed; never a row of anybody's, which PostgreSQL quotes below its first."""
    if isinstance(error, ApplicationException):
        return error.detail
    first = str(error).partition("\n")[0]
    if isinstance(error, BackupDamagedError | OperationFailed | RowsDifferError | SchemaDiffersError):
        return first
    return f"{type(error).__name__}: {first}"


def age_of(seconds: float | None) -> str | None:
    """`3 h`, `12 days`."""
    if seconds is None:
        return None
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def manifest_row(name: BackupName, manifest: BackupManifest | None) -> dict[str, Any]:
    """A backup as `--json` has it; of one that cannot be read, what its name says."""
    row: dict[str, Any] = {
        "id": name.id,
        "kind": "shared" if name.tenant_id is None else "tenant",
        "tenantId": None if name.tenant_id is None else str(name.tenant_id),
        "createdAt": name.moment,
        "readable": manifest is not None,
    }
    if manifest is not None:
        row |= {
            "slug": manifest.slug,
            "status": manifest.status,
            "createdAt": manifest.created_at,
            "seconds": manifest.seconds,
            "revision": manifest.revision,
            "fingerprint": manifest.fingerprint,
            "asRevised": manifest.as_revised,
            "tables": len(manifest.tables),
            "rows": manifest.rows,
            "bytes": manifest.bytes,
            "keyId": manifest.key_id,
        }
    return row
