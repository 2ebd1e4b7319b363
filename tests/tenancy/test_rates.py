"""How many requests organizations, users and keys may make: each its own, told in headers, and open without Redis."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import httpx
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from tenantry.jobs.patience import answer
from tenantry.kernel.security import API_KEY, Credential
from tenantry.tenancy.plan import PlanLimits
from tenantry.tenancy.rates import Limit
from tenantry.tenancy.redis import tenant_key
from tenantry.tenancy.use import DIRTY, member, today
from tests.databases import Template
from tests.domain.machines import make_key
from tests.redis_proxy import Wire, open_wire
from tests.world import Caller, TenantHandle, World, open_world

HOUR = 3600


@contextmanager
def on_plan(tenant: TenantHandle, **limits: Any) -> Iterator[None]:
    """The organization's plan as if it said that, in this process."""
    registry = tenant.world.app.state.registry
    before = registry._by_id[tenant.tenant_id]
    registry._by_id[tenant.tenant_id] = dataclasses.replace(before, plan=dataclasses.replace(before.plan, **limits))
    try:
        yield
    finally:
        registry._by_id[tenant.tenant_id] = before


async def ask(caller: Caller, times: int = 1) -> Counter[int]:
    """How many requests were answered how."""
    answers = [await caller.get("/api/roles") for _ in range(times)]
    return Counter(answer.status_code for answer in answers)


async def used(tenant: TenantHandle) -> int:
    """What is counted of the organization, everywhere."""
    state = tenant.world.app.state
    await state.use.hand_over()
    key = tenant_key(tenant.tenant_id, "use", state.use.today)
    return int(await answer(state.redis.hget(key, "requests")) or 0)


async def settled(tenant: TenantHandle) -> None:
    """What was told Redis is there: answers come in order."""
    await tenant.world.app.state.redis_line.ask("PING")


@contextmanager
def transactions(world: World) -> Iterator[MagicMock]:
    """Counts those that are begun."""
    with patch.object(world.database, "begin", wraps=world.database.begin) as begin:
        yield begin


def policies(found: httpx.Response) -> dict[str, dict[str, int]]:
    """Of both fields, the parameters of each limit."""
    shown: dict[str, dict[str, int]] = {}
    for field in ("RateLimit-Policy", "RateLimit"):
        for item in found.headers[field].split(", "):
            name, *parameters = item.split(";")
            shown.setdefault(name.strip('"'), {}).update(
                (key, int(value)) for key, _, value in (each.partition("=") for each in parameters)
            )
    return shown


