"""Jobs that would take their worker with them harm only themselves: real processes, really ended."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tenantry.jobs.definition import Job
from tenantry.jobs.ring import Ring
from tenantry.jobs.supervisor import Limits, Supervisor, _Child
from tenantry.kernel.redis import create_redis
from tests.databases import Template
from tests.faults.deployment import _environment
from tests.jobs.poisoned import command, die, fine, hog, spin
from tests.jobs.support import empty_redis
from tests.platform.support import as_admin, eventually
from tests.world import TenantHandle, World

pytestmark = pytest.mark.slow


@asynccontextmanager
async def supervised(addresses: Template, home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    """A supervised worker; the file in which its jobs note that they begin."""
    log = home / "begun.log"
    log.touch()
    async with empty_redis(addresses) as url:
        overrides = {"redis_url": url, "worker_grace": 2, "worker_concurrency": 4}
        for name, value in _environment(addresses, home, overrides).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("POISON_LOG", str(log))
        redis = create_redis(url, timeout=5)
        limits = Limits(stall=6.0, memory=600 << 20, grace=10.0)
        supervisor = Supervisor(command, ring=Ring(redis), limits=limits, name="test")
        task = asyncio.create_task(supervisor.run())
        try:
            yield log
        finally:
            supervisor.stop()
            await task
            await redis.aclose()


async def enqueue(world: World, tenant: TenantHandle, what: Job, name: str) -> Any:
    async with world.database.transaction(tenant.context.write_scope) as transaction:
        return await what.enqueue(transaction.session, name=name)


_LATE = """
import os, time
time.sleep(1.5)
for _ in range(4):
    os.write(int(os.environ["_TENANTRY_BEAT"]), b".")
    time.sleep(0.2)
time.sleep({})
"""


@pytest.mark.parametrize(
    ("pause", "start", "reason"),
    [(0, 60.0, "exit"), (60, 60.0, "stall"), (0, 0.5, "stall")],
    ids=["begins late", "stalls later", "never begins"],
)
async def test_a_worker_may_take_longer_to_begin_than_a_job_may_hold_it(pause: int, start: float, reason: str) -> None:
    limits = Limits(stall=1.0, start=start)
    child = _Child("late", lambda *_: [sys.executable, "-c", _LATE.format(pause)], limits, quarantine=False)
    assert await child.run(asyncio.Event()) == reason


@pytest.mark.parametrize("poison", [spin, hog, die], ids=lambda poison: poison.name)
async def test_a_job_that_ends_its_worker_is_dead_and_the_others_are_done_in_their_first_attempt(
    world: World,
    acme: TenantHandle,
    globex: TenantHandle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    poison: Job,
) -> None:
    culprit = await enqueue(world, acme, poison, "culprit")
    names = [f"fine-{number}" for number in range(6)]
    for name in names:
        await enqueue(world, acme, fine, name)
        await enqueue(world, globex, fine, name)
    async with supervised(world.addresses, tmp_path, monkeypatch) as log:

        async def settled() -> bool:
            async with as_admin(world.addresses) as admin:
                rows = await admin.fetch("SELECT id, status FROM platform.outbox")
            return [(row["id"], row["status"]) for row in rows] == [(culprit, "dead")]

        await eventually(settled, 180)
        begun = log.read_text().splitlines()
    for tenant in (acme, globex):
        found = {item["name"] for item in (await tenant.get("/api/tags?pageSize=50")).json()["items"]}
        assert found == set(names)
    counts = Counter(begun)
    assert 2 <= counts["culprit 1"] + counts["culprit 2"] <= 3
    assert not [line for line in begun if line.startswith("fine") and not line.endswith(" 1")]
    async with as_admin(world.addresses) as admin:
        error = await admin.fetchval("SELECT error FROM platform.outbox WHERE id = $1", culprit)
        await admin.execute("DELETE FROM platform.outbox")
    assert "twice" in error
