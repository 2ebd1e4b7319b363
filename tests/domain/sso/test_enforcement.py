"""Where the provider is enforced, a password is no way in: but for owners, and nobody learns who has an account."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.domain.sso.issuer import Issuer
from tests.domain.sso.support import Browser, connect_to, problem_of, whoever
from tests.mail.support import post
from tests.mailserver import MailServer, open_mail_server
from tests.world import PASSWORD, TenantHandle, World

REQUIRED = (403, "/problems/sso-required")


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def enforce(issuer: Issuer, tenant: TenantHandle, **fields: Any) -> dict[str, Any]:
    """Of the domain of the organization's people, owners among them."""
    fields = {"domains": [f"{tenant.slug}.example"], "isEnforced": True, **fields}
    return await connect_to(issuer, tenant, **fields)


async def log_in(tenant: TenantHandle, name: str, password: str = PASSWORD) -> httpx.Response:
    body = {"tenant": tenant.slug, "email": f"{name}@{tenant.slug}.example", "password": password}
    return await tenant.world.http.post("/api/auth/login", json=body)


async def test_a_right_password_is_told_where_to_go_and_a_wrong_one_nothing(
    browser: Browser, issuer: Issuer, acme: TenantHandle, globex: TenantHandle
) -> None:
    for tenant in (acme, globex):
        await tenant.add_user("ann", "admin")
    before = await acme.get("/api/users", params={"search": "ann@"})
    connection = await enforce(issuer, acme)
    refused = await log_in(acme, "ann")
    assert problem_of(refused) == REQUIRED
    assert (refused.json()["connectionId"], refused.json()["connectionName"]) == (connection["id"], "Directory")
    wrong, nobody = await log_in(acme, "ann", "wrong password"), await log_in(acme, "nobody", "wrong password")
    assert problem_of(wrong) == problem_of(nobody) == (401, "/problems/not-authenticated")
    assert wrong.json()["detail"] == nobody.json()["detail"]
    # Nothing was written: it was no log-in.
    after = await acme.get("/api/users", params={"search": "ann@"})
    assert after.json()["items"] == before.json()["items"]
    # Where it leads, they get in.
    issuer.claims = {"email": f"ann@{acme.slug}.example", "email_verified": True}
    begun = await browser.http.get(f"{refused.json()['startPath']}&{urlencode({'codeChallenge': browser.challenge})}")
    told = await browser.come_back(acme, issuer.authorize(begun.headers["Location"]))
    assert (await whoever(await browser.sign_in(acme, told)))["email"] == f"ann@{acme.slug}.example"
    # And the other organization has people of that name who know nothing of it.
    assert (await log_in(globex, "ann")).status_code == 200


async def test_owners_and_people_of_other_domains_keep_their_passwords(
    issuer: Issuer, world: World, acme: TenantHandle
) -> None:
    await enforce(issuer, acme)
    await acme.add_user("second", "owner", "member")
    assert (await log_in(acme, "owner")).status_code == 200
    assert (await log_in(acme, "second")).status_code == 200
    made = await acme.post("/api/users", json={"email": "guest@elsewhere.example", "password": PASSWORD})
    assert made.status_code == 201
    await world.log_in(acme.slug, "guest@elsewhere.example")
    below = f"guest@sub.{acme.slug}.example"
    assert (await acme.post("/api/users", json={"email": below, "password": PASSWORD})).status_code == 201
    await world.log_in(acme.slug, below)


@pytest.mark.parametrize("change", [{"isEnforced": False}, {"isEnabled": False}, {"domains": []}], ids=str)
async def test_what_is_enforced_no_more_is_so_at_once(
    issuer: Issuer, acme: TenantHandle, change: dict[str, Any]
) -> None:
    await acme.add_user("ann", "member")
    connection = await enforce(issuer, acme)
    assert problem_of(await log_in(acme, "ann")) == REQUIRED
    assert (await acme.patch(f"/api/sso/connections/{connection['id']}", json=change)).status_code == 200
    assert (await log_in(acme, "ann")).status_code == 200


