"""Reads on a streaming replica, made by pg_basebackup: what was committed is seen, or the primary is asked."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from prometheus_client import REGISTRY

from tenantry.dev.postgres import EmbeddedPostgres
from tests.databases import Template, _make, clone_database, drop_database
from tests.platform.support import open_api
from tests.servers import temporary_folder
from tests.world import Caller, TenantHandle, World, open_world

PATIENT = 2.0
"""Seconds that a read lets the replica catch up: the machine may be busy."""


@dataclass
class Site:
    """A primary, its replica, and two processes of the API that have both."""

    primary: EmbeddedPostgres
    replica: EmbeddedPostgres
    here: World
    there: World
    acme: TenantHandle
    globex: TenantHandle

    @asynccontextmanager
    async def admin(self, server: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection[Any]]:
        connection = await asyncpg.connect(server.url("tenantry"))
        try:
            yield connection
        finally:
            await connection.close()

    def elsewhere(self, caller: Caller) -> Caller:
        """The same person, asking the other process."""
        return Caller(self.there.http, caller.access_token)

    async def opened(self) -> None:
        """Wait until both processes read on the replica."""
        async with asyncio.timeout(60):
            for world in (self.here, self.there):
                while not world.app.state.replica.is_open:
                    await asyncio.sleep(0.05)


def address(server: EmbeddedPostgres, app_url: str) -> str:
    return app_url.replace(str(urlsplit(app_url).port), str(server.port))


def follow(primary: EmbeddedPostgres, folder: Path) -> EmbeddedPostgres:
    """A replica of it that is to be started, as an operator makes one."""
    subprocess.run(
        [
            str(primary.binary("pg_basebackup")),
            *("-d", primary.url("postgres"), "-D", str(folder / "replica"), "-X", "stream"),
            *("--checkpoint=fast", "--write-recovery-conf", "--no-sync"),
        ],
        check=True,
        capture_output=True,
    )
    shutil.copy(primary.password_file, folder / "replica.password")
    return EmbeddedPostgres(
        folder / "replica", settings={"fsync": "off"}, sync=False, delete_with_parent=True, max_connections=150
    )


@pytest.fixture(scope="module")
async def site(template: Template) -> AsyncIterator[Site]:
    folder = temporary_folder("tenantry-replica-")
    primary = EmbeddedPostgres(
        folder / "primary",
        settings={"fsync": "off", "synchronous_commit": "on"},
        sync=False,
        delete_with_parent=True,
        max_connections=150,
    )
    try:
        with primary:
            owner_url, app_url = await asyncio.to_thread(
                lambda: asyncio.run(_make(primary.url("postgres"), "tenantry"))
            )
            addresses = Template("tenantry", primary.url("tenantry"), owner_url, app_url, template.redis_url)
            home = folder / "home"
            home.mkdir()
            with await asyncio.to_thread(follow, primary, folder) as replica:
                overrides: dict[str, object] = {
                    "database_replica_url": address(replica, app_url),
                    "database_replica_wait": PATIENT,
                }
                async with (
                    open_world(addresses, home, **overrides) as here,
                    open_api(addresses, home, **overrides) as there,
                ):
                    acme, globex = await here.create_tenant("acme"), await here.create_tenant("globex")
                    await there.app.state.registry.refresh()
                    site = Site(primary, replica, here, there, acme, globex)
                    await site.opened()
                    yield site
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def paused(site: Site) -> AsyncIterator[None]:
    """The replica receives, and replays nothing."""
    async with site.admin(site.replica) as admin:
        await admin.execute("SELECT pg_wal_replay_pause()")
        async with asyncio.timeout(30):
            while await admin.fetchval("SELECT pg_get_wal_replay_pause_state()") != "paused":
                await asyncio.sleep(0.02)
        try:
            yield
        finally:
            await admin.execute("SELECT pg_wal_replay_resume()")


def outcomes(name: str) -> float:
    return REGISTRY.get_sample_value("tenantry_database_replica_reads_total", {"outcome": name}) or 0.0


async def names(caller: Caller) -> list[str]:
    answer = await caller.get("/api/teams", params={"pageSize": 100})
    assert answer.status_code == 200, answer.text
    return sorted(team["name"] for team in answer.json()["items"])


async def test_what_is_written_is_read_at_once_in_another_process_and_on_the_replica(site: Site) -> None:
    await site.opened()
    before = outcomes("replica")
    mine: dict[str, list[str]] = {"acme": [], "globex": []}
    for number in range(5):
        for name, tenant in (("acme", site.acme), ("globex", site.globex)):
            mine[name].append((await tenant.add_team(f"{name}'s {number}"))["name"])
            assert await names(site.elsewhere(tenant)) == mine[name]
            assert await names(tenant) == mine[name]
    assert outcomes("replica") >= before + 20


async def test_a_replica_that_is_behind_is_not_asked(site: Site) -> None:
    await site.opened()
    async with paused(site):
        made = await site.acme.add_team("Unreplayed")
        before = outcomes("replica"), outcomes("behind")
        for caller in (site.acme, site.elsewhere(site.acme)):
            answer = await caller.get(f"/api/teams/{made['id']}")
            assert answer.status_code == 200, answer.text
        assert (outcomes("replica"), outcomes("behind")) == (before[0], before[1] + 2)
        # And not waited for by the next ones.
        assert not site.here.app.state.replica.is_open
        assert "Unreplayed" in await names(site.acme)
        assert "Unreplayed" not in await names(site.globex)
        assert outcomes("behind") == before[1] + 2
    await site.opened()


async def test_a_session_that_was_ended_is_refused_with_the_next_request_whatever_the_replica_knows(
    site: Site,
) -> None:
    await site.opened()
    gone = await site.here.log_in(site.acme.slug, site.acme.owner_email)
    assert (await site.elsewhere(gone).get("/api/teams")).status_code == 200
    async with paused(site):
        answer = await gone.post("/api/auth/logout", json={"refreshToken": gone.refresh_token})
        assert answer.status_code == 204, answer.text
        assert (await site.elsewhere(gone).get("/api/teams")).status_code == 401
        assert (await site.elsewhere(site.globex).get("/api/teams")).status_code == 200
    await site.opened()
    again = await site.here.log_in(site.acme.slug, site.acme.owner_email)
    await again.post("/api/auth/logout", json={"refreshToken": again.refresh_token})
    assert (await site.elsewhere(again).get("/api/teams")).status_code == 401


async def test_a_tenant_that_the_replica_has_not_heard_of_is_served(site: Site) -> None:
    await site.opened()
    async with paused(site):
        fresh = await site.here.create_tenant("fresh")
        assert await names(fresh) == []
    await site.opened()
    assert await names(fresh) == []


async def test_a_read_that_the_replica_breaks_off_is_the_primarys(site: Site) -> None:
    await site.opened()
    # Of a tenant of its own: its table is locked, on both.
    tenant = await site.here.create_tenant("broken")
    await tenant.add_team("Kept")
    before = outcomes("replica")
    async with site.admin(site.primary) as primary, site.admin(site.replica) as replica:
        async with primary.transaction():
            await primary.execute(f'LOCK TABLE "{tenant.context.schema}".team IN ACCESS EXCLUSIVE MODE')
            # Whatever is committed takes what was logged before with it, to the replica's locks.
            await site.globex.add_team("Beside")
            reading = asyncio.create_task(names(tenant))
            waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'tenantry_app'"
            async with asyncio.timeout(30):
                while (pid := await replica.fetchval(waiting)) is None:
                    assert not reading.done(), await reading
                    await asyncio.sleep(0.02)
            await replica.execute("SELECT pg_terminate_backend($1)", pid)
        assert await reading == ["Kept"]
    assert outcomes("replica") == before + 1


async def test_nobody_notices_that_the_replica_is_killed_and_it_is_asked_again_when_it_is_back(site: Site) -> None:
    await site.opened()
    expected = {tenant.slug: await names(tenant) for tenant in (site.acme, site.globex)}
    await asyncio.to_thread(site.replica.kill)
    for _ in range(3):
        for tenant in (site.acme, site.globex):
            assert await names(tenant) == expected[tenant.slug]
            assert await names(site.elsewhere(tenant)) == expected[tenant.slug]
    ready = (await site.here.http.get("/health/ready")).json()
    assert (ready["status"], ready["checks"]["replica"]) == ("degraded", "unavailable")
    await asyncio.to_thread(site.replica.start)
    await site.opened()
    before = outcomes("replica")
    assert await names(site.acme) == expected[site.acme.slug]
    assert outcomes("replica") == before + 1


@pytest.mark.parametrize("which", ["the primary itself", "another cluster"])
async def test_a_server_that_is_no_replica_of_the_primary_is_never_asked(
    site: Site, template: Template, which: str
) -> None:
    other = await clone_database(template)
    try:
        url = site.here.addresses.app_url if which == "the primary itself" else other.app_url
        async with open_api(
            site.here.addresses, site.here.settings.home, database_replica_url=url, database_replica_wait=0.1
        ) as api:
            replica = api.app.state.replica
            transaction, outcome = await replica._try(replica._scope)
            assert transaction is None
            assert outcome == ("behind" if which == "the primary itself" else "stranger")
            assert not replica.is_open
            assert await names(Caller(api.http, site.acme.access_token)) == await names(site.acme)
    finally:
        await drop_database(other)
