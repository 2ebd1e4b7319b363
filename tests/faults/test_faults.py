"""What becomes of requests when something dies under them: real processes, killed while they are used."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
import pytest

from tenantry.dev.postgres import EmbeddedPostgres
from tenantry.dev.process import wait_until
from tenantry.dev.valkey import EmbeddedValkey
from tests.databases import Template, _make
from tests.faults.deployment import Deployment, Session, open_deployment
from tests.faults.load import DEADLINE, Load, stored_names
from tests.servers import temporary_folder

pytestmark = pytest.mark.slow


@dataclass
class Site:
    """A deployment on servers of its own, with two tenants."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    addresses: Template
    deployment: Deployment
    tenants: list[Session]

    def count(self, condition: str) -> int:
        """How many of the application's connections meet a condition on pg_stat_activity."""

        async def ask() -> int:
            admin = await asyncpg.connect(self.addresses.admin_url)
            try:
                found: int = await admin.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenantry_app' AND " + condition
                )
            finally:
                await admin.close()
            return found

        return asyncio.run(ask())

    def check(self, load: Load) -> None:
        """Nothing was answered as it should not be, and everything acknowledged is there, where it belongs."""
        assert load.wrong == [], self.deployment.api.log_tail(400)
        assert load.slowest < DEADLINE
        for tenant in self.tenants:
            stored = stored_names(self.deployment, tenant)
            assert load.acknowledged[tenant.slug]
            assert load.acknowledged[tenant.slug] <= stored
            assert all(name.startswith(f"{tenant.slug} ") for name in stored)
        # Whoever was served last holds nothing any more.
        assert wait_until(lambda: self.count("state LIKE 'idle in transaction%'") == 0, 15)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Servers that keep what they acknowledge, also when they are killed: `synchronous_commit` is on."""
    folder = temporary_folder("tenantry-faults-")
    workers: int = getattr(request, "param", 1)
    postgres = EmbeddedPostgres(
        folder / "postgres", settings={"synchronous_commit": "on", "fsync": "off"}, sync=False, delete_with_parent=True
    )
    valkey = EmbeddedValkey(folder / "valkey", persistent=False, delete_with_parent=True)
    try:
        with postgres, valkey:
            admin_url = postgres.url("postgres")
            owner_url, app_url = asyncio.run(_make(admin_url, "tenantry"))
            addresses = Template("tenantry", postgres.url("tenantry"), owner_url, app_url, valkey.url())
            home = folder / "home"
            home.mkdir()
            with open_deployment(addresses, home, workers=workers) as deployment:
                tenants = [deployment.create_tenant(slug) for slug in ("acme", "globex")]
                yield Site(postgres, valkey, addresses, deployment, tenants)
    finally:
        shutil.rmtree(folder)


def _ready(deployment: Deployment) -> str:
    return str(deployment.client.get("/health/ready").json()["status"])


def test_postgresql_is_killed_and_service_returns_by_itself(site: Site) -> None:
    async def scenario() -> Load:
        async with Load(site.deployment, site.tenants) as load:
            for _ in range(2):
                await load.more(100)
                await asyncio.to_thread(site.postgres.kill)
                refused = load.answers[503]
                await load.until(lambda refused=refused: load.answers[503] >= refused + 40)  # type: ignore[misc]
                assert await asyncio.to_thread(_ready, site.deployment) == "unavailable"
                await asyncio.to_thread(site.postgres.start)
                await load.more(100)
        return load

    load = asyncio.run(scenario())
    site.check(load)
    assert wait_until(lambda: _ready(site.deployment) == "ok", 10)
    # The provisioner has found its way back as well.
    site.deployment.create_tenant("after-the-crash")


def test_valkey_is_killed_and_nobody_is_turned_away(site: Site) -> None:
    async def scenario() -> Load:
        async with Load(site.deployment, site.tenants, with_logins=True) as load:
            await load.more(60)
            await asyncio.to_thread(site.valkey.kill)
            # Log-ins included: limits open when they cannot be counted.
            await load.more(150)
            assert await asyncio.to_thread(_ready, site.deployment) == "degraded"
            assert load.unavailable == [], site.deployment.api.log_tail(60)
            await asyncio.to_thread(site.valkey.start)
            await load.more(100)
        return load

    load = asyncio.run(scenario())
    site.check(load)
    assert wait_until(lambda: _ready(site.deployment) == "ok", 10)


@pytest.mark.parametrize("site", [2], indirect=True)
def test_a_worker_is_killed_in_mid_request_and_the_others_serve_on(site: Site) -> None:
    async def scenario() -> Load:
        async with Load(site.deployment, site.tenants, may_lose_connections=True) as load:
            for _ in range(3):
                await load.more(60)
                before = site.deployment.workers()
                assert len(before) == 2
                os.kill(before[0], signal.SIGKILL)
                await load.more(60)
                await load.until(lambda before=before: _replaced(site.deployment, before[0]), 60)  # type: ignore[misc]
        return load

    site.check(asyncio.run(scenario()))


def _replaced(deployment: Deployment, gone: int) -> bool:
    workers = deployment.workers()
    return len(workers) == 2 and gone not in workers


def test_the_whole_api_is_killed_and_a_new_one_finds_everything_acknowledged(site: Site) -> None:
    async def scenario() -> Load:
        async with Load(site.deployment, site.tenants, may_lose_connections=True) as load:
            await load.more(100)
            pids = [site.deployment.api.pid, *site.deployment.workers()]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        return load

    load = asyncio.run(scenario())
    # The server ends what the dead have left: no transaction of theirs stays open, and no lock.
    assert wait_until(lambda: site.count("application_name LIKE 'tenantry-api%'") == 0, 15)
    home = site.deployment.api.log.parent
    with open_deployment(site.addresses, home) as again:
        site.deployment = again
        site.check(load)


def _request(tenant: Session, name: str, *, length: int | None = None) -> bytes:
    body = b'{"name": "%s"}' % name.encode()
    head = (
        "POST /api/teams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {tenant.token}\r\nContent-Length: {length or len(body)}\r\n\r\n"
    )
    return head.encode() + body


LEAVE: dict[str, Callable[[socket.socket, Session, int], None]] = {
    "after the request": lambda s, t, n: s.sendall(_request(t, f"{t.slug} left {n}")),
    "in the middle of the body": lambda s, t, n: s.sendall(_request(t, f"{t.slug} half {n}", length=500)),
    "in the middle of the head": lambda s, t, n: s.sendall(_request(t, f"{t.slug} head {n}")[:40]),
}


@pytest.mark.parametrize("how", LEAVE)
def test_clients_that_leave_in_mid_request_take_no_connection_with_them(site: Site, how: str) -> None:
    address = urlsplit(site.deployment.url)
    assert address.hostname
    assert address.port
    for number in range(200):
        tenant = site.tenants[number % 2]
        with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
            # Reset, not closed in order: the server learns of it while it works.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            LEAVE[how](connection, tenant, number)
    # More requests than there are connections in the pool, so that each of them is used.
    for number in range(60):
        tenant = site.tenants[number % 2]
        me = site.deployment.client.get("/api/users/me", headers=tenant.headers)
        assert (me.status_code, me.json()["email"]) == (200, tenant.email)
    for tenant in site.tenants:
        assert all(name.startswith(f"{tenant.slug} ") for name in stored_names(site.deployment, tenant))
    assert wait_until(lambda: site.count("state <> 'idle'") == 0, 15)
    assert site.count("application_name LIKE 'tenantry-api%'") <= 15
