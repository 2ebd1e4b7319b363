"""Another address for an account: both have to agree, and nobody learns who else has one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text, update

from tenantry.domain.identity.address_changes.jobs import forget_old_email_changes
from tenantry.domain.identity.address_changes.models import EmailChange
from tests.mail.support import post, waiting
from tests.mailserver import MailServer, Taken, open_mail_server
from tests.world import PASSWORD, Caller, TenantHandle, World

NEW = "ann@elsewhere.example"
INVALID = (400, "/problems/email-change-invalid")


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def ask(caller: Caller, email: str = NEW, password: str = PASSWORD) -> httpx.Response:
    return await caller.post("/api/users/me/email-change", json={"email": email, "password": password})


async def say(world: World, verb: str, token: str, host: str = "localhost") -> httpx.Response:
    return await world.http.post(f"/api/auth/email-change/{verb}", json={"token": token}, headers={"Host": host})


async def confirm(world: World, token: str, host: str = "localhost") -> httpx.Response:
    return await say(world, "confirm", token, host)


def links(mail: Taken) -> list[str]:
    return [word for word in mail.part("plain").split() if word.startswith("http")]


def token_of(mail: Taken) -> str:
    """Both links of a mail have the same."""
    [token] = {link.partition("#token=")[2] for link in links(mail)}
    return token


async def tokens_of(tenant: TenantHandle, server: MailServer, email: str = NEW) -> tuple[str, str]:
    """Ask for a change, and take the tokens out of the mails to the old and to the new address."""
    asked = await ask(tenant, email)
    assert asked.status_code == 202, asked.text
    mails = {mail.recipients[0]: mail for mail in await post(tenant, server)}
    assert mails.keys() == {tenant.owner_email, email}
    return token_of(mails[tenant.owner_email]), token_of(mails[email])


async def email_of(caller: Caller) -> str:
    answer = await caller.get("/api/users/me")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["email"])


async def pending(caller: Caller) -> Any:
    answer = await caller.get("/api/users/me/email-change")
    assert answer.status_code == 200, answer.text
    return answer.json()["pending"]


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


@pytest.mark.parametrize("new_first", [True, False])
async def test_the_address_changes_when_both_have_confirmed_and_not_before(
    world: World, acme: TenantHandle, server: MailServer, new_first: bool
) -> None:
    elsewhere = await world.log_in(acme.slug, acme.owner_email)
    old, new = await tokens_of(acme, server)
    assert await email_of(acme) == acme.owner_email
    first, second = (new, old) if new_first else (old, new)
    answer = await confirm(world, first)
    assert (answer.status_code, answer.json()) == (200, {"status": "pending"})
    assert await email_of(acme) == acme.owner_email
    waits = await pending(acme)
    assert (waits["email"], waits["oldConfirmed"], waits["newConfirmed"]) == (NEW, not new_first, new_first)
    # Neither does one mailbox alone bring it about by confirming twice.
    assert problem_of(await confirm(world, first)) == INVALID
    answer = await confirm(world, second)
    assert (answer.status_code, answer.json()) == (200, {"status": "changed"})
    me = (await acme.get("/api/users/me")).json()
    assert (me["email"], me["isVerified"]) == (NEW, True)
    assert await pending(acme) is None
    # The session that has asked is there; the other is not.
    assert (await elsewhere.get("/api/users/me")).status_code == 401
    await world.log_in(acme.slug, NEW)
    left = {"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD}
    assert (await world.http.post("/api/auth/login", json=left)).status_code == 401
    [told] = await post(acme, server)
    assert told.recipients == (acme.owner_email,)
    assert NEW in told.part("plain")
    trail = (await acme.get("/api/audit")).json()["items"]
    assert [(each["name"], each["actor"]) for each in trail if "email" in each["name"]] == [
        ("user.email_changed", f"user:{acme.id}"),
        ("user.email_change_requested", f"user:{acme.id}"),
    ]
    assert NEW not in str(trail)


async def test_the_mails_say_what_is_asked_for_and_each_can_stop_it(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    for recipient in (acme.owner_email, NEW):
        await ask(acme)
        [mail] = [each for each in await post(acme, server) if each.recipients == (recipient,)]
        yes, no = links(mail)
        assert yes.startswith(f"https://{acme.slug}.app.example.com/confirm-email-change#token=emc_")
        assert no.startswith(f"https://{acme.slug}.app.example.com/cancel-email-change#token=emc_")
        # Also after it has agreed.
        assert (await confirm(world, token_of(mail))).status_code == 200
        assert (await say(world, "cancel", token_of(mail))).status_code == 204
        assert await pending(acme) is None
        assert problem_of(await say(world, "cancel", token_of(mail))) == INVALID
        assert problem_of(await confirm(world, token_of(mail))) == INVALID
    names = [each["name"] for each in (await acme.get("/api/audit")).json()["items"]]
    assert names.count("user.email_change_cancelled") == 2


async def test_whoever_has_asked_can_think_better_of_it(world: World, acme: TenantHandle, server: MailServer) -> None:
    old, new = await tokens_of(acme, server)
    for _ in range(2):
        assert (await acme.delete("/api/users/me/email-change")).status_code == 204
    for token in (old, new):
        assert problem_of(await confirm(world, token)) == INVALID
    assert await email_of(acme) == acme.owner_email


async def test_a_second_change_takes_the_place_of_the_first(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    first = await tokens_of(acme, server)
    old, new = await tokens_of(acme, server, "ann@third.example")
    for token in first:
        assert problem_of(await confirm(world, token)) == INVALID
    # Nor do halves of two changes make a whole.
    assert (await confirm(world, old)).json() == {"status": "pending"}
    assert (await confirm(world, new)).json() == {"status": "changed"}
    assert await email_of(acme) == "ann@third.example"


async def test_an_address_that_somebody_has_is_asked_for_like_any_other(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    bob = await acme.add_user("bob", "member")
    taken = f"bob@{acme.slug}.example"
    answers = [await ask(acme, taken), await ask(acme, NEW)]
    assert {answer.status_code for answer in answers} == {202}
    shapes = [{**answer.json(), "email": "", "expiresAt": "", "createdAt": ""} for answer in answers]
    assert shapes[0] == shapes[1]
    await acme.delete("/api/users/me/email-change")
    await post(acme, server)
    await ask(acme, taken)
    mails = {mail.recipients[0]: mail for mail in await post(acme, server)}
    # Who has it is told, without a link; who has asked waits in vain.
    assert mails[taken].message["Subject"] == f"You have an account at {acme.context.name}"
    assert links(mails[taken]) == []
    assert (await confirm(world, token_of(mails[acme.owner_email]))).json() == {"status": "pending"}
    assert (await pending(acme))["newConfirmed"] is False
    assert await email_of(bob) == taken
    # In another organization it is free.
    old, new = await tokens_of(globex, server, taken)
    await confirm(world, old)
    assert (await confirm(world, new)).json() == {"status": "changed"}


async def test_an_address_that_somebody_gets_meanwhile_stays_theirs(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    old, new = await tokens_of(acme, server)
    made = await acme.post("/api/users", json={"email": NEW, "password": PASSWORD})
    assert made.status_code == 201
    assert (await confirm(world, old)).json() == {"status": "pending"}
    refused = await confirm(world, new)
    assert problem_of(refused) == INVALID
    assert NEW not in refused.text
    # It has ended: it does not happen later either.
    assert await pending(acme) is None
    assert problem_of(await confirm(world, new)) == INVALID
    assert await email_of(acme) == acme.owner_email
    assert (await acme.get("/api/users/me")).status_code == 200
    await world.log_in(acme.slug, NEW)


async def test_of_two_who_want_one_address_one_gets_it(world: World, acme: TenantHandle, server: MailServer) -> None:
    bob = await acme.add_user("bob", "member")
    for caller in (acme, bob):
        assert (await ask(caller)).status_code == 202
    tokens = [token_of(mail) for mail in await post(acme, server)]
    answers = await asyncio.gather(*(confirm(world, token) for token in tokens))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 400]
    assert sorted([await email_of(acme), await email_of(bob)]).count(NEW) == 1


async def test_the_password_is_asked_for_and_cannot_be_guessed(world: World, acme: TenantHandle) -> None:
    refused = await ask(acme, password="not the password")
    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == ["password"]
    for _ in range(world.settings.login_failures - 1):
        await ask(acme, password="not the password")
    assert (await ask(acme)).status_code == 429
    assert await waiting(acme) == []


@pytest.mark.parametrize("email", ["nobody", "", "owner"])
async def test_an_address_that_is_none_or_the_present_one_is_refused(acme: TenantHandle, email: str) -> None:
    refused = await ask(acme, acme.owner_email.upper() if email == "owner" else email)
    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == ["email"]


async def test_nobodys_mailbox_is_filled(world: World, acme: TenantHandle, server: MailServer) -> None:
    limit = world.settings.account_mails
    answers = [await ask(acme, f"ann-{number}@elsewhere.example") for number in range(limit + 1)]
    assert [answer.status_code for answer in answers] == [202] * limit + [429]
    # Each change took the place of the one before, whose mails were not sent any more: they had nothing to confirm.
    assert len(await post(acme, server)) == 2


async def test_what_is_expired_foreign_or_none_is_answered_alike(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    old, new = await tokens_of(acme, server)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(update(EmailChange).values(expires_at=func.now() - text("interval '1 s'")))
    attempts = [
        *(old, new),
        old.replace(acme.tenant_id.hex, globex.tenant_id.hex),
        old.replace("emc_", "emv_"),
        f"emc_{acme.tenant_id.hex}_{'0' * 64}",
        "garbage",
    ]
    answers = [await say(world, verb, attempt) for attempt in attempts for verb in ("confirm", "cancel")]
    assert {problem_of(answer) for answer in answers} == {INVALID}
    assert await email_of(acme) == acme.owner_email


async def test_a_link_is_refused_on_another_organizations_host(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    old, _ = await tokens_of(acme, server)
    assert problem_of(await confirm(world, old, host=f"{globex.slug}.example.com")) == INVALID
    assert (await confirm(world, old, host=f"{acme.slug}.example.com")).status_code == 200


async def test_links_in_the_mailbox_that_was_left_are_worth_nothing(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    asked = {"tenant": acme.slug, "email": acme.owner_email}
    assert (await world.http.post("/api/auth/password-reset", json=asked)).status_code == 202
    [reset] = await post(acme, server)
    for token in await tokens_of(acme, server):
        await confirm(world, token)
    refused = await world.http.post(
        "/api/auth/password-reset/confirm", json={"token": reset.token, "password": "another good password"}
    )
    assert refused.json()["type"] == "/problems/password-reset-invalid"


async def test_somebody_who_was_shut_out_moves_nowhere(world: World, acme: TenantHandle, server: MailServer) -> None:
    bob = await acme.add_user("bob", "member")
    await ask(bob)
    tokens = [token_of(mail) for mail in await post(acme, server)]
    await acme.patch(f"/api/users/{bob.id}", json={"isActive": False})
    assert {problem_of(await confirm(world, token)) for token in tokens} == {INVALID}


async def test_tokens_are_stored_as_digests_and_forgotten(world: World, acme: TenantHandle, server: MailServer) -> None:
    tokens = await tokens_of(acme, server)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        [row] = await transaction.connection.fetch("SELECT * FROM email_change")
        assert not {bytes.fromhex(token.rpartition("_")[2]) for token in tokens} & set(row.values())
        session = transaction.session
        assert await forget_old_email_changes(session) == 0
        await session.execute(update(EmailChange).values(ended_at=func.now() - text("interval '31 days'")))
        assert await forget_old_email_changes(session) == 1
        assert await session.scalar(select(func.count()).select_from(EmailChange)) == 0
