"""Deployments whose provisioner a test runs itself, and what is in the database behind their backs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx

from tenantry.asgi import create_app
from tenantry.features import PROVISION_HOOKS, SEED_HOOKS
from tenantry.kernel.feature import ProvisionHook
from tenantry.kernel.http import edge
from tenantry.platform.provisioning.creation import CreateHandler
from tenantry.platform.provisioning.operations import StepListener
from tenantry.platform.provisioning.worker import Provisioner
from tests.databases import OPERATOR_EMAIL, OPERATOR_PASSWORD, Template
from tests.world import Caller, World, settings_for

__all__ = ("as_admin", "eventually", "make_provisioner", "open_api", "tenant_body")

T = TypeVar("T")


def make_provisioner(
    addresses: Template, *hooks: ProvisionHook, poll_interval: float = 1.0, listener: StepListener | None = None
) -> Provisioner:
    """A provisioner that makes tenants, and does nothing by itself; `hooks` run after the features' own."""
    return Provisioner(
        addresses.owner_url,
        handlers=(CreateHandler(seeds=SEED_HOOKS, hooks=(*PROVISION_HOOKS, *hooks)),),
        poll_interval=poll_interval,
        listener=listener,
    )


async def eventually(ask: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Ask over and over until the answer is true, and return it.

    Raises:
        TimeoutError: it has not become so within `seconds`.
    """
    async with asyncio.timeout(seconds):
        while not (found := await ask()):
            await asyncio.sleep(0.005)
    return found


@asynccontextmanager
async def open_api(addresses: Template, home: Path, **overrides: object) -> AsyncIterator[World]:
    """One process of the API, without a provisioner; several may run on one database."""
    settings = settings_for(addresses, home, **overrides)
    app = create_app(settings)
    asgi: Any = edge(app, body_limit=settings.request_body_limit, body_timeout=settings.request_body_timeout)
    transport = httpx.ASGITransport(app=asgi)
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.post("/platform/auth/login", json={"email": OPERATOR_EMAIL, "password": OPERATOR_PASSWORD})
        assert answer.status_code == 200, answer.text
        yield World(
            settings=settings,
            addresses=addresses,
            app=app,
            http=http,
            operator=Caller(http, answer.json()["accessToken"]),
        )


@asynccontextmanager
async def as_admin(addresses: Template) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """The database as its superuser sees it, or whoever the external server gave us."""
    connection = await asyncpg.connect(addresses.admin_url)
    try:
        yield connection
    finally:
        await connection.close()


def tenant_body(slug: str, **fields: object) -> dict[str, object]:
    """What `POST /platform/tenants` takes."""
    return {
        "slug": slug,
        "name": slug.title(),
        "plan": "free",
        "ownerEmail": f"owner@{slug}.example",
        "ownerPassword": "correct horse battery",
        **fields,
    }
