"""Forgotten passwords: the answer tells nothing, the link is good once, and whoever was signed in is not any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text, update

from tenantry.domain.identity.passwords.jobs import forget_old_password_resets
from tenantry.domain.identity.passwords.models import PasswordReset
from tenantry.domain.identity.users.models import User
from tests.databases import Template
from tests.domain.statements import recorded_statements
from tests.mail.support import mails_of, post, waiting
from tests.mailserver import MailServer, open_mail_server
from tests.platform.support import open_api
from tests.world import PASSWORD, TenantHandle, World

NEW = "another good password"
INVALID = (400, "/problems/password-reset-invalid")


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def ask(world: World, tenant: str, email: str, **arguments: Any) -> httpx.Response:
    return await world.http.post("/api/auth/password-reset", json={"tenant": tenant, "email": email}, **arguments)


async def confirm(world: World, token: str, password: str = NEW, host: str = "localhost") -> httpx.Response:
    return await world.http.post(
        "/api/auth/password-reset/confirm", json={"token": token, "password": password}, headers={"Host": host}
    )


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


async def reset_of(tenant: TenantHandle, server: MailServer, email: str | None = None) -> str:
    """Ask for a link, and take the token out of the mail."""
    assert (await ask(tenant.world, tenant.slug, email or tenant.owner_email)).status_code == 202
    [mail] = await post(tenant, server)
    assert mail.link.startswith(f"https://{tenant.slug}.app.example.com/reset-password#token=pwr_")
    return mail.token


async def events(tenant: TenantHandle) -> list[tuple[str, str]]:
    answer = await tenant.get("/api/audit", params={"pageSize": 200})
    assert answer.status_code == 200, answer.text
    return [(each["name"], each["actor"]) for each in answer.json()["items"] if "password" in each["name"]]


async def test_a_mailed_link_sets_a_new_password_and_ends_every_session(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    elsewhere = await world.log_in(acme.slug, acme.owner_email)
    token = await reset_of(acme, server)
    answer = await confirm(world, token)
    assert (answer.status_code, answer.content) == (204, b"")
    for caller in (acme, elsewhere):
        assert (await caller.get("/api/users/me")).status_code == 401
        refreshed = await world.http.post("/api/auth/refresh", json={"refreshToken": caller.refresh_token})
        assert refreshed.status_code == 401
    old = await world.http.post(
        "/api/auth/login", json={"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD}
    )
    assert old.status_code == 401
    again = await world.log_in(acme.slug, acme.owner_email, NEW)
    acme.access_token = again.access_token
    assert (await events(acme))[:2] == [
        ("user.password_reset", f"user:{acme.id}"),
        ("user.password_reset_requested", "system"),
    ]
    [told] = await post(acme, server)
    assert told.message["Subject"] == f"Your password at {acme.context.name} was changed"
    assert "http" not in told.part("plain")


async def test_the_other_organizations_account_of_the_same_person_keeps_its_password(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    email = "ann@people.example"
    for tenant in (acme, globex):
        made = await tenant.post("/api/users", json={"email": email, "password": PASSWORD})
        assert made.status_code == 201
    theirs = await world.log_in(globex.slug, email)
    assert (await confirm(world, await reset_of(acme, server, email))).status_code == 204
    await world.log_in(acme.slug, email, NEW)
    await world.log_in(globex.slug, email, PASSWORD)
    assert (await theirs.get("/api/users/me")).status_code == 200
    assert await waiting(globex) == []


async def test_a_link_is_good_once_and_takes_the_others_with_it(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    first, second = await reset_of(acme, server), await reset_of(acme, server)
    assert (await confirm(world, second)).status_code == 204
    for token in (second, first):
        assert problem_of(await confirm(world, token, "yet another password")) == INVALID
    await world.log_in(acme.slug, acme.owner_email, NEW)


async def test_of_two_who_come_with_one_link_at_once_one_gets_through(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    token = await reset_of(acme, server)
    answers = await asyncio.gather(*(confirm(world, token) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [204, 400]


async def test_what_is_expired_foreign_or_none_is_answered_alike(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    token = await reset_of(acme, server)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(update(PasswordReset).values(expires_at=func.now() - text("interval '1 s'")))
    attempts = [
        token,
        token.replace(acme.tenant_id.hex, globex.tenant_id.hex),
        token.replace("pwr_", "inv_"),
        f"pwr_{acme.tenant_id.hex}_{'0' * 64}",
        f"pwr_{'0' * 32}_{'0' * 64}",
        acme.refresh_token,
        "garbage",
    ]
    answers = [await confirm(world, attempt) for attempt in attempts]
    assert {problem_of(answer) for answer in answers} == {INVALID}
    assert len({answer.json()["detail"] for answer in answers}) == 1


async def test_a_link_is_refused_on_another_organizations_host(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    token = await reset_of(acme, server)
    assert problem_of(await confirm(world, token, host=f"{globex.slug}.example.com")) == INVALID
    assert (await confirm(world, token, host=f"{acme.slug}.example.com")).status_code == 204


async def test_a_password_that_is_too_weak_leaves_the_link_good(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    token = await reset_of(acme, server)
    for weak in ("short", acme.owner_email):
        refused = await confirm(world, token, weak)
        assert refused.status_code == 422
        assert [error["field"] for error in refused.json()["errors"]] == ["password"]
    assert (await confirm(world, token)).status_code == 204


async def test_the_answer_does_not_tell_whether_there_is_an_account(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    deactivated = await acme.post("/api/users", json={"email": "bob@people.example", "password": PASSWORD})
    await acme.patch(f"/api/users/{deactivated.json()['id']}", json={"isActive": False})
    invited = await acme.post("/api/invitations", json={"email": "cid@people.example"})
    assert invited.status_code == 201
    await post(acme, server)
    asked = [
        (acme.slug, acme.owner_email),
        (acme.slug, acme.owner_email.upper()),
        (acme.slug, "nobody@people.example"),
        (acme.slug, "bob@people.example"),
        (acme.slug, "cid@people.example"),
        ("no-such-organization", acme.owner_email),
    ]
    answers, times = [], []
    for tenant, email in asked:
        begun = time.monotonic()
        answers.append(await ask(world, tenant, email))
        times.append(time.monotonic() - begun)
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
    assert len({tuple(sorted(set(answer.headers) - {"date"})) for answer in answers}) == 1
    # Each leaves at a full quarter of a second, however long it took.
    assert min(times) >= 0.24
    assert [mail.recipients for mail in await post(acme, server)] == [(acme.owner_email,)] * 2


async def test_no_connection_is_held_while_the_answer_waits_for_its_time(world: World, acme: TenantHandle) -> None:
    pool: Any = world.database.engine.sync_engine.pool
    held = []

    async def look() -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.2
        while loop.time() < until:
            held.append(pool.checkedout())
            await asyncio.sleep(0.01)

    with recorded_statements(world.database) as statements:
        await asyncio.gather(look(), ask(world, acme.slug, "nobody@people.example"))
    assert statements
    assert held[-1] == 0


async def test_asking_too_often_is_stopped_alike_for_every_address(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    limit = world.settings.password_reset_requests
    for email in (acme.owner_email, "nobody@people.example"):
        answers = [await ask(world, acme.slug, email) for _ in range(limit + 1)]
        assert [answer.status_code for answer in answers] == [202] * limit + [429]
        assert int(answers[-1].headers["Retry-After"]) > 60
    assert len(await post(acme, server)) == limit
    assert (await ask(world, globex.slug, acme.owner_email)).status_code == 202


async def test_without_redis_nobodys_mailbox_is_filled(world: World, acme: TenantHandle, server: MailServer) -> None:
    throttle = world.app.state.password_resets._throttle
    redis, throttle._redis = throttle._redis, type(throttle._redis).from_url("redis://127.0.0.1:1/0")
    limit = world.settings.password_reset_requests
    try:
        for _ in range(limit + 2):
            assert (await ask(world, acme.slug, acme.owner_email)).status_code == 202
    finally:
        throttle._redis = redis
    assert len(await post(acme, server)) == limit


async def test_a_new_password_ends_the_wait_after_wrong_ones(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    token = await reset_of(acme, server)
    body = {"tenant": acme.slug, "email": acme.owner_email, "password": "not the password"}
    answers = [
        (await world.http.post("/api/auth/login", json=body)).status_code for _ in range(world.settings.login_failures)
    ]
    assert set(answers) == {401, 429}
    assert (await world.http.post("/api/auth/login", json=body)).status_code == 429
    assert (await confirm(world, token)).status_code == 204
    await world.log_in(acme.slug, acme.owner_email, NEW)


async def test_a_link_stored_is_a_digest(world: World, acme: TenantHandle, server: MailServer) -> None:
    token = await reset_of(acme, server)
    async with world.database.transaction(acme.context.read_scope) as transaction:
        [row] = await transaction.connection.fetch("SELECT * FROM password_reset WHERE used_at IS NULL")
    assert bytes.fromhex(token.rpartition("_")[2]) not in row.values()
    assert len(row["digest"]) == 32


async def test_a_link_of_somebody_who_was_shut_out_is_worth_nothing(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    made = await acme.post("/api/users", json={"email": "bob@people.example", "password": PASSWORD})
    token = await reset_of(acme, server, "bob@people.example")
    await ask(world, acme.slug, "bob@people.example")
    await acme.patch(f"/api/users/{made.json()['id']}", json={"isActive": False})
    assert problem_of(await confirm(world, token)) == INVALID
    # And what still waited is not sent.
    assert mails_of(await post(acme, server), "bob") == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tenant": "acme", "email": "nobody"}, "email"),
        ({"tenant": "Not A Slug", "email": "ann@people.example"}, "tenant"),
        ({"email": "ann@people.example"}, "tenant"),
    ],
)
async def test_a_request_that_cannot_be_one_is_told_why(world: World, body: dict[str, str], field: str) -> None:
    answer = await world.http.post("/api/auth/password-reset", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_old_links_are_forgotten(world: World, acme: TenantHandle, server: MailServer) -> None:
    await reset_of(acme, server)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        session = transaction.session
        assert await forget_old_password_resets(session) == 0
        await session.execute(update(PasswordReset).values(expires_at=func.now() - text("interval '31 days'")))
        assert await forget_old_password_resets(session) == 1
        assert await session.scalar(select(func.count()).select_from(PasswordReset)) == 0
        assert await session.scalar(select(func.count()).select_from(User)) == 1


async def test_a_deployment_without_mail_refuses_and_says_why(database_addresses: Template, tmp_path: Path) -> None:
    async with open_api(database_addresses, tmp_path) as world:
        world.app.state.password_resets._settings = world.settings.model_copy(update={"mail_url": None})
        answer = await ask(world, "acme", "ann@people.example")
    assert problem_of(answer) == (503, "/problems/mail-not-configured")
    assert "TENANTRY_MAIL_URL" in answer.json()["detail"]
    assert answer.headers["Retry-After"] == "3600"
