"""What comes back to the callback and to the trade: once, in time, to whom it was given, and of one organization."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from tenantry.domain.identity.sso import flow
from tenantry.domain.identity.sso.models import SsoLogin
from tests.databases import Template
from tests.domain.sso.issuer import Issuer
from tests.domain.sso.support import CALLBACK, Browser, connect_to, problem_of, query_of, whoever
from tests.platform.support import open_api
from tests.world import TenantHandle, World

STATE = (400, "/problems/sso-state-invalid")
CODE = (400, "/problems/sso-code-invalid")
NOTHING = (404, "/problems/sso-unavailable")


async def connected(issuer: Issuer, *tenants: TenantHandle, **fields: Any) -> str:
    """A connection of each organization's to the issuer; the last one's id."""
    issuer.claims = {"email": "ann@people.example", "email_verified": True}
    made = {}
    for tenant in tenants:
        made = await connect_to(issuer, tenant, domains=["people.example"], provisionsUsers=True, **fields)
    return str(made["id"])


async def test_a_state_is_good_once(browser: Browser, issuer: Issuer, acme: TenantHandle) -> None:
    await connected(issuer, acme)
    url = issuer.authorize(await browser.set_off(acme))
    cookies = dict(browser.http.cookies)
    assert (await browser.come_back(acme, url)).keys() == {"code"}
    # The cookie is gone; with it, it would be no better.
    assert dict(browser.http.cookies) == {}
    for sent in ({}, cookies):
        header = {"Cookie": "; ".join(f"{name}={value}" for name, value in sent.items())}
        assert problem_of(await browser.http.get(url, headers=header)) == STATE


async def test_of_two_who_come_back_with_one_state_at_once_one_gets_through(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    await connected(issuer, acme)
    url = issuer.authorize(await browser.set_off(acme))
    answers = await asyncio.gather(*(browser.http.get(url) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [303, 400]


async def test_a_state_is_worth_nothing_in_another_browser(
    world: World, browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    """Or somebody is sent to the address with a code of the sender's, and is signed in as them."""
    await connected(issuer, acme)
    url = issuer.authorize(await browser.set_off(acme))
    victim = Browser(world)
    assert problem_of(await victim.http.get(url)) == STATE
    # With a log-in of their own under way, too: that is another one's cookie.
    await victim.set_off(acme)
    assert problem_of(await victim.http.get(url)) == STATE
    [(name, value)] = [*victim.http.cookies.items()]
    [(wanted, _)] = [*browser.http.cookies.items()]
    assert problem_of(await victim.http.get(url, headers={"Cookie": f"{name}={value}; {wanted}={value}"})) == STATE
    # None of that has used it up.
    assert (await browser.come_back(acme, url)).keys() == {"code"}
    await victim.http.aclose()


