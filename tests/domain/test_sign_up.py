"""Joining without an invitation: where the organization lets people, with an address that they read, and no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text, update

from tenantry.domain.identity.sign_up.jobs import forget_old_sign_ups
from tenantry.domain.identity.sign_up.models import SignUp
from tests.mail.support import post, waiting
from tests.mailserver import MailServer, open_mail_server
from tests.world import PASSWORD, Caller, TenantHandle, World

ANN = "ann@people.example"
INVALID = (400, "/problems/sign-up-invalid")
POLICY = "/api/organization/account-policy"


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def allow(tenant: TenantHandle, mode: str = "open", **fields: Any) -> None:
    answer = await tenant.patch(POLICY, json={"signUp": mode, **fields})
    assert answer.status_code == 200, answer.text


async def role_id(tenant: TenantHandle, slug: str) -> str:
    roles = (await tenant.get("/api/roles", params={"pageSize": 200})).json()["items"]
    return next(str(role["id"]) for role in roles if role["slug"] == slug)


async def ask(world: World, tenant: str, email: str = ANN) -> httpx.Response:
    return await world.http.post("/api/auth/sign-up", json={"tenant": tenant, "email": email})


async def accept(world: World, token: str, password: str = PASSWORD, host: str = "localhost") -> httpx.Response:
    return await world.http.post(
        "/api/auth/sign-up/accept",
        json={"token": token, "password": password, "name": "Ann"},
        headers={"Host": host},
    )


async def token_of(tenant: TenantHandle, server: MailServer, email: str = ANN) -> str:
    assert (await ask(tenant.world, tenant.slug, email)).status_code == 202
    [mail] = await post(tenant, server)
    assert mail.recipients == (email,)
    assert mail.link.startswith(f"https://{tenant.slug}.app.example.com/accept-sign-up#token=sup_")
    return mail.token


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


async def test_whoever_signs_up_gets_a_link_and_then_a_confirmed_account_that_may_little(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    await allow(acme)
    token = await token_of(acme, server)
    # Until then there is no account.
    assert ANN not in (await acme.get("/api/users")).text
    answer = await accept(world, token)
    assert answer.status_code == 200, answer.text
    me = (await Caller(world.http, answer.json()["accessToken"]).get("/api/users/me")).json()
    assert (me["email"], me["name"], me["isVerified"]) == (ANN, "Ann", True)
    assert [role["slug"] for role in me["roles"]] == ["viewer"]
    await world.log_in(acme.slug, ANN)
    trail = (await acme.get("/api/audit")).json()["items"]
    assert [(each["name"], each["actor"]) for each in trail if each["subject"] == me["id"]] == [
        ("user.signed_up", f"user:{me['id']}"),
        ("user.created", f"user:{me['id']}"),
    ]
    # Whoever may add people is told.
    await post(acme, server)
    told = (await acme.get("/api/notifications")).json()["items"]
    assert "user.signed_up" in {each["kind"] for each in told}
    assert ANN not in (await globex.get("/api/users")).text
    assert await waiting(globex) == []


async def test_newcomers_get_the_role_that_the_organization_has_chosen(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    await allow(acme, roleId=await role_id(acme, "member"))
    answer = await accept(world, await token_of(acme, server))
    me = (await Caller(world.http, answer.json()["accessToken"]).get("/api/users/me")).json()
    assert [role["slug"] for role in me["roles"]] == ["member"]


async def test_where_domains_are_named_people_of_those_may_come_and_nobody_else(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    await allow(acme, "domains", domains=["People.Example", "xn--mller-kva.example"])
    for stranger in ("ann@other.example", "ann@sub.people.example", "ann@people.example.com"):
        assert (await ask(world, acme.slug, stranger)).status_code == 202
    assert await waiting(acme) == []
    assert (await accept(world, await token_of(acme, server))).status_code == 200
    # The mail's recipient is spelt as SMTP has it, the account's address as people do.
    assert (await ask(world, acme.slug, "bob@müller.example")).status_code == 202
    [mail] = await post(acme, server)
    assert (await accept(world, mail.token)).status_code == 200
    await world.log_in(acme.slug, "bob@müller.example")


async def test_the_answer_tells_neither_of_accounts_nor_of_organizations_nor_of_their_policy(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    await allow(acme)
    gone = await acme.post("/api/users", json={"email": "bob@people.example", "password": PASSWORD})
    await acme.patch(f"/api/users/{gone.json()['id']}", json={"isActive": False})
    await acme.post("/api/invitations", json={"email": "cid@people.example"})
    await post(acme, server)
    answers, times = [], []
    for tenant, email in (
        (acme.slug, ANN),
        (acme.slug, acme.owner_email),
        (acme.slug, "bob@people.example"),
        (acme.slug, "cid@people.example"),
        (globex.slug, ANN),
        ("no-such-organization", ANN),
    ):
        begun = time.monotonic()
        answers.append(await ask(world, tenant, email))
        times.append(time.monotonic() - begun)
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
    assert len({tuple(sorted(set(answer.headers) - {"date"})) for answer in answers}) == 1
    # Each leaves at a full quarter of a second, however long it took.
    assert min(times) >= 0.24
    mails = {mail.recipients[0]: mail for mail in await post(acme, server)}
    assert mails.keys() == {ANN, acme.owner_email, "cid@people.example"}
    for email, hint in ((acme.owner_email, "log in with your password"), ("cid@people.example", "the invitation")):
        assert mails[email].message["Subject"] == f"You have an account at {acme.context.name}"
        assert hint in mails[email].part("plain")
        assert "http" not in mails[email].part("plain")
    assert await waiting(globex) == []


async def test_a_link_is_good_once_and_takes_the_others_with_it(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    await allow(acme)
    first, second = await token_of(acme, server), await token_of(acme, server)
    assert (await accept(world, second)).status_code == 200
    for token in (second, first):
        assert problem_of(await accept(world, token)) == INVALID


async def test_of_two_who_come_with_links_of_one_address_at_once_one_gets_in(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    await allow(acme)
    tokens = [await token_of(acme, server), await token_of(acme, server)]
    answers = await asyncio.gather(*(accept(world, token) for token in [*tokens, *tokens]))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    assert (await acme.get("/api/users")).text.count(ANN) == 1


async def test_an_organization_that_has_closed_takes_no_link_any_more(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    await allow(acme)
    token = await token_of(acme, server)
    for closed in ({"signUp": "off"}, {"signUp": "domains", "domains": ["elsewhere.example"]}):
        assert (await acme.patch(POLICY, json=closed)).status_code == 200
        assert problem_of(await accept(world, token)) == INVALID
    await allow(acme, "domains", domains=["people.example"])
    assert (await accept(world, token)).status_code == 200


async def test_a_role_that_has_grown_since_is_given_to_nobody(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    made = await acme.post("/api/roles", json={"name": "Guest", "permissions": ["tags:read"]})
    await allow(acme, roleId=made.json()["id"])
    token = await token_of(acme, server)
    grown = await acme.patch(f"/api/roles/{made.json()['id']}", json={"permissions": ["tags:read", "users:write"]})
    assert grown.status_code == 200, grown.text
    assert problem_of(await accept(world, token)) == INVALID
    assert (await ask(world, acme.slug, "bob@people.example")).status_code == 202
    assert await waiting(acme) == []
    # Nor is it taken away from under the policy.
    assert (await acme.delete(f"/api/roles/{made.json()['id']}")).status_code == 409


async def test_what_is_expired_foreign_or_none_is_answered_alike(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    await allow(acme)
    await allow(globex)
    token = await token_of(acme, server)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(update(SignUp).values(expires_at=func.now() - text("interval '1 s'")))
    attempts = [
        token,
        token.replace(acme.tenant_id.hex, globex.tenant_id.hex),
        token.replace("sup_", "inv_"),
        f"sup_{acme.tenant_id.hex}_{'0' * 64}",
        f"sup_{'0' * 32}_{'0' * 64}",
        "garbage",
    ]
    answers = [await accept(world, attempt) for attempt in attempts]
    assert {problem_of(answer) for answer in answers} == {INVALID}
    assert len({answer.json()["detail"] for answer in answers}) == 1


async def test_a_link_is_refused_on_another_organizations_host(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    await allow(acme)
    token = await token_of(acme, server)
    assert problem_of(await accept(world, token, host=f"{globex.slug}.example.com")) == INVALID
    assert (await accept(world, token, host=f"{acme.slug}.example.com")).status_code == 200


async def test_a_weak_password_leaves_the_link_good(world: World, acme: TenantHandle, server: MailServer) -> None:
    await allow(acme)
    token = await token_of(acme, server)
    for weak in ("short", "password1", ANN, f"{acme.context.name}2026"):
        refused = await accept(world, token, weak)
        assert [error["field"] for error in refused.json()["errors"]] == ["password"]
    assert (await accept(world, token)).status_code == 200


async def test_one_address_is_stopped_and_so_is_a_flood_to_one_organization_known_or_not(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    limit = world.settings.account_mails
    for tenant in (globex.slug, "no-such-organization-either"):
        answers = [await ask(world, tenant) for _ in range(limit + 1)]
        assert [answer.status_code for answer in answers] == [202] * limit + [429]
    throttle = world.app.state.sign_ups._organization_throttle
    before, throttle._failures = throttle._failures, 3
    try:
        for tenant in (acme.slug, "never-heard-of-it"):
            answers = [await ask(world, tenant, f"ann-{number}@people.example") for number in range(4)]
            assert [answer.status_code for answer in answers] == [202] * 3 + [429]
    finally:
        throttle._failures = before


async def test_without_redis_nobodys_mailbox_is_filled(world: World, acme: TenantHandle, server: MailServer) -> None:
    await allow(acme)
    sign_ups = world.app.state.sign_ups
    throttles = (sign_ups._throttle, sign_ups._organization_throttle)
    redis = throttles[0]._redis
    limit = world.settings.account_mails
    for throttle in throttles:
        throttle._redis = type(redis).from_url("redis://127.0.0.1:1/0")
    try:
        for _ in range(limit + 2):
            assert (await ask(world, acme.slug)).status_code == 202
    finally:
        for throttle in throttles:
            throttle._redis = redis
    assert len(await post(acme, server)) == limit


async def test_a_link_stored_is_a_digest_and_an_old_one_is_forgotten(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    await allow(acme)
    token = await token_of(acme, server)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        [row] = await transaction.connection.fetch("SELECT * FROM sign_up")
        assert bytes.fromhex(token.rpartition("_")[2]) not in row.values()
        session = transaction.session
        assert await forget_old_sign_ups(session) == 0
        await session.execute(update(SignUp).values(expires_at=func.now() - text("interval '8 days'")))
        assert await forget_old_sign_ups(session) == 1
        assert await session.scalar(select(func.count()).select_from(SignUp)) == 0
