from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.world import PASSWORD, TenantHandle, World

INVALID = "/problems/invitation-invalid"


async def _invite(world: World, slug: str) -> dict[str, Any]:
    made = await world.operator.post(
        "/platform/tenants",
        json={"slug": slug, "name": "Invited", "plan": "free", "ownerEmail": f"ann@{slug}.example"},
    )
    assert made.status_code == 201, made.text
    return made.json()  # type: ignore[no-any-return]


async def _accept(world: World, token: str, password: str = PASSWORD, host: str = "localhost") -> httpx.Response:
    return await world.http.post(
        "/api/auth/invitations/accept",
        json={"token": token, "password": password, "name": "Ann"},
        headers={"Host": host},
    )


async def test_an_invitation_sets_the_password_and_signs_in(world: World) -> None:
    invited = await _invite(world, "inv-signs-in")
    answer = await _accept(world, invited["ownerInvitation"])
    assert answer.status_code == 200
    me = await world.http.get("/api/users/me", headers={"Authorization": f"Bearer {answer.json()['accessToken']}"})
    # The operator has seen it: who comes with it need not be who reads the mail.
    assert (me.json()["name"], me.json()["isVerified"]) == ("Ann", False)
    assert [role["slug"] for role in me.json()["roles"]] == ["owner"]
    await world.log_in("inv-signs-in", "ann@inv-signs-in.example")


async def test_an_invitation_is_good_for_one_use(world: World) -> None:
    invited = await _invite(world, "inv-single")
    assert (await _accept(world, invited["ownerInvitation"])).status_code == 200
    again = await _accept(world, invited["ownerInvitation"], "another good password")
    assert (again.status_code, again.json()["type"]) == (400, INVALID)
    await world.log_in("inv-single", "ann@inv-single.example", PASSWORD)


async def test_of_two_who_accept_at_once_one_gets_in(world: World) -> None:
    invited = await _invite(world, "inv-race")
    answers = await asyncio.gather(*(_accept(world, invited["ownerInvitation"]) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 400]


async def test_an_expired_invitation_is_like_one_that_never_was(world: World, acme: TenantHandle) -> None:
    invited = await _invite(world, "inv-expired")
    tenant = await world.app.state.registry.find_slug("inv-expired")
    async with world.database.transaction(tenant.write_scope) as transaction:
        await transaction.connection.fetch("UPDATE invitation SET expires_at = now() - interval '1 second'")
    expired = await _accept(world, invited["ownerInvitation"])
    never = await _accept(world, f"inv_{acme.tenant_id.hex}_{'0' * 64}")
    nowhere = await _accept(world, f"inv_{'0' * 32}_{'0' * 64}")
    garbage = await _accept(world, "garbage")
    assert {(answer.status_code, answer.json()["type"]) for answer in (expired, never, nowhere, garbage)} == {
        (400, INVALID)
    }


async def test_an_invitation_is_refused_on_another_tenants_host(world: World, acme: TenantHandle) -> None:
    invited = await _invite(world, "inv-host")
    refused = await _accept(world, invited["ownerInvitation"], host=f"{acme.slug}.example.com")
    assert (refused.status_code, refused.json()["type"]) == (400, INVALID)
    assert (await _accept(world, invited["ownerInvitation"], host="inv-host.example.com")).status_code == 200


async def test_a_refused_password_leaves_the_invitation_good(world: World) -> None:
    invited = await _invite(world, "inv-weak")
    for weak in ("short", "ann@inv-weak.example"):
        refused = await _accept(world, invited["ownerInvitation"], weak)
        assert refused.status_code == 422
        assert [error["field"] for error in refused.json()["errors"]] == ["password"]
    assert (await _accept(world, invited["ownerInvitation"])).status_code == 200


async def test_an_invitation_under_another_kind_or_tenant_is_worth_nothing(world: World, acme: TenantHandle) -> None:
    invited = await _invite(world, "inv-forged")
    token: str = invited["ownerInvitation"]
    for forged in (token.replace("inv_", "rt_", 1), acme.refresh_token.replace("rt_", "inv_", 1)):
        assert (await _accept(world, forged)).status_code == 400
    refresh = await world.http.post("/api/auth/refresh", json={"refreshToken": token})
    assert refresh.status_code == 401


@pytest.mark.parametrize("status", ["suspended"])
async def test_a_suspended_organization_accepts_nobody(world: World, status: str) -> None:
    invited = await _invite(world, f"inv-{status}")
    await world.operator.post(f"/platform/tenants/inv-{status}/suspend")
    await world.app.state.registry.refresh()
    assert (await _accept(world, invited["ownerInvitation"])).status_code == 403


async def test_an_invitation_is_stored_as_a_digest(world: World) -> None:
    invited = await _invite(world, "inv-digest")
    secret = invited["ownerInvitation"].rpartition("_")[2]
    tenant = await world.app.state.registry.find_slug("inv-digest")
    async with world.database.transaction(tenant.read_scope) as transaction:
        rows = await transaction.connection.fetch("SELECT * FROM invitation")
    assert len(rows) == 1
    assert not any(bytes.fromhex(secret) == value for value in rows[0].values())
    shown = await world.operator.get("/platform/tenants/inv-digest")
    assert "ownerInvitation" not in shown.json()
