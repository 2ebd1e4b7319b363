"""Operators come into an organization, and what is written down of it on both sides is one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.domain.visitors import consent, hire, let_in, trail_of
from tests.mail.support import mails_of, post, waiting
from tests.mailserver import MailServer, open_mail_server
from tests.world import Caller, TenantHandle, World


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def _open(tenant: TenantHandle, operator: Caller, **body: Any) -> Any:
    return await operator.post(f"/platform/tenants/{tenant.slug}/access", json={"reason": "The site is down", **body})


async def _audit(world: World, tenant: TenantHandle, action: str) -> list[dict[str, Any]]:
    query = {"tenantId": str(tenant.tenant_id), "action": action}
    return (await world.operator.get("/platform/audit", params=query)).json()["items"]  # type: ignore[no-any-return]


async def test_breaking_the_glass_tells_every_owner_at_once(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    ann = await acme.add_user("ann", "owner")
    await acme.add_user("bob", "admin")
    await post(acme, server)
    operator, _ = await hire(world, "owner", "Olga of Operations")
    # All of it is written down with the answer: nothing has to happen before the mails are sent.
    visitor = await let_in(acme, operator, breakGlass=True, reason="The site is down")
    assert len(await waiting(acme)) == 2
    assert (await visitor.get("/api/teams")).status_code == 200
    mails = await post(acme, server)
    assert sorted(mail.recipients[0] for mail in mails) == sorted([acme.owner_email, f"ann@{acme.slug}.example"])
    for part in ("plain", "html"):
        words = mails_of(mails, "ann")[0].part(part)
        assert "Olga of Operations" in words
        assert "The site is down" in words
    for owner in (acme, ann):
        told = [row["kind"] for row in (await owner.get("/api/notifications")).json()["items"]]
        assert "operator_access.glass_broken" in told
    assert not await waiting(globex)
    [broken] = await trail_of(acme, name="operator_access.glass_broken")
    assert (broken["actor"], broken["subject"]) == (f"operator:{operator.id}", str(visitor.access_id))
    [entry] = await _audit(world, acme, "access.break_glass")
    assert (entry["actor"], entry["target"], entry["reason"]) == (
        f"operator:{operator.id}",
        str(visitor.access_id),
        "The site is down",
    )
    # An owner puts an end to it.
    [session] = (await ann.get("/api/operator-access/sessions")).json()["items"]
    assert session["isBreakGlass"]
    assert (await ann.delete(f"/api/operator-access/sessions/{session['id']}")).status_code == 204
    assert (await visitor.get("/api/teams")).status_code == 401


@pytest.mark.parametrize("role", ["support", "operator"])
async def test_only_the_platforms_owners_break_the_glass(world: World, acme: TenantHandle, role: str) -> None:
    operator, _ = await hire(world, role)
    await consent(acme)
    answer = await _open(acme, operator, breakGlass=True)
    assert (answer.status_code, answer.json()["permission"]) == (403, "access:break-glass")
    assert (await _open(acme, operator)).status_code == 201


async def test_an_auditor_comes_in_nowhere_and_sees_who_did(world: World, acme: TenantHandle) -> None:
    auditor, _ = await hire(world, "auditor")
    support, _ = await hire(world)
    await consent(acme)
    visitor = await let_in(acme, support)
    assert (await _open(acme, auditor)).status_code == 403
    [row] = (await auditor.get(f"/platform/tenants/{acme.slug}/access")).json()["items"]
    assert (row["id"], row["operatorId"], row["isOpen"]) == (str(visitor.access_id), str(support.id), True)


async def test_if_the_mail_cannot_be_written_down_nobody_comes_in(
    world: World, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, _ = await hire(world, "owner")

    async def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("tenantry.domain.operator_access.door.GLASS_BROKEN_MAIL.send", fail)
    assert (await _open(acme, operator, breakGlass=True)).status_code >= 500
    assert await _audit(world, acme, "access.break_glass") == []
    assert (await acme.get("/api/operator-access/sessions")).json()["total"] == 0
    assert (await operator.get(f"/platform/tenants/{acme.slug}/access")).json()["total"] == 0


async def test_nobody_comes_in_by_a_grant_that_is_revoked_at_that_moment(world: World, acme: TenantHandle) -> None:
    """Whoever is first: after both, nobody is in."""
    operator, _ = await hire(world)
    for _ in range(5):
        granted = await consent(acme)
        opened, revoked = await asyncio.gather(
            _open(acme, operator), acme.delete(f"/api/operator-access/grants/{granted['id']}")
        )
        assert revoked.status_code == 204
        if opened.status_code == 201:
            visitor = Caller(world.http, opened.json()["accessToken"])
            assert (await visitor.get("/api/teams")).status_code == 401
        else:
            assert opened.status_code == 403, opened.text


async def test_it_ends_on_both_sides(world: World, acme: TenantHandle) -> None:
    operator, _ = await hire(world)
    await consent(acme)
    visitor = await let_in(acme, operator)
    path = f"/platform/tenants/{acme.slug}/access/{visitor.access_id}"
    for _ in range(2):
        assert (await operator.delete(path)).status_code == 204
    assert len(await _audit(world, acme, "access.close")) == 1
    assert len(await trail_of(acme, name="operator_access.closed")) == 1
    [row] = (await acme.get("/api/operator-access/sessions")).json()["items"]
    assert not row["isOpen"]


async def test_what_is_open_in_one_tenant_is_not_closed_by_the_name_of_another(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    operator, _ = await hire(world)
    await consent(acme)
    visitor = await let_in(acme, operator)
    answer = await operator.delete(f"/platform/tenants/{globex.slug}/access/{visitor.access_id}")
    assert answer.status_code == 404
    assert (await visitor.get("/api/teams")).status_code == 200


async def test_into_an_organization_that_is_not_served_nobody_comes(world: World, acme: TenantHandle) -> None:
    operator, _ = await hire(world)
    await consent(acme)
    assert (await world.operator.post(f"/platform/tenants/{acme.slug}/suspend", json={})).status_code == 200
    answer = await _open(acme, operator)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/tenant-not-served")
    assert answer.json()["tenantStatus"] == "suspended"


@pytest.mark.parametrize(("break_glass", "most"), [(False, 30), (True, 15)])
async def test_nobody_stays_longer_than_the_deployment_says(
    world: World, acme: TenantHandle, break_glass: bool, most: int
) -> None:
    operator, _ = await hire(world, "owner")
    await consent(acme)
    opened = await _open(acme, operator, breakGlass=break_glass)
    assert opened.json()["expiresIn"] in range(most * 60 - 5, most * 60 + 1)
    answer = await _open(acme, operator, breakGlass=break_glass, minutes=most + 1)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "minutes")


async def test_owners_are_asked_by_mail_and_in_the_app(world: World, acme: TenantHandle, server: MailServer) -> None:
    operator, email = await hire(world)
    await post(acme, server)
    asked = await operator.post(
        f"/platform/tenants/{acme.slug}/access/requests", json={"reason": "Ticket 12", "hours": 3}
    )
    assert asked.status_code == 201, asked.text
    [mail] = await post(acme, server)
    assert mail.recipients == (acme.owner_email,)
    for part in ("plain", "html"):
        words = mail.part(part)
        assert "Sue of Support" in words
        assert "Ticket 12" in words
        assert email not in words
    [told] = [
        row
        for row in (await acme.get("/api/notifications")).json()["items"]
        if row["kind"] == "operator_access.requested"
    ]
    assert told["subject"] == asked.json()["id"]
