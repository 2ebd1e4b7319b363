"""Tenants made without ceremony, and what a rollout has made of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from tenantry.platform.provisioning.schema import create_schema
from tenantry.platform.rollouts import steering
from tenantry.platform.rollouts.planning import Plan, plan
from tenantry.platform.rollouts.runner import Progress, RolloutRunner
from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import head
from tenantry.tenancy.models import schema_name
from tests.databases import Template

__all__ = (
    "add_team",
    "as_owner",
    "cancel",
    "ends",
    "make_tenants",
    "plan_of",
    "quick_runner",
    "resume",
    "roll_out",
    "rows_of",
    "start",
    "states",
)


@asynccontextmanager
async def as_owner(addresses: Template) -> AsyncIterator[DriverConnection]:
    """A connection like the runner's."""
    connection: DriverConnection = await asyncpg.connect(addresses.owner_url, connection_class=DriverConnection)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def owner_session(addresses: Template) -> AsyncIterator[AsyncSession]:
    engine = owner_engine(addresses.owner_url)
    try:
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            yield session
    finally:
        await engine.dispose()


async def make_tenants(addresses: Template, *slugs: str, status: str = "active") -> dict[str, UUID]:
    """Tenants with a schema at this moment's head."""
    made = {slug: uuid7() for slug in slugs}
    async with owner_session(addresses) as session:
        driver = cast("DriverConnection", (await (await session.connection()).get_raw_connection()).driver_connection)
        for slug, tenant_id in made.items():
            await create_schema(driver, tenant_id)
            await driver.execute(
                "INSERT INTO platform.tenant (id, slug, name, status, status_changed_at, plan, owner_email, revision,"
                " created_at, updated_at) VALUES ($1, $2, $2, $3, now(), 'free', 'a@b.example', $4, now(), now())",
                tenant_id,
                slug,
                status,
                head("tenant"),
            )
    return made


async def add_team(addresses: Template, tenant_id: UUID, name: str) -> None:
    async with as_owner(addresses) as owner:
        await owner.execute(
            f'INSERT INTO "{schema_name(tenant_id)}".team (id, name, slug, is_active, created_at, updated_at)'
            " VALUES ($1, $2, $2, true, now(), now())",
            uuid4(),
            name,
        )


async def start(
    addresses: Template,
    *,
    canary: int = 0,
    concurrency: int = 2,
    halt_after: int = 10,
    lock_timeout: int = 200,
    max_attempts: int = 3,
    only: Sequence[str] | None = None,
    target: str | None = None,
) -> UUID:
    async with owner_session(addresses) as session:
        made = await steering.start_rollout(
            session,
            target=target,
            canary=canary,
            concurrency=concurrency,
            halt_after=halt_after,
            lock_timeout=lock_timeout,
            max_attempts=max_attempts,
            only=only,
            requested_by="cli:test",
        )
        return made.id


async def resume(addresses: Template, rollout_id: UUID) -> None:
    async with owner_session(addresses) as session:
        await steering.resume(session, rollout_id, actor="cli:test")


async def cancel(addresses: Template, rollout_id: UUID) -> None:
    async with owner_session(addresses) as session:
        await steering.cancel(session, rollout_id, actor="cli:test")


async def plan_of(addresses: Template, **options: Any) -> Plan:
    async with owner_session(addresses) as session:
        return await plan(steering.fetch_in(session), **options)


def quick_runner(addresses: Template, *, settle: float = 5.0) -> RolloutRunner:
    return RolloutRunner(addresses.owner_url, poll_interval=0.02, backoff=0.02, settle=settle)


async def roll_out(addresses: Template, **options: Any) -> Progress:
    """Start one and carry it out."""
    return await ends(addresses, await start(addresses, **options))


async def ends(addresses: Template, rollout_id: UUID) -> Progress:
    found = await quick_runner(addresses).run(rollout_id)
    assert found is not None
    return found


async def states(addresses: Template) -> dict[str, str]:
    """Each tenant's revision; ledger and truth are held to be the same."""
    found = {}
    # At one moment: a rollout may be under way.
    async with as_owner(addresses) as owner, owner.transaction(isolation="repeatable_read"):
        for row in await owner.fetch("SELECT id, slug, revision FROM platform.tenant WHERE revision IS NOT NULL"):
            truth = await owner.fetchval(f'SELECT version_num FROM "{schema_name(row["id"])}".alembic_version')
            assert truth == row["revision"], row["slug"]
            found[row["slug"]] = truth
    return found


async def rows_of(addresses: Template, rollout_id: UUID) -> dict[str, asyncpg.Record]:
    """The rollout's rows by slug."""
    async with as_owner(addresses) as owner:
        rows = await owner.fetch(
            "SELECT t.slug, rt.* FROM platform.rollout_tenant rt JOIN platform.tenant t ON t.id = rt.tenant_id"
            " WHERE rt.rollout_id = $1",
            rollout_id,
        )
    return {row["slug"]: row for row in rows}
