from __future__ import annotations

import asyncio

import httpx

from tests.world import PASSWORD, TenantHandle, World


async def test_login_answers_with_tokens_that_work(world: World, acme: TenantHandle) -> None:
    answer = await world.http.post(
        "/api/auth/login", json={"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD}
    )
    assert answer.status_code == 200
    body = answer.json()
    assert body["tokenType"] == "Bearer"
    assert body["expiresIn"] == world.settings.access_token_ttl
    me = await world.http.get("/api/users/me", headers={"Authorization": f"Bearer {body['accessToken']}"})
    assert me.json()["email"] == acme.owner_email
    assert [role["slug"] for role in me.json()["roles"]] == ["owner"]


async def _refresh(world: World, token: str, host: str = "localhost") -> httpx.Response:
    return await world.http.post("/api/auth/refresh", json={"refreshToken": token}, headers={"Host": host})


async def _works(world: World, access_token: str) -> bool:
    answer = await world.http.get("/api/users/me", headers={"Authorization": f"Bearer {access_token}"})
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


async def test_a_refresh_token_is_traded_once_for_a_new_pair(world: World, acme: TenantHandle) -> None:
    first = await _refresh(world, acme.refresh_token)
    assert first.status_code == 200
    assert first.json()["refreshToken"] != acme.refresh_token
    assert await _works(world, first.json()["accessToken"])
    second = await _refresh(world, first.json()["refreshToken"])
    assert second.status_code == 200


async def test_a_spent_refresh_token_ends_its_whole_session(world: World, acme: TenantHandle) -> None:
    other = await world.log_in(acme.slug, acme.owner_email)
    renewed = (await _refresh(world, acme.refresh_token)).json()
    assert (await _refresh(world, acme.refresh_token)).status_code == 401
    assert not await _works(world, renewed["accessToken"])
    assert not await _works(world, acme.access_token)
    assert (await _refresh(world, renewed["refreshToken"])).status_code == 401
    assert await _works(world, other.access_token), "the account's other sessions go on"


async def test_a_refresh_token_that_was_spent_long_ago_ends_its_session_too(world: World, acme: TenantHandle) -> None:
    # A thief who trades twice before the victim comes back must not stay undetected (RFC 9700 §4.14.2).
    token = acme.refresh_token
    for _ in range(3):
        token = (await _refresh(world, token)).json()["refreshToken"]
    assert (await _refresh(world, acme.refresh_token)).status_code == 401
    assert (await _refresh(world, token)).status_code == 401


async def test_of_two_trades_of_one_token_at_once_at_most_one_succeeds(world: World, acme: TenantHandle) -> None:
    answers = await asyncio.gather(*(_refresh(world, acme.refresh_token) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 401]


async def test_a_refresh_token_is_refused_on_another_tenants_host(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    assert (await _refresh(world, acme.refresh_token, host=f"{globex.slug}.example.com")).status_code == 401
    assert (await _refresh(world, acme.refresh_token, host=f"{acme.slug}.example.com")).status_code == 200


async def test_a_refresh_token_under_another_tenants_id_is_worth_nothing(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    forged = acme.refresh_token.replace(acme.tenant_id.hex, globex.tenant_id.hex)
    assert forged != acme.refresh_token
    assert (await _refresh(world, forged)).status_code == 401
    assert (await _refresh(world, acme.refresh_token)).status_code == 200


async def test_a_refresh_token_expires(world: World, acme: TenantHandle) -> None:
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.connection.fetch("UPDATE user_session SET expires_at = now() - interval '1 second'")
    assert (await _refresh(world, acme.refresh_token)).status_code == 401
    assert not await _works(world, acme.access_token)


async def test_logging_out_ends_the_session_at_once_and_no_other(world: World, acme: TenantHandle) -> None:
    other = await world.log_in(acme.slug, acme.owner_email)
    assert (await acme.post("/api/auth/logout")).status_code == 204
    assert not await _works(world, acme.access_token)
    assert (await _refresh(world, acme.refresh_token)).status_code == 401
    assert await _works(world, other.access_token)


async def test_a_deactivated_user_is_out_with_the_next_request_and_for_good(world: World, acme: TenantHandle) -> None:
    user = await acme.add_user("ann")
    for active in (False, True):
        answer = await acme.patch(f"/api/users/{user.id}", json={"isActive": active})
        assert answer.status_code == 200
        # Reactivated, they log in anew: deactivating has ended the sessions, not paused them.
        assert not await _works(world, user.access_token)
        assert (await _refresh(world, user.refresh_token)).status_code == 401
    assert await _works(world, (await world.log_in(acme.slug, f"ann@{acme.slug}.example")).access_token)


async def test_sessions_keep_digests_and_never_a_token(world: World, acme: TenantHandle) -> None:
    async with world.database.transaction(acme.context.read_scope) as transaction:
        rows = await transaction.connection.fetch("SELECT * FROM user_session")
    assert rows
    secret = acme.refresh_token.rpartition("_")[2]
    assert not any(secret in repr(tuple(row)) or bytes.fromhex(secret) in row.values() for row in rows)
