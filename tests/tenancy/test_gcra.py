"""The script that admits a request, against a model that is too simple to be wrong: a bucket that leaks."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from tenantry.jobs.patience import answer as answer_of
from tenantry.tenancy.counting import script_source
from tenantry.tenancy.redis import tenant_key
from tests.servers import REDIS_URL

SECOND = 1_000_000


def _with_a_clock_of_ours(source: str) -> str:
    """The script with the last two values as Redis' time, and nothing that real time would make expire."""
    for real, ours in (
        ("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}"),
        (", 'PX', life)", ")"),
    ):
        assert source.count(real) == 1
        source = source.replace(real, ours)
    return source


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis.from_url(os.environ[REDIS_URL]) as redis:
        yield redis


@dataclass
class Gate:
    """One tenant's limits in Redis, asked at a time of ours."""

    redis: Redis
    limits: list[tuple[int, int]]
    tenant: Any = field(default_factory=uuid4)

    def ask(self, now: int, limits: list[tuple[int, int]] | None = None) -> list[int]:
        limits = limits or self.limits
        keys = [tenant_key(self.tenant, "use", "day"), tenant_key(self.tenant, "ended", "nobody")]
        keys += [tenant_key(self.tenant, "rate", str(number)) for number in range(len(limits))]
        numbers = [number for limit in limits for number in limit]
        answer = self.redis.eval(_SOURCE, len(keys), *keys, "session", 60, *numbers, now // SECOND, now % SECOND)
        return list(answer)  # type: ignore[arg-type]

    def used(self) -> int:
        return int(self.redis.hget(tenant_key(self.tenant, "use", "day"), "requests") or 0)  # type: ignore[arg-type]


_SOURCE = _with_a_clock_of_ours(script_source("admit"))


@dataclass
class Bucket:
    """`burst` drops at most are in it, and one leaks out each `interval` microseconds."""

    interval: int
    burst: int
    level: Fraction = Fraction(0)
    seen: int = 0

    def leak(self, now: int) -> None:
        self.level = max(Fraction(0), self.level - Fraction(now - self.seen, self.interval))
        self.seen = now

    @property
    def wait(self) -> Fraction:
        """Microseconds until another one fits."""
        return max(Fraction(0), (self.level + 1 - self.burst) * self.interval)


LIMITS = st.lists(st.tuples(st.integers(1, 10 * SECOND), st.integers(1, 20)), min_size=1, max_size=2)
STEPS = st.lists(st.one_of(st.just(0), st.integers(0, 100), st.integers(0, 30 * SECOND)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=60)
@given(limits=LIMITS, steps=STEPS, begun=st.integers(1_700_000_000 * SECOND, 4_000_000_000 * SECOND))
def test_it_lets_in_what_a_leaking_bucket_would(
    redis: Redis, limits: list[tuple[int, int]], steps: list[int], begun: int
) -> None:
    gate, buckets = Gate(redis, limits), [Bucket(*limit, seen=begun) for limit in limits]
    now, let_in = begun, 0
    for step in steps:
        now += step
        for bucket in buckets:
            bucket.leak(now)
        waits = [bucket.wait for bucket in buckets]
        verdict, which, wait, *left = gate.ask(now)
        assert verdict == (0 if any(waits) else 1)
        if verdict:
            let_in += 1
            for bucket in buckets:
                bucket.level += 1
            assert (which, wait) == (0, 0)
        else:
            # The longest wait is told, to the millisecond, rounded up: whoever comes then is let in.
            assert waits[which - 1] == max(waits)
            assert wait == math.ceil(max(waits) / 1000)
        for index, bucket in enumerate(buckets):
            assert left[2 * index] == math.floor(bucket.burst - bucket.level)
            assert left[2 * index + 1] == math.ceil(bucket.level * bucket.interval / 1000)
    assert gate.used() == let_in, "each that was let in is counted, and no other"


@settings(deadline=None, max_examples=30)
@given(limit=st.tuples(st.integers(1, 5 * SECOND), st.integers(1, 10)), steps=STEPS)
def test_in_no_stretch_of_time_more_than_the_burst_and_what_the_rate_gives(
    redis: Redis, limit: tuple[int, int], steps: list[int]
) -> None:
    gate, now, granted = Gate(redis, [limit]), 1_800_000_000 * SECOND, list[int]()
    for step in steps:
        now += step
        if gate.ask(now)[0] == 1:
            granted.append(now)
    interval, burst = limit
    for first, begun in enumerate(granted):
        for last, ended in enumerate(granted[first:], first):
            assert last - first + 1 <= burst + (ended - begun) / interval


@settings(deadline=None, max_examples=30)
@given(
    before=st.tuples(st.integers(1, 10 * SECOND), st.integers(1, 50)),
    after=st.tuples(st.integers(1, 10 * SECOND), st.integers(1, 50)),
    back=st.integers(0, 10**9),
)
def test_a_smaller_plan_and_a_clock_that_falls_back_cost_one_interval_at_most(
    redis: Redis, before: tuple[int, int], after: tuple[int, int], back: int
) -> None:
    """Or an organization that moves to a smaller plan would be shut out for as long as its old burst takes."""
    gate, now = Gate(redis, [before]), 1_800_000_000 * SECOND
    for _ in range(before[1]):
        assert gate.ask(now)[0] == 1
    verdict, _, wait, *_ = gate.ask(now - back, [after])
    assert verdict == 1 or wait <= math.ceil(after[0] / 1000)


def test_a_refusal_takes_nothing_from_any_limit(redis: Redis) -> None:
    now = 1_800_000_000 * SECOND
    gate = Gate(redis, [(SECOND, 100), (SECOND, 2)])
    assert [gate.ask(now)[0] for _ in range(2)] == [1, 1]
    for _ in range(200):
        assert gate.ask(now) == [0, 2, 1000, 98, 2000, 0, 2000]


async def test_many_at_once_get_no_more_than_the_burst(anyio_backend: str) -> None:
    """On Redis' own clock, from many connections."""
    tenant = uuid4()
    keys = [tenant_key(tenant, "use", "day"), tenant_key(tenant, "ended", "x"), tenant_key(tenant, "rate", "tenant")]
    async with AsyncRedis.from_url(os.environ[REDIS_URL], max_connections=60) as redis:
        script = redis.register_script(script_source("admit"))
        answers = await asyncio.gather(*(script(keys=keys, args=["session", 60, 3600 * SECOND, 25]) for _ in range(60)))
        assert sum(answer[0] == 1 for answer in answers) == 25
        assert int(await answer_of(redis.hget(keys[0], "requests")) or 0) == 25
        assert 0 < await redis.ttl(keys[0]) <= 60
        assert 0 < await redis.pttl(keys[2]) <= 25 * 3600 * 1000
