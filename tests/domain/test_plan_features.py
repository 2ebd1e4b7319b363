"""What a plan leaves out cannot be used; what was set up for it rests, and is there again with it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tenantry.features import ENTITLEMENTS
from tests.domain.scim.support import connect as connect_directory
from tests.domain.scim.support import error_of
from tests.domain.sso.issuer import Issuer, open_issuer
from tests.domain.sso.support import Browser, connect_to
from tests.domain.webhooks.support import make_endpoint, send
from tests.entitled import entitle
from tests.receiver import Receiver, open_receiver
from tests.world import PASSWORD, TenantHandle, World

REFUSED: list[tuple[str, str, str, Any]] = [
    ("sso", "POST", "/api/sso/connections", {"name": "Directory", "issuer": "https://i.example", "clientId": "c"}),
    ("sso", "POST", f"/api/sso/connections/{uuid4()}/check", None),
    ("sso", "PATCH", f"/api/sso/connections/{uuid4()}", {"isEnabled": True}),
    ("webhooks", "POST", "/api/webhooks", {"url": "https://hooks.example.com/", "events": ["team.*"]}),
    ("webhooks", "PATCH", f"/api/webhooks/{uuid4()}", {"isEnabled": True}),
    ("webhooks", "POST", f"/api/webhooks/{uuid4()}/ping", None),
    ("webhooks", "POST", f"/api/webhooks/{uuid4()}/replay", {"since": "2026-11-23T09:00:00Z"}),
    ("webhooks", "POST", f"/api/webhooks/{uuid4()}/deliveries/{uuid4()}/replay", None),
    ("audit_export", "GET", "/api/audit/export", None),
]


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with open_issuer() as opened:
        yield opened


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    opened = Browser(world)
    yield opened
    await opened.http.aclose()


def problem_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    body = answer.json()
    return answer.status_code, body["type"], body.get("feature")


async def test_what_the_plan_leaves_out_is_refused_with_its_name_and_the_plans(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    await entitle(acme, features={"sso": False, "webhooks": False, "audit_export": False})
    for feature, method, path, body in REFUSED:
        arguments = {} if body is None else {"json": body}
        refused = await acme.request(method, path, **arguments)
        assert problem_of(refused) == (403, "/problems/feature-not-in-plan", feature), path
        assert refused.json()["plan"] == "free"
        assert (await globex.request(method, path, **arguments)).status_code != 403, path
    viewer = await acme.add_user("vera", "viewer")
    # Who may not anyway is told that, and nothing of plans.
    refused = await viewer.post("/api/webhooks", json={"url": "https://hooks.example.com/", "events": ["team.*"]})
    assert refused.json()["permission"] == "webhooks:manage"


async def test_every_guard_asks_for_a_switch_that_there_is(world: World) -> None:
    asked = {
        feature
        for route in world.app.routes
        for handler in getattr(route, "route_handlers", ())
        for guard in handler.resolve_guards()
        if (feature := getattr(guard, "feature", None)) is not None
    }
    assert asked == set(ENTITLEMENTS.switches)


async def test_nobody_signs_in_by_a_provider_that_the_plan_leaves_out_and_passwords_stay_refused(
    world: World, acme: TenantHandle, issuer: Issuer, browser: Browser
) -> None:
    domain = f"{acme.slug}.example"
    issuer.claims = {"email": f"ann@{domain}", "email_verified": True}
    await acme.add_user("bob", "member")
    connection = await connect_to(issuer, acme, domains=[domain], provisionsUsers=True, isEnforced=True)
    told = await browser.by(issuer, acme, email=f"ann@{domain}")
    underway = await browser.set_off(acme, email=f"ann@{domain}")

    await entitle(acme, features={"sso": False})
    # Whoever is on the way, at whichever step.
    assert problem_of(await browser.trade(told["code"])) == (403, "/problems/feature-not-in-plan", "sso")
    assert await browser.come_back(acme, issuer.authorize(underway)) == {
        "error": "sso-refused",
        "reason": "not-in-plan",
    }
    unknown = await browser.locate(acme, email="ann@nobody.example")
    located = await browser.locate(acme, email=f"ann@{domain}")
    assert located.status_code == unknown.status_code == 404
    assert located.json()["detail"] == unknown.json()["detail"]
    # Who was shut out at the provider does not get in by an old password for that.
    login = {"tenant": acme.slug, "email": f"bob@{domain}", "password": PASSWORD}
    refused = await world.http.post("/api/auth/login", json=login)
    assert problem_of(refused)[:2] == (403, "/problems/sso-required")

    # An owner sees it all, can lift the enforcement, and has it back as it was.
    address = f"/api/sso/connections/{connection['id']}"
    assert (await acme.get(address)).json()["isEnforced"]
    assert (await acme.patch(address, json={"isEnforced": False})).status_code == 200
    assert problem_of(await acme.patch(address, json={"name": "Another"}))[2] == "sso"
    await entitle(acme, features={})
    assert (await browser.by(issuer, acme, email=f"ann@{domain}")).keys() == {"code"}


async def test_a_directory_that_the_plan_leaves_out_is_refused_in_its_own_form_and_loses_nothing(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    directory, other = await connect_directory(acme), await connect_directory(globex)
    ann = await directory.user("ann")
    await entitle(acme, features={"scim": False})
    for method, path in (("GET", "/Users"), ("GET", "/ServiceProviderConfig"), ("DELETE", f"/Users/{ann['id']}")):
        refused = await directory.ask(method, path)
        assert error_of(refused) == (403, None)
        assert "'scim'" in refused.json()["detail"]
    await other.user("ann")
    await entitle(acme, features={"scim": True})
    assert (await directory.read(f"/Users/{ann['id']}"))["active"] is True


async def test_webhooks_wait_while_the_plan_leaves_them_out_and_are_sent_in_order_after_it(
    acme: TenantHandle, receiver: Receiver
) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    await entitle(acme, features={"webhooks": False})
    red = await acme.add_team("Red")
    await send(acme)
    assert receiver.received == []
    # What is there can be looked at, and taken away.
    assert [each["status"] for each in await endpoint.deliveries()] == ["pending"]
    await entitle(acme, features={"webhooks": True})
    blue = await acme.add_team("Blue")
    await send(acme)
    assert [json.loads(each.content)["data"]["subject"] for each in receiver.received] == [red["id"], blue["id"]]
    await entitle(acme, features={"webhooks": False})
    assert (await acme.delete(endpoint.path)).status_code == 204
