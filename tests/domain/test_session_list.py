"""Where people are signed in, and signing them out: their own business, and that of who looks after them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update
from structlog.testing import capture_logs

from tenantry.domain.identity.sessions.last_use import session_uses
from tenantry.domain.identity.sessions.models import UserSession
from tenantry.kernel.http.address import parse_networks
from tenantry.tenancy.database import Database
from tests.domain.machines import make_key
from tests.domain.statements import recorded_statements
from tests.platform.support import open_api
from tests.world import PASSWORD, Caller, TenantHandle, World

FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)


async def _log_in(tenant: TenantHandle, email: str | None = None, **headers: str) -> Caller:
    answer = await tenant.world.http.post(
        "/api/auth/login",
        json={"tenant": tenant.slug, "email": email or tenant.owner_email, "password": PASSWORD},
        headers=headers,
    )
    assert answer.status_code == 200, answer.text
    return Caller(tenant.http, answer.json()["accessToken"], answer.json()["refreshToken"])


async def _sessions(caller: Caller, path: str = "/api/sessions") -> list[dict[str, Any]]:
    answer = await caller.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]  # type: ignore[no-any-return]


async def _works(caller: Caller) -> bool:
    answer = await caller.get("/api/users/me")
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


async def _events(tenant: TenantHandle, subject: object) -> list[tuple[str, str]]:
    found = await tenant.get("/api/audit", params={"subject": str(subject)})
    assert found.status_code == 200, found.text
    return [(item["name"], item["actor"]) for item in reversed(found.json()["items"])]


async def test_people_see_where_they_are_signed_in(
    world: World, acme: TenantHandle, globex: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.app.state, "trusted_proxies", parse_networks(("127.0.0.1/32",)))
    desk = await _log_in(acme, **{"User-Agent": FIREFOX, "X-Forwarded-For": "203.0.113.9"})
    phone = await _log_in(acme, **{"User-Agent": SAFARI, "X-Forwarded-For": "2001:db8::7"})
    await acme.add_user("bob")
    listed = await _sessions(phone)
    assert [(each["device"], each["address"], each["isCurrent"]) for each in listed] == [
        ("Mobile Safari on iOS", "2001:db8::7", True),
        ("Firefox on Windows", "203.0.113.9", False),
        (listed[2]["device"], "127.0.0.1", False),
    ]
    assert [each["isCurrent"] for each in await _sessions(desk)] == [False, True, False]
    found = (await phone.get("/api/sessions", params={"search": "firefox"})).json()
    assert (found["total"], found["items"][0]["address"]) == (1, "203.0.113.9")
    assert set(listed[0]) == {"id", "device", "address", "isCurrent", "createdAt", "lastUsedAt", "expiresAt"}
    assert [each["id"] for each in await _sessions(globex)] != [each["id"] for each in await _sessions(acme)]


async def test_a_trade_of_the_refresh_token_says_from_where(
    world: World, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.app.state, "trusted_proxies", parse_networks(("127.0.0.1/32",)))
    answer = await world.http.post(
        "/api/auth/refresh", json={"refreshToken": acme.refresh_token}, headers={"X-Forwarded-For": "198.51.100.4"}
    )
    assert answer.status_code == 200
    assert [each["address"] for each in await _sessions(acme)] == ["198.51.100.4"]


async def test_a_user_agent_of_any_length_and_kind_is_taken(acme: TenantHandle) -> None:
    for user_agent in ("x" * 5000, "(" * 5000, "<script>alert(1)</script>", "", "Mozilla/5.0 " + "Chrome/1 " * 400):
        await _log_in(acme, **{"User-Agent": user_agent})
    assert len(await _sessions(acme)) == 6


# Ending them.


async def test_a_session_is_ended_by_its_user_and_both_its_tokens_are_refused(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    other = await _log_in(acme)
    [mine, theirs] = [each["id"] for each in sorted(await _sessions(acme), key=lambda each: not each["isCurrent"])]
    assert (await acme.delete(f"/api/sessions/{theirs}")).status_code == 204
    assert not await _works(other)
    refreshed = await world.http.post("/api/auth/refresh", json={"refreshToken": other.refresh_token})
    assert refreshed.status_code == 401
    assert await _works(acme)
    assert await _events(acme, theirs) == [
        ("session.opened", f"user:{acme.id}"),
        ("session.ended", f"user:{acme.id}"),
    ]
    # Twice, somebody else's, another organization's, nobody's: there is none.
    [foreign] = [each["id"] for each in await _sessions(globex)]
    for nothing in (theirs, foreign, uuid4()):
        gone = await acme.delete(f"/api/sessions/{nothing}")
        assert (gone.status_code, gone.json()["detail"]) == (404, "There is no such session.")
    assert await _works(globex)
    assert (await acme.delete(f"/api/sessions/{mine}")).status_code == 204
    assert not await _works(acme)


async def test_all_other_sessions_are_ended_at_once_or_the_present_one_as_well(acme: TenantHandle) -> None:
    bob = await acme.add_user("bob")
    others = [await _log_in(acme) for _ in range(3)]
    assert (await acme.delete("/api/sessions")).status_code == 204
    assert [await _works(each) for each in others] == [False] * 3
    assert await _works(acme)
    assert (await _events(acme, acme.id))[-1] == ("user.sessions_ended", f"user:{acme.id}")
    again = await _log_in(acme)
    assert (await again.delete("/api/sessions", params={"includeCurrent": "true"})).status_code == 204
    assert not await _works(again)
    assert not await _works(acme)
    assert await _works(bob), "nobody else is concerned"


async def test_an_end_counts_with_the_next_request_in_every_process(
    world: World, acme: TenantHandle, tmp_path: Path
) -> None:
    """Two processes on one database and one Redis: nothing is cached in either."""
    keyring = world.settings.keyring_path
    async with open_api(world.addresses, tmp_path, keyring=keyring) as second:
        there = Caller(second.http, acme.access_token)
        for path in ("/api/sessions", "/api/auth/logout"):
            other = await _log_in(acme)
            elsewhere = Caller(second.http, other.access_token)
            assert await _works(elsewhere)
            ended = await (acme.delete(path) if path == "/api/sessions" else other.post(path))
            assert ended.status_code == 204
            assert not await _works(elsewhere)
            refreshed = await second.http.post("/api/auth/refresh", json={"refreshToken": other.refresh_token})
            assert refreshed.status_code == 401
        assert await _works(there)


# Looking after others.


async def test_an_administrator_sees_and_ends_a_users_sessions(acme: TenantHandle, globex: TenantHandle) -> None:
    admin, bob = await acme.add_user("ann", "admin"), await acme.add_user("bob", "member")
    second = await _log_in(acme, f"bob@{acme.slug}.example", **{"User-Agent": FIREFOX})
    path = f"/api/users/{bob.id}/sessions"
    listed = await _sessions(admin, path)
    assert (listed[0]["device"], listed[0]["isCurrent"]) == ("Firefox on Windows", False)
    assert (await admin.delete(f"{path}/{listed[0]['id']}")).status_code == 204
    assert (await _works(second), await _works(bob)) == (False, True)
    assert await _events(acme, listed[0]["id"]) == [
        ("session.opened", f"user:{bob.id}"),
        ("session.ended", f"user:{admin.id}"),
    ]
    # A session is named with its user.
    [own] = await _sessions(admin)
    assert (await admin.delete(f"{path}/{own['id']}")).status_code == 404
    assert (await admin.delete(path)).status_code == 204
    assert not await _works(bob)
    assert (await _events(acme, bob.id))[-1] == ("user.sessions_ended", f"user:{admin.id}")
    assert (await globex.get(path)).status_code == (await globex.delete(path)).status_code == 404


async def test_nobody_signs_out_whoever_may_do_more(acme: TenantHandle) -> None:
    admin = await acme.add_user("ann", "admin")
    path = f"/api/users/{acme.id}/sessions"
    [session] = await _sessions(admin, path)
    for refused in (await admin.delete(path), await admin.delete(f"{path}/{session['id']}")):
        assert refused.status_code == 403
    assert await _works(acme)
    assert (await acme.delete(f"/api/users/{admin.id}/sessions")).status_code == 204
    assert not await _works(admin)


async def test_who_lacks_the_permission_and_who_is_a_machine_is_refused(acme: TenantHandle) -> None:
    bob = await acme.add_user("bob", "member")
    machine = await make_key(acme, "sessions:manage")
    for path in ("/api/sessions", f"/api/users/{bob.id}/sessions"):
        for method in ("GET", "DELETE"):
            answer = await machine.request(method, path)
            assert (answer.status_code, answer.json()["type"]) == (403, "/problems/person-required")
    refused = await bob.get(f"/api/users/{bob.id}/sessions")
    assert (refused.status_code, refused.json()["permission"]) == (403, "sessions:manage")


# The last use.


async def _row(tenant: TenantHandle) -> UserSession:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        found: UserSession | None = await transaction.session.scalar(
            select(UserSession).where(UserSession.user_id == tenant.id)
        )
        assert found is not None
        return found


async def _age(tenant: TenantHandle, seconds: float) -> datetime.datetime:
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await transaction.session.execute(update(UserSession).values(last_used_at=moment))
    return moment


async def test_a_last_use_is_noted_once_a_minute_after_the_answer(world: World, acme: TenantHandle) -> None:
    fresh = (await _row(acme)).last_used_at
    with recorded_statements(world.database) as statements:
        assert (await acme.get("/api/roles")).status_code == 200
    assert not [each for each in statements if "UPDATE user_session" in each]
    assert (await _row(acme)).last_used_at == fresh
    aged = await _age(acme, 61)
    with recorded_statements(world.database) as statements:
        for path in ("/api/roles", "/api/teams", "/api/users/me"):
            assert (await acme.get(path)).status_code == 200
    assert len([each for each in statements if "UPDATE user_session" in each]) == 1
    row = await _row(acme)
    assert row.last_used_at > aged + datetime.timedelta(seconds=50)
    assert (await _sessions(acme))[0]["lastUsedAt"].startswith(row.last_used_at.isoformat()[:19])


async def test_a_session_whose_last_use_cannot_be_noted_is_served_all_the_same(
    world: World, acme: TenantHandle
) -> None:
    aged = await _age(acme, 61)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        # Its token is being traded: nobody waits for that.
        await transaction.connection.execute("SELECT id FROM user_session WHERE user_id = $1 FOR UPDATE", acme.id)
        assert await _works(acme)
    assert (await _row(acme)).last_used_at == aged
    away = Database("postgresql://nobody@127.0.0.1:1/nothing")
    session_id = uuid4()
    try:
        with capture_logs() as lines:
            await session_uses(away).note(acme.context, session_id)
    finally:
        await away.close()
    assert [(line["log_level"], UUID(line["session_id"])) for line in lines] == [("warning", session_id)]


async def test_an_ended_session_is_not_used_again(acme: TenantHandle) -> None:
    await _age(acme, 61)
    assert (await acme.post("/api/auth/logout")).status_code == 204
    before = (await _row(acme)).last_used_at
    assert not await _works(acme)
    assert (await _row(acme)).last_used_at == before
