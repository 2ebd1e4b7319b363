"""Where the ways to sign in meet: each is braked, remembered, put into cookies and refused like every other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select

from tenantry.domain.identity.factors.models import Passkey, TotpFactor
from tenantry.domain.identity.sessions.guessing import FREE
from tenantry.domain.identity.sessions.models import KnownDevice
from tests.domain.factors.support import (
    NOW,
    add_passkey,
    add_phone,
    begin_log_in,
    device_of,
    finish_log_in,
    problem_of,
    set_clock,
    signed_in,
)
from tests.domain.sso.issuer import Issuer, open_issuer
from tests.domain.sso.support import Browser as SsoBrowser
from tests.domain.sso.support import connect_to
from tests.domain.test_session_cookies import PAGE, Browser
from tests.mail.support import post
from tests.mailserver import MailServer, open_mail_server
from tests.world import PASSWORD, TenantHandle, World


@pytest.fixture(autouse=True)
def clock(world: World) -> None:
    set_clock(world, NOW)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with open_issuer() as opened:
        yield opened


@pytest.fixture
async def sso(world: World) -> AsyncIterator[SsoBrowser]:
    opened = SsoBrowser(world)
    yield opened
    await opened.http.aclose()


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def test_behind_a_second_factor_the_refresh_token_is_in_a_cookie_and_the_device_is_remembered(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    phone, _ = await add_phone(acme)
    browser = Browser(world)
    asked = await begin_log_in(acme)
    body = {"challenge": asked["challenge"], "code": phone.code(), "cookie": True}
    foreign = await browser.post(
        "/api/auth/login/second-factor", body, headers={**PAGE, "Origin": "https://evil.example"}
    )
    assert problem_of(foreign) == (403, "cross-site-request")
    assert browser.jar == {}
    done = await browser.post("/api/auth/login/second-factor", body)
    assert done.status_code == 200, done.text
    assert "refreshToken" not in done.json()
    assert {name.rpartition("-")[2] for name in browser.jar} == {acme.tenant_id.hex}
    assert (await browser.refresh(acme)).status_code == 200
    assert (await browser.refresh(globex)).status_code == 401


async def test_a_passkey_alone_can_have_its_tokens_in_a_cookie_as_well(world: World, acme: TenantHandle) -> None:
    device = device_of(acme)
    await add_passkey(acme, device)
    options = (await world.http.post("/api/auth/passkeys/options", json={"tenant": acme.slug})).json()
    body = {
        "tenant": acme.slug,
        "challenge": options["challenge"],
        "passkey": device.get(options["publicKey"]),
        "cookie": True,
    }
    browser = Browser(world)
    done = await browser.post("/api/auth/passkeys/login", body)
    assert done.status_code == 200, done.text
    assert "refreshToken" not in done.json()
    assert (await browser.refresh(acme)).status_code == 200


async def test_to_be_asked_for_a_factor_is_no_failure_and_a_wrong_one_is(
    world: World, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The brake's clock stands still: the first wait is a second, which a busy machine may take for a request.
    monkeypatch.setattr(world.app.state.authenticator._throttle, "_clock", lambda: NOW)
    phone, _ = await add_phone(acme)
    for _ in range(world.settings.login_failures + 1):
        await begin_log_in(acme)
    asked = await begin_log_in(acme)
    for _ in range(FREE + 1):
        wrong = await finish_log_in(acme, asked["challenge"], code=phone.code(steps=9))
        assert problem_of(wrong) == (401, "second-factor-invalid")
    braked = await finish_log_in(acme, asked["challenge"], code=phone.code())
    assert problem_of(braked) == (429, "too-many-requests")
    assert int(braked.headers["Retry-After"]) >= 1
    # It is the account that waits, whichever way in is tried.
    body = {"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD}
    assert (await world.http.post("/api/auth/login", json=body)).status_code == 429


async def test_a_whole_log_in_forgets_the_failures_before_it(world: World, acme: TenantHandle) -> None:
    phone, _ = await add_phone(acme)
    for step in (0, 1):
        asked = await begin_log_in(acme)
        for _ in range(2):
            await finish_log_in(acme, asked["challenge"], code=phone.code(steps=9))
        signed_in(acme, await finish_log_in(acme, asked["challenge"], code=phone.code(steps=step)))


async def test_where_a_provider_is_the_way_in_no_password_is_made_or_changed(
    world: World, acme: TenantHandle, issuer: Issuer, server: MailServer
) -> None:
    ann = await acme.add_user("ann", "member")
    policy = {"signUp": "domains", "domains": ["people.example"]}
    assert (await acme.patch("/api/organization/account-policy", json=policy)).status_code == 200
    asked = {"tenant": acme.slug, "email": "new@people.example"}
    assert (await world.http.post("/api/auth/sign-up", json=asked)).status_code == 202
    [mail] = await post(acme, server)
    await connect_to(issuer, acme, domains=[f"{acme.slug}.example", "people.example"], isEnforced=True)
    change = {"oldPassword": PASSWORD, "newPassword": "another good password"}
    refused = await ann.post("/api/users/me/password", json=change)
    assert problem_of(refused) == (403, "sso-required")
    accept = {"token": mail.token, "password": "another good password"}
    assert problem_of(await world.http.post("/api/auth/sign-up/accept", json=accept)) == (403, "sso-required")
    assert (await acme.get("/api/users", params={"search": "new@"})).json()["total"] == 0


async def test_who_comes_by_a_provider_can_have_cookies_and_is_known_again(
    world: World, acme: TenantHandle, issuer: Issuer, sso: SsoBrowser
) -> None:
    ann = await acme.add_user("ann", "member")
    await connect_to(issuer, acme, domains=[f"{acme.slug}.example"])
    issuer.claims = {"email": f"ann@{acme.slug}.example", "email_verified": True}
    told = await sso.by(issuer, acme, email=f"ann@{acme.slug}.example")
    browser = Browser(world)
    done = await browser.post(
        "/api/auth/sso/token", {"code": told["code"], "codeVerifier": sso.verifier, "cookie": True}
    )
    assert done.status_code == 200, done.text
    assert "refreshToken" not in done.json()
    assert (await browser.refresh(acme)).status_code == 200
    async with world.database.transaction(acme.context.read_scope) as transaction:
        devices = (await transaction.session.scalars(select(KnownDevice).where(KnownDevice.user_id == ann.id))).all()
    assert any(device.digest is not None for device in devices)


async def test_factors_from_before_an_address_was_proven_end_when_its_person_comes(
    world: World, acme: TenantHandle, issuer: Issuer, sso: SsoBrowser
) -> None:
    """Somebody else may have made the account, with a passkey of theirs, and waited."""
    early = await acme.add_user("ann", "member")
    await add_phone(early)
    await add_passkey(early, device_of(acme))
    await connect_to(issuer, acme, domains=[f"{acme.slug}.example"])
    issuer.claims = {"email": f"ann@{acme.slug}.example", "email_verified": True}
    await sso.sign_in(acme, await sso.by(issuer, acme, email=f"ann@{acme.slug}.example"))
    async with world.database.transaction(acme.context.read_scope) as transaction:
        session = transaction.session
        assert (await session.scalars(select(Passkey).where(Passkey.user_id == early.id))).all() == []
        assert (await session.scalars(select(TotpFactor).where(TotpFactor.user_id == early.id))).all() == []
    assert (await early.get("/api/users/me")).status_code == 401
