"""Confirming an address: a mailed link says that somebody reads mail there, and nothing else does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text, update

from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.verification.jobs import forget_old_email_verifications
from tenantry.domain.identity.verification.models import EmailVerification
from tests.mail.support import post, waiting
from tests.mailserver import MailServer, open_mail_server
from tests.world import PASSWORD, Caller, TenantHandle, World

INVALID = (400, "/problems/email-verification-invalid")


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def ask(world: World, tenant: str, email: str) -> httpx.Response:
    return await world.http.post("/api/auth/verify-email/request", json={"tenant": tenant, "email": email})


async def confirm(world: World, token: str, host: str = "localhost") -> httpx.Response:
    return await world.http.post("/api/auth/verify-email", json={"token": token}, headers={"Host": host})


async def link_of(tenant: TenantHandle, server: MailServer) -> str:
    assert (await tenant.post("/api/users/me/verify-email")).status_code == 202
    [mail] = await post(tenant, server)
    assert mail.recipients == (tenant.owner_email,)
    assert mail.link.startswith(f"https://{tenant.slug}.app.example.com/verify-email#token=emv_")
    return mail.token


async def is_verified(caller: Caller) -> bool:
    return bool((await caller.get("/api/users/me")).json()["isVerified"])


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


async def test_whoever_brings_the_mailed_link_back_has_a_confirmed_address(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    assert not await is_verified(acme)
    token = await link_of(acme, server)
    assert not await is_verified(acme)
    answer = await confirm(world, token)
    assert (answer.status_code, answer.content) == (204, b"")
    assert await is_verified(acme)
    assert not await is_verified(globex)
    trail = [
        (each["name"], each["actor"])
        for each in (await acme.get("/api/audit")).json()["items"]
        if "verif" in each["name"]
    ]
    assert trail == [
        ("user.email_verified", f"user:{acme.id}"),
        ("user.email_verification_requested", f"user:{acme.id}"),
    ]


async def test_a_link_is_good_once_and_takes_the_others_with_it(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    first, second = await link_of(acme, server), await link_of(acme, server)
    assert (await confirm(world, second)).status_code == 204
    for token in (second, first):
        assert problem_of(await confirm(world, token)) == INVALID


async def test_of_two_who_come_with_one_link_at_once_one_gets_through(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    token = await link_of(acme, server)
    answers = await asyncio.gather(*(confirm(world, token) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [204, 400]


async def test_what_is_expired_foreign_of_another_address_or_none_is_answered_alike(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    expired, moved = await link_of(acme, server), await link_of(globex, server)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(
            update(EmailVerification).values(expires_at=func.now() - text("interval '1 s'"))
        )
    async with world.database.transaction(globex.context.write_scope) as transaction:
        await transaction.session.execute(update(User).values(email="elsewhere@people.example"))
    attempts = [
        expired,
        moved,
        expired.replace(acme.tenant_id.hex, globex.tenant_id.hex),
        expired.replace("emv_", "pwr_"),
        f"emv_{acme.tenant_id.hex}_{'0' * 64}",
        f"emv_{'0' * 32}_{'0' * 64}",
        acme.refresh_token,
        "garbage",
    ]
    answers = [await confirm(world, attempt) for attempt in attempts]
    assert {problem_of(answer) for answer in answers} == {INVALID}
    assert len({answer.json()["detail"] for answer in answers}) == 1
    assert not await is_verified(globex)


async def test_a_link_is_refused_on_another_organizations_host(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    token = await link_of(acme, server)
    assert problem_of(await confirm(world, token, host=f"{globex.slug}.example.com")) == INVALID
    assert (await confirm(world, token, host=f"{acme.slug}.example.com")).status_code == 204


async def test_somebody_who_is_confirmed_is_not_written_to(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    assert (await confirm(world, await link_of(acme, server))).status_code == 204
    assert (await acme.post("/api/users/me/verify-email")).status_code == 202
    assert (await ask(world, acme.slug, acme.owner_email)).status_code == 202
    assert await waiting(acme) == []


async def test_the_answer_does_not_tell_whether_there_is_an_account(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    assert (await confirm(world, await link_of(globex, server))).status_code == 204
    gone = await acme.post("/api/users", json={"email": "bob@people.example", "password": PASSWORD})
    await acme.patch(f"/api/users/{gone.json()['id']}", json={"isActive": False})
    answers, times = [], []
    for tenant, email in (
        (acme.slug, acme.owner_email),
        (acme.slug, acme.owner_email.upper()),
        (acme.slug, "nobody@people.example"),
        (acme.slug, "bob@people.example"),
        (globex.slug, globex.owner_email),
        ("no-such-organization", acme.owner_email),
    ):
        begun = time.monotonic()
        answers.append(await ask(world, tenant, email))
        times.append(time.monotonic() - begun)
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
    # Each leaves at a full quarter of a second, however long it took.
    assert min(times) >= 0.24
    assert [mail.recipients for mail in await post(acme, server)] == [(acme.owner_email,)] * 2


async def test_asking_too_often_is_stopped_alike_for_every_address(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    limit = world.settings.account_mails
    for email in (acme.owner_email, "nobody@people.example"):
        answers = [await ask(world, acme.slug, email) for _ in range(limit + 1)]
        assert [answer.status_code for answer in answers] == [202] * limit + [429]
    # Who is signed in has the same mailbox.
    assert (await acme.post("/api/users/me/verify-email")).status_code == 429
    assert len(await post(acme, server)) == limit


async def test_without_redis_nobodys_mailbox_is_filled(world: World, acme: TenantHandle, server: MailServer) -> None:
    throttle: Any = world.app.state.email_verifications._throttle
    redis, throttle._redis = throttle._redis, type(throttle._redis).from_url("redis://127.0.0.1:1/0")
    limit = world.settings.account_mails
    try:
        for _ in range(limit + 2):
            assert (await ask(world, acme.slug, acme.owner_email)).status_code == 202
    finally:
        throttle._redis = redis
    assert len(await post(acme, server)) == limit


async def test_who_was_shown_a_credential_is_not_confirmed_by_it_and_who_was_mailed_one_is(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    team = await acme.add_team()
    shown = await acme.post(f"/api/teams/{team['id']}/invitations", json={"email": "bob@people.example"})
    bob = await world.http.post(
        "/api/auth/team-invitations/accept", json={"token": shown.json()["token"], "password": PASSWORD}
    )
    assert bob.status_code == 200, bob.text
    assert not await is_verified(Caller(world.http, bob.json()["accessToken"]))
    await acme.post("/api/invitations", json={"email": "cid@people.example"})
    [mail] = [each for each in await post(acme, server) if each.recipients == ("cid@people.example",)]
    cid = await world.http.post("/api/auth/invitations/accept", json={"token": mail.token, "password": PASSWORD})
    assert await is_verified(Caller(world.http, cid.json()["accessToken"]))


async def test_a_link_stored_is_a_digest_and_an_old_one_is_forgotten(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    token = await link_of(acme, server)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        [row] = await transaction.connection.fetch("SELECT * FROM email_verification WHERE used_at IS NULL")
        assert bytes.fromhex(token.rpartition("_")[2]) not in row.values()
        assert len(row["digest"]) == 32
        session = transaction.session
        assert await forget_old_email_verifications(session) == 0
        await session.execute(update(EmailVerification).values(expires_at=func.now() - text("interval '31 days'")))
        assert await forget_old_email_verifications(session) == 1
        assert await session.scalar(select(func.count()).select_from(EmailVerification)) == 0
