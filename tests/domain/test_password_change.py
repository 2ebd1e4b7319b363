"""Changing one's password: the old one is asked for, and whoever else was signed in is not any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from tenantry.domain.identity.users.models import User
from tenantry.kernel.security import PasswordHasher
from tests.mail.support import post, waiting
from tests.mailserver import MailServer, open_mail_server
from tests.world import PASSWORD, Caller, TenantHandle, World

NEW = "another good password"


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def change(caller: Caller, old: str = PASSWORD, new: str = NEW) -> httpx.Response:
    return await caller.post("/api/users/me/password", json={"oldPassword": old, "newPassword": new})


def fields_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    return [error["field"] for error in answer.json()["errors"]]


async def test_a_new_password_ends_the_other_sessions_and_keeps_this_one(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    elsewhere = await world.log_in(acme.slug, acme.owner_email)
    bob = await acme.add_user("bob", "member")
    answer = await change(acme)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await acme.get("/api/users/me")).status_code == 200
    assert (await bob.get("/api/users/me")).status_code == 200
    assert (await elsewhere.get("/api/users/me")).status_code == 401
    refreshed = await world.http.post("/api/auth/refresh", json={"refreshToken": elsewhere.refresh_token})
    assert refreshed.status_code == 401
    old = {"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD}
    assert (await world.http.post("/api/auth/login", json=old)).status_code == 401
    await world.log_in(acme.slug, acme.owner_email, NEW)
    [mail] = await post(acme, server)
    assert mail.recipients == (acme.owner_email,)
    assert mail.message["Subject"] == f"Your password at {acme.context.name} was changed"
    assert "http" not in mail.part("plain")
    trail = (await acme.get("/api/audit")).json()["items"]
    [event] = [each for each in trail if each["name"] == "user.password_changed"]
    assert (event["actor"], event["subject"]) == (f"user:{acme.id}", str(acme.id))
    assert PASSWORD not in str(trail)


async def test_the_same_person_in_another_organization_keeps_theirs(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    for tenant in (acme, globex):
        made = await tenant.post("/api/users", json={"email": "ann@people.example", "password": PASSWORD})
        assert made.status_code == 201
    theirs = await world.log_in(globex.slug, "ann@people.example")
    assert (await change(await world.log_in(acme.slug, "ann@people.example"))).status_code == 204
    assert (await theirs.get("/api/users/me")).status_code == 200
    await world.log_in(globex.slug, "ann@people.example", PASSWORD)
    assert await waiting(globex) == []


async def test_mailed_resets_are_worth_nothing_after_it(world: World, acme: TenantHandle, server: MailServer) -> None:
    asked = {"tenant": acme.slug, "email": acme.owner_email}
    assert (await world.http.post("/api/auth/password-reset", json=asked)).status_code == 202
    [mail] = await post(acme, server)
    assert (await change(acme)).status_code == 204
    confirmed = await world.http.post(
        "/api/auth/password-reset/confirm", json={"token": mail.token, "password": "yet another password"}
    )
    assert confirmed.json()["type"] == "/problems/password-reset-invalid"


async def test_a_wrong_old_password_changes_nothing_and_can_be_guessed_a_few_times_only(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    assert fields_of(await change(acme, old="not the password")) == ["oldPassword"]
    for _ in range(world.settings.login_failures - 1):
        await change(acme, old="not the password")
    refused = await change(acme)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    # Logging in is another matter, and so is another organization.
    await world.log_in(acme.slug, acme.owner_email)
    assert (await change(globex)).status_code == 204
    assert await waiting(acme) == []


async def test_somebody_without_a_password_has_none_to_change(world: World, acme: TenantHandle) -> None:
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(update(User).values(hashed_password=None))
    assert fields_of(await change(acme)) == ["oldPassword"]


async def test_a_weak_one_is_refused_by_the_organizations_words_and_the_persons(acme: TenantHandle) -> None:
    for weak in ("short", "password1", f"{acme.context.slug}!", acme.context.name * 2, acme.owner_email):
        assert fields_of(await change(acme, new=weak)) == ["newPassword"], weak
    assert (await change(acme)).status_code == 204


async def test_of_two_who_change_it_at_once_one_wins(world: World, acme: TenantHandle) -> None:
    other = await world.log_in(acme.slug, acme.owner_email)
    answers = await asyncio.gather(change(acme), change(other, new="yet another password"))
    assert sorted(answer.status_code for answer in answers) in ([204, 401], [204, 409], [204, 422])


async def test_a_password_is_hashed_with_no_connection_held(world: World, acme: TenantHandle) -> None:
    pool, hasher = world.database.engine.sync_engine.pool, world.app.state.hasher
    held: list[int] = []
    verify, hash_ = hasher.verify, hasher.hash

    async def verifying(stored: str | None, password: str, **more: Any) -> bool:
        held.append(pool.checkedout())  # type: ignore[attr-defined]
        return bool(await verify(stored, password, **more))

    async def hashing(password: str, **more: Any) -> str:
        held.append(pool.checkedout())  # type: ignore[attr-defined]
        return str(await hash_(password, **more))

    hasher.verify, hasher.hash = verifying, hashing
    try:
        assert (await change(acme)).status_code == 204
    finally:
        del hasher.verify, hasher.hash
    assert held == [0, 0]


async def test_a_hash_of_other_parameters_is_renewed_with_the_new_password(world: World, acme: TenantHandle) -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, concurrency=1)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(update(User).values(hashed_password=await weak.hash(PASSWORD)))
    weak.close()
    assert (await change(acme)).status_code == 204
    async with world.database.transaction(acme.context.read_scope) as transaction:
        stored = await transaction.connection.fetchval("SELECT hashed_password FROM user_account")
    assert not world.app.state.hasher.needs_rehash(stored)


async def test_whoever_sets_a_password_hears_the_same(world: World, acme: TenantHandle, server: MailServer) -> None:
    """Every way to a password looks at the organization's words."""
    word = f"{acme.context.name}123"
    made = await acme.post("/api/users", json={"email": "bob@people.example", "password": word})
    assert fields_of(made) == ["password"]
    await acme.post("/api/invitations", json={"email": "cid@people.example"})
    [mail] = await post(acme, server)
    accepted = await world.http.post("/api/auth/invitations/accept", json={"token": mail.token, "password": word})
    assert fields_of(accepted) == ["password"]
    await world.http.post("/api/auth/password-reset", json={"tenant": acme.slug, "email": acme.owner_email})
    [mail] = await post(acme, server)
    reset = await world.http.post("/api/auth/password-reset/confirm", json={"token": mail.token, "password": word})
    assert fields_of(reset) == ["password"]
    team = await acme.add_team()
    asked = await acme.post(f"/api/teams/{team['id']}/invitations", json={"email": "dan@people.example"})
    joined = await world.http.post(
        "/api/auth/team-invitations/accept", json={"token": asked.json()["token"], "password": word}
    )
    assert fields_of(joined) == ["password"]
    tenant = {"slug": "initech", "name": "Initech", "ownerEmail": "o@people.example", "ownerPassword": "Initech2026"}
    created = await world.operator.post("/platform/tenants", json={**tenant, "plan": "free"})
    assert fields_of(created) == ["ownerPassword"]
