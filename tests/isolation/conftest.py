"""Tenants below HTTP, made once for each module of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.databases import Template
from tests.isolation.estate import Estate, open_estate
from tests.world import World


@pytest.fixture(scope="module")
async def estate(template: Template) -> AsyncIterator[Estate]:
    """A database with two tenants."""
    async with open_estate(template) as opened:
        yield opened


@pytest.fixture(scope="module")
async def admin(estate: Estate) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The administrator's connection to that database: who kills backends and holds locks."""
    connection = await asyncpg.connect(estate.addresses.admin_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="session", autouse=True)
async def _lost_connections_are_no_news(anyio_backend: str) -> AsyncIterator[None]:
    """Keep asyncpg's word on a connection that was terminated from failing whichever test runs when it is collected.

    The driver leaves an error with a waiter that nobody waits for any more, which is what being terminated in mid-way
    means; the event loop reports it when the garbage collector comes by, minutes later perhaps.
    """
    loop = asyncio.get_running_loop()
    report = loop.get_exception_handler()

    def sift(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, ConnectionError) and "connection_lost" in str(error):
            return
        (report or type(loop).default_exception_handler)(loop, context)

    loop.set_exception_handler(sift)
    yield
    loop.set_exception_handler(report)


@pytest.fixture(autouse=True)
def _patience_with_strangers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases try hundreds of keys that are none from one address, of which there is a limit (tests/tenancy)."""
    if "world" in request.fixturenames:
        world: World = request.getfixturevalue("world")
        monkeypatch.setattr(world.app.state.rates, "_stranger", (1, 1_000_000))


@pytest.fixture(autouse=True)
def _many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case plants what it is about, and an organization may have twenty providers."""
    monkeypatch.setattr("tenantry.domain.identity.sso.service.MOST_CONNECTIONS", 10_000)
