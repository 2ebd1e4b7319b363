"""The API beside a worker that a test runs: both on the Redis database that is the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tenantry.jobs.definition import Job
from tests.databases import Template
from tests.jobs.support import empty_redis, open_worker
from tests.platform.support import as_admin, eventually, open_api
from tests.world import Caller, TenantHandle, World

__all__ = ("JobApi", "job_api")


@dataclass
class JobApi:
    """A deployment's API whose workers, if any, are the test's."""

    api: World
    redis_url: str
    home: Path

    @property
    def addresses(self) -> Template:
        return self.api.addresses

    @property
    def operator(self) -> Caller:
        return self.api.operator

    async def owner(self, tenant: TenantHandle) -> Caller:
        return await self.api.log_in(tenant.slug, tenant.owner_email)

    async def enqueue(self, tenant: TenantHandle, what: Job, **arguments: Any) -> UUID:
        async with self.api.database.transaction(tenant.context.write_scope) as transaction:
            return await what.enqueue(transaction.session, **arguments)

    async def row(self, job_id: UUID) -> Any:
        async with as_admin(self.addresses) as admin:
            return await admin.fetchrow("SELECT * FROM platform.outbox WHERE id = $1", job_id)

    async def until(self, job_id: UUID, status: str, *, seconds: float = 15) -> dict[str, Any]:
        """Wait until operators see a job in a state; what they see."""

        async def ask() -> dict[str, Any] | None:
            answer = await self.operator.get(f"/platform/jobs/{job_id}")
            found: dict[str, Any] = answer.json()
            return found if found.get("status") == status else None

        return await eventually(ask, seconds) or {}

    async def until_gone(self, job_id: UUID, *, seconds: float = 15) -> None:
        """Wait until its row is gone: its effect is committed."""

        async def gone() -> bool:
            return await self.row(job_id) is None

        await eventually(gone, seconds)

    @asynccontextmanager
    async def worker(self, *jobs: Job) -> AsyncIterator[None]:
        async with open_worker(self.addresses, self.redis_url, self.home / "worker", jobs):
            yield


@pytest.fixture
async def job_api(world: World, tmp_path: Path) -> AsyncIterator[JobApi]:
    """One with nothing in its queues: whatever other tests have left waiting, a worker here would run."""
    async with as_admin(world.addresses) as admin:
        await admin.execute("DELETE FROM platform.outbox")
    async with (
        empty_redis(world.addresses) as url,
        open_api(world.addresses, tmp_path / "api", redis_url=url) as api,
    ):
        yield JobApi(api, url, tmp_path)
