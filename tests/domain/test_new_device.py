"""Telling people of a device that was not used before, and of a session that somebody has stolen."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from tenantry.domain.identity.sessions.devices import MOST_DEVICES
from tenantry.domain.identity.sessions.jobs import forget_login_traces
from tenantry.domain.identity.sessions.models import KnownDevice
from tenantry.kernel.http.address import parse_networks
from tests.domain.test_session_cookies import Browser
from tests.domain.test_session_list import FIREFOX, SAFARI
from tests.mail.support import post
from tests.mailserver import MailServer, open_mail_server
from tests.world import PASSWORD, TenantHandle, World


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


@pytest.fixture(autouse=True)
def proxied(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' client is a proxy that is trusted, and says for whom it asks."""
    monkeypatch.setattr(world.app.state, "trusted_proxies", parse_networks(("127.0.0.1/32",)))


@pytest.fixture
async def ann(acme: TenantHandle) -> str:
    """Somebody who has never logged in; their address."""
    email = f"ann@{acme.slug}.example"
    made = await acme.post("/api/users", json={"email": email, "password": PASSWORD})
    assert made.status_code == 201
    return email


async def _log_in(
    tenant: TenantHandle, email: str, user_agent: str = FIREFOX, address: str = "8.8.8.8", **body: Any
) -> httpx.Response:
    answer = await tenant.world.http.post(
        "/api/auth/login",
        json={"tenant": tenant.slug, "email": email, "password": PASSWORD, **body},
        headers={"User-Agent": user_agent, "X-Forwarded-For": address},
    )
    assert answer.status_code == 200, answer.text
    return answer


async def test_the_first_log_in_of_all_is_news_to_nobody(acme: TenantHandle, ann: str, server: MailServer) -> None:
    await _log_in(acme, ann)
    assert await post(acme, server) == []


async def test_a_log_in_on_another_device_is_told_by_mail(acme: TenantHandle, ann: str, server: MailServer) -> None:
    await _log_in(acme, ann)
    await _log_in(acme, ann, SAFARI, "2001:db8::7")
    [mail] = await post(acme, server)
    assert mail.recipients == (ann,)
    assert mail.message["Subject"] == "A new device has logged in at Acme"
    for part in ("plain", "html"):
        words = mail.part(part)
        for expected in ("Mobile Safari on iOS", "2001:db8::7", "UTC", f"{acme.slug}.app.example.com/sessions"):
            assert expected in words
    # Once: it is known by now.
    await _log_in(acme, ann, SAFARI, "2001:db8::8")
    await _log_in(acme, ann)
    assert await post(acme, server) == []


async def test_a_device_is_known_by_program_system_and_network(
    acme: TenantHandle, ann: str, server: MailServer
) -> None:
    await _log_in(acme, ann)
    updated = FIREFOX.replace("132.0", "133.0")
    await _log_in(acme, ann, updated, "8.8.8.200")
    assert await post(acme, server) == [], "a new version, and another address of the same network"
    await _log_in(acme, ann, FIREFOX, "9.9.9.9")
    assert len(await post(acme, server)) == 1, "another network"
    await _log_in(acme, ann, FIREFOX.replace("Windows NT 10.0; Win64; x64", "X11; Linux x86_64"))
    assert len(await post(acme, server)) == 1, "another system"
    await _log_in(acme, ann, FIREFOX, "not an address")
    assert await post(acme, server) == [], "where nobody vouches for an address, none is new"


async def test_a_device_with_a_token_is_known_wherever_it_goes(
    acme: TenantHandle, globex: TenantHandle, ann: str, server: MailServer
) -> None:
    token = (await _log_in(acme, ann, rememberDevice=True)).json()["deviceToken"]
    again = await _log_in(acme, ann, SAFARI, "9.9.9.9", deviceToken=token, rememberDevice=True)
    assert again.json()["deviceToken"] == token
    assert await post(acme, server) == []
    # To others it says nothing.
    await _log_in(acme, acme.owner_email, SAFARI, "9.9.9.9", deviceToken=token)
    [mail] = await post(acme, server)
    assert mail.recipients == (acme.owner_email,)
    await _log_in(globex, globex.owner_email, SAFARI, "9.9.9.9", deviceToken=token)
    assert len(await post(globex, server)) == 1


async def test_a_device_gets_no_token_unless_it_asks_for_one(acme: TenantHandle, ann: str) -> None:
    assert "deviceToken" not in (await _log_in(acme, ann)).json()


