"""Fixtures that all tests share: real servers, databases cloned from a template, one application per process."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator

import pytest
import structlog

from tests.databases import Template, clone_database, drop_database, ensure_template
from tests.servers import LEFT, start_servers, stop_servers
from tests.world import TenantHandle, World, open_world


def pytest_configure(config: pytest.Config) -> None:
    # Before anything imports them, and not only the suite that they are of does.
    pytest.register_assert_rewrite("tests.isolation.machine", "tests.isolation.routes")
    # structlog's own tracebacks show every frame's variables: rendering one keeps the event loop for seconds, long
    # enough for a registry to be stale.
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])
    start_servers(config)


def pytest_collection_finish() -> None:
    # What is there now, 420,000 objects of libraries and tests, stays until the end: a look through them for garbage
    # takes 0.4 s, and all of them together a fifth of the tests' time.
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if LEFT:
        terminalreporter.write_line(
            f"Of other runs there were {len(LEFT)} databases on this server, {LEFT[0]} for one. If none is running, "
            "`python -m tests.leftovers --drop` drops them."
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    stop_servers(config)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop for the whole process, so that an application may live as long as it."""
    return "asyncio"


@pytest.fixture(scope="session")
def template(anyio_backend: str) -> Template:
    """The roles, and a database with the shared schema, plans and an operator; made once per run."""
    return ensure_template()


@pytest.fixture
async def database_addresses(template: Template) -> AsyncIterator[Template]:
    """The addresses of an empty deployment's database, the test's own."""
    addresses = await clone_database(template)
    yield addresses
    await drop_database(addresses)


@pytest.fixture(scope="session")
async def world(template: Template, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A running deployment: the application, a provisioner and an operator. Tests make tenants of their own in it."""
    addresses = await clone_database(template)
    async with open_world(addresses, tmp_path_factory.mktemp("home")) as opened:
        yield opened
    await drop_database(addresses)


@pytest.fixture
async def acme(world: World) -> TenantHandle:
    """A fresh tenant with a signed-in owner."""
    return await world.create_tenant("acme")


@pytest.fixture
async def globex(world: World) -> TenantHandle:
    """Another one."""
    return await world.create_tenant("globex")
