"""What is remembered of an organization: read once, its own, and never what was before a committed event."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import msgspec
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.events.record import record_event
from tenantry.features import EVENTS
from tenantry.kernel.line import Line
from tenantry.kernel.redis import create_redis
from tenantry.kernel.schema import BaseStruct
from tenantry.tenancy.cache import ANY_EVENT, CachedRead, TenantCache, _Found, cached, cached_reads
from tenantry.tenancy.context import ScopeTimes, TenantContext
from tenantry.tenancy.database import Database
from tenantry.tenancy.plan import PlanLimits
from tenantry.tenancy.redis import tenant_pattern
from tenantry.tenancy.request import TenantRequest
from tenantry.tenancy.wiring import create_redis_breaker
from tests.redis_proxy import Wire, open_wire
from tests.servers import REDIS_URL
from tests.world import TenantHandle


class Counted(BaseStruct):
    number: int
    text: str = ""


@cached(Counted, ttl=60, invalidated_by=("team.created",), name="tests.counted")
async def counted(session: AsyncSession, text: str = "") -> Counted:
    raise AssertionError("the tests read in ways of their own")


@cached(Counted | None, ttl=60, name="tests.maybe")
async def maybe(session: AsyncSession) -> Counted | None:
    raise AssertionError


@cached(Counted | None, ttl=60, name="tests.none_kept", none_ttl=60)
async def none_kept(session: AsyncSession) -> Counted | None:
    raise AssertionError


@cached(Counted, ttl=60, name="tests.small", most=100)
async def small(session: AsyncSession) -> Counted:
    raise AssertionError


@dataclass
class Source:
    """Where values come from: how often it was asked, and a gate that it waits at."""

    asked: int = 0
    value: Any = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def load(self) -> Any:
        self.asked += 1
        found = self.value if self.value is not None else Counted(number=self.asked)
        self.begun.set()
        await self.gate.wait()
        return found


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with open_wire(os.environ[REDIS_URL]) as wire:
        yield wire


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    redis = create_redis(os.environ[REDIS_URL], timeout=5)
    yield redis
    await redis.aclose()


Caches = Callable[[], TenantCache]


@pytest.fixture
async def processes(wire: Wire) -> AsyncIterator[Caches]:
    """Makes caches, each as another process would have it."""
    redis = create_redis(wire.url, timeout=0.3)
    made: list[Any] = []

    def make() -> TenantCache:
        breaker = create_redis_breaker(redis)
        line = Line(redis, breaker, timeout=0.3)
        made.append((breaker, line))
        return TenantCache(line)

    yield make
    wire.mend()
    for breaker, line in made:
        await breaker.stop()
        await line.close()
    await redis.aclose()


@pytest.fixture
def cache(processes: Caches) -> TenantCache:
    return processes()


def tenant() -> TenantContext:
    return TenantContext.build(
        tenant_id=uuid4(), slug="t", name="T", status="active", plan=PlanLimits("free"), times=ScopeTimes()
    )


async def until_open(cache: TenantCache) -> None:
    async with asyncio.timeout(10):
        while not cache._line.is_open:
            await asyncio.sleep(0.005)


async def test_each_organization_has_values_of_its_own(cache: TenantCache) -> None:
    acme, globex, source = tenant(), tenant(), Source()
    assert [await cache.recall(acme, counted, source.load) for _ in range(3)] == [Counted(number=1)] * 3
    assert [await cache.recall(globex, counted, source.load) for _ in range(3)] == [Counted(number=2)] * 3
    assert source.asked == 2


async def test_arguments_and_declarations_have_values_of_their_own(cache: TenantCache, redis: Redis) -> None:
    acme, source, who = tenant(), Source(), UUID(int=7)
    told: list[Any] = [((), {}), (("a",), {}), ((who,), {}), ((), {"text": "a"})]
    for arguments in told:
        await cache.recall(acme, counted, source.load, arguments)
    await cache.recall(acme, small, source.load)
    assert source.asked == 5
    keys = [key.decode() async for key in redis.scan_iter(tenant_pattern(acme.id))]
    assert len(keys) == 5 + 2
    assert not any(str(who) in key or who.hex in key for key in keys)


async def test_what_one_reader_does_to_a_value_is_not_seen_by_another(cache: TenantCache) -> None:
    acme, source = tenant(), Source()
    source.gate.clear()
    readers = [asyncio.create_task(cache.recall(acme, counted, source.load)) for _ in range(3)]
    await source.begun.wait()
    source.gate.set()
    values = await asyncio.gather(*readers)
    values[0].number = 99
    assert [value.number for value in values[1:]] == [1, 1]


async def test_a_hundred_at_once_read_once(cache: TenantCache) -> None:
    acme, source = tenant(), Source()
    source.gate.clear()
    readers = [asyncio.create_task(cache.recall(acme, counted, source.load)) for _ in range(100)]
    await source.begun.wait()
    source.gate.set()
    assert {value.number for value in await asyncio.gather(*readers)} == {1}
    assert source.asked == 1


async def test_of_two_processes_one_reads(processes: Caches) -> None:
    here, there, acme, source = processes(), processes(), tenant(), Source()
    source.gate.clear()
    first = asyncio.create_task(here.recall(acme, counted, source.load))
    await source.begun.wait()
    second = asyncio.create_task(there.recall(acme, counted, source.load))
    await asyncio.sleep(0.01)
    source.gate.set()
    assert (await first).number == (await second).number == 1
    assert source.asked == 1


async def test_a_process_that_takes_too_long_is_not_waited_for(processes: Caches) -> None:
    here, there, acme, slow, quick = processes(), processes(), tenant(), Source(), Source(value=Counted(number=7))
    slow.gate.clear()
    first = asyncio.create_task(here.recall(acme, counted, slow.load))
    await slow.begun.wait()
    assert (await there.recall(acme, counted, quick.load)).number == 7
    slow.gate.set()
    await first


async def test_who_leaves_in_the_middle_leaves_the_others_something_to_read(cache: TenantCache) -> None:
    acme, source = tenant(), Source()
    source.gate.clear()
    first = asyncio.create_task(cache.recall(acme, counted, source.load))
    await source.begun.wait()
    second = asyncio.create_task(cache.recall(acme, counted, source.load))
    await asyncio.sleep(0)
    first.cancel()
    source.gate.set()
    assert (await second).number >= 1
    assert (await cache.recall(acme, counted, source.load)).number >= 1


async def test_an_error_is_nobodys_but_the_readers_and_is_not_remembered(cache: TenantCache) -> None:
    async def fail() -> Any:
        raise LookupError("not today")

    acme, source = tenant(), Source()
    with pytest.raises(LookupError):
        await cache.recall(acme, counted, fail)
    began = time.perf_counter()
    assert (await cache.recall(acme, counted, source.load)).number == 1
    assert time.perf_counter() - began < 0.2, "the lock of who has failed is gone"


async def test_an_event_ends_what_it_says_and_of_its_organization_alone(processes: Caches) -> None:
    here, there, acme, globex, source = processes(), processes(), tenant(), tenant(), Source()
    for each in (acme, globex):
        await here.recall(each, counted, source.load)
    here.follow(acme.id, frozenset({"tag.created"}))
    assert (await here.recall(acme, counted, source.load)).number == 1
    here.follow(acme.id, frozenset({"tag.created", "team.created"}))
    assert (await here.recall(acme, counted, source.load)).number == 3
    await here._line.ask("PING")
    assert (await there.recall(acme, counted, source.load)).number == 3
    assert (await there.recall(globex, counted, source.load)).number == 2


async def test_who_has_read_too_early_cannot_store_what_is_no_longer_so(processes: Caches) -> None:
    """It has read, an event is committed, and only then it stores."""
    here, there, acme, slow, quick = processes(), processes(), tenant(), Source(), Source(value=Counted(number=2))
    slow.gate.clear()
    reader = asyncio.create_task(here.recall(acme, counted, slow.load))
    await slow.begun.wait()
    there.follow(acme.id, frozenset({"team.created"}))
    await there._line.ask("PING")
    slow.gate.set()
    assert (await reader).number == 1
    await here._line.ask("PING")
    for cache in (here, there):
        assert (await cache.recall(acme, counted, quick.load)).number == 2


async def test_who_comes_after_an_event_does_not_join_who_read_before(cache: TenantCache) -> None:
    acme, slow, quick = tenant(), Source(), Source(value=Counted(number=2))
    slow.gate.clear()
    reader = asyncio.create_task(cache.recall(acme, counted, slow.load))
    await slow.begun.wait()
    cache.follow(acme.id, frozenset({"team.created"}))
    assert (await cache.recall(acme, counted, quick.load)).number == 2
    slow.gate.set()
    assert (await reader).number == 1
    assert (await cache.recall(acme, counted, quick.load)).number == 2


async def test_a_generation_that_redis_has_thrown_out_takes_its_values_along(cache: TenantCache, redis: Redis) -> None:
    acme, source = tenant(), Source()
    await cache.recall(acme, counted, source.load)
    await redis.delete(counted.generation_key(acme.id))
    assert (await cache.recall(acme, counted, source.load)).number == 2


async def test_without_redis_everything_is_read_at_once(cache: TenantCache, wire: Wire) -> None:
    acme, source = tenant(), Source()
    await cache.recall(acme, counted, source.load)
    wire.hang()
    await cache.recall(acme, counted, source.load)
    began = time.perf_counter()
    for _ in range(200):
        await cache.recall(acme, counted, source.load)
    assert time.perf_counter() - began < 0.3
    assert source.asked == 1 + 201


async def test_an_event_while_redis_is_away_counts_when_it_is_back(cache: TenantCache, wire: Wire) -> None:
    acme, source = tenant(), Source()
    await cache.recall(acme, counted, source.load)
    wire.cut()
    for _ in range(3):
        await cache.recall(acme, counted, source.load)
    cache.follow(acme.id, frozenset({"team.created"}))
    await asyncio.sleep(0)
    assert (acme.id, counted.name) in cache._owed
    wire.mend()
    await until_open(cache)
    before = source.asked
    assert (await cache.recall(acme, counted, source.load)).number == before + 1
    assert cache._owed == set()
    assert (await cache.recall(acme, counted, source.load)).number == before + 1


async def test_what_is_not_there_is_looked_for_again_unless_it_says_otherwise(cache: TenantCache) -> None:
    asked: list[int] = []

    async def nothing() -> None:
        asked.append(1)

    acme = tenant()
    for what, expected in ((maybe, 3), (none_kept, 1)):
        asked.clear()
        for _ in range(3):
            assert await cache.recall(acme, what, nothing) is None
        assert len(asked) == expected


async def test_what_is_too_large_is_not_kept(cache: TenantCache) -> None:
    acme, source = tenant(), Source(value=Counted(number=1, text="x" * 200))
    for _ in range(3):
        assert (await cache.recall(acme, small, source.load)).text == "x" * 200
    assert source.asked == 3


async def test_what_cannot_be_read_is_replaced(cache: TenantCache, redis: Redis) -> None:
    acme, source = tenant(), Source()
    await cache.recall(acme, counted, source.load)
    key = counted.value_key(acme.id, ((), {}))
    stored = await redis.get(key)
    assert stored is not None
    await redis.set(key, stored[:24] + msgspec.msgpack.encode({"number": "many"}))
    assert (await cache.recall(acme, counted, source.load)).number == 2
    assert (await cache.recall(acme, counted, source.load)).number == 2


async def test_it_is_kept_for_its_time_and_no_longer(cache: TenantCache, redis: Redis) -> None:
    acme, source = tenant(), Source()
    await cache.recall(acme, counted, source.load)
    await cache._line.ask("PING")
    assert 50_000 < await redis.pttl(counted.value_key(acme.id, ((), {}))) <= 60_000


def test_what_takes_long_to_read_is_read_anew_before_it_ends() -> None:
    def share(cost: float, left: int) -> float:
        found = _Found(b"", None, cost)
        return sum(found.is_due(left) for _ in range(2000)) / 2000

    assert share(0.001, 60_000) == 0.0
    assert share(1.0, 0) == 1.0
    assert 0.3 < share(1.0, 1000) < 0.45, "e to the minus one"


async def test_while_one_reads_anew_the_others_are_given_what_there_is(cache: TenantCache) -> None:
    acme, source = tenant(), Source()
    await cache.recall(acme, counted, source.load)
    await cache._lock(f"{counted.value_key(acme.id, ((), {}))}:lock")
    with patch.object(_Found, "is_due", return_value=True):
        began = time.perf_counter()
        assert (await cache.recall(acme, counted, source.load)).number == 1
        assert time.perf_counter() - began < 0.2


async def test_a_request_that_writes_reads_for_itself(cache: TenantCache) -> None:
    acme, database, reads = tenant(), Database("postgresql://nobody@127.0.0.1:1/none"), list[int]()

    @cached(Counted, ttl=60, name=f"tests.{uuid4()}")
    async def own(session: AsyncSession) -> Counted:
        reads.append(1)
        return Counted(number=len(reads))

    async def session(_: Any) -> None: ...

    numbers = []
    with patch.object(TenantRequest, "session", session):
        for read_only in (True, True, False, True):
            request = TenantRequest(database, read_only=read_only)
            request.tenant = acme
            numbers.append((await cache.read(request, own)).number)
    await database.close()
    assert numbers == [1, 1, 2, 1]


def test_every_event_that_ends_something_is_one() -> None:
    for what in cached_reads():
        assert what.invalidated_by <= {ANY_EVENT, *EVENTS.events}, what.name


@pytest.mark.parametrize("ttl", [0.0, -1.0, 3601.0])
def test_a_time_out_of_bounds_is_refused(ttl: float) -> None:
    with pytest.raises(ValueError, match="remembered for up to"):
        cached(Counted, ttl=ttl, name="tests.never")


def test_a_name_is_one_reads_alone() -> None:
    async def other(session: AsyncSession) -> Counted:
        raise AssertionError

    with pytest.raises(ValueError, match="two cached reads"):
        cached(Counted, ttl=1, name="tests.counted")(other)


# In the product.


def _hits(name: str) -> float:
    return REGISTRY.get_sample_value("tenantry_cache_reads_total", {"cache": name, "outcome": "hit"}) or 0.0


async def _users(caller: TenantHandle) -> tuple[int, int]:
    """What the dashboard says of accounts, and how many transactions that took."""
    database = caller.world.database
    with patch.object(database, "begin", wraps=database.begin) as begin:
        answer = await caller.get("/api/dashboard")
    return answer.json()["parts"]["users"]["active"], begin.call_count


async def test_a_dashboard_that_was_read_takes_fewer_transactions_and_is_never_wrong(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    part = next(read for read in cached_reads() if read.name.endswith("read_users_part"))
    first, second = await _users(acme), await _users(acme)
    assert first[0] == second[0] == 1
    assert second[1] == first[1] - 2
    before = _hits(part.name)
    bob = await acme.add_user("bob", "member")
    assert (await _users(acme))[0] == 2
    assert (await acme.patch(f"/api/users/{bob.id}", json={"isActive": False})).status_code == 200
    assert (await _users(acme))[0] == 1
    assert (await _users(globex))[0] == 1
    assert (await _users(acme))[0] == 1
    assert _hits(part.name) > before


async def test_nothing_ends_before_the_commit_and_nothing_without_one(acme: TenantHandle) -> None:
    followed: list[tuple[UUID, frozenset[str]]] = []
    database = acme.world.database
    database.followers.append(lambda tenant_id, events: followed.append((tenant_id, events)))
    try:
        async with database.transaction(acme.context.write_scope) as transaction:
            for name in ("tag.created", "team.deleted", "tag.created"):
                await record_event(transaction.session, name, subject=uuid4())
            assert followed == []
        assert followed == [(acme.tenant_id, frozenset({"tag.created", "team.deleted"}))]
        undone = await database.begin(acme.context.write_scope)
        await record_event(undone.session, "tag.created", subject=uuid4())
        await undone.close()
        assert len(followed) == 1
    finally:
        database.followers.pop()


async def _typed(cache: TenantCache, request: TenantRequest) -> Counted:
    """For the type checker alone: what a cached read returns, and which arguments it takes."""
    what: CachedRead[..., Counted] = counted
    assert callable(what)
    reading: Awaitable[Counted] = cache.read(request, counted, text="a")
    return await reading
