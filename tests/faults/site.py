"""A deployment that can be harmed: PostgreSQL and Valkey of its own, two tenants, and workers that are processes."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from tenantry.dev.postgres import EmbeddedPostgres
from tenantry.dev.valkey import EmbeddedValkey
from tenantry.jobs.ring import Ring
from tenantry.kernel.redis import create_redis
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.plan import PlanLimits
from tenantry.tenancy.redis import queue_name
from tenantry.tenancy.wiring import create_database, scope_times
from tests.databases import Template, _make
from tests.faults.deployment import _environment
from tests.jobs.effects import effect
from tests.platform.support import eventually, make_provisioner, open_api, tenant_body
from tests.servers import temporary_folder
from tests.world import settings_for

__all__ = ("Site", "open_site")

_JOBS = 600
"""Of each of the two tenants."""


@dataclass
class Site:
    """Servers of its own, two tenants, and workers that are processes."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    addresses: Template
    home: Path
    tenants: list[TenantContext] = field(default_factory=list)
    workers: list[asyncio.subprocess.Process] = field(default_factory=list)
    committed: dict[str, set[str]] = field(default_factory=dict)

    async def start_worker(self, **settings: object) -> None:
        overrides = {
            "worker_concurrency": 8,
            "worker_grace": 5,
            "log_level": "ERROR",
            # Where the receivers of webhooks are.
            "outbound_networks": "127.0.0.1/32",
            **settings,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.jobs.effects", env=_environment(self.addresses, self.home, overrides)
        )
        self.workers.append(process)

    async def kill_first(self) -> None:
        victim = self.workers.pop(0)
        victim.kill()
        await victim.wait()

    async def kill_one(self) -> None:
        victim = self.workers.pop(random.randrange(len(self.workers)))
        victim.kill()
        await victim.wait()
        await self.start_worker()

    async def commit_jobs(self, each: int = _JOBS) -> None:
        """Enqueue by small transactions, every tenth of which is rolled back."""
        database = create_database(settings_for(self.addresses, self.home), application_name="test", pool_size=4)
        try:
            for tenant in self.tenants:
                names = self.committed.setdefault(tenant.slug, set())
                start = len(names)
                for number in range(start, start + each):
                    name = f"{tenant.slug} {number}"
                    transaction = await database.begin(tenant.write_scope)
                    await effect.enqueue(transaction.session, name=name)
                    if number % 10 == 9:
                        await effect.enqueue(transaction.session, name=f"phantom {number}")
                        await transaction.close()
                        continue
                    await transaction.commit()
                    await transaction.close()
                    names.add(name)
        finally:
            await database.close()

    async def ask(self, question: str) -> Any:
        admin = await asyncpg.connect(self.addresses.admin_url)
        try:
            return await admin.fetchval(question)
        finally:
            await admin.close()

    async def effects(self) -> int:
        """How many jobs have taken effect, of both tenants."""
        counts = [await self.ask(f'SELECT count(*) FROM "{tenant.schema}".tag') for tenant in self.tenants]
        return sum(counts)

    async def drained(self) -> bool:
        """Nothing is to be done any more: what runs a second time would do so after its row is gone."""
        if not await self.ask("SELECT NOT EXISTS (SELECT FROM platform.outbox)"):
            return False
        redis = create_redis(self.valkey.url(), timeout=5)
        try:
            ring = Ring(redis)
            waiting = [await redis.zcard(f"saq:{queue_name(tenant.id)}:incomplete") for tenant in self.tenants]
            return not any(waiting) and not await ring.inflight()
        finally:
            await redis.aclose()

    async def check(self) -> None:
        """Everything that was committed has taken effect once; nothing else has."""
        try:
            await eventually(self.drained, 120)
        except TimeoutError:
            left = await self.ask(
                "SELECT json_object_agg(status, n) FROM"
                " (SELECT status, count(*) AS n FROM platform.outbox GROUP BY 1) c"
            )
            raise AssertionError(f"not drained: {left}") from None
        admin = await asyncpg.connect(self.addresses.admin_url)
        try:
            for tenant in self.tenants:
                rows = await admin.fetch(
                    f"SELECT split_part(name, '#', 1) AS name, count(*) AS n FROM \"{tenant.schema}\".tag GROUP BY 1"
                )
                assert {row["name"] for row in rows} == self.committed[tenant.slug]
                assert Counter(row["n"] for row in rows).keys() <= {1}
        finally:
            await admin.close()


@asynccontextmanager
async def open_site(workers: int = 3) -> AsyncIterator[Site]:
    """A site with two tenants and so many workers, all of it gone after the block."""
    folder = temporary_folder("tenantry-job-faults-")
    postgres = EmbeddedPostgres(
        folder / "postgres", settings={"synchronous_commit": "on", "fsync": "off"}, sync=False, delete_with_parent=True
    )
    valkey = EmbeddedValkey(folder / "valkey", persistent=False, delete_with_parent=True)
    try:
        with postgres, valkey:
            owner_url, app_url = await _make(postgres.url("postgres"), "tenantry")
            addresses = Template("tenantry", postgres.url("tenantry"), owner_url, app_url, valkey.url())
            home = folder / "home"
            home.mkdir()
            site = Site(postgres, valkey, addresses, home)
            await _make_tenants(site)
            for _ in range(workers):
                await site.start_worker()
            try:
                yield site
            finally:
                for process in site.workers:
                    if process.returncode is None:
                        process.kill()
                    await process.wait()
    finally:
        shutil.rmtree(folder)


async def _make_tenants(site: Site) -> None:
    provisioner = make_provisioner(site.addresses)
    times = scope_times(settings_for(site.addresses, site.home))
    async with open_api(site.addresses, site.home, provision_wait=0.05) as api:
        for slug in ("acme", "globex"):
            made = await api.operator.post("/platform/tenants", json=tenant_body(slug))
            assert made.status_code in {201, 202}, made.text
        await provisioner.work_off()
        await provisioner.close()
        for slug in ("acme", "globex"):
            tenant = (await api.operator.get(f"/platform/tenants/{slug}")).json()
            site.tenants.append(
                TenantContext.build(
                    tenant_id=UUID(tenant["id"]),
                    slug=slug,
                    name=slug,
                    status="active",
                    plan=PlanLimits(slug="free"),
                    times=times,
                )
            )
