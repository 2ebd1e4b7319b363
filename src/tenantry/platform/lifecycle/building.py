"""A schema for rows that exist already: made at their revision, filled, migrated, and compared with the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.platform.archives.writer import table_digests
from tenantry.platform.provisioning.fingerprint import describe_schema, differences
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.platform.provisioning.reference import reference
from tenantry.platform.provisioning.schema import begin_schema, enter_schema, finish_schemas, migrate_schema
from tenantry.tenancy.migrations import head
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.revisions import RevisionError, path_between

if TYPE_CHECKING:
    from tenantry.platform.archives.format import Manifest
    from tenantry.platform.provisioning.operations import Work

__all__ = ("RowsDifferError", "SchemaDiffersError", "begin_at", "finish_at_head", "require_known", "require_same_rows")

_SHOWN = 3


class SchemaDiffersError(Exception):
    """The schema is not what the revisions make of an empty one; nothing of it is kept."""


class RowsDifferError(Exception):
    """The rows in the schema are not those that were meant to be there; nothing of it is kept."""


def require_known(revision: str) -> None:
    """Refuse a revision that this release cannot bring to its own.

    Raises:
        OperationFailed: a newer release's, most likely.
    """
    try:
        path_between("tenant", revision)
    except RevisionError as error:
        raise OperationFailed(f"the data are at a revision that this release does not know: {error}") from error


async def begin_at(work: Work, revision: str) -> None:
    """Make the tenant's role and, at an earlier revision, its schema; the transaction's search_path leads there.

    Without grants: granting the tenants' group locks it for everybody until the commit, and the rows are yet to come.

    Raises:
        OperationFailed: the release has no such revision.
        asyncpg.PostgresError, sqlalchemy.exc.DBAPIError: whatever the server says; the caller must roll back.
    """
    require_known(revision)
    # Now, not at the end: it grants on a connection of its own, and would wait for ours.
    await reference(work.engine, head("tenant"))
    await begin_schema(work.driver, work.tenant_id)
    await migrate_schema(work.connection, "base", revision)


async def finish_at_head(work: Work, revision: str) -> str:
    """Migrate the schema to head, compare it with the reference, and grant its role what it gets; returns head.

    The search_path leads to the schema until the transaction ends.

    Raises:
        SchemaDiffersError: the schema is not as it should be, naming what differs; the caller must roll back.
        asyncpg.PostgresError, sqlalchemy.exc.DBAPIError: a revision does not bear these rows; likewise.
    """
    target = head("tenant")
    await migrate_schema(work.connection, revision, target)
    expected = await reference(work.engine, target)
    await finish_schemas(work.driver, [work.tenant_id])
    found = differences(expected, await describe_schema(work.driver, schema_name(work.tenant_id)))
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise SchemaDiffersError(
            f"the schema is not what the revisions make one by one: {'; '.join(map(str, found[:_SHOWN]))}{more}"
        )
    await enter_schema(work.driver, work.tenant_id)
    return target


async def require_same_rows(work: Work, manifest: Manifest) -> None:
    """See that every table holds exactly the rows that the archive says, byte for byte.

    Raises:
        RowsDifferError: one does not.
    """
    found = await table_digests(work.driver, schema_name(work.tenant_id))
    for table in manifest.tables:
        if found.get(table.name) != (table.rows, table.sha256):
            raise RowsDifferError(f"the rows of {table.name} are not those of the archive")
