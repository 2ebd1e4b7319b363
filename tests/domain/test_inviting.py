"""Inviting people by mail."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.mail.support import post, waiting
from tests.mailserver import MailServer, open_mail_server
from tests.world import PASSWORD, Caller, TenantHandle, World

ANN = "ann@people.example"


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def invite(caller: Caller, email: str = ANN, **fields: Any) -> dict[str, Any]:
    made = await caller.post("/api/invitations", json={"email": email, **fields})
    assert made.status_code == 201, made.text
    return made.json()  # type: ignore[no-any-return]


async def accept(world: World, token: str) -> httpx.Response:
    return await world.http.post("/api/auth/invitations/accept", json={"token": token, "password": PASSWORD})


async def listed(caller: Caller, **params: Any) -> list[dict[str, Any]]:
    answer = await caller.get("/api/invitations", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]  # type: ignore[no-any-return]


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


async def test_whoever_is_invited_gets_a_mail_and_comes_in_with_the_roles_they_were_given(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    made = await invite(acme, name="Ann", roles=["viewer"])
    assert (made["email"], made["name"], made["status"]) == (ANN, "Ann", "pending")
    [mail] = await post(acme, server)
    assert mail.recipients == (ANN,)
    assert "within 6 days" in mail.part("plain") or "within 7 days" in mail.part("plain")
    assert mail.token not in str(made)
    assert (await accept(world, mail.token)).status_code == 200
    ann = await world.log_in(acme.slug, ANN)
    me = (await ann.get("/api/users/me")).json()
    assert ([role["slug"] for role in me["roles"]], me["isVerified"]) == (["viewer"], True)
    [row] = await listed(acme)
    assert (row["id"], row["status"]) == (made["id"], "accepted")
    assert row["acceptedAt"] is not None


async def test_sent_again_the_new_link_is_good_and_the_old_one_is_not(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    made = await invite(acme)
    [first] = await post(acme, server)
    again = await acme.post(f"/api/invitations/{made['id']}/resend")
    assert again.status_code == 202
    assert again.json()["expiresAt"] > made["expiresAt"]
    [second] = await post(acme, server)
    assert second.message["Message-ID"] != first.message["Message-ID"]
    assert problem(await accept(world, first.token)) == (400, "/problems/invitation-invalid")
    assert (await accept(world, second.token)).status_code == 200


async def test_a_revoked_invitation_is_worthless_until_it_is_sent_again(
    world: World, acme: TenantHandle, server: MailServer
) -> None:
    made = await invite(acme)
    [mail] = await post(acme, server)
    for _ in range(2):
        assert (await acme.delete(f"/api/invitations/{made['id']}")).status_code == 204
    assert (await accept(world, mail.token)).status_code == 400
    assert [row["status"] for row in await listed(acme)] == ["expired"]
    assert (await acme.post(f"/api/invitations/{made['id']}/resend")).status_code == 202
    [mail] = await post(acme, server)
    assert (await accept(world, mail.token)).status_code == 200


async def test_what_was_revoked_before_it_was_sent_is_not_sent(acme: TenantHandle, server: MailServer) -> None:
    made = await invite(acme)
    await acme.delete(f"/api/invitations/{made['id']}")
    assert await post(acme, server) == []
    assert await waiting(acme) == []


async def test_what_was_accepted_is_closed(world: World, acme: TenantHandle, server: MailServer) -> None:
    made = await invite(acme)
    [mail] = await post(acme, server)
    await accept(world, mail.token)
    closed = (409, "/problems/invitation-closed")
    assert problem(await acme.post(f"/api/invitations/{made['id']}/resend")) == closed
    assert problem(await acme.delete(f"/api/invitations/{made['id']}")) == closed


async def test_somebody_with_an_account_is_not_invited(acme: TenantHandle) -> None:
    await invite(acme)
    for email in (ANN, ANN.upper(), acme.owner_email):
        refused = await acme.post("/api/invitations", json={"email": email})
        assert refused.status_code == 409, refused.text
    assert len(await waiting(acme)) == 1


async def test_nobody_grants_by_an_invitation_what_they_may_not(acme: TenantHandle) -> None:
    admin = await acme.add_user("bob", "admin")
    refused = await admin.post("/api/invitations", json={"email": ANN, "roles": ["owner"]})
    assert refused.status_code == 403
    unknown = await admin.post("/api/invitations", json={"email": ANN, "roles": ["nonsense"]})
    assert unknown.status_code == 422
    member = await acme.add_user("cid", "member")
    assert (await member.post("/api/invitations", json={"email": ANN})).status_code == 403
    assert await waiting(acme) == []


async def test_one_mailbox_is_not_filled_by_inviting_again_and_again(acme: TenantHandle, globex: TenantHandle) -> None:
    limit = acme.world.settings.invitation_mails
    made = await invite(acme)
    answers = [await acme.post(f"/api/invitations/{made['id']}/resend") for _ in range(limit)]
    assert [answer.status_code for answer in answers] == [202] * (limit - 1) + [429]
    await invite(acme, "bob@people.example")
    await invite(globex)


async def test_invitations_are_listed_the_newest_first_and_found_by_address(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    for name in ("ann", "bob", "cid"):
        await invite(acme, f"{name}@people.example", name=name.title())
    await invite(globex, "dan@people.example")
    assert [row["name"] for row in await listed(acme)] == ["Cid", "Bob", "Ann"]
    assert [row["name"] for row in await listed(acme, search="BOB@")] == ["Bob"]
    assert [row["name"] for row in await listed(acme, search="cid")] == ["Cid"]
    assert [row["name"] for row in await listed(acme, sortOrder="asc", pageSize=1, page=2)] == ["Bob"]


async def test_what_was_done_is_in_the_trail_without_anybodys_address(acme: TenantHandle, server: MailServer) -> None:
    made = await invite(acme)
    await acme.post(f"/api/invitations/{made['id']}/resend")
    await acme.delete(f"/api/invitations/{made['id']}")
    answer = await acme.get("/api/audit", params={"pageSize": 200})
    rows = [row for row in answer.json()["items"] if row["name"].startswith("invitation.")]
    assert [row["name"] for row in rows] == ["invitation.revoked", "invitation.resent", "invitation.created"]
    assert {row["actor"] for row in rows} == {f"user:{acme.id}"}
    assert all(row["payload"] == {"user_id": made["userId"]} for row in rows)
    assert "people.example" not in answer.text


async def test_an_invitation_is_good_for_as_long_as_it_says(acme: TenantHandle) -> None:
    made = await invite(acme)
    expires = datetime.datetime.fromisoformat(made["expiresAt"])
    left = (expires - datetime.datetime.now(datetime.UTC)).total_seconds()
    assert abs(left - acme.world.settings.invitation_ttl) < 60
