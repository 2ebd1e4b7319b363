"""Browsers that sign in by a provider, and the front end's part in it."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from tests.domain.sso.issuer import Issuer
from tests.world import Caller, TenantHandle, World

__all__ = ("CALLBACK", "Browser", "connect", "connect_to", "problem_of", "query_of", "whoever")

CALLBACK = "http://localhost/api/auth/sso/callback"


class Browser:
    """Somebody's browser with its cookies, and the page of the front end that is open in it."""

    def __init__(self, world: World) -> None:
        self.world = world
        transport: Any = world.http._transport
        self.http = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        self.verifier = secrets.token_urlsafe(32)

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    async def locate(self, tenant: TenantHandle, **where: Any) -> httpx.Response:
        """The page asks where to go."""
        return await self.http.post(
            "/api/auth/sso/start", json={"tenant": tenant.slug, "codeChallenge": self.challenge, **where}
        )

    async def set_off(self, tenant: TenantHandle, **where: Any) -> str:
        """Go where the page was told to; the address at the provider to which that leads."""
        located = await self.locate(tenant, **where)
        assert located.status_code == 200, located.text
        sent = await self.http.get(located.json()["url"])
        assert sent.status_code == 303, sent.text
        return sent.headers["Location"]

    async def come_back(self, tenant: TenantHandle, url: str) -> dict[str, str]:
        """Go where the provider sends one; what the front end is told."""
        answer = await self.http.get(url)
        assert answer.status_code == 303, answer.text
        page, _, fragment = answer.headers["Location"].partition("#")
        assert page == f"https://{tenant.slug}.app.example.com/sso"
        return dict(parse_qsl(fragment))

    async def trade(self, code: str, **arguments: Any) -> httpx.Response:
        return await self.http.post(
            "/api/auth/sso/token", json={"code": code, "codeVerifier": self.verifier}, **arguments
        )

    async def sign_in(self, tenant: TenantHandle, told: Mapping[str, str]) -> Caller:
        """Be somebody here, with what the front end was told."""
        assert told.keys() == {"code"}, told
        answer = await self.trade(told["code"])
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        return Caller(self.world.http, tokens["accessToken"], tokens["refreshToken"])

    async def by(self, issuer: Issuer, tenant: TenantHandle, **where: Any) -> dict[str, str]:
        """All the way to an issuer and back; what the front end is told."""
        return await self.come_back(tenant, issuer.authorize(await self.set_off(tenant, **where)))


async def connect(tenant: Caller, **fields: Any) -> dict[str, Any]:
    """A connection of the tenant's."""
    made = await tenant.post("/api/sso/connections", json={"name": "Directory", **fields})
    assert made.status_code == 201, made.text
    return made.json()  # type: ignore[no-any-return]


async def connect_to(issuer: Issuer, tenant: Caller, **fields: Any) -> dict[str, Any]:
    """A connection to that issuer."""
    client = {"issuer": issuer.issuer, "clientId": issuer.client_id, "clientSecret": issuer.client_secret}
    return await connect(tenant, **{**client, **fields})


async def whoever(caller: Caller) -> dict[str, Any]:
    """Who the caller is here."""
    me = await caller.get("/api/users/me")
    assert me.status_code == 200, me.text
    return me.json()  # type: ignore[no-any-return]


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))
