"""Fixtures of the command line's tests."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
import structlog

from tenantry.kernel.settings import load_settings
from tenantry.provisioner import create_provisioner
from tests.cli.support import environment
from tests.databases import Template, drop_database
from tests.servers import make_database_name


@pytest.fixture(autouse=True)
def _keep_logging() -> Iterator[None]:
    """Commands configure the process's logging, which here is everybody's."""
    root = logging.getLogger()
    handlers, level, config = list(root.handlers), root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)
    logging.captureWarnings(False)


@pytest.fixture
def env(database_addresses: Template, tmp_path: Path) -> dict[str, str]:
    """The settings of a deployment with plans and an operator, and without tenants."""
    return environment(database_addresses, tmp_path / "home")


@pytest.fixture
def provisioner(database_addresses: Template, env: dict[str, str]) -> Iterator[None]:
    """A provisioner at work on it, in a thread of its own: commands run loops of their own in this one."""
    ready = threading.Event()
    stop: list[Callable[[], object]] = []

    async def work() -> None:
        task = asyncio.create_task(create_provisioner(load_settings(env), database_addresses.owner_url).run())
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(task.cancel))
        ready.set()
        await asyncio.wait({task})
        assert task.cancelled()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    ready.wait()
    yield
    stop[0]()
    thread.join()


@pytest.fixture
def empty_database(template: Template) -> Iterator[Template]:
    """A database that the owner owns, with nothing in it, neither migrated nor hardened."""
    name = make_database_name("empty")

    async def make() -> None:
        admin = await asyncpg.connect(template.admin_url.replace(template.name, "postgres"))
        try:
            await admin.execute(f'CREATE DATABASE "{name}" OWNER tenantry_owner')
            await admin.execute(f'GRANT CONNECT ON DATABASE "{name}" TO tenantry_app')
        finally:
            await admin.close()

    addresses = Template(
        name=name,
        admin_url=template.admin_url.replace(template.name, name),
        owner_url=template.owner_url.replace(template.name, name),
        app_url=template.app_url.replace(template.name, name),
        redis_url=template.redis_url,
    )
    asyncio.run(make())
    yield addresses
    asyncio.run(drop_database(addresses))
