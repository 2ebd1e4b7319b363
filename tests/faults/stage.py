"""A deployment under load, as a test finds it: three processes of each kind, two releases, and people at work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import httpx

from tenantry.tenancy import revision_files
from tests.databases import Template
from tests.faults.balancer import Balancer
from tests.faults.deployment import Session
from tests.faults.releases import EXPAND
from tests.faults.rolling import Release
from tests.faults.test_expand_contract import Operator
from tests.faults.upgrades import SHARED
from tests.faults.upgrading import Estate, Visitors, check_effects, end_of_jobs
from tests.jobs.support import empty_redis
from tests.tenancy.trees import revision_text
from tests.tree import TenantTree

__all__ = ("Stage", "open_stage")


def _releases(folder: Path) -> tuple[Release, Release]:
    """This one, and the next with one revision more in each tree; it serves tenants at either."""
    now, later = TenantTree(folder / "now"), TenantTree(folder / "next")
    before = revision_files.read_line_in(later.folder / "shared")[-1]
    number = f"{int(before) + 1:04}"
    path = later.folder / "shared" / "versions" / f"{number}_greeting.py"
    path.write_text(revision_text(number, before, upgrade=SHARED), encoding="utf-8")
    later.add(EXPAND)
    return Release("now", now, now.head), Release("next", later, now.head)


@dataclass
class Stage:
    """What a test has before it deploys: this release, under load."""

    estate: Estate
    visitors: Visitors
    operator: Operator
    addresses: Template
    now: Release
    later: Release
    tenants: list[Session]

    async def create_tenant(self, slug: str) -> None:
        self.tenants.append(await self.operator.create_tenant(slug))
        self.visitors.add(self.tenants[-1])

    async def revisions(self) -> set[str]:
        admin = await asyncpg.connect(self.addresses.admin_url)
        try:
            return {row["revision"] for row in await admin.fetch("SELECT revision FROM platform.tenant")}
        finally:
            await admin.close()

    async def check(self) -> None:
        """Nothing went wrong, and all that was acknowledged is there."""
        await end_of_jobs(self.addresses, self.tenants)
        await check_effects(self.addresses, self.visitors, self.tenants)
        assert not self.visitors.wrong, self.visitors.wrong[:5]
        assert {status for _, status in self.visitors.answers} <= {200, 201}


@asynccontextmanager
async def open_stage(addresses: Template, folder: Path, *, each: int) -> AsyncIterator[Stage]:
    """So many API processes and workers, two provisioners, and three tenants with people at work."""
    now, later = _releases(folder)
    home = folder / "home"
    home.mkdir()
    with ExitStack() as stack:
        async with (
            empty_redis(addresses) as redis_url,
            Balancer() as balancer,
            Estate(stack, replace(addresses, redis_url=redis_url), home, balancer) as estate,
            httpx.AsyncClient(base_url=balancer.url, timeout=60) as client,
        ):
            for _ in range(2):
                estate.add_provisioner(now)
            await asyncio.gather(*(add(now) for add in [estate.add_api, estate.add_worker] * each))
            operator = Operator(client)
            await operator.log_in()
            visitors = Visitors(balancer.url)
            on_site = replace(addresses, redis_url=redis_url)
            stage = Stage(estate, visitors, operator, on_site, now, later, [])
            try:
                for number in range(3):
                    await stage.create_tenant(f"org-{number}")
                await visitors.more(60, now)
                yield stage
            finally:
                await visitors.stop()
            await stage.check()
            assert balancer.failures == []