async def test_the_cookie_is_for_the_server_alone_and_tells_nothing(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    await connected(issuer, acme)
    located = await browser.locate(acme)
    sent = await browser.http.get(located.json()["url"])
    asked, cookie = query_of(sent.headers["Location"]), sent.headers["Set-Cookie"]
    attributes = {part.strip().partition("=")[0].lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite", "max-age", "path"} <= attributes
    assert "SameSite=lax" in cookie
    for told in (asked["state"], asked["nonce"], asked["code_challenge"], browser.challenge):
        assert told not in cookie
    assert sent.headers["Cache-Control"] == "no-store"
    assert asked["redirect_uri"] == CALLBACK
    assert browser.challenge != asked["code_challenge"]


async def test_behind_tls_no_neighbour_can_set_the_cookie(
    database_addresses: Template, tmp_path: Path, issuer: Issuer, acme: TenantHandle, world: World
) -> None:
    settings = world.settings.model_copy(update={"api_url": "https://api.example.com"})
    await connected(issuer, acme)
    secure = flow.SingleSignOn(
        database=world.database,
        registry=world.app.state.registry,
        authenticator=world.app.state.authenticator,
        settings=settings,
        vault=world.app.state.vault,
        providers=world.app.state.sso_providers,
    )
    found = (await acme.get("/api/sso/connections")).json()["items"][0]
    departure = await secure.start(acme.slug, found["id"], "c" * 43)
    assert departure.cookie.startswith("__Host-")
    assert departure.is_secure
    assert query_of(departure.url)["redirect_uri"] == "https://api.example.com/api/auth/sso/callback"


async def test_a_log_in_that_takes_too_long_is_over(
    browser: Browser, issuer: Issuer, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connected(issuer, acme)
    with monkeypatch.context() as patched:
        patched.setattr(flow, "LOGIN_LIFETIME", -1)
        url = issuer.authorize(await browser.set_off(acme))
    assert problem_of(await browser.http.get(url)) == STATE


async def test_what_is_no_state_is_answered_alike(
    browser: Browser, issuer: Issuer, acme: TenantHandle, globex: TenantHandle
) -> None:
    await connected(issuer, acme, globex)
    state = query_of(await browser.set_off(acme))["state"]
    attempts = [
        "garbage",
        state.replace(acme.tenant_id.hex, globex.tenant_id.hex),
        state.replace(acme.tenant_id.hex, "0" * 32),
        state.replace("sst_", "ssc_"),
        f"sst_{acme.tenant_id.hex}_{'0' * 64}",
        acme.refresh_token,
    ]
    answers = [await browser.http.get(CALLBACK, params={"state": each, "code": "x"}) for each in attempts]
    assert {problem_of(answer) for answer in answers} == {STATE}
    assert len({answer.json()["detail"] for answer in answers}) == 1


async def test_a_state_and_a_cookie_of_one_organization_are_nothing_to_another(
    browser: Browser, issuer: Issuer, acme: TenantHandle, globex: TenantHandle
) -> None:
    await connected(issuer, acme, globex)
    url = issuer.authorize(await browser.set_off(acme))
    [(name, value)] = [*browser.http.cookies.items()]
    theirs = Browser(acme.world)
    their_url = issuer.authorize(await theirs.set_off(globex))
    [(their_name, _)] = [*theirs.http.cookies.items()]
    # Acme's sealed cookie under the name of globex's state does not open there.
    assert problem_of(await theirs.http.get(their_url, headers={"Cookie": f"{their_name}={value}"})) == STATE
    told = await browser.come_back(acme, url)
    as_theirs = told["code"].replace(acme.tenant_id.hex, globex.tenant_id.hex)
    assert problem_of(await browser.trade(as_theirs)) == CODE
    assert (await globex.get("/api/users")).json()["total"] == 1
    caller = await browser.sign_in(acme, told)
    assert (await whoever(caller))["email"] == "ann@people.example"
    await theirs.http.aclose()
    assert name


async def test_a_connection_of_one_organization_is_nothing_to_another(
    browser: Browser, issuer: Issuer, acme: TenantHandle, globex: TenantHandle
) -> None:
    connection_id = await connected(issuer, acme)
    assert problem_of(await browser.locate(globex, connectionId=connection_id)) == NOTHING
    url = (await browser.locate(acme)).json()["url"].replace(acme.slug, globex.slug)
    assert problem_of(await browser.http.get(url)) == NOTHING


async def test_a_code_is_good_once_for_the_page_that_began(
    browser: Browser, issuer: Issuer, acme: TenantHandle, globex: TenantHandle
) -> None:
    await connected(issuer, acme)
    code = (await browser.by(issuer, acme))["code"]
    stranger = Browser(acme.world)
    assert problem_of(await stranger.trade(code)) == CODE
    host = {"Host": f"{globex.slug}.example.com"}
    assert problem_of(await browser.trade(code, headers=host)) == CODE
    # Neither has used it up.
    answers = await asyncio.gather(*(browser.trade(code) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    assert problem_of(await browser.trade(code)) == CODE
    for none in (f"ssc_{acme.tenant_id.hex}_{'0' * 64}", f"ssc_{'0' * 32}_{'0' * 64}", acme.refresh_token, "garbage"):
        assert problem_of(await browser.trade(none)) == CODE
    await stranger.http.aclose()


async def test_a_code_that_nobody_trades_in_a_minute_is_over(
    browser: Browser, issuer: Issuer, world: World, acme: TenantHandle
) -> None:
    await connected(issuer, acme)
    code = (await browser.by(issuer, acme))["code"]
    async with world.database.transaction(acme.context.write_scope) as transaction:
        [row] = await transaction.session.scalars(select(SsoLogin))
        left = row.expires_at - datetime.datetime.now(datetime.UTC)
        assert datetime.timedelta(seconds=30) < left <= datetime.timedelta(seconds=60)
        await transaction.session.execute(update(SsoLogin).values(expires_at=row.created_at))
    assert problem_of(await browser.trade(code)) == CODE


async def test_nothing_that_lets_in_is_stored_in_the_clear(
    browser: Browser, issuer: Issuer, world: World, acme: TenantHandle
) -> None:
    await connected(issuer, acme)
    url = issuer.authorize(await browser.set_off(acme))
    async with world.database.transaction(acme.context.read_scope) as transaction:
        # Whoever sets off leaves nothing behind.
        assert (await transaction.session.scalars(select(SsoLogin))).all() == []
    told = await browser.come_back(acme, url)
    async with world.database.transaction(acme.context.read_scope) as transaction:
        rows = repr((await transaction.session.execute(select(SsoLogin.__table__))).all())
    for secret in (told["code"], query_of(url)["state"], query_of(url)["code"], browser.verifier):
        assert secret not in rows
        assert secret.rpartition("_")[2] not in rows


async def test_a_connection_that_was_changed_meanwhile_takes_nobody_in(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    path = f"/api/sso/connections/{await connected(issuer, acme)}"
    for change in ({"clientId": "another"}, {"clientId": issuer.client_id, "isEnabled": False}):
        url = issuer.authorize(await browser.set_off(acme))
        assert (await acme.patch(path, json=change)).status_code == 200
        assert problem_of(await browser.http.get(url)) == STATE
        back = {"clientId": issuer.client_id, "isEnabled": True}
        assert (await acme.patch(path, json=back)).status_code == 200
    url = issuer.authorize(await browser.set_off(acme))
    assert (await acme.delete(path)).status_code == 204
    assert problem_of(await browser.http.get(url)) == STATE


async def test_what_a_browser_is_sent_off_with_is_of_the_form_that_it_must_have(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    connection_id = await connected(issuer, acme)
    good = {"tenant": acme.slug, "connection": connection_id, "codeChallenge": browser.challenge}
    assert (await browser.http.get("/api/auth/sso/start", params=good)).status_code == 303
    for name, value in (
        ("codeChallenge", browser.challenge[:-1]),
        ("codeChallenge", f"{browser.challenge}="),
        ("codeChallenge", f"{browser.challenge[:-1]}\n"),
        ("codeChallenge", "é" * 43),
        ("tenant", "Acme"),
        ("connection", "1"),
    ):
        refused = await browser.http.get("/api/auth/sso/start", params={**good, name: value})
        assert refused.status_code == 422, (name, value)
        assert [error["field"] for error in refused.json()["errors"]] == [name]


async def test_where_to_go_follows_from_the_domain_and_tells_nothing_of_accounts(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    connection_id = await connected(issuer, acme)
    found = [
        (await browser.locate(acme, **where)).json()
        for where in (
            {"email": "nobody@people.example"},
            {"email": "Ann@PEOPLE.example"},
            {"connectionId": connection_id},
            {},
        )
    ]
    assert all(each == found[0] for each in found)
    other = await connect_to(issuer, acme, name="Other", domains=["other.example"])
    assert other["id"] in (await browser.locate(acme, email="a@other.example")).json()["url"]
    # Of two, none is meant.
    nowhere = [await browser.locate(acme), await browser.locate(acme, email="a@elsewhere.example")]
    unknown = TenantHandle(acme.http, "", slug="no-such-organization")
    nowhere += [await browser.locate(unknown, email="nobody@people.example"), await browser.locate(unknown)]
    assert {problem_of(answer) for answer in nowhere} == {NOTHING}
    assert len({answer.json()["detail"] for answer in nowhere}) == 1


async def test_a_suspended_organization_sends_nobody_anywhere_and_takes_nobody_in(
    browser: Browser, issuer: Issuer, world: World, acme: TenantHandle
) -> None:
    await connected(issuer, acme)
    url = issuer.authorize(await browser.set_off(acme))
    code = (await browser.by(issuer, acme))["code"]
    suspended = await world.operator.post(f"/platform/tenants/{acme.slug}/suspend", json={"reason": "unpaid"})
    assert suspended.status_code == 200, suspended.text
    await world.app.state.registry.refresh()
    assert problem_of(await browser.locate(acme)) == NOTHING
    assert problem_of(await browser.http.get(url)) == (403, "/problems/tenant-suspended")
    assert problem_of(await browser.trade(code)) == (403, "/problems/tenant-suspended")


async def test_a_deployment_that_does_not_say_where_it_is_sends_nobody_anywhere(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with open_api(database_addresses, tmp_path) as world:
        bare = world.settings.model_copy(update={"api_url": None})
        world.app.state.sso._settings = bare
        answer: httpx.Response = await world.http.post(
            "/api/auth/sso/start", json={"tenant": "acme", "codeChallenge": "c" * 43}
        )
        assert problem_of(answer) == (503, "/problems/sso-not-configured")
        assert int(answer.headers["Retry-After"]) == 3600
