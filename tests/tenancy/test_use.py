"""Counters of what tenants use, and the marks that say of whom there is something to write down."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tenantry.kernel.errors import ValidationFailedException
from tenantry.kernel.redis import create_redis
from tenantry.tenancy import use
from tenantry.tenancy.redis import platform_key
from tenantry.tenancy.use import (
    DIRTY,
    TTL,
    Counters,
    UseMarks,
    add_requests,
    forget_use,
    jobs_key,
    marked,
    period,
    read_counters,
    release_marks,
    take_marks,
    today,
    use_key,
)
from tests.databases import Template
from tests.jobs.support import empty_redis

ACME, GLOBEX = UUID(int=1), UUID(int=2)
DAY = datetime.date(2026, 11, 23)
NEXT = DAY + datetime.timedelta(days=1)


@pytest.fixture
async def redis(template: Template) -> AsyncIterator[Redis]:
    async with empty_redis(template) as url:
        opened = create_redis(url, timeout=5)
        yield opened
        await opened.aclose()


def test_a_tenants_counter_is_in_its_own_slot_and_the_rest_in_the_platforms() -> None:
    assert use_key(ACME, DAY) == f"{{t:{ACME}}}:use:2026-11-23"
    assert jobs_key(DAY) == "{platform}:use-jobs:2026-11-23"
    assert platform_key("use-dirty") == DIRTY


async def test_counters_are_read_in_the_order_in_which_they_are_asked_for(redis: Redis) -> None:
    await redis.hset(use_key(ACME, DAY), mapping={"requests": 7})  # type: ignore[misc]
    await redis.hset(use_key(GLOBEX, NEXT), mapping={"requests": 9, "epoch": "e"})  # type: ignore[misc]
    await redis.hset(jobs_key(NEXT), mapping={str(ACME): 3, "epoch": "j"})  # type: ignore[misc]
    marks = [(NEXT, GLOBEX), (DAY, ACME), (NEXT, ACME), (DAY, GLOBEX)]
    found = await read_counters(redis, marks)
    assert found == [
        Counters(9, "e", 0, "j"),
        Counters(7, None, 0, None),
        Counters(0, None, 3, "j"),
        Counters(),
    ]
    assert [bool(counters) for counters in found] == [True, True, True, False]


async def test_whoever_writes_down_names_the_counter_first_and_nobody_renames_it(redis: Redis) -> None:
    await redis.hset(use_key(ACME, DAY), mapping={"requests": 7})  # type: ignore[misc]
    [first], [again] = [await read_counters(redis, [(DAY, ACME)], claim=True) for _ in range(2)]
    assert first == again
    assert first.requests == 7
    assert first.requests_epoch
    await redis.delete(use_key(ACME, DAY))
    await redis.hincrby(use_key(ACME, DAY), "requests", 1)  # type: ignore[misc]
    [anew] = await read_counters(redis, [(DAY, ACME)], claim=True)
    assert anew.requests == 1
    assert anew.requests_epoch not in {None, first.requests_epoch}
    assert 0 < await redis.ttl(use_key(ACME, DAY)) <= TTL


async def test_to_look_where_nothing_is_counted_leaves_nothing(redis: Redis) -> None:
    assert await read_counters(redis, [(DAY, ACME), (NEXT, GLOBEX)], claim=True) == [Counters(), Counters()]
    assert await redis.keys() == []


async def test_marks_stay_until_they_are_released(redis: Redis) -> None:
    await redis.sadd(DIRTY, f"{DAY} {ACME}", f"{NEXT} {GLOBEX}")  # type: ignore[misc]
    assert await take_marks(redis) == [(DAY, ACME), (NEXT, GLOBEX)]
    # Whoever took them was killed; and one is marked anew meanwhile.
    await redis.sadd(DIRTY, f"{NEXT} {ACME}")  # type: ignore[misc]
    assert await take_marks(redis) == [(DAY, ACME), (NEXT, ACME), (NEXT, GLOBEX)]
    assert await marked(redis, NEXT) == {ACME, GLOBEX}
    await release_marks(redis, [(DAY, ACME), (NEXT, GLOBEX)])
    await release_marks(redis, [])
    assert await take_marks(redis) == [(NEXT, ACME)]


async def test_whom_a_process_serves_is_marked_once_a_second(redis: Redis) -> None:
    marks = UseMarks(redis, interval=0.001)
    async with marks.open():
        marks.note(ACME)
        while not await redis.exists(DIRTY):
            pass
        marks.note(GLOBEX)
    assert await take_marks(redis) == [(today(), ACME), (today(), GLOBEX)]


async def test_whom_it_served_around_midnight_is_marked_for_both_days(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = DAY
    monkeypatch.setattr(use, "today", lambda: now)
    marks = UseMarks(redis)
    marks.note(ACME)
    now = NEXT
    await marks.flush()
    marks.note(GLOBEX)
    await marks.flush()
    assert await take_marks(redis) == [(DAY, ACME), (NEXT, ACME), (NEXT, GLOBEX)]


async def test_while_redis_is_away_it_is_remembered_who_was_served(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = UseMarks(redis)
    marks.note(ACME)

    def away(**_: Any) -> Any:
        raise RedisConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(redis, "pipeline", away)
        await marks.flush()
    marks.note(GLOBEX)
    await marks.flush()
    assert await take_marks(redis) == [(today(), ACME), (today(), GLOBEX)]


async def test_requests_that_were_counted_elsewhere_are_handed_over(redis: Redis) -> None:
    await add_requests(redis, ACME, DAY, 5)
    await add_requests(redis, ACME, DAY, 2)
    assert [counters.requests for counters in await read_counters(redis, [(DAY, ACME)])] == [7]
    assert await take_marks(redis) == [(DAY, ACME)]
    assert 0 < await redis.ttl(use_key(ACME, DAY)) <= TTL


async def test_of_a_tenant_that_is_forgotten_the_platforms_keys_have_nothing(redis: Redis) -> None:
    for tenant_id in (ACME, GLOBEX):
        await redis.hincrby(jobs_key(today()), str(tenant_id), 1)  # type: ignore[misc]
        await redis.sadd(DIRTY, f"{today()} {tenant_id}")  # type: ignore[misc]
    await take_marks(redis)
    await redis.sadd(DIRTY, f"{today()} {ACME}")  # type: ignore[misc]
    await forget_use(redis, ACME)
    assert await redis.hkeys(jobs_key(today())) == [str(GLOBEX).encode()]  # type: ignore[misc]
    assert await take_marks(redis) == [(today(), GLOBEX)]


def test_a_period_is_this_month_until_today_unless_it_is_said() -> None:
    first = DAY.replace(day=1)
    assert period(None, None, now=DAY) == (first, DAY)
    assert period(None, datetime.date(2026, 2, 28), now=DAY) == (datetime.date(2026, 2, 1), datetime.date(2026, 2, 28))
    assert period(DAY, None, now=DAY) == (DAY, DAY)
    assert period(DAY - datetime.timedelta(days=399), DAY) == (DAY - datetime.timedelta(days=399), DAY)


@pytest.mark.parametrize(
    ("since", "until"), [(NEXT, DAY), (DAY - datetime.timedelta(days=400), DAY), (datetime.date.min, None)]
)
def test_a_period_that_is_none_is_refused(since: datetime.date, until: datetime.date | None) -> None:
    with pytest.raises(ValidationFailedException) as refused:
        period(since, until)
    assert [(error.field, error.source) for error in refused.value.errors] == [("from", "query")]


async def test_thousands_of_tenants_are_read_in_a_few_round_trips(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [uuid4() for _ in range(2000)]
    async with redis.pipeline(transaction=False) as pipe:
        for tenant_id in ids:
            pipe.hincrby(use_key(tenant_id, DAY), "requests", 1)
        await pipe.execute()
    trips = 0
    pipeline = redis.pipeline

    def count(**arguments: Any) -> Any:
        nonlocal trips
        trips += 1
        return pipeline(**arguments)

    monkeypatch.setattr(redis, "pipeline", count)
    assert sum(each.requests for each in await read_counters(redis, [(DAY, tenant_id) for tenant_id in ids])) == 2000
    assert trips == 4
