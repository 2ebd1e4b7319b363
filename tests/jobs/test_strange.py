"""Two releases' workers at once: what one of them does not know waits for the other, and loses no attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tenantry.domain.tags.service import TagService
from tenantry.jobs import strange
from tenantry.jobs.definition import Job, JobRun, job
from tenantry.kernel.redis import create_redis
from tests.jobs.support import empty_redis, open_worker
from tests.platform.support import as_admin, eventually
from tests.world import TenantHandle, World


@job("paint", retries=2, timeout=10, backoff=0.01)
async def paint(tags: TagService, name: str) -> None:
    await tags.create({"name": name, "slug": name})


@job("paint", retries=2, timeout=10, backoff=0.01)
async def paint_next(tags: TagService, run: JobRun, name: str, color: str = "blue") -> None:
    await tags.create({"name": f"{name} {color} {run.attempt}", "slug": name})


@job("polish", retries=2, timeout=10, backoff=0.01)
async def polish(tags: TagService, run: JobRun, name: str) -> None:
    await tags.create({"name": f"{name} {run.attempt}", "slug": name})


async def _enqueue(world: World, tenant: TenantHandle, what: Job, **arguments: Any) -> UUID:
    async with world.database.transaction(tenant.context.write_scope) as transaction:
        return await what.enqueue(transaction.session, **arguments)


async def _status(world: World, job_id: UUID) -> str | None:
    """Of the job's row in the outbox; None once it is done."""
    async with as_admin(world.addresses) as admin:
        found: str | None = await admin.fetchval("SELECT status FROM platform.outbox WHERE id = $1", job_id)
        return found


async def _tags(tenant: TenantHandle) -> set[str]:
    return {item["name"] for item in (await tenant.get("/api/tags")).json()["items"]}


@pytest.mark.parametrize(
    ("what", "arguments"),
    [(polish, {"name": "shoe"}), (paint_next, {"name": "shoe", "color": "red"})],
    ids=["a name", "a parameter"],
)
async def test_what_only_the_next_release_knows_waits_for_it_with_all_of_its_attempts(
    world: World, acme: TenantHandle, tmp_path: Path, what: Job, arguments: dict[str, Any]
) -> None:
    async with (
        empty_redis(world.addresses) as url,
        create_redis(url) as redis,
        open_worker(world.addresses, url, tmp_path, [paint]),
    ):
        job_id = await _enqueue(world, acme, what, **arguments)

        async def was_left() -> bool:
            stored = [await redis.get(key) async for key in redis.scan_iter(match=f"*ob:{job_id}*")]
            return any(payload is not None and b"strange_since" in payload for payload in stored)

        async def is_relayed() -> bool:
            return await _status(world, job_id) == "relayed"

        # The worker may be there before the relay has noted that it has handed the job over.
        await eventually(was_left, 15)
        await eventually(is_relayed, 15)
        async with open_worker(world.addresses, url, tmp_path, [paint_next, polish]):

            async def is_done() -> bool:
                return await _status(world, job_id) is None

            await eventually(is_done, 30)
    assert await _tags(acme) == {" ".join([*map(str, arguments.values()), "1"])}


async def test_a_parameter_that_was_added_is_not_sent_along_unless_it_is_given(
    world: World, acme: TenantHandle, tmp_path: Path
) -> None:
    async with empty_redis(world.addresses) as url, open_worker(world.addresses, url, tmp_path, [paint]):
        job_id = await _enqueue(world, acme, paint_next, name="shoe")

        async def is_done() -> bool:
            return await _status(world, job_id) is None

        await eventually(is_done, 15)
    assert await _tags(acme) == {"shoe"}


async def test_what_nobody_has_known_for_an_hour_is_dead(
    world: World, acme: TenantHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strange, "_FOR", 0.0)
    async with empty_redis(world.addresses) as url, open_worker(world.addresses, url, tmp_path, [paint]):
        job_id = await _enqueue(world, acme, polish, name="shoe")

        async def is_dead() -> bool:
            return await _status(world, job_id) == "dead"

        await eventually(is_dead, 30)
    assert await _tags(acme) == set()
