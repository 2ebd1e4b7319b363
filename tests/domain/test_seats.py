"""Whichever way somebody comes in, they take a seat; and without one they do not come in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.domain.scim.support import USER, connect, error_of
from tests.domain.sso.issuer import open_issuer
from tests.domain.sso.support import Browser, connect_to
from tests.domain.test_sign_up import ANN, accept, allow, token_of
from tests.entitled import entitle, is_over, use_of
from tests.mail.support import post
from tests.mailserver import MailServer, open_mail_server
from tests.world import PASSWORD, TenantHandle, World


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def _people(tenant: TenantHandle) -> set[str]:
    items = (await tenant.get("/api/users", params={"pageSize": 200})).json()["items"]
    return {each["email"] for each in items if each["isActive"]}


async def test_an_invited_person_has_a_seat_before_they_come(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    await entitle(acme, quotas={"seats": 2})
    invited = await acme.post("/api/invitations", json={"email": ANN, "roles": ["member"]})
    assert invited.status_code == 201, invited.text
    assert await use_of(acme, "seats") == (2, 2)
    another = await acme.post("/api/invitations", json={"email": "bob@people.example", "roles": ["member"]})
    assert is_over(another, "seats", used=2, allowed=2)
    # They were given it: it is not taken from them when they come.
    [mail] = await post(acme, server)
    accepted = await world.http.post("/api/auth/invitations/accept", json={"token": mail.token, "password": PASSWORD})
    assert accepted.status_code == 200, accepted.text


async def test_who_is_shut_out_frees_a_seat_and_needs_one_to_come_back(acme: TenantHandle) -> None:
    await entitle(acme, quotas={"seats": 2})
    ann = await acme.add_user("ann", "viewer")
    address = f"/api/users/{ann.id}"
    assert (await acme.patch(address, json={"isActive": False})).status_code == 200
    await acme.add_user("bob", "viewer")
    assert is_over(await acme.patch(address, json={"isActive": True}), "seats", used=2, allowed=2)
    assert f"ann@{acme.slug}.example" not in await _people(acme)
    # Who has a seat needs no other one.
    assert (await acme.patch(f"/api/users/{acme.id}", json={"isActive": True})).status_code == 200
    await entitle(acme, quotas={"seats": 3})
    assert (await acme.patch(address, json={"isActive": True})).status_code == 200


async def test_who_signs_up_without_a_seat_is_told_so_and_can_come_when_there_is_one(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    await allow(acme)
    token = await token_of(acme, server)
    await entitle(acme, quotas={"seats": 1})
    assert is_over(await accept(world, token), "seats", used=1, allowed=1)
    assert await _people(acme) == {acme.owner_email}
    await entitle(acme, quotas={"seats": 2})
    assert (await accept(world, token)).status_code == 200


async def test_who_is_invited_to_a_team_without_a_seat_can_come_when_there_is_one(
    world: World, acme: TenantHandle
) -> None:
    team = await acme.add_team()
    invited = await acme.post(f"/api/teams/{team['id']}/invitations", json={"email": ANN})
    assert invited.status_code == 201, invited.text
    await entitle(acme, quotas={"seats": 1})
    body = {"token": invited.json()["token"], "password": PASSWORD, "name": "Ann"}
    refused = await world.http.post("/api/auth/team-invitations/accept", json=body)
    assert is_over(refused, "seats", used=1, allowed=1)
    await entitle(acme, quotas={"seats": 2})
    assert (await world.http.post("/api/auth/team-invitations/accept", json=body)).status_code == 200


async def test_a_directory_is_told_in_its_own_form_that_there_is_no_seat(acme: TenantHandle) -> None:
    directory = await connect(acme)
    ann = await directory.user("ann")
    await entitle(acme, quotas={"seats": 2})
    body: dict[str, Any] = {"schemas": [USER], "userName": "bob@people.example", "active": True}
    refused = await directory.ask("POST", "/Users", body)
    assert error_of(refused) == (403, None)
    assert "allows 2 of seats" in refused.json()["detail"]
    off = {"op": "replace", "path": "active", "value": False}
    assert (await directory.patch(f"/Users/{ann['id']}", off)).is_success
    assert (await directory.ask("POST", "/Users", body)).status_code == 201
    assert error_of(await directory.patch(f"/Users/{ann['id']}", off | {"value": True})) == (403, None)


async def test_who_comes_by_a_provider_without_a_seat_is_sent_back_with_the_reason(
    world: World, acme: TenantHandle
) -> None:
    async with open_issuer() as issuer:
        browser = Browser(world)
        try:
            issuer.claims = {"email": ANN, "email_verified": True}
            await connect_to(issuer, acme, domains=["people.example"], provisionsUsers=True)
            await entitle(acme, quotas={"seats": 1})
            assert await browser.by(issuer, acme, email=ANN) == {"error": "sso-refused", "reason": "no-seat"}
            assert await _people(acme) == {acme.owner_email}
            await entitle(acme, quotas={"seats": 2})
            assert (await browser.by(issuer, acme, email=ANN)).keys() == {"code"}
            # Whose account it is needs no other one.
            assert (await browser.by(issuer, acme, email=ANN)).keys() == {"code"}
        finally:
            await browser.http.aclose()
