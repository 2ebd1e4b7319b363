"""Tenants below HTTP: a database with a few of them, each with one row that gives it away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from uuid_utils.compat import uuid7

from tenantry.platform.provisioning.schema import create_schema
from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.context import ScopeTimes, TenantContext
from tenantry.tenancy.migrations import head
from tenantry.tenancy.plan import PlanLimits
from tests.databases import Template, clone_database, drop_database

__all__ = ("Estate", "Neighbour", "open_estate", "run_as")

_TIMES = ScopeTimes(statement=5000, lock=2000, idle_in_transaction=10_000)


@dataclass(frozen=True)
class Neighbour:
    """One tenant. Its tag is named after it, and so is the tag's description: whoever reads either has read of it."""

    context: TenantContext
    marker: str

    @property
    def schema(self) -> str:
        return self.context.schema


@dataclass(frozen=True)
class Estate:
    """A database of a deployment, and the tenants in it."""

    addresses: Template
    tenants: tuple[Neighbour, ...]


async def run_as(url: str, *statements: str) -> None:
    """Run statements one after the other, on a connection of their own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def open_estate(
    template: Template, *, plans: Sequence[str] = ("free", "team"), times: ScopeTimes = _TIMES
) -> AsyncIterator[Estate]:
    """A database with one tenant per plan named."""
    addresses = await clone_database(template)
    try:
        owner = await asyncpg.connect(addresses.owner_url, connection_class=DriverConnection)
        try:
            tenants = tuple([await _move_in(owner, number, plan, times) for number, plan in enumerate(plans)])
        finally:
            await owner.close()
        yield Estate(addresses, tenants)
    finally:
        await drop_database(addresses)


async def _move_in(owner: DriverConnection, number: int, plan: str, times: ScopeTimes) -> Neighbour:
    marker = f"marker-{'abcdefgh'[number]}"
    context = TenantContext.build(
        tenant_id=uuid7(), slug=f"tenant-{number}", name=marker, status="active", plan=PlanLimits(plan), times=times
    )
    async with owner.transaction():
        await owner.execute(
            "INSERT INTO platform.tenant (id, slug, name, status, status_changed_at, plan, owner_email, revision,"
            " created_at, updated_at) VALUES ($1, $2, $3, 'active', now(), $4, 'owner@example.com', $5, now(), now())",
            context.id,
            context.slug,
            marker,
            plan,
            head("tenant"),
        )
        await create_schema(owner, context.id)
        await owner.execute(
            "INSERT INTO tag (id, slug, name, description, created_at, updated_at)"
            " VALUES ($1, $2, $2, $3, now(), now())",
            uuid7(),
            marker,
            f"{marker}:0",
        )
    return Neighbour(context, marker)
