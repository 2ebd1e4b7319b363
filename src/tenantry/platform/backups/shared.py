"""Restoring the shared schema: into an empty database, as the first step after a disaster."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.kernel.errors import ConflictException, define_problem
from tenantry.platform.archives.reader import load_archive
from tenantry.platform.archives.writer import table_digests
from tenantry.platform.audit.service import record
from tenantry.platform.lifecycle.building import RowsDifferError
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.tenancy.migrations import head, upgrade
from tenantry.tenancy.revisions import RevisionError, path_between
from tenantry.tenancy.scope import SHARED_SCHEMA

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.platform.backups.format import BackupManifest
    from tenantry.platform.backups.store import BackupStore
    from tenantry.platform.provisioning.operations import StepListener
    from tenantry.tenancy.connection import DriverConnection

__all__ = ("restore_shared",)

NOT_EMPTY = define_problem(
    "database-not-empty",
    409,
    "Not an empty database",
    "The shared schema is restored into a database without tenants and operators alone; `found` says what is there.",
)

_FOUND = """
SELECT n.nspname::text AS name FROM pg_catalog.pg_namespace n WHERE n.nspname ~ '^(t|kept)_[0-9a-f]{32}' LIMIT 3
"""
_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) AS quoted FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'platform' AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version' ORDER BY 1
"""


async def restore_shared(
    engine: AsyncEngine,
    store: BackupStore,
    manifest: BackupManifest,
    *,
    actor: str,
    listener: StepListener | None = None,
) -> int:
    """Make the shared schema of a backup, and return how many tenants are to be restored into it, one by one.

    Until each of those is, it is answered 503, since its row says that it has no schema. What was ready in the warm
    pool is gone, and made anew. In one transaction: killed anywhere, the database is as empty as it was.

    Raises:
        BackupDamagedError, ArchiveError: the backup is no good.
        ConflictException: it is a tenant's, or the database has tenants or operators.
        OperationFailed: it is of a release that is newer than this one.
        RowsDifferError: what came of it is not what was in the backup.
    """
    if manifest.tenant_id is not None:
        raise ConflictException("The backup is an organization's, not the shared schema's.")
    try:
        path_between("shared", manifest.revision)
    except RevisionError as error:
        raise OperationFailed(f"the backup is at a revision that this release does not know: {error}") from error

    async def step(name: str) -> None:
        if listener is not None:
            await listener(name)

    async with store.open_archive(manifest) as reader:
        await step("backup checked")
        async with engine.connect() as connection, connection.begin():
            await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout TO '1h'"))
            driver = cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
            await _require_empty(driver)
            # What `migrate shared` has made of an empty database has keys of its own in it, and nothing of anybody's.
            await driver.execute(f"DROP SCHEMA IF EXISTS {SHARED_SCHEMA} CASCADE")
            await connection.run_sync(upgrade, "shared", manifest.revision)
            await step("schema made")
            tables = [row["quoted"] for row in await driver.fetch(_TABLES)]
            await driver.execute(f"TRUNCATE {', '.join(tables)}")
            # As they were, to the byte, so that they can be compared; triggers would write into them.
            await driver.execute("".join(f"ALTER TABLE {table} DISABLE TRIGGER USER;" for table in tables))
            await load_archive(driver, reader, schema=SHARED_SCHEMA)
            await step("rows loaded")
            held = await table_digests(driver, SHARED_SCHEMA)
            for table in reader.manifest.tables:
                if held.get(table.name) != (table.rows, table.sha256):
                    raise RowsDifferError(f"the rows of {table.name} are not those of the backup")
            await driver.execute("".join(f"ALTER TABLE {table} ENABLE TRIGGER USER;" for table in tables))
            await step("rows compared")
            await connection.run_sync(upgrade, "shared", head("shared"))
            waiting: int = await driver.fetchval(
                "SELECT count(*) FROM platform.tenant WHERE revision IS NOT NULL AND archive_key IS NULL"
            )
            # The numbers of transactions are the old server's: the triggers write this one's.
            await driver.execute(
                "DELETE FROM platform.warm_schema; UPDATE platform.tenant SET revision = NULL;"
                "UPDATE platform.plan SET updated_at = updated_at"
            )
            async with AsyncSession(connection, join_transaction_mode="rollback_only") as session:
                record(
                    session,
                    actor=actor,
                    action="backup.shared-restored",
                    target="shared",
                    details={"backup": manifest.id, "rows": manifest.rows, "tenants": waiting},
                )
                await session.flush()
            await step("schema migrated")
        await step("recorded")
    return waiting


async def _require_empty(driver: DriverConnection) -> None:
    found = [row["name"] for row in await driver.fetch(_FOUND)]
    if await driver.fetchval("SELECT to_regclass('platform.tenant') IS NOT NULL"):
        for table in ("tenant", "operator"):
            number = await driver.fetchval(f"SELECT count(*) FROM {SHARED_SCHEMA}.{table}")  # noqa: S608 - constants
            if number:
                found.append(f"{number} rows in {SHARED_SCHEMA}.{table}")
    if found:
        raise ConflictException(
            f"The database is not empty: {', '.join(found)}. Restore into a new one (`tenantry bootstrap`), with no"
            " provisioner at work.",
            problem=NOT_EMPTY,
            found=found,
        )
