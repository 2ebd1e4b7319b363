"""Refresh tokens in cookies: out of scripts' reach, of one organization each, and for our own pages alone."""

from __future__ import annotations

from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest

from tenantry.asgi import create_asgi
from tenantry.kernel.settings import Settings
from tests.world import PASSWORD, TenantHandle, World

PAGE = {"X-CSRF": "1", "Origin": "https://api.example.com", "Host": "api.example.com", "Sec-Fetch-Site": "same-origin"}


class Browser:
    """Keeps cookies as a browser does, and sends them where their paths allow."""

    def __init__(self, world: World) -> None:
        self._http = world.http
        self.jar: dict[str, Any] = {}

    async def post(
        self, path: str, body: dict[str, Any], *, headers: dict[str, str] | None = None, token: str = ""
    ) -> httpx.Response:
        sent = dict(PAGE if headers is None else headers)
        kept = [f"{name}={each.value}" for name, each in self.jar.items() if path.startswith(each["path"])]
        if kept:
            sent["Cookie"] = "; ".join(kept)
        if token:
            sent["Authorization"] = f"Bearer {token}"
        return self.take(await self._http.post(path, json=body, headers=sent))

    def take(self, answer: httpx.Response) -> httpx.Response:
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.jar.pop(name, None)
                else:
                    self.jar[name] = morsel
        # The client is everybody's.
        self._http.cookies.clear()
        return answer

    async def log_in(self, tenant: TenantHandle, **body: Any) -> httpx.Response:
        answer = await self.post(
            "/api/auth/login",
            {"tenant": tenant.slug, "email": tenant.owner_email, "password": PASSWORD, "cookie": True, **body},
        )
        assert answer.status_code == 200, answer.text
        return answer

    async def refresh(self, tenant: TenantHandle, **more: Any) -> httpx.Response:
        return await self.post("/api/auth/refresh", {"tenant": tenant.slug}, **more)


@pytest.fixture
async def browser(world: World) -> Browser:
    return Browser(world)


def _refresh_name(tenant: TenantHandle) -> str:
    return f"__Secure-refresh-{tenant.tenant_id.hex}"


async def _works(world: World, answer: httpx.Response) -> bool:
    me = await world.http.get("/api/users/me", headers={"Authorization": f"Bearer {answer.json()['accessToken']}"})
    return me.status_code == 200


async def test_the_refresh_token_comes_as_a_cookie_and_nowhere_else(
    world: World, acme: TenantHandle, browser: Browser
) -> None:
    answer = await browser.log_in(acme)
    assert set(answer.json()) == {"accessToken", "expiresIn", "tokenType", "enrolBy"}
    assert await _works(world, answer)
    cookie = browser.jar[_refresh_name(acme)]
    assert cookie.value.startswith(f"rt_{acme.tenant_id.hex}_")
    assert cookie.value not in answer.text
    assert (cookie["path"], cookie["samesite"], cookie["domain"]) == ("/api/auth/refresh", "strict", "")
    assert cookie["httponly"] is cookie["secure"] is True
    assert int(cookie["max-age"]) == world.settings.refresh_token_ttl


async def test_without_asking_there_is_no_cookie(world: World, acme: TenantHandle) -> None:
    answer = await world.http.post(
        "/api/auth/login", json={"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD}
    )
    assert "set-cookie" not in answer.headers
    assert set(answer.json()) == {"accessToken", "refreshToken", "expiresIn", "tokenType", "enrolBy"}


async def test_a_cookie_is_traded_for_another_and_good_once(world: World, acme: TenantHandle, browser: Browser) -> None:
    await browser.log_in(acme)
    spent = browser.jar[_refresh_name(acme)]
    answer = await browser.refresh(acme)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"accessToken", "expiresIn", "tokenType", "enrolBy"}
    renewed = browser.jar[_refresh_name(acme)]
    assert renewed.value != spent.value
    assert renewed["path"] == "/api/auth/refresh"
    assert await _works(world, answer)
    browser.jar[_refresh_name(acme)] = spent
    assert (await browser.refresh(acme)).status_code == 401
    # Of which the whole family ends.
    browser.jar[_refresh_name(acme)] = renewed
    assert (await browser.refresh(acme)).status_code == 401
    assert not await _works(world, answer)


async def test_a_token_of_the_body_can_be_put_into_a_cookie(world: World, acme: TenantHandle, browser: Browser) -> None:
    """However it was got: with an invitation, say, whose answer has it in its body."""
    answer = await browser.post("/api/auth/refresh", {"refreshToken": acme.refresh_token, "cookie": True})
    assert answer.status_code == 200
    assert "refreshToken" not in answer.json()
    assert (await browser.refresh(acme)).status_code == 200


