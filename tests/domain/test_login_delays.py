"""How long whoever guesses has to wait: the rules, and that Redis and the database keep to them."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from tenantry.domain.identity.sessions.delays import Rule, Tally, after_attempt, after_withdrawal, wait_for
from tenantry.domain.identity.sessions.guessing import EVERYWHERE, MEMORY, LoginGuard, _source
from tenantry.kernel.errors import TooManyRequestsException
from tenantry.kernel.http.address import client_address
from tenantry.kernel.redis import create_redis
from tests.databases import Template
from tests.world import TenantHandle, World

NOW = 1_800_000_000_000
RULES = st.builds(
    lambda limit, free, lock, memory: Rule(min(free, limit), limit, lock * 1000, memory * 1000),
    limit=st.integers(1, 50),
    free=st.integers(0, 50),
    lock=st.integers(1, 86_400),
    memory=st.integers(1, 86_400),
)
PAUSES = st.lists(st.integers(0, 100_000_000), max_size=40)


def attempted(rule: Rule, pauses: list[int]) -> list[tuple[int, Tally, bool]]:
    """After each pause somebody tries: when, the tally then, and whether they were let through."""
    now, tally, told = NOW, Tally(), []
    for pause in pauses:
        now += pause
        through = not wait_for(tally, rule, now)
        tally = after_attempt(tally, rule, now) if through else tally
        told.append((now, tally, through))
    return told


@settings(deadline=None)
@given(RULES, PAUSES)
def test_a_wait_is_never_longer_than_a_lock_and_always_ends(rule: Rule, pauses: list[int]) -> None:
    for now, tally, _ in attempted(rule, pauses):
        wait = wait_for(tally, rule, now)
        assert 0 <= wait <= rule.lock
        assert wait_for(tally, rule, now + wait) == 0


@settings(deadline=None)
@given(RULES, PAUSES)
def test_from_the_limit_on_at_most_one_gets_through_in_the_time_of_a_lock(rule: Rule, pauses: list[int]) -> None:
    let_through = [(now, tally) for now, tally, through in attempted(rule, pauses) if through]
    for (earlier, tally), (later, _) in itertools.pairwise(let_through):
        if tally.failures >= rule.limit:
            assert later - earlier >= rule.lock


@settings(deadline=None)
@given(RULES, st.integers(1, 60))
def test_delays_grow_and_never_shrink(rule: Rule, failures: int) -> None:
    assert rule.delay(failures) <= rule.delay(failures + 1) <= rule.lock
    if failures <= rule.free and failures < rule.limit:
        assert rule.delay(failures) == 0


@settings(deadline=None)
@given(RULES, PAUSES)
def test_after_its_time_everything_is_forgotten(rule: Rule, pauses: list[int]) -> None:
    told = attempted(rule, pauses)
    now, tally = (told[-1][0], told[-1][1]) if told else (NOW, Tally())
    later = now + max(rule.lock, rule.memory)
    assert wait_for(tally, rule, later) == 0
    assert after_attempt(tally, rule, later) == after_attempt(Tally(), rule, later)


@settings(deadline=None)
@given(RULES, PAUSES, st.integers(0, 100_000))
def test_an_attempt_that_came_to_no_verdict_leaves_no_wait(rule: Rule, pauses: list[int], took: int) -> None:
    for now, tally, through in attempted(rule, pauses):
        if through:
            undone = after_withdrawal(tally, now + took)
            assert undone.failures == tally.failures - 1
            assert wait_for(undone, rule, now + took) == 0


def test_a_clock_that_was_wrong_locks_nobody_out() -> None:
    rule = Rule(3, 10, 300_000, MEMORY)
    written_tomorrow = Tally(10, NOW + 86_400_000, NOW + 86_100_000)
    assert wait_for(written_tomorrow, rule, NOW) == 0


# The same in Redis, and in the database.


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = NOW / 1000

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def clock() -> Clock:
    return Clock()


def _guard(world: World, clock: Clock, redis: Any, **values: int) -> LoginGuard:
    limits = {"failures": 5, "address_failures": 1000, "lock": 60} | values
    return LoginGuard(redis, world.database, clock=clock, **limits)


@pytest.fixture(params=["redis", "the database", "this process"])
async def place(
    request: pytest.FixtureRequest, world: World, acme: TenantHandle, clock: Clock
) -> AsyncIterator[tuple[LoginGuard, Any]]:
    """Where it is counted: a guard, and the tenant, which in the last case does not exist."""
    away = request.param != "redis"
    redis = create_redis("redis://127.0.0.1:1/0" if away else world.addresses.redis_url)
    try:
        yield _guard(world, clock, redis), None if request.param == "this process" else acme.context
    finally:
        await redis.aclose()


@given(RULES, RULES, st.lists(st.tuples(st.integers(0, 100_000_000), st.booleans()), max_size=30))
@settings(max_examples=60, deadline=None)
def test_redis_counts_exactly_as_the_rules_say(
    template: Template, one: Rule, other: Rule, steps: list[tuple[int, bool]]
) -> None:
    """Attempts, some of which come to no verdict, on two fields of one key."""
    key, now, rules = f"test:{uuid4()}", NOW, {"one": one, "other": other}
    tallies = dict.fromkeys(rules, Tally())
    values = [each for name, rule in rules.items() for each in (name, rule.free, rule.limit, rule.lock, rule.memory)]
    with Redis.from_url(template.redis_url) as redis:
        attempt, withdraw = (redis.register_script(_source(name)) for name in ("attempt", "withdraw"))
        for pause, is_withdrawn in steps:
            now += pause
            expected = max(wait_for(tallies[name], rule, now) for name, rule in rules.items())
            assert attempt(keys=[key], args=[now, *values]) == expected
            if not expected:
                tallies = {name: after_attempt(tallies[name], rule, now) for name, rule in rules.items()}
            if is_withdrawn:
                withdraw(keys=[key], args=[now, *rules])
                tallies = {
                    name: after_withdrawal(tally, now) if tally.last_at else tally for name, tally in tallies.items()
                }
            stored = {name: tuple(map(int, value.split())) for name, value in redis.hgetall(key).items()}
            assert stored == {
                name.encode(): (tally.failures, tally.refused_until, tally.last_at)
                for name, tally in tallies.items()
                if tally.last_at
            }
        redis.delete(key)


@pytest.mark.parametrize("seed", range(3))
async def test_every_place_counts_by_the_same_rules(place: tuple[LoginGuard, Any], clock: Clock, seed: int) -> None:
    guard, tenant = place
    rules = {"near": guard._near, "everywhere": guard._everywhere}
    tallies = dict.fromkeys(rules, Tally())
    chance = random.Random(seed)
    for _ in range(60):
        clock.now += chance.choice([0, 0, 1, 2, 5, 59, 61, 90_000])
        now = int(clock.now * 1000)
        expected = max(wait_for(tallies[name], rule, now) for name, rule in rules.items())
        if expected:
            with pytest.raises(TooManyRequestsException) as refused:
                await guard.begin(tenant, "acme", "ann@people.example")
            assert refused.value.headers == {"Retry-After": str(-(-expected // 1000))}
        else:
            await guard.begin(tenant, "acme", "ann@people.example")
            tallies = {name: after_attempt(tallies[name], rule, now) for name, rule in rules.items()}


async def test_of_many_at_once_only_so_many_are_let_through(place: tuple[LoginGuard, Any]) -> None:
    """They count from the beginning on, not when they have failed: no verdict is waited for."""
    guard, tenant = place
    answers = await asyncio.gather(
        *(guard.begin(tenant, "acme", "ann@people.example") for _ in range(30)), return_exceptions=True
    )
    refused = [each for each in answers if isinstance(each, TooManyRequestsException)]
    assert len(answers) - len(refused) == guard._near.free + 1
    assert all(isinstance(each, TooManyRequestsException) for each in answers if isinstance(each, BaseException))


async def test_what_came_to_no_verdict_counts_nothing(place: tuple[LoginGuard, Any]) -> None:
    guard, tenant = place
    for _ in range(20):
        await guard.withdraw(await guard.begin(tenant, "acme", "ann@people.example"))


async def test_success_forgets(place: tuple[LoginGuard, Any], clock: Clock, acme: TenantHandle) -> None:
    guard, tenant = place
    if tenant is None:
        return  # Nobody logs in where there is nothing.
    for _ in range(3):
        for _ in range(4):
            attempt = await guard.begin(tenant, acme.slug, "ann@people.example")
        await guard.succeeded(tenant, acme.slug, "ann@people.example", attempt=attempt)


async def test_many_networks_together_lock_an_account_as_well(world: World, acme: TenantHandle, clock: Clock) -> None:
    def address(number: int) -> Any:
        scope: Any = {"client": (f"8.8.{number}.1", 1), "headers": []}
        return client_address(scope, ())

    redis = create_redis(world.addresses.redis_url)
    try:
        guard = _guard(world, clock, redis)
        for number in range(5 * EVERYWHERE):
            await guard.begin(acme.context, acme.slug, "ann@people.example", address=address(number))
        with pytest.raises(TooManyRequestsException):
            await guard.begin(acme.context, acme.slug, "ann@people.example", address=address(200))
    finally:
        await redis.aclose()
