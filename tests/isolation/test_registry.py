"""Every process knows within a second what has become of a tenant, or serves nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.crc import key_slot

from tenantry.kernel.errors import UnavailableException
from tenantry.kernel.redis import create_redis
from tenantry.tenancy import registry as registry_module
from tenantry.tenancy.redis import platform_key, tenant_key, tenant_pattern
from tenantry.tenancy.registry import CHANNEL, TenantRegistry
from tests.isolation.estate import Estate, Neighbour
from tests.world import World

NEVER = 3600.0
"""A poll that does not come: what is learnt was announced."""


class Registries:
    """Registries as so many processes would have them, each with a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._started: list[TenantRegistry] = []

    async def start(self, *, poll_interval: float = 0.5, **options: Any) -> TenantRegistry:
        made = TenantRegistry(self._url, poll_interval=poll_interval, **options)
        self._started.append(made)
        await made.start()
        return made

    async def stop(self) -> None:
        for each in self._started:
            await each.stop()


@pytest.fixture
async def registries(estate: Estate) -> AsyncIterator[Registries]:
    made = Registries(estate.addresses.app_url)
    yield made
    await made.stop()


@pytest.fixture
async def owner(estate: Estate) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection that changes tenants; what it changed of them is undone afterwards."""
    connection = await asyncpg.connect(estate.addresses.owner_url)
    yield connection
    for tenant in estate.tenants:
        await connection.execute(
            "UPDATE platform.tenant SET status = 'active', slug = $2 WHERE id = $1",
            tenant.context.id,
            f"undone-{tenant.context.id.hex}",
        )
    for tenant in estate.tenants:
        await connection.execute(
            "UPDATE platform.tenant SET slug = $2 WHERE id = $1", tenant.context.id, tenant.context.slug
        )
    await connection.close()


@pytest.fixture
def acme(estate: Estate) -> Neighbour:
    return estate.tenants[0]


@pytest.fixture
def globex(estate: Estate) -> Neighbour:
    return estate.tenants[1]


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries that hear no announcement, as behind a half-open connection or a pooler."""
    monkeypatch.setattr(registry_module, "CHANNEL", "another_channel")


async def _until(registry: TenantRegistry, true: Callable[[], bool], *, seconds: float) -> None:
    async with asyncio.timeout(seconds), registry._polled:
        await registry._polled.wait_for(true)


def _status(registry: TenantRegistry, tenant: Neighbour) -> str | None:
    found = registry.by_id(tenant.context.id)
    return found.status if found is not None else None


async def _suspend(connection: asyncpg.Connection[Any], tenant: Neighbour) -> None:
    await connection.execute("UPDATE platform.tenant SET status = 'suspended' WHERE id = $1", tenant.context.id)


async def test_suspended_tenant_is_refused_within_a_second(world: World, acme: Any, globex: Any) -> None:
    first, second = await world.create_tenant("acme"), await world.create_tenant("globex")
    other_process = Registries(world.addresses.app_url)
    registry = await other_process.start()
    try:
        assert (await first.get("/api/users/me")).status_code == 200
        suspended = await world.operator.post(f"/platform/tenants/{first.slug}/suspend", json={"reason": "unpaid"})
        assert suspended.status_code == 200
        for each in (registry, world.app.state.registry):
            await _until(each, lambda each=each: each.by_id(first.tenant_id).status == "suspended", seconds=1.0)  # type: ignore[misc]
        refused = await first.get("/api/users/me")
        assert refused.status_code == 403
        assert refused.json()["type"] == "/problems/tenant-suspended"
        assert (await second.get("/api/users/me")).status_code == 200
    finally:
        await other_process.stop()


async def test_a_change_is_announced_to_every_registry(
    registries: Registries, owner: asyncpg.Connection[Any], acme: Neighbour, globex: Neighbour
) -> None:
    both = [await registries.start(poll_interval=NEVER, stale_after=NEVER) for _ in range(2)]
    await _suspend(owner, acme)
    for registry in both:
        await _until(registry, lambda registry=registry: _status(registry, acme) == "suspended", seconds=1.0)  # type: ignore[misc]
        assert _status(registry, globex) == "active"


@pytest.mark.usefixtures("deaf")
async def test_a_lost_announcement_is_made_up_for_by_the_next_poll(
    registries: Registries, owner: asyncpg.Connection[Any], acme: Neighbour
) -> None:
    registry = await registries.start(poll_interval=0.2)
    polls = registry._polls
    await _suspend(owner, acme)
    # The poll under way may have begun before the change; the one after it has not.
    await _until(registry, lambda: registry._polls >= polls + 2, seconds=5.0)
    assert _status(registry, acme) == "suspended"


