"""Guessing passwords: slowed down, stopped, and no way to keep the account's owner out or to learn who has one."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tenantry.dev.valkey import EmbeddedValkey
from tenantry.domain.identity.sessions.guessing import FREE, LoginGuard
from tenantry.domain.identity.sessions.jobs import forget_login_traces
from tenantry.kernel.http.address import parse_networks
from tenantry.kernel.redis import create_redis
from tenantry.kernel.security import HasherBusy
from tests.domain.statements import recorded_statements
from tests.servers import temporary_folder
from tests.world import PASSWORD, TenantHandle, World

WRONG = "not the password"


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(world: World, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_guard(world), "_clock", clock)
    return clock


@pytest.fixture
def proxied(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' client is a proxy that is trusted, and says for whom it asks."""
    monkeypatch.setattr(world.app.state, "trusted_proxies", parse_networks(("127.0.0.1/32",)))


def _guard(world: World) -> LoginGuard:
    return world.app.state.authenticator._throttle  # type: ignore[no-any-return]


async def _ask(
    world: World, slug: str, email: str, password: str = WRONG, *, address: str | None = None, **body: Any
) -> httpx.Response:
    headers = {"X-Forwarded-For": address} if address is not None else {}
    answer = await world.http.post(
        "/api/auth/login", json={"tenant": slug, "email": email, "password": password, **body}, headers=headers
    )
    if answer.status_code == 429:
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["type"] == "/problems/too-many-requests"
    return answer


async def _log_in(world: World, slug: str, email: str, password: str = WRONG, **more: Any) -> int:
    return (await _ask(world, slug, email, password, **more)).status_code


async def _lock(world: World, clock: Clock, slug: str, email: str, *, address: str | None = None) -> None:
    """Fail as often as it takes, patiently."""
    for _ in range(world.settings.login_failures):
        answer = await _ask(world, slug, email, address=address)
        assert answer.status_code == 401
        clock.now += world.settings.login_window - 1
    # The last of them is a second away from the end of the lock.
    assert await _log_in(world, slug, email, address=address) == 429
    clock.now -= world.settings.login_window - 1


async def test_the_first_mistakes_cost_nothing_then_each_costs_twice_as_long(
    world: World, acme: TenantHandle, clock: Clock
) -> None:
    waits = []
    for number in range(world.settings.login_failures):
        assert await _log_in(world, acme.slug, acme.owner_email) == 401
        again = await _ask(world, acme.slug, acme.owner_email, PASSWORD) if number >= FREE else None
        if again is not None:
            assert again.status_code == 429, "the right password has to wait as well, or it would tell"
            waits.append(int(again.headers["Retry-After"]))
            clock.now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, world.settings.login_window]
    # Once the lock is over: one guess, and it is locked again.
    assert await _log_in(world, acme.slug, acme.owner_email) == 401
    assert await _log_in(world, acme.slug, acme.owner_email) == 429


async def test_guessing_is_stopped_for_one_account_alone(
    world: World, acme: TenantHandle, globex: TenantHandle, clock: Clock
) -> None:
    await _lock(world, clock, acme.slug, acme.owner_email)
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD) == 429
    assert await _log_in(world, globex.slug, acme.owner_email) == 401
    assert await _log_in(world, globex.slug, globex.owner_email, PASSWORD) == 200


