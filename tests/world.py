"""A running deployment, and the handles by which tests use it."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from litestar import Litestar

from tenantry.asgi import create_app
from tenantry.dev.process import Account, GuardedProcess, server_environment
from tenantry.kernel.http import edge
from tenantry.kernel.settings import Settings, load_settings
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.database import Database
from tests.databases import OPERATOR_EMAIL, OPERATOR_PASSWORD, Template

__all__ = ("PASSWORD", "TenantHandle", "World", "environment_for", "open_world", "settings_for")

PASSWORD = "correct horse battery"
_ROOT = Path(__file__).parents[1]
_numbers = itertools.count(1)


def environment_for(addresses: Template, home: Path, **overrides: object) -> dict[str, str]:
    """The variables of a deployment on these addresses, with passwords that are cheap to hash."""
    env = {
        "TENANTRY_HOME": str(home),
        "TENANTRY_DATABASE_URL": addresses.app_url,
        "TENANTRY_DATABASE_OWNER_URL": addresses.owner_url,
        "TENANTRY_REDIS_URL": addresses.redis_url,
        "TENANTRY_PASSWORD_HASH_TIME_COST": "1",
        "TENANTRY_PASSWORD_HASH_MEMORY_COST": "7168",
        "TENANTRY_PASSWORD_HASH_PARALLELISM": "1",
        "TENANTRY_LOG_LEVEL": "WARNING",
        "TENANTRY_SERVE_DRAIN": "0",
        # Most tests make a tenant or two, and some count what there is.
        "TENANTRY_WARM_POOL_SIZE": "0",
        "TENANTRY_APP_URL": "https://{tenant}.app.example.com",
        "TENANTRY_MAIL_URL": (home.absolute() / "mail").as_uri(),
        # A module's tests share sessions, and may take longer than a log-in is recent; those about it set the time.
        "TENANTRY_STEP_UP_AFTER": "86400",
        "TENANTRY_API_URL": "http://localhost",
        # Where the receivers of webhooks are, and the providers by which people sign in.
        "TENANTRY_OUTBOUND_NETWORKS": "127.0.0.1/32",
    }
    return env | {f"TENANTRY_{name.upper()}": str(value) for name, value in overrides.items()}


def settings_for(addresses: Template, home: Path, **overrides: object) -> Settings:
    """The settings that these variables make."""
    return load_settings(environment_for(addresses, home, **overrides))


@dataclass
class Caller:
    """Somebody with a token."""

    http: httpx.AsyncClient
    access_token: str
    refresh_token: str = ""
    id: UUID | None = None

    async def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.access_token}", **arguments.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **arguments)

    async def get(self, path: str, **arguments: Any) -> httpx.Response:
        return await self.request("GET", path, **arguments)

    async def post(self, path: str, **arguments: Any) -> httpx.Response:
        return await self.request("POST", path, **arguments)

    async def patch(self, path: str, **arguments: Any) -> httpx.Response:
        return await self.request("PATCH", path, **arguments)

    async def delete(self, path: str, **arguments: Any) -> httpx.Response:
        return await self.request("DELETE", path, **arguments)


@dataclass
class TenantHandle(Caller):
    """A tenant, as its owner uses it."""

    slug: str = ""
    tenant_id: UUID = field(default_factory=lambda: UUID(int=0))
    owner_email: str = ""
    world: World = None  # type: ignore[assignment]

    @property
    def context(self) -> TenantContext:
        found = self.world.app.state.registry.by_id(self.tenant_id)
        assert found is not None
        return found  # type: ignore[no-any-return]

    async def add_user(self, name: str, *roles: str) -> Caller:
        """A signed-in user of this tenant; `id` is theirs."""
        email = f"{name}@{self.slug}.example"
        made = await self.post("/api/users", json={"email": email, "password": PASSWORD, "roles": list(roles)})
        assert made.status_code == 201, made.text
        caller = await self.world.log_in(self.slug, email)
        caller.id = UUID(made.json()["id"])
        return caller

    async def add_team(self, name: str = "Red", **fields: Any) -> dict[str, Any]:
        made = await self.post("/api/teams", json={"name": name, **fields})
        assert made.status_code == 201, made.text
        return made.json()  # type: ignore[no-any-return]


@dataclass
class World:
    """A deployment."""

    settings: Settings
    addresses: Template
    app: Litestar
    http: httpx.AsyncClient
    operator: Caller

    @property
    def database(self) -> Database:
        return self.app.state.database  # type: ignore[no-any-return]

    async def log_in(self, slug: str, email: str, password: str = PASSWORD) -> Caller:
        answer = await self.http.post("/api/auth/login", json={"tenant": slug, "email": email, "password": password})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        return Caller(self.http, body["accessToken"], body["refreshToken"])

    async def create_tenant(self, name: str = "tenant", *, plan: str = "free") -> TenantHandle:
        """A tenant with a slug of its own, its owner signed in."""
        slug = f"{name}-{next(_numbers)}"
        email = f"owner@{slug}.example"
        made = await self.operator.post(
            "/platform/tenants",
            json={"slug": slug, "name": name.title(), "plan": plan, "ownerEmail": email, "ownerPassword": PASSWORD},
        )
        assert made.status_code in {201, 202}, made.text
        if made.status_code == 202:
            # All tests share a server, whose roles are granted one after the other: the answer says where to look.
            async with asyncio.timeout(60):
                while (await self.operator.get(f"/platform/tenants/{slug}")).json()["status"] != "active":
                    await asyncio.sleep(0.1)
            await self.app.state.registry.refresh()
        caller = await self.log_in(slug, email)
        me = await caller.get("/api/users/me")
        return TenantHandle(
            self.http,
            caller.access_token,
            caller.refresh_token,
            UUID(me.json()["id"]),
            slug=slug,
            tenant_id=UUID(made.json()["id"]),
            owner_email=email,
            world=self,
        )


@asynccontextmanager
async def open_world(addresses: Template, home: Path, **overrides: object) -> AsyncIterator[World]:
    """Start a deployment in this process: the application, entered and left as a server does, and a provisioner."""
    # A tenant from the pool takes a tenth of the time of one that is made while the test waits.
    environment = environment_for(addresses, home, **({"warm_pool_size": 4, "warm_pool_interval": 0.2} | overrides))
    settings = load_settings(environment)
    app = create_app(settings)
    asgi: Any = edge(app, body_limit=settings.request_body_limit, body_timeout=settings.request_body_timeout)
    # A process of its own: the tests' event loop stands still while a test runs that is no coroutine, and a provisioner
    # in it would hold the locks of roles meanwhile, which all tests of the run share.
    provisioner = GuardedProcess(
        [sys.executable, "-m", "tenantry.cli", "provisioner"],
        log=home / "provisioner.log",
        account=Account("direct"),
        stop_signal=signal.SIGTERM,
        environment=server_environment() | environment | {"PYTHONPATH": str(_ROOT / "src")},
    )
    with provisioner:
        async with (
            app.lifespan(),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=asgi), base_url="http://localhost") as http,
        ):
            answer = await http.post(
                "/platform/auth/login", json={"email": OPERATOR_EMAIL, "password": OPERATOR_PASSWORD}
            )
            assert answer.status_code == 200, answer.text
            operator = Caller(http, answer.json()["accessToken"])
            yield World(settings=settings, addresses=addresses, app=app, http=http, operator=operator)