@pytest.mark.usefixtures("deaf")
async def test_a_registry_polls_at_its_interval(registries: Registries) -> None:
    registry = await registries.start(poll_interval=0.1)
    begun, polls = time.monotonic(), registry._polls
    await _until(registry, lambda: registry._polls >= polls + 3, seconds=5.0)
    assert time.monotonic() - begun >= 0.2


async def test_a_registry_whose_connection_is_killed_reads_everything_again(
    registries: Registries,
    owner: asyncpg.Connection[Any],
    admin: asyncpg.Connection[Any],
    acme: Neighbour,
) -> None:
    gone = uuid4()
    await owner.execute(
        "INSERT INTO platform.tenant (id, slug, name, status, status_changed_at, plan, owner_email, created_at,"
        " updated_at) VALUES ($1, 'gone', 'Gone', 'active', now(), 'free', 'x@example.com', now(), now())",
        gone,
    )
    registry = await registries.start()
    assert registry.by_id(gone) is not None
    # Neither change is heard of: a deletion is not announced, and when the other is, nobody listens.
    async with owner.transaction():
        await owner.execute("DELETE FROM platform.tenant WHERE id = $1", gone)
        await _suspend(owner, acme)
        killed = await admin.fetch(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = 'tenantry_app'"
        )
        assert len(killed) == 1
    await _until(registry, lambda: _status(registry, acme) == "suspended", seconds=1.0)
    assert registry.by_id(gone) is None
    assert registry.by_slug("gone") is None


async def test_a_registry_that_has_lost_touch_answers_nothing(registries: Registries, acme: Neighbour) -> None:
    registry = await registries.start(stale_after=5.0)
    assert _status(registry, acme) == "active"
    await registry.stop()
    registry._clock = lambda: registry._fresh_at + 4.9
    assert _status(registry, acme) == "active"
    registry._clock = lambda: registry._fresh_at + 5.1
    with pytest.raises(UnavailableException):
        registry.by_id(acme.context.id)
    with pytest.raises(UnavailableException):
        registry.by_slug(acme.context.slug)
    with pytest.raises(UnavailableException):
        registry.by_id(uuid4())


async def test_a_registry_that_never_reached_the_database_answers_nothing(estate: Estate, acme: Neighbour) -> None:
    nowhere = TenantRegistry("postgresql://nobody@127.0.0.1:1/nothing", connect_timeout=0.05)
    try:
        await nowhere.start()
        with pytest.raises(UnavailableException):
            nowhere.by_id(acme.context.id)
    finally:
        await nowhere.stop()


