from __future__ import annotations

from tests.world import PASSWORD, TenantHandle, World

WRONG = "not the password"


async def _log_in(world: World, slug: str, email: str, password: str) -> int:
    answer = await world.http.post("/api/auth/login", json={"tenant": slug, "email": email, "password": password})
    if answer.status_code == 429:
        assert answer.headers["Retry-After"].isdigit()
        assert answer.json()["type"] == "/problems/too-many-requests"
    return answer.status_code


async def test_guessing_is_stopped_for_one_account_alone(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    limit = world.settings.login_failures
    answers = [await _log_in(world, acme.slug, acme.owner_email, WRONG) for _ in range(limit + 1)]
    assert answers == [401] * limit + [429]
    assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD) == 429
    assert await _log_in(world, globex.slug, globex.owner_email, PASSWORD) == 200


async def test_an_account_that_does_not_exist_is_stopped_alike(world: World, acme: TenantHandle) -> None:
    limit = world.settings.login_failures
    for slug in (acme.slug, "no-such-organization"):
        answers = [await _log_in(world, slug, f"nobody@{acme.slug}.example", WRONG) for _ in range(limit + 1)]
        assert answers == [401] * limit + [429]


async def test_the_right_password_forgets_the_failures(world: World, acme: TenantHandle) -> None:
    limit = world.settings.login_failures
    for _ in range(2):
        for _ in range(limit - 1):
            assert await _log_in(world, acme.slug, acme.owner_email, WRONG) == 401
        assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD) == 200


async def test_without_redis_people_still_log_in(world: World, acme: TenantHandle) -> None:
    throttle = world.app.state.authenticator._throttle
    redis, throttle._redis = throttle._redis, type(throttle._redis).from_url("redis://127.0.0.1:1/0")
    try:
        assert await _log_in(world, acme.slug, acme.owner_email, WRONG) == 401
        assert await _log_in(world, acme.slug, acme.owner_email, PASSWORD) == 200
    finally:
        throttle._redis = redis