async def test_a_token_in_the_body_needs_no_page_and_leaves_the_cookie_alone(
    world: World, acme: TenantHandle, browser: Browser
) -> None:
    await browser.log_in(acme)
    answer = await browser.post("/api/auth/refresh", {"refreshToken": acme.refresh_token}, headers={})
    assert answer.status_code == 200
    assert answer.json()["refreshToken"]
    assert "set-cookie" not in answer.headers
    assert (await browser.refresh(acme)).status_code == 200


async def test_logging_out_clears_the_cookie(world: World, acme: TenantHandle, browser: Browser) -> None:
    token = (await browser.log_in(acme)).json()["accessToken"]
    kept = browser.jar[_refresh_name(acme)]
    answer = await browser.post("/api/auth/logout", {}, headers={}, token=token)
    assert answer.status_code == 204
    assert _refresh_name(acme) not in browser.jar
    browser.jar[_refresh_name(acme)] = kept
    assert (await browser.refresh(acme)).status_code == 401, "nor is it good any more"


@pytest.mark.parametrize(("include", "is_cleared"), [("true", True), ("false", False)])
async def test_ending_the_present_session_clears_the_cookie_and_ending_the_others_does_not(
    world: World, acme: TenantHandle, browser: Browser, include: str, is_cleared: bool
) -> None:
    token = (await browser.log_in(acme)).json()["accessToken"]
    answer = await world.http.delete(
        "/api/sessions", params={"includeCurrent": include}, headers={"Authorization": f"Bearer {token}"}
    )
    browser.take(answer)
    assert answer.status_code == 204
    assert (_refresh_name(acme) not in browser.jar) is is_cleared


# Two organizations in one browser.


async def test_two_organizations_in_one_jar_do_not_know_of_one_another(
    world: World, acme: TenantHandle, globex: TenantHandle, browser: Browser
) -> None:
    await browser.log_in(acme)
    await browser.log_in(globex)
    for tenant in (acme, globex, acme):
        answer = await browser.refresh(tenant)
        assert answer.status_code == 200
        me = await world.http.get("/api/users/me", headers={"Authorization": f"Bearer {answer.json()['accessToken']}"})
        assert me.json()["email"] == tenant.owner_email
    token = (await browser.refresh(acme)).json()["accessToken"]
    await browser.post("/api/auth/logout", {}, token=token)
    assert (await browser.refresh(acme)).status_code == 401
    assert (await browser.refresh(globex)).status_code == 200


async def test_the_host_may_name_the_organization_and_must_not_name_another(
    world: World, acme: TenantHandle, globex: TenantHandle, browser: Browser
) -> None:
    await browser.log_in(acme)
    own, other = (f"{each.slug}.app.example.com" for each in (acme, globex))
    at = {**PAGE, "Host": own, "Origin": f"https://{own}"}
    assert (await browser.post("/api/auth/refresh", {}, headers=at)).status_code == 200
    at = {**PAGE, "Host": other, "Origin": f"https://{other}"}
    assert (await browser.post("/api/auth/refresh", {}, headers=at)).status_code == 401
    named = await browser.post("/api/auth/refresh", {"tenant": acme.slug}, headers=at)
    assert (named.status_code, named.json()["errors"][0]["field"]) == (422, "tenant")
    assert (await browser.refresh(acme)).status_code == 200, "and nothing of it has spent the token"


async def test_a_cookie_under_another_organizations_name_is_worth_nothing(
    world: World, acme: TenantHandle, globex: TenantHandle, browser: Browser
) -> None:
    await browser.log_in(acme)
    browser.jar[_refresh_name(globex)] = browser.jar[_refresh_name(acme)]
    assert (await browser.refresh(globex)).status_code == 401
    assert (await browser.refresh(acme)).status_code == 200


async def test_nobody_and_an_unknown_organization_are_answered_alike(acme: TenantHandle, browser: Browser) -> None:
    answers = [
        await browser.post("/api/auth/refresh", {"tenant": slug}) for slug in (acme.slug, "no-such-organization")
    ]
    assert [(each.status_code, each.json()["detail"]) for each in answers] == [
        (401, "There is no refresh token, neither in the body nor in a cookie.")
    ] * 2
    unnamed = await browser.post("/api/auth/refresh", {})
    assert (unnamed.status_code, unnamed.json()["errors"][0]["field"]) == (422, "tenant")


async def test_of_two_cookies_of_one_name_neither_is_taken(acme: TenantHandle, browser: Browser) -> None:
    """A page of a neighbouring domain can put one beside ours."""
    await browser.log_in(acme)
    cookie = browser.jar[_refresh_name(acme)]
    twice = f"{_refresh_name(acme)}={cookie.value}; {_refresh_name(acme)}=rt_{acme.tenant_id.hex}_{'0' * 64}"
    browser.jar.clear()
    assert (await browser.refresh(acme, headers={**PAGE, "Cookie": twice})).status_code == 401
    once = f"{_refresh_name(acme)}={cookie.value}"
    assert (await browser.refresh(acme, headers={**PAGE, "Cookie": once})).status_code == 200


# Other sites' pages.

