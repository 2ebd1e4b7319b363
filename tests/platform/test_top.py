"""What `tenantry top` looks at: who is busiest, what waits, and what the pools hold."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tenantry.domain.identity.invitations.jobs import forget_old_invitations
from tenantry.jobs.ring import Ring
from tenantry.jobs.state import JobStates
from tenantry.kernel.redis import create_redis
from tenantry.platform.jobs.service import JobControl
from tenantry.platform.usage import live
from tenantry.platform.usage.draining import drain_marked
from tenantry.platform.usage.live import Sort, TopReader
from tenantry.platform.usage.schemas import Top, TopTenant
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.use import add_requests, jobs_key, today
from tenantry.tenancy.wiring import scope_times
from tests.jobs.support import empty_redis
from tests.platform.support import as_admin
from tests.world import TenantHandle, World


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def redis(world: World) -> AsyncIterator[Redis]:
    async with empty_redis(world.addresses) as url:
        opened = create_redis(url, timeout=5)
        yield opened
        await opened.aclose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reader(world: World, redis: Redis, clock: Clock) -> TopReader:
    read, write = (control_scope(scope_times(world.settings), read_only=only) for only in (True, False))
    jobs = JobControl(database=world.database, read_scope=read, write_scope=write, states=JobStates(Ring(redis)))
    return TopReader(database=world.database, read_scope=read, redis=redis, jobs=jobs, clock=clock)


def of(top: Top, tenant: TenantHandle) -> TopTenant:
    [row] = [row for row in top.tenants if row.tenant_id == tenant.tenant_id]
    return row


async def use(redis: Redis, tenant: TenantHandle, requests: int, jobs: int = 0) -> None:
    await add_requests(redis, tenant.tenant_id, today(), requests)
    await redis.hincrby(jobs_key(today()), str(tenant.tenant_id), jobs)  # type: ignore[misc]


async def test_rates_are_the_difference_of_two_looks(
    world: World, acme: TenantHandle, globex: TenantHandle, redis: Redis, reader: TopReader, clock: Clock
) -> None:
    await use(redis, acme, 1000, 100)
    first = await reader.look(limit=1000)
    assert (first.seconds, first.requests_per_second, first.jobs_per_second) == (None, None, None)
    assert first.is_live
    row = of(first, acme)
    assert (row.tenant, row.requests_per_second, row.jobs_per_second) == (acme.slug, None, None)
    assert (row.requests_today, row.jobs_today) == (1000, 100)

    # What is written down meanwhile makes no difference.
    scope = control_scope(scope_times(world.settings), read_only=False)

    def begin() -> Any:
        return _session(world, scope)

    await drain_marked(begin, redis)
    clock.now += 4
    await use(redis, acme, 10, 2)
    await use(redis, globex, 7)
    second = await reader.look(limit=1000)
    assert second.seconds == 4
    assert (of(second, acme).requests_per_second, of(second, acme).jobs_per_second) == (2.5, 0.5)
    # Nobody knows since when: it was not looked at before.
    assert of(second, globex).requests_per_second is None
    assert (second.requests_per_second, second.jobs_per_second, second.active_tenants) == (2.5, 0.5, 2)

    clock.now += 2
    await use(redis, globex, 40)
    third = await reader.look(limit=1000)
    assert of(third, globex).requests_per_second == 20
    assert of(third, acme).requests_per_second == 0
    assert third.tenants[0].tenant_id == globex.tenant_id


def _session(world: World, scope: Any) -> Any:
    class Block:
        async def __aenter__(self) -> Any:
            self._transaction = world.database.transaction(scope)
            return (await self._transaction.__aenter__()).session

        async def __aexit__(self, *error: Any) -> None:
            await self._transaction.__aexit__(*error)

    return Block()


async def test_a_counter_that_redis_has_lost_is_no_negative_rate(
    acme: TenantHandle, redis: Redis, reader: TopReader, clock: Clock
) -> None:
    await use(redis, acme, 1000)
    await reader.look()
    await redis.flushdb()
    await use(redis, acme, 3)
    clock.now += 1
    assert of(await reader.look(limit=1000), acme).requests_per_second == 0


async def test_at_midnight_it_begins_anew(
    acme: TenantHandle, redis: Redis, reader: TopReader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use(redis, acme, 1000)
    await reader.look()
    clock.now += 1
    monkeypatch.setattr(live, "today", lambda: today() + datetime.timedelta(days=1))
    found = await reader.look(limit=1000)
    assert found.active_tenants == 0
    assert found.requests_per_second is None


@pytest.mark.parametrize(
    ("sort", "first"), [("requests", "acme"), ("today", "globex"), ("connections", "globex"), ("waiting", "globex")]
)
async def test_who_comes_first_is_who_is_asked_for(
    world: World,
    acme: TenantHandle,
    globex: TenantHandle,
    redis: Redis,
    reader: TopReader,
    clock: Clock,
    sort: Sort,
    first: str,
) -> None:
    await use(redis, globex, 500_000)
    await use(redis, acme, 1)
    await reader.look()
    await use(redis, acme, 10)
    clock.now += 1
    # That no other test's tenant has as many.
    count = 12
    for number in range(count):
        async with world.database.transaction(globex.context.write_scope) as transaction:
            await forget_old_invitations.enqueue(transaction.session, key=f"{number}")
    async with world.database.transaction(globex.context.read_scope) as transaction:
        await transaction.connection.fetch("SELECT id FROM team", timeout=5)
        found = await reader.look(limit=1, sort=sort)
    [row] = found.tenants
    assert row.tenant == {"acme": acme, "globex": globex}[first].slug
    if first == "globex":
        assert (row.connections, row.jobs_waiting) == (1, count)
    assert found.queues is not None
    assert found.queues.waiting >= count
    assert found.queues.oldest_waiting is not None


async def test_connections_are_counted_by_process_and_those_in_use_apart(
    world: World, acme: TenantHandle, reader: TopReader
) -> None:
    async def api() -> tuple[int, int]:
        [row] = [row for row in (await reader.look()).processes if row.name == "tenantry-api"]
        return row.connections, row.in_use

    await api()
    async with world.database.transaction(acme.context.read_scope):
        connections, busy = await api()
        assert connections >= busy >= 1
        async with world.database.transaction(acme.context.read_scope):
            assert (await api())[1] == busy + 1
        assert (await api())[1] == busy


async def test_warm_schemas_and_rollouts_under_way_are_told(world: World, reader: TopReader) -> None:
    before = await reader.look()
    assert before.warm_schemas >= 0
    async with as_admin(world.addresses) as admin:
        made = await admin.fetchval(
            "INSERT INTO platform.rollout (id, target, status, canary, concurrency, halt_after, lock_timeout,"
            " max_attempts, requested_by, created_at, updated_at)"
            " VALUES (gen_random_uuid(), '0009', 'halted', 0, 1, 1, 1, 1, 'x', now(), now()) RETURNING id"
        )
        try:
            tenants = await admin.fetch("SELECT id FROM platform.tenant LIMIT 2")
            for tenant, status in zip(tenants, ("done", "failed"), strict=False):
                await admin.execute(
                    "INSERT INTO platform.rollout_tenant (id, rollout_id, tenant_id, wave, status, attempts,"
                    " not_before, created_at, updated_at)"
                    " VALUES (gen_random_uuid(), $1, $2, 0, $3, 1, now(), now(), now())",
                    made,
                    tenant["id"],
                    status,
                )
            [row] = [row for row in (await reader.look()).rollouts if row.id == made]
        finally:
            await admin.execute("DELETE FROM platform.rollout_tenant WHERE rollout_id = $1", made)
            await admin.execute("DELETE FROM platform.rollout WHERE id = $1", made)
    assert (row.target, row.status, row.pending) == ("0009", "halted", 0)
    assert row.done + row.failed == len(tenants)


async def test_without_redis_the_rest_is_shown(
    acme: TenantHandle, redis: Redis, reader: TopReader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use(redis, acme, 5)
    await reader.look()

    def away(*_: object, **__: object) -> Any:
        raise RedisConnectionError("away")

    with monkeypatch.context() as patch:
        for name in ("sunion", "hgetall", "pipeline"):
            patch.setattr(redis, name, away)
        found = await reader.look()
    assert (found.is_live, found.queues, found.workers, found.requests_per_second) == (False, None, None, None)
    assert found.processes
    # And when it is back, the rate is over the whole time.
    await use(redis, acme, 10)
    clock.now += 5
    assert of(await reader.look(limit=1000), acme).requests_per_second == 2
