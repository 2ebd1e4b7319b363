"""Writing down what tenants use: nothing is lost and nothing counted twice, whoever is killed and when."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.kernel.redis import create_redis
from tenantry.platform.usage import draining
from tenantry.platform.usage.draining import (
    KEPT,
    MeasuringError,
    drain_marked,
    forget_old,
    measure_due,
    write_down,
)
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.use import DIRTY, Mark, add_requests, jobs_key, read_counters, take_marks, today, use_key
from tenantry.tenancy.wiring import scope_times
from tests.databases import Template, clone_database, drop_database
from tests.jobs.support import empty_redis
from tests.platform.support import as_admin
from tests.world import TenantHandle, World, open_world


@pytest.fixture(scope="module")
async def world(template: Template, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A deployment of these tests' own: each of the others' tenants would be measured with theirs."""
    addresses = await clone_database(template)
    async with open_world(addresses, tmp_path_factory.mktemp("usage")) as opened:
        yield opened
    await drop_database(addresses)


@pytest.fixture
async def redis(world: World) -> AsyncIterator[Redis]:
    async with empty_redis(world.addresses) as url:
        opened = create_redis(url, timeout=5)
        yield opened
        await opened.aclose()


class Begin:
    """A transaction in the control plane's scope for each call, as a worker gives them to a job."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._scope = control_scope(scope_times(world.settings), read_only=False)
        self.step: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[AsyncSession]:
        self.step()
        async with self._world.database.transaction(self._scope) as transaction:
            yield transaction.session
            self.step()
        self.step()


@pytest.fixture
def begin(world: World) -> Begin:
    return Begin(world)


async def count(redis: Redis, tenant: TenantHandle, requests: int, jobs: int = 0, *, days_ago: int = 0) -> Mark:
    """Use something, as a request's script and a job's do."""
    day = today() - datetime.timedelta(days=days_ago)
    await add_requests(redis, tenant.tenant_id, day, requests)
    if jobs:
        await redis.hincrby(jobs_key(day), str(tenant.tenant_id), jobs)  # type: ignore[misc]
    return day, tenant.tenant_id


async def written(world: World, tenant: TenantHandle, *, days_ago: int = 0) -> Any:
    async with as_admin(world.addresses) as admin:
        return await admin.fetchrow(
            "SELECT * FROM platform.usage_day WHERE tenant_id = $1 AND day = $2",
            tenant.tenant_id,
            today() - datetime.timedelta(days=days_ago),
        )


async def test_what_is_counted_is_written_down_once(
    world: World, acme: TenantHandle, globex: TenantHandle, redis: Redis, begin: Begin
) -> None:
    await count(redis, acme, 5, 2)
    await count(redis, acme, 7, days_ago=1)
    await count(redis, globex, 3)
    assert await drain_marked(begin, redis) == 3
    row = await written(world, acme)
    assert (row["requests"], row["jobs"], row["plan"], row["storage_bytes"], row["seats"]) == (5, 2, "free", None, None)
    assert (await written(world, acme, days_ago=1))["requests"] == 7
    assert (await written(world, globex))["requests"] == 3

    # Nobody is marked any more; one that is marked and has used nothing stays as it was; and then there is more.
    assert await drain_marked(begin, redis) == 0
    await redis.sadd(DIRTY, f"{today()} {acme.tenant_id}")  # type: ignore[misc]
    assert await drain_marked(begin, redis) == 1
    assert await written(world, acme) == row
    await count(redis, acme, 1, 1)
    await drain_marked(begin, redis)
    row = await written(world, acme)
    assert (row["requests"], row["jobs"]) == (6, 3)


async def test_a_plan_is_that_of_the_day(world: World, acme: TenantHandle, redis: Redis, begin: Begin) -> None:
    await count(redis, acme, 5)
    await count(redis, acme, 5, days_ago=1)
    await drain_marked(begin, redis)
    moved = await world.operator.patch(f"/platform/tenants/{acme.slug}", json={"plan": "enterprise"})
    assert moved.status_code == 200
    await count(redis, acme, 1)
    await count(redis, acme, 1, days_ago=1)
    await drain_marked(begin, redis)
    assert (await written(world, acme))["plan"] == "enterprise"
    assert (await written(world, acme, days_ago=1))["plan"] == "free"


class Killed(BaseException):
    """What a process that is killed looks like from inside: nothing after it happens."""


async def test_whoever_is_killed_at_any_step_neither_loses_nor_doubles_anything(
    world: World,
    acme: TenantHandle,
    globex: TenantHandle,
    redis: Redis,
    begin: Begin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = 0

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    begin.step = step
    for name in ("take_marks", "read_counters", "release_marks"):
        real = getattr(draining, name)

        async def stepping(*values: Any, _real: Any = real, **named: Any) -> Any:
            step()
            found = await _real(*values, **named)
            step()
            return found

        monkeypatch.setattr(draining, name, stepping)
    # A transaction for each: some of them are committed before the kill, and some are not.
    monkeypatch.setattr(draining, "_BATCH", 1)

    used, kills, at = 0, 0, 1
    while True:
        left = at
        used += 1
        await count(redis, acme, 1, 2)
        await count(redis, globex, 3)
        try:
            await drain_marked(begin, redis)
        except Killed:
            kills += 1
        else:
            break
        for tenant, requests in ((acme, used), (globex, 3 * used)):
            row = await written(world, tenant)
            assert row is None or row["requests"] <= requests
        at += 1
    assert kills >= 15, "there are two transactions, with three steps of Redis'"
    rows = [await written(world, tenant) for tenant in (acme, globex)]
    assert [(row["requests"], row["jobs"]) for row in rows] == [(used, 2 * used), (3 * used, 0)]
    left = 0
    assert await drain_marked(begin, redis) == 0


async def test_readers_at_the_same_time_count_once(
    world: World, acme: TenantHandle, globex: TenantHandle, redis: Redis, begin: Begin
) -> None:
    for number in range(1, 6):
        marks = [await count(redis, acme, 10, 1), await count(redis, globex, 1)]

        async def drain(marks: list[Mark] = marks) -> None:
            async with begin() as session:
                await write_down(session, redis, marks)

        await asyncio.gather(*(drain() for _ in range(4)), count(redis, acme, 1))
        assert 10 * number <= (await written(world, acme))["requests"] <= 11 * number
    await drain_marked(begin, redis)
    assert [(await written(world, tenant))["requests"] for tenant in (acme, globex)] == [55, 5]
    assert (await written(world, acme))["jobs"] == 5


async def test_a_counter_that_redis_has_lost_begins_anew_and_is_added(
    world: World, acme: TenantHandle, redis: Redis, begin: Begin
) -> None:
    await count(redis, acme, 100, 10)
    await drain_marked(begin, redis)
    await redis.flushdb()
    await count(redis, acme, 4, 1)
    await drain_marked(begin, redis)
    row = await written(world, acme)
    assert (row["requests"], row["jobs"]) == (104, 11)


async def test_a_counter_that_comes_back_from_an_older_copy_is_not_counted_twice(
    world: World, acme: TenantHandle, redis: Redis, begin: Begin
) -> None:
    await count(redis, acme, 100)
    await drain_marked(begin, redis)
    await count(redis, acme, -20)
    await drain_marked(begin, redis)
    assert (await written(world, acme))["requests"] == 100
    await count(redis, acme, 25)
    await drain_marked(begin, redis)
    assert (await written(world, acme))["requests"] == 105


async def test_what_is_lost_between_two_looks_is_left_to_the_next_reader(
    world: World, acme: TenantHandle, redis: Redis, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await count(redis, acme, 8)

    async def lossy(*values: Any, claim: bool) -> Any:
        # Without an epoch: as if it had been lost, and made anew, after it was given one.
        return await read_counters(*values)

    monkeypatch.setattr(draining, "read_counters", lossy)
    await drain_marked(begin, redis)
    monkeypatch.undo()
    await count(redis, acme, 1)
    await drain_marked(begin, redis)
    assert (await written(world, acme))["requests"] == 9


async def test_of_tenants_that_nobody_knows_nothing_is_written(world: World, redis: Redis, begin: Begin) -> None:
    await add_requests(redis, UUID(int=5), today(), 5)
    assert await drain_marked(begin, redis) == 1
    async with as_admin(world.addresses) as admin:
        assert await admin.fetchval("SELECT count(*) FROM platform.usage_day WHERE tenant_id = $1", UUID(int=5)) == 0
    assert await take_marks(redis) == []


async def measured(world: World, tenant: TenantHandle, begin: Begin, redis: Redis) -> Any:
    async with as_admin(world.addresses) as admin:
        await admin.execute(
            "UPDATE platform.usage_day SET measured_at = now() - interval '1 day' WHERE tenant_id = $1",
            tenant.tenant_id,
        )
    while await measure_due(begin, redis):
        pass
    return await written(world, tenant)


async def test_storage_and_seats_are_the_most_that_there_was_on_the_day(
    world: World, acme: TenantHandle, globex: TenantHandle, redis: Redis, begin: Begin
) -> None:
    before = await measured(world, acme, begin, redis)
    assert before["seats"] == 1
    assert before["storage_bytes"] > 100_000
    bob = await acme.add_user("bob", "member")
    for number in range(30):
        await acme.add_team(f"Team {number}", description="x" * 500)
    more = await measured(world, acme, begin, redis)
    assert more["seats"] == 2
    assert more["storage_bytes"] > before["storage_bytes"]
    gone = await acme.patch(f"/api/users/{bob.id}", json={"isActive": False})
    assert gone.status_code == 200, gone.text
    assert (await measured(world, acme, begin, redis))["seats"] == 2
    assert (await written(world, globex))["seats"] == 1


async def test_a_tenant_is_measured_a_few_times_a_day_and_not_at_each_look(
    world: World, acme: TenantHandle, redis: Redis, begin: Begin
) -> None:
    first = await measured(world, acme, begin, redis)
    await acme.add_user("bob", "member")
    assert await measure_due(begin, redis) == 0
    assert await written(world, acme) == first


async def test_a_tenant_that_cannot_be_measured_keeps_nobody_else_from_it(
    world: World, acme: TenantHandle, globex: TenantHandle, redis: Redis, begin: Begin
) -> None:
    await measured(world, acme, begin, redis)
    async with as_admin(world.addresses) as admin:
        await admin.execute(
            "DELETE FROM platform.usage_day WHERE tenant_id = ANY ($1)", [acme.tenant_id, globex.tenant_id]
        )
        async with admin.transaction():
            await admin.execute(f'LOCK TABLE "{acme.context.schema}".user_account IN ACCESS EXCLUSIVE MODE')
            with pytest.raises(MeasuringError, match="1 of 2"):
                await measure_due(begin, redis)
    assert await written(world, acme) is None
    assert (await written(world, globex))["seats"] == 1
    assert await measure_due(begin, redis) == 1
    assert (await written(world, acme))["seats"] == 1


async def test_what_lost_its_mark_is_found_when_the_tenant_is_measured(
    world: World, acme: TenantHandle, redis: Redis, begin: Begin
) -> None:
    await count(redis, acme, 5, 1)
    await count(redis, acme, 6, days_ago=2)
    await redis.delete(DIRTY)
    row = await measured(world, acme, begin, redis)
    assert (row["requests"], row["jobs"], row["seats"]) == (5, 1, 1)
    assert (await written(world, acme, days_ago=2))["requests"] == 6


async def test_use_is_forgotten_after_two_years(world: World, acme: TenantHandle, redis: Redis, begin: Begin) -> None:
    for days_ago in (KEPT - 1, KEPT):
        await count(redis, acme, 5, days_ago=days_ago)
    await drain_marked(begin, redis)
    async with begin() as session:
        assert await forget_old(session) == 1
    assert await written(world, acme, days_ago=KEPT) is None
    assert (await written(world, acme, days_ago=KEPT - 1))["requests"] == 5


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM platform.usage_day",
        "DELETE FROM platform.usage_day",
        "SELECT * FROM platform.measure_tenant(gen_random_uuid())",
    ],
)
async def test_an_organization_cannot_reach_what_others_use(world: World, acme: TenantHandle, sql: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with world.database.transaction(acme.context.write_scope) as transaction:
            await transaction.connection.fetch(sql, timeout=5)


async def test_the_control_plane_learns_two_numbers_and_none_of_a_schema_that_is_not_there(
    world: World, acme: TenantHandle, begin: Begin
) -> None:
    async with begin() as session:
        connection = await session.connection()
        for tenant_id, seats in ((acme.tenant_id, 1), (uuid4(), 0)):
            found = (await connection.exec_driver_sql("SELECT * FROM platform.measure_tenant($1)", (tenant_id,))).one()
            assert found.seats == seats
            assert bool(found.storage_bytes) is bool(seats)


async def test_the_keys_are_those_that_a_request_counts_at(redis: Redis, acme: TenantHandle) -> None:
    day, tenant_id = await count(redis, acme, 3)
    assert await redis.hget(use_key(tenant_id, day), "requests") == b"3"  # type: ignore[misc]
