"""The drill: backups are restored beside everything, as after a disaster, and what it took is told."""

from __future__ import annotations

import datetime
import secrets
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec

from tenantry.kernel.errors import ApplicationException
from tenantry.platform.backups.checking import BackupChecker, Verdict
from tenantry.platform.backups.creating import run_each
from tenantry.platform.backups.sealing import BackupDamagedError
from tenantry.platform.backups.shared import restore_shared
from tenantry.platform.lifecycle.building import RowsDifferError
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.tenancy.database import owner_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.platform.backups.format import BackupName
    from tenantry.platform.backups.store import BackupStore

__all__ = ("DrillReport", "DrillResult", "hold_drill", "result_of", "scratch_database")

_PREFIX = "tenantry_drill_"
_STALE = datetime.timedelta(days=1)


class DrillResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What became of one backup."""

    what: str
    """A tenant's slug, or `shared`."""
    backup: str
    good: bool
    restored: bool
    """False where it was only read to its end."""
    problem: str | None
    notes: list[str]
    rows: int | None
    bytes: int | None
    age_seconds: float | None
    """What would be lost: the recovery point."""
    seconds: float
    """What it took: of the recovery time, this one's part."""


class DrillReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `tenantry backup drill --json` prints. `version` goes up when a field changes its meaning or goes."""

    version: int = 1
    started_at: datetime.datetime
    place: str
    """`database`: a scratch database, in which the shared schema was restored as well; `schemas`: scratch schemas."""
    good: bool
    oldest_seconds: float | None
    """The recovery point of the worst of them."""
    seconds: float
    """What all of it took."""
    without_backup: list[str]
    """Tenants that have a schema, and no backup."""
    results: list[DrillResult]


def result_of(verdict: Verdict) -> DrillResult:
    """A verdict as it is printed."""
    manifest = verdict.manifest
    whose = str(verdict.name.tenant_id or "shared")
    return DrillResult(
        what=whose if manifest is None else manifest.slug or "shared",
        backup=verdict.name.id,
        good=verdict.problem is None,
        restored=verdict.restored,
        problem=verdict.problem,
        notes=list(verdict.notes),
        rows=None if manifest is None else manifest.rows,
        bytes=None if manifest is None else manifest.bytes,
        age_seconds=None if verdict.age is None else round(verdict.age, 1),
        seconds=verdict.seconds,
    )


async def hold_drill(
    store: BackupStore,
    names: Sequence[BackupName],
    engine: AsyncEngine,
    *,
    actor: str,
    concurrency: int,
    in_database: bool,
    without_backup: Sequence[str] = (),
    tell: Callable[[int, int], None] = lambda _done, _all: None,
) -> DrillReport:
    """Restore each of these backups with `engine`, look at what came of it, and take it away.

    `in_database` says that it leads to a scratch database, where the shared schema's is restored first.

    Raises:
        StorageUnavailableError: the place of backups is away, which says nothing of them.
    """
    started, began = datetime.datetime.now(datetime.UTC), time.monotonic()
    checker = BackupChecker(store, engine, actor=actor)
    verdicts: list[Verdict] = []
    ordered = sorted(names, key=lambda name: (name.tenant_id is not None, str(name.tenant_id)))
    if in_database and ordered and ordered[0].tenant_id is None:
        verdicts.append(await _restore_shared(store, ordered.pop(0), engine, actor))
    done = await run_each(
        ordered,
        lambda name: checker.verify(name, deep=True),
        concurrency=concurrency,
        label=lambda name: name.id,
        tell=tell,
    )
    for one in done:
        if one.error is not None:
            raise one.error
        if one.result is not None:
            verdicts.append(one.result)
    return DrillReport(
        started_at=started,
        place="database" if in_database else "schemas",
        good=all(verdict.problem is None for verdict in verdicts),
        oldest_seconds=max((round(verdict.age, 1) for verdict in verdicts if verdict.age is not None), default=None),
        seconds=round(time.monotonic() - began, 3),
        without_backup=list(without_backup),
        results=[result_of(verdict) for verdict in verdicts],
    )


async def _restore_shared(store: BackupStore, name: BackupName, engine: AsyncEngine, actor: str) -> Verdict:
    began = time.monotonic()
    manifest, problem = None, None
    try:
        manifest = await store.manifest(name)
        await restore_shared(engine, store, manifest, actor=actor)
    except (BackupDamagedError, OperationFailed, RowsDifferError) as error:
        problem = str(error)
    except ApplicationException as error:
        if error.status_code >= 500:
            raise
        problem = error.detail
    return Verdict(name, manifest, problem, problem is None, round(time.monotonic() - began, 3))


@asynccontextmanager
async def scratch_database(owner_url: str) -> AsyncIterator[AsyncEngine | None]:
    """A database of its own for the time of a drill, or None where the owner may not make one.

    One that a drill of yesterday has left behind, killed in the middle, is dropped first.
    """
    connection = await asyncpg.connect(owner_url)
    try:
        if not await connection.fetchval("SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user"):
            yield None
            return
        now = datetime.datetime.now(datetime.UTC)
        oldest = f"{_PREFIX}{now - _STALE:%Y%m%d%H%M%S}"
        for row in await connection.fetch(
            "SELECT datname FROM pg_database WHERE datname ~ $1 AND datname < $2"
            " AND pg_get_userbyid(datdba) = current_user",
            f"^{_PREFIX}[0-9]{{14}}_[0-9a-f]{{8}}$",
            oldest,
        ):
            await connection.execute(f'DROP DATABASE "{row["datname"]}" WITH (FORCE)')
        name = f"{_PREFIX}{now:%Y%m%d%H%M%S}_{secrets.token_hex(4)}"
        await connection.execute(f'CREATE DATABASE "{name}"')
        try:
            await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
            parts = urlsplit(owner_url)
            engine = owner_engine(urlunsplit((parts.scheme, parts.netloc, f"/{name}", parts.query, "")), pool_size=8)
            try:
                yield engine
            finally:
                await engine.dispose()
        finally:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await connection.close()
