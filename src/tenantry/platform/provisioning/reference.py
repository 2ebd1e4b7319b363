"""What a tenant's schema should be: one that Alembic has migrated step by step, and whatever is to equal it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from sqlalchemy import select, text
from sqlalchemy.orm import aliased

from tenantry.platform.provisioning.fingerprint import (
    Difference,
    describe_schema,
    describe_schemas,
    differences,
    fingerprint,
)
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.platform.provisioning.schema import begin_schema, enter_schema, finish_schemas, make_schemas
from tenantry.tenancy.migrations import config, head, upgrade
from tenantry.tenancy.models import Tenant, schema_name
from tenantry.tenancy.revision_files import HAS_SCHEMA
from tenantry.tenancy.revisions import path_between

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tenantry.tenancy.connection import DriverConnection

__all__ = ("Drift", "create_verified", "find_drift", "reference")

_SHOWN = 3
"""Differences that an error names; `tenantry tenants verify` names all of them."""

_known: dict[tuple[object, ...], tuple[str, ...]] = {}
"""By folder, revision and server version: none of them changes what it leads to while the process runs."""

_NO_VERSION = frozenset({"schema", "table alembic_version", "column alembic_version.version_num"})
"""Where one of these is not as it should be, the schema cannot be asked for its revision."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How a tenant's schema compares with what it should be."""

    revision: str
    differences: tuple[Difference, ...]


async def reference(engine: AsyncEngine, revision: str) -> tuple[str, ...]:
    """The lines (see `fingerprint`) of a schema that was migrated to a revision step by step.

    Made once per process, in a scratch schema with a role and grants of its own, inside a transaction that is rolled
    back. To be asked for before the caller's own transaction grants anything: both lock the tenants' group.

    Args:
        engine: the owner's.
        revision: of the tenant tree.

    Raises:
        UnknownRevisionError: the tree has no such revision.
        sqlalchemy.exc.DBAPIError, asyncpg.PostgresError: a revision of the tree fails.
    """
    # Known from the engine's first connection on; whoever waits for a schema does not wait for a second one.
    version = getattr(engine.dialect, "server_version_info", None)
    if version is not None and (known := _known.get(_key(revision, version))) is not None:
        return known
    async with engine.connect() as connection:
        key = _key(revision, connection.dialect.server_version_info)
        if key not in _known:
            path_between("tenant", "base", revision)
            _known[key] = await _migrate_scratch(connection, revision)
        return _known[key]


def _key(revision: str, version: object) -> tuple[object, ...]:
    return config("tenant").get_main_option("script_location"), revision, version


async def _migrate_scratch(connection: AsyncConnection, revision: str) -> tuple[str, ...]:
    scratch = uuid4()
    driver = await _begin(connection)
    await begin_schema(driver, scratch)
    await connection.run_sync(upgrade, "tenant", revision)
    await finish_schemas(driver, [scratch])
    return await describe_schema(driver, schema_name(scratch))


async def _begin(connection: AsyncConnection) -> DriverConnection:
    driver = cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
    if not driver.is_in_transaction():
        # SQLAlchemy begins with its first statement; one of the driver's own before it would be outside.
        await connection.execute(text("SELECT 1"))
    return driver


async def create_verified(connection: AsyncConnection, engine: AsyncEngine, tenant_ids: Sequence[UUID]) -> str:
    """Make roles and schemas at head, see that each equals the reference, and return its fingerprint.

    In the caller's transaction, whose search_path it leaves on the last one's schema.

    Args:
        connection: the owner's.
        engine: the owner's as well; for a second connection, the first time in this process.
        tenant_ids: at least one.

    Raises:
        OperationFailed: a schema is not what Alembic would make, naming what differs; the caller must roll back.
        asyncpg.PostgresError: whatever the server says; likewise.
    """
    revision = head("tenant")
    expected = await reference(engine, revision)
    driver = await _begin(connection)
    await make_schemas(connection, tenant_ids)
    for lines in (await describe_schemas(driver, [schema_name(one) for one in tenant_ids])).values():
        if lines != expected:
            found = differences(expected, lines)
            more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise OperationFailed(
                f"the new schema is not what the revisions make one by one: {'; '.join(map(str, found[:_SHOWN]))}{more}"
            )
    await enter_schema(driver, tenant_ids[-1])
    return fingerprint(expected)


async def find_drift(engine: AsyncEngine, tenant_id: UUID) -> Drift | None:
    """What a tenant's schema differs in from the reference of its revision; None if it has no schema.

    Raises:
        UnknownRevisionError: the revision is not one of this release's.
    """
    tenant = aliased(Tenant, name="t")
    # Shared, so that a rollout's change of the schema is seen together with that of the row, or neither.
    row = select(tenant.revision).where(tenant.id == tenant_id, text(HAS_SCHEMA)).with_for_update(read=True)
    async with engine.begin() as connection:
        revision = await connection.scalar(row)
    while revision is not None:
        expected = await reference(engine, revision)
        async with engine.begin() as connection:
            before, revision = revision, await connection.scalar(row)
            if revision == before:
                return Drift(revision, tuple(await _compare(connection, tenant_id, revision, expected)))
    return None


async def _compare(
    connection: AsyncConnection, tenant_id: UUID, revision: str, expected: Sequence[str]
) -> list[Difference]:
    driver = await _begin(connection)
    found = differences(expected, await describe_schema(driver, schema_name(tenant_id)))
    if any(difference.subject in _NO_VERSION for difference in found):
        return found
    await enter_schema(driver, tenant_id)
    truth = [record[0] for record in await driver.fetch("SELECT version_num FROM alembic_version")]
    if truth != [revision]:
        found.insert(0, Difference("revision", revision, ", ".join(truth) or None))
    return found
