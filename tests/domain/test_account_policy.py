"""What an organization asks of accounts: said by whoever may, to no more than they may, and kept at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from tenantry.domain.identity.users.models import User
from tests.mail.support import mails_of, post
from tests.mailserver import MailServer, open_mail_server
from tests.world import PASSWORD, Caller, TenantHandle, World

POLICY = "/api/organization/account-policy"
UNVERIFIED = (403, "/problems/email-unverified")


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def verify(tenant: TenantHandle, email: str) -> None:
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await transaction.session.execute(update(User).where(User.email == email).values(is_verified=True))


async def log_in(world: World, slug: str, email: str, password: str = PASSWORD) -> httpx.Response:
    return await world.http.post("/api/auth/login", json={"tenant": slug, "email": email, "password": password})


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


def fields_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    return [error["field"] for error in answer.json()["errors"]]


async def role_id(tenant: TenantHandle, slug: str) -> str:
    roles = (await tenant.get("/api/roles", params={"pageSize": 200})).json()["items"]
    return next(str(role["id"]) for role in roles if role["slug"] == slug)


async def test_until_somebody_says_otherwise_nobody_signs_up_and_everybody_is_let_in(acme: TenantHandle) -> None:
    answer = await acme.get(POLICY)
    assert answer.json() == {"signUp": "off", "domains": [], "role": None, "verifiedOnly": False}


async def test_what_was_said_is_kept_and_told_and_is_one_organizations_alone(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    member = await role_id(acme, "member")
    wanted = {"signUp": "domains", "domains": ["B.example", "a.example", "b.EXAMPLE"], "roleId": member}
    answer = await acme.patch(POLICY, json=wanted)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["signUp"], said["domains"], said["role"]["slug"]) == ("domains", ["a.example", "b.example"], "member")
    assert (await acme.get(POLICY)).json() == said
    assert (await globex.get(POLICY)).json()["signUp"] == "off"
    again = await acme.patch(POLICY, json={"signUp": "domains"})
    assert again.json() == said
    [event] = [
        each for each in (await acme.get("/api/audit")).json()["items"] if each["name"] == "account_policy.changed"
    ]
    assert set(event["payload"]["fields"]) == {"sign_up", "domains", "role_id"}
    assert "example" not in str(event["payload"])


@pytest.mark.parametrize(
    "domain",
    [
        *("gmail.com", "GMAIL.com", "outlook.com", "proton.me"),
        *("", "example", "*.example.com", "a@b.example", "b.example/x", "[127.0.0.1]"),
    ],
)
async def test_a_domain_that_is_none_or_everybodys_is_refused(acme: TenantHandle, domain: str) -> None:
    refused = await acme.patch(POLICY, json={"signUp": "domains", "domains": ["fine.example", domain]})
    assert fields_of(refused)[0].startswith("domains")
    assert (await acme.get(POLICY)).json()["domains"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"signUp": "domains"}, "domains"),
        ({"signUp": "everybody"}, "signUp"),
        ({"roleId": "00000000-0000-0000-0000-000000000000"}, "roleId"),
        ({"domains": [f"d{number}.example" for number in range(51)]}, "domains"),
        ({"verifiedOnly": None}, "verifiedOnly"),
        ({"everybody": True}, "everybody"),
    ],
)
async def test_what_cannot_be_is_told_why(acme: TenantHandle, body: dict[str, Any], field: str) -> None:
    assert fields_of(await acme.patch(POLICY, json=body)) == [field]


@pytest.mark.parametrize("slug", ["owner", "admin"])
async def test_newcomers_get_no_role_that_permits_more_than_a_member_may(acme: TenantHandle, slug: str) -> None:
    assert fields_of(await acme.patch(POLICY, json={"signUp": "open", "roleId": await role_id(acme, slug)})) == [
        "roleId"
    ]


async def test_nobody_gives_newcomers_what_they_may_not_do_themselves(acme: TenantHandle) -> None:
    made = await acme.post("/api/roles", json={"name": "Doorkeeper", "permissions": ["account_policy:manage"]})
    keeper = await acme.add_user("keeper", made.json()["slug"])
    refused = await keeper.patch(POLICY, json={"signUp": "open", "roleId": await role_id(acme, "member")})
    assert problem_of(refused) == (403, "/problems/beyond-own-permissions")
    assert (await acme.get(POLICY)).json()["signUp"] == "off"
    # That somebody else has chosen a role does not let them open the door with it either.
    assert (await acme.patch(POLICY, json={"roleId": await role_id(acme, "member")})).status_code == 200
    assert (await keeper.patch(POLICY, json={"signUp": "open"})).status_code == 403
    assert (await keeper.patch(POLICY, json={"domains": ["people.example"]})).status_code == 200


async def test_who_is_not_confirmed_is_let_in_by_nothing_once_the_organization_asks_for_it(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    bob = await acme.add_user("bob", "member")
    cid = await acme.add_user("cid", "member")
    email, confirmed = f"bob@{acme.slug}.example", f"cid@{acme.slug}.example"
    await verify(acme, acme.owner_email)
    await verify(acme, confirmed)
    same = await globex.add_user("bob", "member")
    assert (await acme.patch(POLICY, json={"verifiedOnly": True})).status_code == 200
    # At once, and for good.
    assert (await bob.get("/api/users/me")).status_code == 401
    refreshed = await world.http.post("/api/auth/refresh", json={"refreshToken": bob.refresh_token})
    assert refreshed.status_code == 401
    assert problem_of(await log_in(world, acme.slug, email)) == UNVERIFIED
    # Of which only those hear who know the password.
    assert (await log_in(world, acme.slug, email, "not the password")).status_code == 401
    for caller in (acme, cid, same):
        assert (await caller.get("/api/users/me")).status_code == 200
    # The way in.
    asked = await world.http.post("/api/auth/verify-email/request", json={"tenant": acme.slug, "email": email})
    assert asked.status_code == 202
    [mail] = mails_of(await post(acme, server), "bob")
    assert (await world.http.post("/api/auth/verify-email", json={"token": mail.token})).status_code == 204
    assert (await log_in(world, acme.slug, email)).status_code == 200


async def test_who_joins_by_a_shown_credential_waits_outside_with_an_account(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    await verify(acme, acme.owner_email)
    assert (await acme.patch(POLICY, json={"verifiedOnly": True})).status_code == 200
    team = await acme.add_team()
    shown = await acme.post(f"/api/teams/{team['id']}/invitations", json={"email": "dan@people.example"})
    body = {"token": shown.json()["token"], "password": PASSWORD}
    joined = await world.http.post("/api/auth/team-invitations/accept", json=body)
    assert problem_of(joined) == UNVERIFIED
    [mail] = mails_of(await post(acme, server), "dan")
    assert (await world.http.post("/api/auth/verify-email", json={"token": mail.token})).status_code == 204
    dan = await world.log_in(acme.slug, "dan@people.example")
    assert [each["id"] for each in (await dan.get("/api/users/me")).json()["teams"]] == [team["id"]]


async def test_who_comes_by_mail_is_let_in(world: World, acme: TenantHandle, server: MailServer) -> None:
    await verify(acme, acme.owner_email)
    assert (await acme.patch(POLICY, json={"verifiedOnly": True, "signUp": "open"})).status_code == 200
    await acme.post("/api/invitations", json={"email": "eve@people.example"})
    await world.http.post("/api/auth/sign-up", json={"tenant": acme.slug, "email": "fay@people.example"})
    tokens = {mail.recipients[0][:3]: mail.token for mail in await post(acme, server)}
    for name, path in (("eve", "invitations"), ("fay", "sign-up")):
        answer = await world.http.post(f"/api/auth/{path}/accept", json={"token": tokens[name], "password": PASSWORD})
        assert answer.status_code == 200, answer.text


async def test_nobody_shuts_themselves_out(acme: TenantHandle) -> None:
    refused = await acme.patch(POLICY, json={"verifiedOnly": True})
    assert problem_of(refused) == (409, "/problems/own-email-unverified")
    assert (await acme.get(POLICY)).json()["verifiedOnly"] is False
    assert (await acme.get("/api/users/me")).status_code == 200


async def test_a_deployment_without_mail_promises_nothing_that_needs_it(world: World, acme: TenantHandle) -> None:
    settings = world.app.state.settings
    world.app.state.settings = settings.model_copy(update={"mail_url": None})
    try:
        for body in ({"signUp": "open"}, {"verifiedOnly": True}):
            assert problem_of(await acme.patch(POLICY, json=body)) == (503, "/problems/mail-not-configured")
        assert (await acme.patch(POLICY, json={"signUp": "off", "verifiedOnly": False})).status_code == 200
    finally:
        world.app.state.settings = settings


async def test_a_policy_is_changed_by_people_who_may(acme: TenantHandle) -> None:
    for role in ("member", "viewer"):
        caller: Caller = await acme.add_user(role, role)
        assert (await caller.get(POLICY)).status_code == 403
        assert (await caller.patch(POLICY, json={"signUp": "open"})).status_code == 403
