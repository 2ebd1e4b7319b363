"""Which connection a tenant is served by, and when a connection ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY

from tenantry.tenancy.database import Database, Transaction
from tenantry.tenancy.pool import Retirement, TenantPool
from tests.databases import Template
from tests.isolation.estate import Estate, open_estate


@pytest.fixture(scope="module")
async def estate(template: Template) -> AsyncIterator[Estate]:
    async with open_estate(template) as opened:
        yield opened


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(
    estate: Estate, *, size: int = 3, age: float = 1800.0, tenants: int = 500, clock: Callable[[], float] | None = None
) -> AsyncIterator[Database]:
    database = Database(estate.addresses.app_url, pool_size=size, connection_age=age, connection_tenants=tenants)
    if clock is not None:
        # As given to the constructor, but with a clock and with chances that the test knows.
        database.retirement = Retirement(database.pool, age=age, tenants=tenants, clock=clock, chance=random.Random(1))
    try:
        yield database
    finally:
        await database.close()


async def pid(transaction: Transaction) -> int:
    found: int = await transaction.connection.fetchval("SELECT pg_backend_pid()")
    return found


async def serve(database: Database, estate: Estate, number: int) -> int:
    """One transaction of a tenant; which backend it was on."""
    async with database.transaction(estate.tenants[number].context.read_scope) as transaction:
        assert await transaction.connection.fetchval("SELECT name FROM tag") == estate.tenants[number].marker
        return await pid(transaction)


async def settle(database: Database) -> None:
    await database.retirement.close()


def closed(reason: str) -> float:
    return (
        REGISTRY.get_sample_value("tenantry_database_connections_closed_total", {"pool": "tenantry", "reason": reason})
        or 0.0
    )


async def test_a_tenant_is_served_by_the_connection_that_knows_it(estate: Estate) -> None:
    async with opened(estate) as database:
        acme, globex = (tenant.context.read_scope for tenant in estate.tenants[:2])
        one, other = await database.begin(acme), await database.begin(globex)
        acmes, globexs = await pid(one), await pid(other)
        await one.close()
        await other.close()
        for number, expected in ((0, acmes), (1, globexs), (0, acmes), (0, acmes), (1, globexs), (1, globexs)):
            assert await serve(database, estate, number) == expected


async def test_a_tenant_does_not_wait_for_the_connection_that_knows_it(estate: Estate) -> None:
    async with opened(estate, size=2) as database:
        scope = estate.tenants[0].context.read_scope
        async with database.transaction(scope) as one, database.transaction(scope) as other:
            assert await pid(one) != await pid(other)


async def test_a_connection_that_has_served_its_share_of_tenants_is_replaced_between_requests(estate: Estate) -> None:
    before = closed("tenants")
    async with opened(estate, size=1, tenants=2) as database:
        first = await serve(database, estate, 0)
        assert await serve(database, estate, 0) == first
        assert await serve(database, estate, 1) == first
        await settle(database)
        assert closed("tenants") == before + 1
        # Opened before it was asked for.
        assert database.pool.checkedin() == 1
        assert await serve(database, estate, 1) != first


async def test_a_connection_is_replaced_when_it_is_old(estate: Estate) -> None:
    clock = Clock()
    before = closed("age")
    async with opened(estate, size=1, age=100, clock=clock) as database:
        first = await serve(database, estate, 0)
        clock.now += 79
        assert await serve(database, estate, 0) == first
        await settle(database)
        clock.now += 42
        assert await serve(database, estate, 0) == first
        await settle(database)
        assert await serve(database, estate, 0) != first
        assert closed("age") == before + 1


async def test_connections_that_are_due_together_are_replaced_one_after_the_other(estate: Estate) -> None:
    clock = Clock()
    before = closed("age")
    async with opened(estate, size=3, age=100, clock=clock) as database:
        scope = estate.tenants[0].context.read_scope
        held = [await database.begin(scope) for _ in range(3)]
        clock.now += 200
        # Idle ones are none, so none is swept.
        for transaction in held:
            await transaction.close()
        assert closed("age") == before + 1
        assert database.pool.checkedin() == 2
        await settle(database)
        assert database.pool.checkedin() == 3


async def test_a_request_that_waits_gets_the_replacement(estate: Estate) -> None:
    async with opened(estate, size=1, tenants=1) as database:
        scope = estate.tenants[0].context.read_scope
        held = await database.begin(scope)
        first = await pid(held)
        waiting = asyncio.create_task(serve(database, estate, 1))
        while not database.pool._pool._queue._getters:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        await held.close()
        assert await waiting != first


async def test_an_idle_connection_past_its_time_is_closed_and_not_replaced(estate: Estate) -> None:
    clock = Clock()
    before = closed("idle")
    async with opened(estate, size=2, age=100, clock=clock) as database:
        acme, globex = (tenant.context.read_scope for tenant in estate.tenants[:2])
        one, other = await database.begin(acme), await database.begin(globex)
        idle = await pid(other)
        await one.close()
        await other.close()
        clock.now += 121
        await serve(database, estate, 0)
        await settle(database)
        # And whoever needs it gets a new one, without an error.
        assert await serve(database, estate, 1) != idle
        # Its place is noticed when it is needed.
        one, other = await database.begin(acme), await database.begin(globex)
        await one.close()
        await other.close()
        assert closed("idle") == before + 1


async def test_the_pool_grows_where_its_connections_know_many(estate: Estate) -> None:
    async with opened(estate, size=2, tenants=40) as database:
        await serve(database, estate, 0)
        await settle(database)
        assert database.pool.checkedin() == 1
        (connection,) = database.retirement._connections
        connection.met.update(f"t_{number:032x}" for number in range(20))
        first = await serve(database, estate, 1)
        await settle(database)
        assert database.pool.checkedin() == 2
        assert database.pool.is_full
        # Who is not known yet goes to the one that knows fewer.
        async with database.transaction(estate.tenants[0].context.write_scope) as transaction:
            assert await pid(transaction) == first
        connection.met.discard(estate.tenants[0].schema)
        assert await serve(database, estate, 0) != first


async def test_a_replacement_that_cannot_be_opened_leaves_the_pool_whole(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(estate, size=1, tenants=1) as database:
        held = await database.begin(estate.tenants[0].context.read_scope)
        first = await pid(held)
        with monkeypatch.context() as patched:
            patched.setattr(TenantPool, "connect", _refuse)
            await held.close()
            await settle(database)
        assert await serve(database, estate, 0) != first


def _refuse(_: TenantPool) -> None:
    raise OSError("there is nobody")