async def test_a_flood_of_one_organization_never_spends_anothers_budget(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    with on_plan(acme, request_rate=1 / HOUR, request_burst=5), on_plan(globex, request_rate=1 / HOUR, request_burst=5):
        flood = await asyncio.gather(*(acme.get("/api/roles") for _ in range(40)))
        assert Counter(each.status_code for each in flood) == {200: 5, 429: 35}
        assert await ask(globex, 5) == {200: 5}
        assert await ask(globex) == {429: 1}


async def test_the_answer_tells_what_is_left_and_a_refusal_when_to_come_back(acme: TenantHandle) -> None:
    with on_plan(acme, request_rate=1.0, request_burst=60, user_rate=1 / 60, user_burst=2):
        first = await acme.get("/api/roles")
        assert policies(first) == {
            "tenant": {"q": 60, "w": 60, "r": 59, "t": 1},
            "user": {"q": 2, "w": 120, "r": 1, "t": 60},
        }
        # Also where the answer is an error.
        missing = await acme.get("/api/roles/01900000-0000-7000-8000-000000000000")
        assert missing.status_code in {404, 405}
        assert policies(missing)["user"]["r"] == 0
        refused = await acme.get("/api/roles")
        assert refused.status_code == 429
        problem = refused.json()
        assert (problem["type"], problem["limit"]) == ("/problems/too-many-requests", "user")
        assert 50 <= int(refused.headers["Retry-After"]) <= 60
        left = policies(refused)
        assert left["user"]["r"] == 0
        assert left["tenant"]["r"] >= 58, "the refusal has taken nothing from the organization"


async def test_each_user_has_a_limit_of_their_own(acme: TenantHandle) -> None:
    bob = await acme.add_user("bob", "member")
    with on_plan(acme, request_rate=1 / HOUR, request_burst=10, user_rate=1 / HOUR, user_burst=3):
        assert await ask(bob, 6) == {200: 3, 429: 3}
        assert await ask(acme, 3) == {200: 3}
    with on_plan(acme, request_rate=1 / HOUR, request_burst=2, user_rate=1 / HOUR, user_burst=100):
        refused = await acme.get("/api/roles")
        assert (refused.status_code, refused.json()["limit"]) == (429, "tenant")


async def test_without_a_limit_nothing_is_told_and_redis_is_not_asked(acme: TenantHandle) -> None:
    before = await used(acme)
    found = await acme.get("/api/roles")
    assert found.status_code == 200
    assert not {"ratelimit", "ratelimit-policy"} & found.headers.keys()
    assert await used(acme) == before + 1


async def test_public_routes_have_no_limit(acme: TenantHandle) -> None:
    with on_plan(acme, request_rate=1 / HOUR, request_burst=1):
        assert await ask(acme) == {200: 1}
        await acme.world.log_in(acme.slug, acme.owner_email)
        assert await ask(acme) == {429: 1}


# API keys, which nobody knows to be any until the database has said so.


async def test_a_key_has_its_own_limit_and_the_organizations(acme: TenantHandle) -> None:
    key, other = await make_key(acme), await make_key(acme)
    for each in (key, other):
        assert await ask(each) == {200: 1}
    await settled(acme)
    with on_plan(acme, request_rate=1 / HOUR, request_burst=5, key_rate=1 / HOUR, key_burst=3):
        first = await key.get("/api/roles")
        assert policies(first).keys() == {"tenant", "key"}
        assert await ask(key, 4) == {200: 2, 429: 2}
        assert await ask(other, 4) == {200: 2, 429: 2}
        refused = await other.get("/api/roles")
        assert refused.json()["limit"] == "tenant"


async def test_keys_that_are_none_cost_the_organization_nothing(acme: TenantHandle) -> None:
    good = await make_key(acme)
    assert await ask(good) == {200: 1}
    await settled(acme)
    with on_plan(acme, request_rate=1 / HOUR, request_burst=3):
        for _ in range(20):
            bad = await Caller(acme.http, Credential.new(API_KEY, acme.tenant_id)[0]).get("/api/roles")
            assert bad.status_code == 401
            assert not {"ratelimit", "ratelimit-policy"} & bad.headers.keys()
        assert await ask(good, 4) == {200: 3, 429: 1}


async def test_a_flood_of_guessed_keys_does_not_reach_the_database_for_long(acme: TenantHandle) -> None:
    state = acme.world.app.state
    good = await make_key(acme)
    assert await ask(good) == {200: 1}
    await settled(acme)
    stranger = tenant_key(acme.tenant_id, "rate", "stranger", "-")
    # As if a hundred had come just now, and more were to come.
    await state.redis.set(stranger, int((time.time() + HOUR) * 1e6))
    with transactions(acme.world) as begun:
        refused = await Caller(acme.http, Credential.new(API_KEY, acme.tenant_id)[0]).get("/api/roles")
    assert (refused.status_code, refused.json()["limit"]) == (429, "key")
    assert int(refused.headers["Retry-After"]) == 1
    assert begun.call_count == 0
    # One that is known to be a key is not held up by them.
    assert await ask(good) == {200: 1}
    await state.redis.delete(stranger)


async def test_a_revoked_key_is_a_stranger_again(acme: TenantHandle) -> None:
    key = await make_key(acme)
    assert await ask(key) == {200: 1}
    await settled(acme)
    with on_plan(acme, request_rate=1 / HOUR, request_burst=10):
        gone = await acme.delete(f"/api/api-keys/{key.key_id}")
        assert gone.status_code in {200, 204}, gone.text
        before = policies(await acme.get("/api/roles"))["tenant"]["r"]
        assert await ask(key, 3) == {401: 3}
        await settled(acme)
        # Only the first of them was taken for the organization's.
        assert policies(await acme.get("/api/roles"))["tenant"]["r"] >= before - 3


# Sessions that have ended.


async def test_a_flood_with_a_dead_token_reaches_the_database_once(acme: TenantHandle, globex: TenantHandle) -> None:
    bob = await acme.add_user("bob", "member")
    with on_plan(acme, request_rate=1 / HOUR, request_burst=10):
        assert (await bob.post("/api/auth/logout")).status_code == 204
        first = await bob.get("/api/roles")
        assert (first.status_code, first.json()["detail"]) == (401, "The session has ended.")
        await settled(acme)
        left = policies(await acme.get("/api/roles"))["tenant"]["r"]
        with transactions(acme.world) as begun:
            for _ in range(20):
                later = await bob.get("/api/roles")
                assert (later.status_code, later.json()["detail"]) == (401, "The session has ended.")
                assert later.json()["type"] == first.json()["type"]
                assert later.headers["WWW-Authenticate"] == first.headers["WWW-Authenticate"]
        assert begun.call_count == 0
        assert policies(await acme.get("/api/roles"))["tenant"]["r"] == left - 1
        # Whoever logs in again has another session.
        again = await acme.world.log_in(acme.slug, f"bob@{acme.slug}.example")
        assert await ask(again) == {200: 1}
    assert await ask(globex) == {200: 1}


async def test_a_deactivated_account_may_come_back_so_it_leaves_no_mark(acme: TenantHandle) -> None:
    bob = await acme.add_user("bob", "member")
    switch = text("UPDATE user_account SET is_active = :on WHERE id = :id")
    with on_plan(acme, request_rate=1.0, request_burst=100):
        async with acme.world.database.transaction(acme.context.write_scope) as transaction:
            await transaction.session.execute(switch, {"id": bob.id, "on": False})
        assert await ask(bob) == {401: 1}
        async with acme.world.database.transaction(acme.context.write_scope) as transaction:
            await transaction.session.execute(switch, {"id": bob.id, "on": True})
        assert await ask(bob) == {200: 1}


# Counting, and doing without Redis.


async def test_every_request_is_counted_once_and_refusals_are_not(acme: TenantHandle, globex: TenantHandle) -> None:
    state = acme.world.app.state
    key = await make_key(acme)
    before, theirs = await used(acme), await used(globex)
    with on_plan(acme, request_rate=1 / HOUR, request_burst=10):
        assert await ask(acme, 8) == {200: 8}
        assert await ask(key) == {200: 1}
        await settled(acme)
        assert await ask(key, 4) == {200: 2, 429: 2}
    assert await ask(acme, 3) == {200: 3}
    assert await used(acme) == before + 8 + 1 + 2 + 3
    assert await used(globex) == theirs
    assert 0 < await state.redis.ttl(tenant_key(acme.tenant_id, "use", state.use.today)) <= 3 * 86_400
    await state.use_marks.flush()
    assert await state.redis.sismember(DIRTY, member((today(), acme.tenant_id)))


@asynccontextmanager
async def _behind_a_wire(addresses: Template, home: Path, **overrides: Any) -> AsyncIterator[tuple[World, Wire]]:
    async with open_wire(addresses.redis_url) as wire:
        through = dataclasses.replace(addresses, redis_url=wire.url)
        async with open_world(through, home, redis_timeout=0.3, **overrides) as world:
            yield world, wire


async def test_redis_away_nobody_waits_and_everything_is_counted_later(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with _behind_a_wire(database_addresses, tmp_path) as (world, wire):
        acme, globex = await world.create_tenant("acme"), await world.create_tenant("globex")
        with (
            on_plan(acme, request_rate=1 / HOUR, request_burst=10),
            on_plan(globex, request_rate=1 / HOUR, request_burst=10),
        ):
            before, theirs = await used(acme), await used(globex)
            assert await ask(acme, 2) == {200: 2}
            wire.cut()
            # Far beyond the limit: it is open.
            assert await ask(acme, 20) == {200: 20}
            assert await ask(globex, 15) == {200: 15}
            assert not world.app.state.redis_breaker.is_closed
            assert (REGISTRY.get_sample_value("tenantry_requests_unlimited_total") or 0) >= 35
            wire.mend()
            async with asyncio.timeout(20):
                while not world.app.state.redis_line.is_open:
                    await asyncio.sleep(0.02)
            # Refused before they were sent, or never answered: of the latter nobody is billed.
            assert before + 2 + 18 <= await used(acme) <= before + 22
            assert await used(globex) == theirs + 15
            # What was let through unlimited was not taken from the limit; the rest of that holds again.
            assert await ask(acme, 10) == {200: 8, 429: 2}


async def test_a_redis_that_hangs_costs_a_few_requests_one_time_out(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with _behind_a_wire(database_addresses, tmp_path) as (world, wire):
        acme = await world.create_tenant("acme")
        with on_plan(acme, request_rate=1000.0, request_burst=1000):
            assert await ask(acme, 2) == {200: 2}
            wire.hang()
            slow = 0
            for _ in range(40):
                began = time.perf_counter()
                assert await ask(acme) == {200: 1}
                slow += time.perf_counter() - began >= 0.3
            assert slow <= 2
            wire.mend()
            async with asyncio.timeout(20):
                while not world.app.state.redis_line.is_open:
                    await asyncio.sleep(0.02)
            assert "ratelimit" in (await acme.get("/api/roles")).headers


# What a limit is made of.


@pytest.mark.parametrize(
    ("rate", "burst", "policy"),
    [
        (10.0, 100, '"tenant";q=100;w=10'),
        (0.5, None, '"tenant";q=1;w=2'),
        (2.5, None, '"tenant";q=3;w=2'),
        (1000.0, 10, '"tenant";q=10;w=1'),
        (0.0, 0, '"tenant";q=1;w=86400'),
    ],
)
def test_a_policy_says_how_many_in_how_many_seconds(rate: float, burst: int | None, policy: str) -> None:
    found = Limit.of("tenant", rate, burst)
    assert found is not None
    assert found.policy == policy


def test_no_rate_is_no_limit() -> None:
    assert Limit.of("tenant", None, 5) is None
    assert PlanLimits("free").request_rate is None