@pytest.mark.parametrize("away", [False, True], ids=["with Redis", "without Redis"])
async def test_an_account_that_does_not_exist_is_stopped_alike_and_costs_alike(
    world: World, acme: TenantHandle, clock: Clock, away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if away:
        monkeypatch.setattr(_guard(world), "_redis", create_redis("redis://127.0.0.1:1/0"))
    told = {}
    for slug, email in (
        (acme.slug, acme.owner_email),
        (acme.slug, f"nobody@{acme.slug}.example"),
        ("no-such-organization", acme.owner_email),
    ):
        answers: list[Any] = []
        for number in range(2 * FREE):
            with recorded_statements(world.database) as statements:
                answer = await _ask(world, slug, email)
            # The last look at the tally is the account's, whoever has one: no transaction for who is refused in Redis.
            answers.append((answer.status_code, answer.headers.get("Retry-After"), answer.json()["detail"]))
            answers.append(len(statements))
            if number == FREE + 1:
                clock.now += 1
        told[slug, email] = answers
    first, *others = told.values()
    assert others == [first, first], told
    assert 429 in {each[0] for each in first if isinstance(each, tuple)}


async def test_the_right_password_forgets_the_failures(world: World, acme: TenantHandle, clock: Clock) -> None:
    for _ in range(3):
        for _ in range(FREE):
            assert await _log_in(world, acme.slug, acme.owner_email) == 401
        assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD) == 200


async def test_many_guesses_at_once_are_not_let_through_together(
    world: World, acme: TenantHandle, clock: Clock
) -> None:
    answers = await asyncio.gather(*(_log_in(world, acme.slug, acme.owner_email) for _ in range(30)))
    assert sorted(answers) == [401] * (FREE + 1) + [429] * (30 - FREE - 1)


async def test_who_was_turned_away_by_a_busy_server_has_not_guessed(
    world: World, acme: TenantHandle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: Any, **__: Any) -> bool:
        raise HasherBusy

    with monkeypatch.context() as patch:
        patch.setattr(world.app.state.hasher, "verify", busy)
        for _ in range(3 * world.settings.login_failures):
            assert await _log_in(world, acme.slug, acme.owner_email) == 503
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD) == 200


# Who is kept out, and who is not.


async def test_a_stranger_elsewhere_does_not_lock_the_owner_out(
    world: World, acme: TenantHandle, clock: Clock, proxied: None
) -> None:
    await _lock(world, clock, acme.slug, acme.owner_email, address="8.8.8.8")
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, address="8.8.8.99") == 429, "a neighbour's"
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, address="9.9.9.9") == 200


async def test_a_known_device_is_let_through_a_lock_and_has_a_tally_of_its_own(
    world: World, acme: TenantHandle, globex: TenantHandle, clock: Clock
) -> None:
    known = await _ask(world, acme.slug, acme.owner_email, PASSWORD, rememberDevice=True)
    token = known.json()["deviceToken"]
    foreign = (await _ask(world, globex.slug, globex.owner_email, PASSWORD, rememberDevice=True)).json()["deviceToken"]
    await acme.add_user("bob")
    bobs = await _ask(world, acme.slug, f"bob@{acme.slug}.example", PASSWORD, rememberDevice=True)
    await _lock(world, clock, acme.slug, acme.owner_email)
    moved = token.replace(acme.tenant_id.hex, globex.tenant_id.hex)
    for other in (foreign, bobs.json()["deviceToken"], moved, f"dev_{acme.tenant_id.hex}_{'0' * 64}", "nonsense"):
        assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, deviceToken=other) == 429
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, deviceToken=token) == 200
    # Whoever has stolen it may guess no more than others.
    answers = [await _log_in(world, acme.slug, acme.owner_email, deviceToken=token) for _ in range(FREE + 2)]
    assert answers == [401] * (FREE + 1) + [429]


async def test_one_address_does_not_try_many_accounts(
    world: World, acme: TenantHandle, globex: TenantHandle, clock: Clock, proxied: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = _guard(world)
    rule = guard._of_address
    monkeypatch.setattr(guard, "_of_address", type(rule)(6, 6, rule.lock, rule.memory))
    for number in range(6):
        tenant = (acme, globex)[number % 2]
        assert await _log_in(world, tenant.slug, f"user-{number}@people.example", address="8.8.4.4") == 401
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, address="8.8.4.4") == 429
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, address="8.8.4.5") == 200
    clock.now += world.settings.login_window
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, address="8.8.4.4") == 200