async def test_a_domain_beyond_ascii_is_found_however_it_is_spelt(issuer: Issuer, acme: TenantHandle) -> None:
    made = await acme.post("/api/users", json={"email": "ann@bücher.example", "password": PASSWORD})
    assert made.status_code == 201
    await enforce(issuer, acme, domains=["XN--bcher-kva.example"])
    for spelling in ("ann@bücher.example", "ANN@BÜCHER.example", "ann@xn--bcher-kva.example"):
        body = {"tenant": acme.slug, "email": spelling, "password": PASSWORD}
        assert problem_of(await acme.world.http.post("/api/auth/login", json=body)) == REQUIRED


async def test_no_password_is_reset_but_an_owners_and_the_answer_is_the_same(
    issuer: Issuer, world: World, acme: TenantHandle, server: MailServer
) -> None:
    await acme.add_user("ann", "member")
    await enforce(issuer, acme)
    await post(acme, server)
    answers = []
    for name in ("ann", "nobody", "owner"):
        body = {"tenant": acme.slug, "email": f"{name}@{acme.slug}.example"}
        answers.append(await world.http.post("/api/auth/password-reset", json=body))
    assert {problem_of(answer) for answer in answers} == {REQUIRED}
    of_their_own = ("requestId", "traceId")
    assert len({str({**answer.json(), **dict.fromkeys(of_their_own)}) for answer in answers}) == 1
    [mail] = await post(acme, server)
    assert mail.message["To"] == acme.owner_email
    reset = {"token": mail.token, "password": "another good password"}
    assert (await world.http.post("/api/auth/password-reset/confirm", json=reset)).status_code == 204
    assert (await log_in(acme, "owner", "another good password")).status_code == 200


async def test_a_link_that_was_mailed_before_sets_no_password_any_more(
    issuer: Issuer, world: World, acme: TenantHandle, server: MailServer
) -> None:
    await acme.add_user("ann", "member")
    body = {"tenant": acme.slug, "email": f"ann@{acme.slug}.example"}
    assert (await world.http.post("/api/auth/password-reset", json=body)).status_code == 202
    [mail] = await post(acme, server)
    connection = await enforce(issuer, acme)
    reset = {"token": mail.token, "password": "another good password"}
    assert problem_of(await world.http.post("/api/auth/password-reset/confirm", json=reset)) == REQUIRED
    # Nothing was used up by it.
    await acme.patch(f"/api/sso/connections/{connection['id']}", json={"isEnforced": False})
    assert (await world.http.post("/api/auth/password-reset/confirm", json=reset)).status_code == 204


async def test_who_is_invited_comes_by_the_provider_and_not_by_a_password(
    browser: Browser, issuer: Issuer, world: World, acme: TenantHandle, server: MailServer
) -> None:
    await enforce(issuer, acme)
    invited = await acme.post("/api/invitations", json={"email": f"ann@{acme.slug}.example"})
    assert invited.status_code == 201
    [mail] = await post(acme, server)
    accept = {"token": mail.token, "password": PASSWORD}
    refused = await world.http.post("/api/auth/invitations/accept", json=accept)
    assert problem_of(refused) == REQUIRED
    issuer.claims = {"email": f"ann@{acme.slug}.example", "email_verified": True}
    told = await browser.by(issuer, acme, connectionId=refused.json()["connectionId"])
    assert (await whoever(await browser.sign_in(acme, told)))["id"] == invited.json()["userId"]
    late = await world.http.post("/api/auth/invitations/accept", json=accept)
    assert problem_of(late) == (400, "/problems/invitation-invalid")


async def test_who_is_invited_into_a_team_makes_no_account_with_a_password(
    issuer: Issuer, world: World, acme: TenantHandle
) -> None:
    await enforce(issuer, acme)
    team = await acme.add_team()
    email = f"bob@{acme.slug}.example"
    made = await acme.post(f"/api/teams/{team['id']}/invitations", json={"email": email})
    assert made.status_code == 201
    body = {"token": made.json()["token"], "password": PASSWORD}
    assert problem_of(await world.http.post("/api/auth/team-invitations/accept", json=body)) == REQUIRED
    assert (await acme.get("/api/users", params={"search": "bob@"})).json()["total"] == 0
