"""`tenantry migrate wait`, as a deployment runs it before its rollout."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import asyncpg
import pytest

from tenantry.cli.problems import ExitCode
from tenantry.tenancy.release import follower_name
from tenantry.tenancy.revision_files import read_line
from tests.cli.support import answer, run
from tests.databases import Template


@pytest.fixture
def quick(env: dict[str, str]) -> dict[str, str]:
    return env | {"TENANTRY_REGISTRY_POLL_INTERVAL": "0.2", "TENANTRY_REGISTRY_STALE_AFTER": "1"}


@contextmanager
def older_process(addresses: Template) -> Iterator[None]:
    """One that knows the revision before the newest, while the block runs."""
    serving, over = Event(), Event()

    async def serve() -> None:
        connection = await asyncpg.connect(
            addresses.app_url, server_settings={"application_name": follower_name(read_line("tenant")[-2])}
        )
        try:
            while not over.is_set():
                await connection.execute("SELECT")
                serving.set()
                await asyncio.to_thread(over.wait, 0.1)
        finally:
            await connection.close()

    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert serving.wait(10)
        yield
    finally:
        over.set()
        thread.join()


def test_it_ends_where_every_process_knows_the_newest_revision(
    database_addresses: Template, quick: dict[str, str]
) -> None:
    newest = read_line("tenant")[-1]
    assert answer(run("migrate", "wait", "--json", env=quick)) == {"revision": newest, "processes": 0}
    assert run("migrate", "wait", env=quick).stdout == f"Every process that serves knows {newest}.\n"


def test_it_ends_with_5_where_one_still_does_not(database_addresses: Template, quick: dict[str, str]) -> None:
    newest = read_line("tenant")[-1]
    with older_process(database_addresses):
        result = run("migrate", "wait", "--timeout", "1.5", env=quick)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert f"there still are serving processes that do not know {newest}: 1" in result.stderr


def test_a_database_that_does_not_answer_is_said(quick: dict[str, str]) -> None:
    away = quick | {"TENANTRY_DATABASE_URL": "postgresql://tenantry_app:x@127.0.0.1:1/tenantry"}
    result = run("migrate", "wait", "--timeout", "0.5", env=away)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "the database could not be asked" in result.stderr