async def test_an_account_of_ones_own_does_not_wash_an_address_clean(
    world: World, acme: TenantHandle, clock: Clock, proxied: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = _guard(world)
    rule = guard._of_address
    monkeypatch.setattr(guard, "_of_address", type(rule)(6, 6, rule.lock, rule.memory))
    for number in range(5):
        assert await _log_in(world, acme.slug, f"user-{number}@people.example", address="8.8.2.2") == 401
        assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, address="8.8.2.2") == 200
    assert await _log_in(world, acme.slug, "user-6@people.example", address="8.8.2.2") == 401
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, address="8.8.2.2") == 429


# While Redis is away.


async def test_without_redis_people_still_log_in_and_guessing_is_still_stopped(
    world: World, acme: TenantHandle, clock: Clock, proxied: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard(world), "_redis", create_redis("redis://127.0.0.1:1/0"))
    for _ in range(3):
        for _ in range(FREE):
            assert await _log_in(world, acme.slug, acme.owner_email, address="8.8.8.8") == 401
        assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, address="8.8.8.8") == 200
    await _lock(world, clock, acme.slug, acme.owner_email, address="8.8.8.8")
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, address="8.8.8.8") == 429
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD, address="9.9.9.9") == 200


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    folder = temporary_folder("tenantry-logins-")
    try:
        with EmbeddedValkey(folder / "valkey", persistent=False, delete_with_parent=True) as server:
            yield server
    finally:
        shutil.rmtree(folder)


async def test_a_redis_that_is_killed_meanwhile_gives_the_guesses_back_once_and_no_more(
    world: World, acme: TenantHandle, clock: Clock, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = create_redis(valkey.url())
    monkeypatch.setattr(_guard(world), "_redis", redis)
    try:
        answers = [await _log_in(world, acme.slug, acme.owner_email) for _ in range(FREE + 2)]
        assert answers == [401] * (FREE + 1) + [429]
        await asyncio.to_thread(valkey.kill)
        answers = [await _log_in(world, acme.slug, acme.owner_email) for _ in range(FREE + 3)]
        assert answers == [401] * (FREE + 1) + [429] * 2
    finally:
        await redis.aclose()


async def test_without_redis_log_ins_of_one_account_do_not_come_in_each_others_way(
    world: World, acme: TenantHandle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = _guard(world)
    monkeypatch.setattr(guard, "_redis", create_redis("redis://127.0.0.1:1/0"))
    tenant = acme.context

    async def log_in_over_and_over() -> None:
        for _ in range(25):
            attempt = await guard.begin(tenant, acme.slug, acme.owner_email)
            await guard.succeeded(tenant, acme.slug, acme.owner_email, attempt=attempt)

    # At once, they would be refused for guessing: so many are let through.
    monkeypatch.setattr(guard, "_near", dataclasses.replace(guard._near, free=1000, limit=1000))
    monkeypatch.setattr(guard, "_everywhere", dataclasses.replace(guard._everywhere, free=1000, limit=1000))
    # A deadlock would be raised here.
    await asyncio.gather(*(log_in_over_and_over() for _ in range(6)))


async def test_tallies_hold_no_address_and_are_swept_away(
    world: World, acme: TenantHandle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_guard(world), "_redis", create_redis("redis://127.0.0.1:1/0"))
        for number in range(5):
            assert await _log_in(world, acme.slug, f"user-{number}@people.example") == 401
        rows = await _tallies(acme)
        assert len(rows) == 10
        assert not any("people.example" in repr(tuple(row.values())) for row in rows)
        # Whoever comes a day later takes them along.
        clock.now += 86_401
        assert await _log_in(world, acme.slug, "late@people.example") == 401
        assert len(await _tallies(acme)) == 2
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.connection.execute("UPDATE login_attempt SET last_at = $1", 0)
        assert await forget_login_traces(transaction.session, batch=1) == 2
    assert await _tallies(acme) == []


async def _tallies(tenant: TenantHandle) -> list[Any]:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        found: list[Any] = await transaction.connection.fetch("SELECT * FROM login_attempt")
        return found
