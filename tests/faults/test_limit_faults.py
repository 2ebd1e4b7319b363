"""Limits and counters when the real Redis is killed or stands still under real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import httpx
import pytest
from redis import Redis

from tenantry.dev.process import wait_until
from tests.faults import deployment
from tests.faults.deployment import Session
from tests.faults.test_faults import Site, site

pytestmark = pytest.mark.slow

__all__ = ("site",)


async def _ask(client: httpx.AsyncClient, tenant: Session, times: int) -> list[tuple[int, bool, float]]:
    """Of requests one after the other: the status, whether limits were told, and the seconds."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        answer = await client.get("/api/roles", headers=tenant.headers)
        found.append((answer.status_code, "ratelimit" in answer.headers, time.perf_counter() - began))
    return found


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits far away from what is asked for: what matters is that they are asked."""
    before = deployment._environment
    monkeypatch.setattr(
        deployment,
        "_environment",
        lambda addresses, home, overrides: (
            before(addresses, home, overrides) | {"TENANTRY_REQUEST_RATE": "10000", "TENANTRY_REQUEST_BURST": "100000"}
        ),
    )


@pytest.mark.parametrize("death", ["killed", "stopped"])
def test_limits_open_at_once_and_close_again_when_redis_is_back(limited: None, site: Site, death: str) -> None:
    acme, globex = site.tenants

    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=site.deployment.url, timeout=30) as client:
            assert all(seen[:2] == (200, True) for seen in await _ask(client, acme, 5))
            if death == "killed":
                await asyncio.to_thread(site.valkey.kill)
            else:
                os.kill(site.valkey.pid, signal.SIGSTOP)
            try:
                away = [*await _ask(client, acme, 30), *await _ask(client, globex, 30)]
                assert all(status == 200 for status, _, _ in away), site.deployment.api.log_tail(100)
                assert not any(told for _, told, _ in away[3:])
                # TENANTRY_REDIS_TIMEOUT is 0.25 s; a loaded machine has slow requests of its own, but not all of them.
                assert sorted(seconds for _, _, seconds in away)[len(away) // 2] < 0.2
            finally:
                if death == "killed":
                    await asyncio.to_thread(site.valkey.start)
                else:
                    os.kill(site.valkey.pid, signal.SIGCONT)

            async def is_back() -> bool:
                return all(seen[:2] == (200, True) for seen in await _ask(client, acme, 1))

            async with asyncio.timeout(20):
                while not await is_back():
                    await asyncio.sleep(0.05)

    asyncio.run(scenario())
    log = site.deployment.api.log_tail(1000)
    assert log.count("done without for now") == log.count("back again") == 1, log
    # Handed over, to the server that is back: it has forgotten what the killed one knew.
    assert wait_until(lambda: _counted(site, globex) >= 30, 10)
    assert _counted(site, globex) == 30


def _counted(site: Site, tenant: Session) -> int:
    with Redis.from_url(site.valkey.url()) as redis:
        keys = list(redis.scan_iter(f"{{t:{tenant.id}}}:use:*"))
        return sum(int(redis.hget(key, "requests") or 0) for key in keys)