async def test_a_process_with_a_stale_registry_answers_503(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = await world.create_tenant("acme")
    monkeypatch.setattr(TenantRegistry, "is_fresh", property(lambda _: False))
    for path in ("/api/users/me", "/api/teams"):
        answer = await tenant.get(path)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert tenant.slug not in answer.text
    login = {"tenant": tenant.slug, "email": tenant.owner_email, "password": "whatever it is"}
    assert (await world.http.post("/api/auth/login", json=login)).status_code == 503
    assert (await world.http.get("/health/ready")).status_code == 503
    assert (await world.http.get("/health/live")).status_code == 200


async def test_a_renamed_tenant_answers_to_its_new_name_alone(
    registries: Registries, owner: asyncpg.Connection[Any], acme: Neighbour
) -> None:
    registry = await registries.start()
    await owner.execute("UPDATE platform.tenant SET slug = 'renamed' WHERE id = $1", acme.context.id)
    await _until(registry, lambda: registry.by_slug("renamed") is not None, seconds=1.0)
    assert registry.by_slug(acme.context.slug) is None
    found = registry.by_id(acme.context.id)
    assert found is registry.by_slug("renamed")
    # A name is all that has changed.
    assert found is not None
    assert found.schema == acme.schema


@pytest.mark.parametrize("first", [0, 1])
async def test_two_tenants_that_swap_names_are_not_mistaken_for_one_another(
    registries: Registries, owner: asyncpg.Connection[Any], estate: Estate, first: int
) -> None:
    one, other = estate.tenants[first], estate.tenants[1 - first]
    registry = await registries.start()
    async with owner.transaction():
        for tenant, slug in ((one, "between"), (other, one.context.slug), (one, other.context.slug)):
            await owner.execute("UPDATE platform.tenant SET slug = $2 WHERE id = $1", tenant.context.id, slug)
    await _until(registry, lambda: _slug_of(registry, one) == other.context.slug, seconds=1.0)
    for slug, tenant in ((other.context.slug, one), (one.context.slug, other)):
        found = registry.by_slug(slug)
        assert found is not None
        assert found.id == tenant.context.id
        assert found.write_scope.role == tenant.schema


def _slug_of(registry: TenantRegistry, tenant: Neighbour) -> str | None:
    found = registry.by_id(tenant.context.id)
    return found.slug if found is not None else None


@pytest.mark.usefixtures("deaf")
async def test_a_transaction_that_commits_late_is_not_missed(
    registries: Registries,
    owner: asyncpg.Connection[Any],
    estate: Estate,
    acme: Neighbour,
    globex: Neighbour,
) -> None:
    """It changed its row first, and others that came after it were read meanwhile: a counter would be past it."""
    registry = await registries.start(poll_interval=0.02)
    late = await asyncpg.connect(estate.addresses.owner_url)
    try:
        transaction = late.transaction()
        await transaction.start()
        await _suspend(late, acme)
        await _suspend(owner, globex)
        await _until(registry, lambda: _status(registry, globex) == "suspended", seconds=1.0)
        polls = registry._polls
        await _until(registry, lambda: registry._polls >= polls + 3, seconds=1.0)
        assert _status(registry, acme) == "active"
        await transaction.commit()
        await _until(registry, lambda: _status(registry, acme) == "suspended", seconds=1.0)
    finally:
        await late.close()


async def test_an_announcement_that_anybody_could_make_changes_nothing(
    registries: Registries, estate: Estate, acme: Neighbour, globex: Neighbour
) -> None:
    registry = await registries.start(poll_interval=NEVER, stale_after=NEVER)
    before = {tenant.id: tenant for tenant in registry.all()}
    polls = registry._polls
    tenant = await asyncpg.connect(estate.addresses.app_url)
    try:
        async with tenant.transaction():
            await tenant.execute(f'SET LOCAL ROLE "{acme.schema}"')
            for payload in (str(globex.context.id), "x" * 7000, "'; DROP TABLE tenant"):
                await tenant.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)
    finally:
        await tenant.close()
    await _until(registry, lambda: registry._polls > polls, seconds=1.0)
    assert {tenant.id: tenant for tenant in registry.all()} == before


# Redis, whose keys are the only thing that keeps tenants apart there.

_TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(["}", "{t:", "}:x", "*", "{platform}"])


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(st.uuids(), st.uuids(), st.lists(_TEXTS, max_size=3), st.lists(_TEXTS, max_size=3))
def test_no_key_of_a_tenant_lies_in_anothers_namespace(
    one: UUID, other: UUID, parts: list[str], others: list[str]
) -> None:
    key, foreign, platform = tenant_key(one, "area", *parts), tenant_key(other, "area", *others), platform_key("area")
    namespace = tenant_pattern(one).removesuffix("*")
    assert key.startswith(namespace)
    assert foreign.startswith(namespace) == (one == other)
    assert not platform.startswith(namespace)
    assert not key.startswith(platform_key("area"))
    # All keys of a tenant in one slot, whatever braces the parts have.
    assert key_slot(key.encode()) == key_slot(tenant_key(one, "b").encode())


@pytest.mark.parametrize("area", ["", "Area", "a:b", "a}", "{t", "a b", "a\n"])
def test_an_area_is_a_plain_word(area: str) -> None:
    with pytest.raises(ValueError, match="not an area"):
        tenant_key(uuid4(), area)


async def test_a_tenants_pattern_finds_its_own_keys_alone(estate: Estate) -> None:
    redis: Redis = create_redis(estate.addresses.redis_url, timeout=5.0)
    one, other = uuid4(), uuid4()
    keys = {
        tenant: {tenant_key(tenant, "isolation", part) for part in ("a", f"{{t:{one}}}:x", f"{{t:{other}}}:x", "*")}
        for tenant in (one, other)
    }
    try:
        for key in (*keys[one], *keys[other]):
            await redis.set(key, "1", ex=60)
        for tenant in (one, other):
            found = {_text(key) async for key in redis.scan_iter(match=tenant_pattern(tenant), count=1000)}
            assert found == keys[tenant]
        await redis.delete(*keys[one], *keys[other])
    finally:
        await redis.aclose()


def _text(key: bytes | str) -> str:
    return key.decode() if isinstance(key, bytes) else key
