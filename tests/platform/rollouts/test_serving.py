"""Whoever migrates tenants waits for the processes that would refuse them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tenantry.platform.rollouts.serving import latecomers, wait_until_served
from tenantry.tenancy.registry import TenantRegistry
from tenantry.tenancy.release import FOLLOWER, follower_name, served_range
from tests.databases import Template
from tests.tree import TenantTree

LINE = ("0001", "0002", "0003")
STALE_AFTER = 1.5


@asynccontextmanager
async def process(addresses: Template, newest: str, *, looks: bool = True) -> AsyncIterator[None]:
    """What is seen of one that serves: a connection by that name, over which it asks again and again."""
    connection = await asyncpg.connect(
        addresses.app_url, server_settings={"application_name": follower_name(newest)}, statement_cache_size=0
    )

    async def follow() -> None:
        while True:
            await connection.execute("SELECT")
            await asyncio.sleep(0.1)

    following = asyncio.create_task(follow() if looks else asyncio.Event().wait())
    try:
        yield
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await connection.close()


class Waiting:
    """One that waits, and what it has been told."""

    def __init__(self, url: str, *, timeout: float = 30) -> None:
        self._told: asyncio.Queue[int] = asyncio.Queue()
        self.task = asyncio.create_task(self._wait(url, timeout))

    async def _wait(self, url: str, timeout: float) -> None:  # noqa: ASYNC109 - of the whole
        async with asyncio.timeout(timeout):
            await wait_until_served(url, LINE, stale_after=STALE_AFTER, tell=self._told.put_nowait)

    async def hears_of(self, count: int) -> None:
        async with asyncio.timeout(10):
            while await self._told.get() != count:
                pass


async def test_where_everybody_knows_the_revision_nobody_waits_long(database_addresses: Template) -> None:
    async with process(database_addresses, "0003"), process(database_addresses, "0003"):
        await Waiting(database_addresses.app_url, timeout=10).task


async def test_it_waits_until_the_last_process_of_the_release_before_has_gone(database_addresses: Template) -> None:
    async with process(database_addresses, "0003"):
        async with process(database_addresses, "0002"):
            async with process(database_addresses, "0001"):
                waiting = Waiting(database_addresses.app_url)
                await waiting.hears_of(2)
            await waiting.hears_of(1)
            assert not waiting.task.done()
        await waiting.task


async def test_a_process_that_connects_anew_is_waited_for(database_addresses: Template) -> None:
    async with process(database_addresses, "0002"):
        waiting = Waiting(database_addresses.app_url)
        await waiting.hears_of(1)
    await waiting.hears_of(0)
    async with process(database_addresses, "0002"):
        await waiting.hears_of(1)
        assert not waiting.task.done()
    await waiting.task


async def test_a_process_of_a_later_release_is_nobody_to_wait_for(database_addresses: Template) -> None:
    async with process(database_addresses, "0004"):
        await Waiting(database_addresses.app_url, timeout=10).task


async def test_a_name_that_a_poolers_idle_connection_has_kept_holds_nobody_up(database_addresses: Template) -> None:
    async with process(database_addresses, "0002", looks=False):
        # It counts at first: nobody can tell it from a process that has just asked.
        await Waiting(database_addresses.app_url, timeout=20).task


async def test_whoever_waits_in_vain_is_told_in_time(database_addresses: Template) -> None:
    async with process(database_addresses, "0002"):
        with pytest.raises(TimeoutError):
            await Waiting(database_addresses.app_url, timeout=1).task


async def test_a_database_that_breaks_the_connection_off_is_asked_again(database_addresses: Template) -> None:
    async with process(database_addresses, "0002"):
        waiting = Waiting(database_addresses.app_url)
        await waiting.hears_of(1)
        admin = await asyncpg.connect(database_addresses.admin_url)
        try:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                f"AND pid <> pg_backend_pid() AND application_name NOT LIKE '{FOLLOWER}%'"
            )
        finally:
            await admin.close()
        await waiting.hears_of(1)
    await waiting.task


async def test_a_process_says_by_its_registry_which_revision_it_knows(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    registry = TenantRegistry(database_addresses.app_url)
    await registry.start()
    try:
        line = served_range().revisions
        connection = await asyncpg.connect(database_addresses.app_url)
        try:
            assert await latecomers(connection.fetch, line, within=30) == 0
            assert await latecomers(connection.fetch, (*line, tenant_tree.add()), within=30) == 1
        finally:
            await connection.close()
    finally:
        await registry.stop()