async def test_a_browser_is_known_by_a_cookie_that_outlives_log_out(
    world: World, acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    browser = Browser(world)
    first = await browser.log_in(acme)
    assert "deviceToken" not in first.json()
    name = f"__Secure-device-{acme.tenant_id.hex}"
    cookie = browser.jar[name]
    assert (cookie["path"], cookie["samesite"], cookie["httponly"], cookie["secure"]) == (
        "/api/auth",
        "strict",
        True,
        True,
    )
    assert cookie.value not in first.text
    await post(acme, server)
    await browser.post("/api/auth/logout", {}, token=first.json()["accessToken"])
    assert browser.jar[name].value == cookie.value
    await browser.log_in(acme)
    await browser.log_in(globex)
    assert browser.jar[name].value == cookie.value
    await post(globex, server)
    # Another program, by the cookie alone.
    headers = {"User-Agent": SAFARI, "X-Forwarded-For": "9.9.9.9", "Cookie": f"{name}={cookie.value}"}
    page = {"X-CSRF": "1", "Origin": "https://api.example.com", "Host": "api.example.com"}
    body = {"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD, "cookie": True}
    answer = await world.http.post("/api/auth/login", json=body, headers=headers | page)
    world.http.cookies.clear()
    assert answer.status_code == 200
    assert await post(acme, server) == []


async def test_two_devices_that_are_alike_have_a_token_each(acme: TenantHandle, ann: str) -> None:
    tokens = [(await _log_in(acme, ann, rememberDevice=True)).json()["deviceToken"] for _ in range(2)]
    assert tokens[0] != tokens[1]
    for token in tokens:
        again = await _log_in(acme, ann, rememberDevice=True, deviceToken=token)
        assert again.json()["deviceToken"] == token


async def test_only_so_many_devices_are_remembered(world: World, acme: TenantHandle, ann: str) -> None:
    for number in range(MOST_DEVICES + 3):
        await _log_in(acme, ann, FIREFOX, f"8.8.{number}.1")
    async with world.database.transaction(acme.context.read_scope) as transaction:
        rows = await transaction.connection.fetch(
            "SELECT network FROM known_device WHERE browser = 'Firefox' ORDER BY last_seen_at"
        )
    assert [row["network"] for row in rows] == [f"8.8.{number}.0/24" for number in range(3, MOST_DEVICES + 3)]


async def test_a_device_that_is_not_seen_for_a_year_is_forgotten_but_the_last(
    world: World, acme: TenantHandle, ann: str
) -> None:
    for number in range(3):
        await _log_in(acme, ann, FIREFOX, f"8.8.{number}.1")
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=500)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        session = transaction.session
        for number in range(3):
            await session.execute(
                update(KnownDevice)
                .where(KnownDevice.network == f"8.8.{number}.0/24")
                .values(last_seen_at=long_ago + datetime.timedelta(days=number))
            )
        assert await forget_login_traces(session, batch=1) == 2
        left = list(await session.scalars(select(KnownDevice.network).where(KnownDevice.browser == "Firefox")))
    assert left == ["8.8.2.0/24"]


async def test_a_token_is_stored_as_a_digest(world: World, acme: TenantHandle, ann: str) -> None:
    token = (await _log_in(acme, ann, rememberDevice=True)).json()["deviceToken"]
    async with world.database.transaction(acme.context.read_scope) as transaction:
        rows = await transaction.connection.fetch("SELECT * FROM known_device WHERE digest IS NOT NULL")
    [row] = rows
    assert len(row["digest"]) == 32
    assert token.rpartition("_")[2] not in repr(tuple(row.values()))
    assert bytes.fromhex(token.rpartition("_")[2]) not in row.values()


async def test_where_no_mail_is_sent_people_log_in_all_the_same(
    world: World, acme: TenantHandle, ann: str, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _log_in(acme, ann)
    authenticator = world.app.state.authenticator
    monkeypatch.setattr(authenticator, "_settings", world.settings.model_copy(update={"mail_url": None}))
    answer = await _log_in(acme, ann, SAFARI, "9.9.9.9")
    token = answer.json()["refreshToken"]
    for expected in (200, 401):
        refreshed = await world.http.post("/api/auth/refresh", json={"refreshToken": token})
        assert refreshed.status_code == expected
    assert await post(acme, server) == []


# A session that was stolen.


async def test_whose_refresh_token_was_used_twice_is_told_in_the_app_and_by_mail(
    world: World, acme: TenantHandle, ann: str, server: MailServer
) -> None:
    stolen = (await _log_in(acme, ann)).json()["refreshToken"]
    kept = (await _log_in(acme, ann)).json()["accessToken"]
    await post(acme, server)
    answers = [
        (await world.http.post("/api/auth/refresh", json={"refreshToken": stolen})).status_code for _ in range(3)
    ]
    assert answers == [200, 401, 401]
    [mail] = await post(acme, server)
    assert mail.recipients == (ann,)
    assert mail.message["Subject"] == "A session of yours at Acme was ended"
    assert "Firefox on Windows" in mail.part("plain")
    assert "Firefox on Windows" in mail.part("html")
    told = await world.http.get("/api/notifications", headers={"Authorization": f"Bearer {kept}"})
    assert [each["kind"] for each in told.json()["items"]] == ["session.revoked"]
    trail = (await acme.get("/api/audit", params={"pageSize": 200})).json()["items"]
    assert [each["actor"] for each in trail if each["name"] == "session.revoked"] == ["system"]


async def test_the_mail_is_not_sent_to_somebody_who_was_shut_out_meanwhile(
    acme: TenantHandle, ann: str, server: MailServer
) -> None:
    await _log_in(acme, ann)
    await _log_in(acme, ann, SAFARI, "9.9.9.9")
    [user] = (await acme.get("/api/users", params={"search": ann})).json()["items"]
    assert (await acme.patch(f"/api/users/{user['id']}", json={"isActive": False})).status_code == 200
    assert await post(acme, server) == []