FOREIGN: dict[str, tuple[dict[str, str | None], str]] = {
    "without the header": ({"X-CSRF": None}, "header"),
    "with another value in it": ({"X-CSRF": "true"}, "header"),
    "without an origin": ({"Origin": None}, "origin"),
    "from another site": ({"Origin": "https://evil.example"}, "origin"),
    "from an opaque origin": ({"Origin": "null"}, "origin"),
    "from a neighbouring host": ({"Origin": "https://evil.api.example.com"}, "origin"),
    "from the domain above": ({"Origin": "https://example.com"}, "origin"),
    "from another port": ({"Origin": "https://api.example.com:8443"}, "origin"),
    "from the same host in the clear": ({"Origin": "http://api.example.com"}, "origin"),
    "from a host that begins alike": ({"Origin": "https://api.example.com.evil.example"}, "origin"),
    "from a host in a user's place": ({"Origin": "https://api.example.com@evil.example"}, "origin"),
    "from what is no address": ({"Origin": "https://[api.example.com"}, "origin"),
    "as the browser says": ({"Sec-Fetch-Site": "cross-site"}, "site"),
    "of the same site, but another origin": ({"Sec-Fetch-Site": "same-site"}, "site"),
    "as a navigation": ({"Sec-Fetch-Site": "none"}, "site"),
}


@pytest.mark.parametrize("case", FOREIGN)
async def test_a_cookie_counts_for_no_other_sites_page(
    world: World, acme: TenantHandle, browser: Browser, case: str
) -> None:
    await browser.log_in(acme)
    changed, reason = FOREIGN[case]
    headers = {name: value for name, value in {**PAGE, **changed}.items() if value is not None}
    kept = browser.jar[_refresh_name(acme)].value
    login = {"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD, "cookie": True}
    for path, body in (
        ("/api/auth/refresh", {"tenant": acme.slug}),
        ("/api/auth/refresh", {"refreshToken": acme.refresh_token, "cookie": True}),
        # Or a page could log its visitors in to an account of its own.
        ("/api/auth/login", login),
    ):
        answer = await browser.post(path, body, headers=headers)
        assert (answer.status_code, answer.json()["type"], answer.json()["reason"]) == (
            403,
            "/problems/cross-site-request",
            reason,
        )
        assert "set-cookie" not in answer.headers
    assert browser.jar[_refresh_name(acme)].value == kept
    assert (await browser.refresh(acme)).status_code == 200, "and nothing of it has spent the token"


async def test_a_browser_that_does_not_say_the_site_is_known_by_its_origin(
    acme: TenantHandle, browser: Browser
) -> None:
    await browser.log_in(acme)
    headers = {name: value for name, value in PAGE.items() if name != "Sec-Fetch-Site"}
    assert (await browser.refresh(acme, headers=headers)).status_code == 200


async def test_in_the_clear_only_on_this_machine(acme: TenantHandle, browser: Browser) -> None:
    await browser.log_in(acme)
    for host in ("localhost:8000", "acme.localhost", "127.0.0.1:8000", "[::1]:8000"):
        headers = {**PAGE, "Host": host, "Origin": f"http://{host}"}
        assert (await browser.refresh(acme, headers=headers)).status_code == 200, host


async def test_pages_of_listed_origins_may_and_only_of_the_same_site(
    world: World, acme: TenantHandle, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = world.settings.model_copy(update={"cors_origins": ("https://app.example.com",)})
    monkeypatch.setattr(world.app.state, "settings", listed)
    await browser.log_in(acme)
    app = {**PAGE, "Origin": "https://app.example.com", "Sec-Fetch-Site": "same-site"}
    assert (await browser.refresh(acme, headers=app)).status_code == 200
    for wrong in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://app.example.com.evil.example"}):
        assert (await browser.refresh(acme, headers={**app, **wrong})).status_code == 403
    everybody = world.settings.model_copy(update={"cors_origins": ("*",)})
    monkeypatch.setattr(world.app.state, "settings", everybody)
    assert (await browser.refresh(acme, headers=app)).status_code == 403, "whom all are, nobody is"


@pytest.mark.parametrize(("origins", "credentials"), [("https://app.example.com", "true"), ("*", None)])
async def test_browsers_are_told_whose_pages_may_send_cookies(
    tmp_path: Path, origins: str, credentials: str | None
) -> None:
    settings = Settings(
        home=tmp_path,
        database_url="postgresql://nobody@127.0.0.1:1/nothing",
        redis_url="redis://127.0.0.1:1/0",
        cors_origins=(origins,),
    )
    app: Any = create_asgi(settings)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as http:
        answer = await http.options(
            "/api/auth/refresh",
            headers={
                "Origin": "https://app.example.com",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type, x-csrf",
            },
        )
    assert answer.headers.get("access-control-allow-credentials") == credentials
    assert "x-csrf" in answer.headers["access-control-allow-headers"].lower()
