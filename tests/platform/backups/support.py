"""A deployment with its backups, as the commands open them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tenantry.domain.identity.sessions.service import end_everybodys
from tenantry.features import TENANT_METADATA
from tenantry.kernel.security import Vault
from tenantry.platform.archives.format import ArchiveTables
from tenantry.platform.backups.checking import BackupChecker
from tenantry.platform.backups.creating import BackupWriter
from tenantry.platform.backups.restoring import BackupRestorer
from tenantry.platform.backups.sealing import SealedWriter
from tenantry.platform.backups.store import BackupStore
from tenantry.platform.provisioning.operations import StepListener
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.models import Tenant
from tests.databases import Template
from tests.platform.lifecycle.support import carry_out
from tests.platform.support import tenant_body
from tests.world import Caller, World, settings_for

__all__ = ("ACTOR", "Backups", "Settled", "open_backups", "row_of", "sealed", "settle")

ACTOR = "cli:tests"


@dataclass(frozen=True)
class Backups:
    """What the commands work with."""

    engine: AsyncEngine
    store: BackupStore
    undo: int = 3600

    def writer(self, listener: StepListener | None = None) -> BackupWriter:
        tables = ArchiveTables.of(TENANT_METADATA)
        return BackupWriter(self.engine, self.store, tables=tables, actor=ACTOR, listener=listener)

    def restorer(self, listener: StepListener | None = None) -> BackupRestorer:
        return BackupRestorer(
            self.engine, self.store, actor=ACTOR, undo=self.undo, end_sessions=end_everybodys, listener=listener
        )

    @property
    def checker(self) -> BackupChecker:
        return BackupChecker(self.store, self.engine, actor=ACTOR)


@asynccontextmanager
async def open_backups(addresses: Template, home: Path, *, undo: int = 3600) -> AsyncIterator[Backups]:
    """Of the database at these addresses, kept in that home."""
    await asyncio.to_thread(home.mkdir, mode=0o700, parents=True, exist_ok=True)
    engine = owner_engine(addresses.owner_url, pool_size=6)
    try:
        yield Backups(engine, BackupStore.open(settings_for(addresses, home)), undo)
    finally:
        await engine.dispose()


def sealed(content: bytes, vault: Vault, *, name: str = "a/b", step: int | None = None) -> bytes:
    """A sealed file, written in pieces of `step` octets."""
    file = io.BytesIO()
    writer = SealedWriter(file, vault, name=name)
    size = step or max(1, len(content))
    for start in range(0, len(content), size):
        writer.write(content[start : start + size])
    writer.finish()
    assert writer.size == len(file.getvalue())
    return file.getvalue()


@dataclass(frozen=True)
class Settled:
    """A tenant with an owner who is signed in, and a team; made quickly."""

    slug: str
    id: UUID
    owner: Caller

    async def add_team(self, name: str) -> None:
        answer = await self.owner.post("/api/teams", json={"name": name})
        assert answer.status_code == 201, answer.text


async def settle(api: World, *slugs: str) -> list[Settled]:
    """Make tenants, one for each slug."""
    settled = []
    for slug in slugs:
        made = await api.operator.post("/platform/tenants", json=tenant_body(slug))
        assert made.status_code == 202, made.text
        await carry_out(api)
        await api.app.state.registry.refresh()
        tenant = Settled(slug, UUID(made.json()["id"]), await api.log_in(slug, f"owner@{slug}.example"))
        await tenant.add_team(f"Team of {slug}")
        settled.append(tenant)
    return settled


async def row_of(backups: Backups, slug: str) -> Tenant:
    """A tenant as the control plane has it."""
    async with AsyncSession(backups.engine, expire_on_commit=False) as session:
        return (await session.scalars(select(Tenant).where(Tenant.slug == slug))).one()
