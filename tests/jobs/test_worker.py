"""Jobs from a request's transaction to their effect, on real servers: what the table in jobs/definition.py promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
import structlog

from tenantry.domain.tags.service import TagService
from tenantry.jobs.definition import Discard, Job, JobRun, Retry, job
from tenantry.jobs.outbox import acknowledge
from tenantry.jobs.patience import answer
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.use import TTL, jobs_key, take_marks, today
from tenantry.worker import WorkerProcess
from tests.jobs.support import empty_redis, open_worker
from tests.platform.support import as_admin, eventually
from tests.world import TenantHandle, World

LOG: list[tuple[str, str, int]] = []


@job("make_tag", retries=3, timeout=10, backoff=0.01)
async def make_tag(tags: TagService, tenant: TenantContext, run: JobRun, name: str) -> str:
    LOG.append((tenant.slug, name, run.attempt))
    await tags.create({"name": name, "slug": name})
    return tenant.slug


@job("fails_once", retries=3, timeout=10, backoff=0.01)
async def fails_once(tags: TagService, run: JobRun, name: str) -> None:
    await tags.create({"name": name, "slug": name})
    LOG.append(("", name, run.attempt))
    if run.attempt == 1:
        raise Retry("not yet", after=0.01)


@job("always_fails", retries=2, timeout=10, backoff=0.01)
async def always_fails(tags: TagService, name: str) -> None:
    await tags.create({"name": name, "slug": name})
    raise RuntimeError("it is broken")


@job("discarded", retries=2, timeout=10)
async def discarded(tags: TagService, name: str) -> None:
    await tags.create({"name": name, "slug": name})
    raise Discard("the team is gone")


@job("no_json", retries=5, timeout=10, backoff=0.01)
async def no_json(tags: TagService, name: str) -> object:
    await tags.create({"name": name, "slug": name})
    LOG.append(("", name, 1))
    return object()


@job("too_long", retries=2, timeout=1, backoff=0.01)
async def too_long(tags: TagService, name: str) -> None:
    await tags.create({"name": name, "slug": name})
    await asyncio.sleep(30)


JOBS: list[Job] = [make_tag, fails_once, always_fails, discarded, no_json, too_long]


@pytest.fixture
async def worker(world: World, tmp_path: Path) -> AsyncIterator[WorkerProcess]:
    LOG.clear()
    async with (
        empty_redis(world.addresses) as url,
        open_worker(world.addresses, url, tmp_path, JOBS) as process,
    ):
        yield process


async def enqueue(world: World, tenant: TenantHandle, what: Job, **arguments: Any) -> UUID:
    async with world.database.transaction(tenant.context.write_scope) as transaction:
        return await what.enqueue(transaction.session, **arguments)


async def row(world: World, job_id: UUID) -> Any:
    async with as_admin(world.addresses) as admin:
        return await admin.fetchrow("SELECT * FROM platform.outbox WHERE id = $1", job_id)


async def tags(tenant: TenantHandle) -> set[str]:
    return {item["name"] for item in (await tenant.get("/api/tags")).json()["items"]}


async def test_a_job_runs_in_its_tenant_and_nowhere_else(
    world: World, acme: TenantHandle, globex: TenantHandle, worker: WorkerProcess
) -> None:
    job_id = await enqueue(world, acme, make_tag, name="blue")
    other = await enqueue(world, globex, make_tag, name="red")

    async def done() -> bool:
        return await row(world, job_id) is None and await row(world, other) is None

    await eventually(done, 10)
    assert (await tags(acme), await tags(globex)) == ({"blue"}, {"red"})
    assert sorted(LOG) == sorted([(acme.slug, "blue", 1), (globex.slug, "red", 1)])


async def test_a_job_that_is_done_is_counted_once_as_its_tenants_use_and_a_scheduled_one_is_not(
    world: World, acme: TenantHandle, globex: TenantHandle, worker: WorkerProcess
) -> None:
    made = [await enqueue(world, acme, what, name=name) for name, what in (("a", make_tag), ("b", fails_once))]
    dead = await enqueue(world, globex, no_json, name="c")
    async with world.database.transaction(acme.context.write_scope) as transaction:
        with structlog.contextvars.bound_contextvars(actor="schedule"):
            made.append(await make_tag.enqueue(transaction.session, name="nightly"))

    async def done() -> bool:
        rows = [await row(world, job_id) for job_id in made]
        return rows == [None] * 3 and (await row(world, dead))["status"] == "dead"

    await eventually(done, 10)
    redis = worker.queue.ring.redis

    async def counted() -> bool:
        # The row goes first, and then the claim is ended.
        return await worker.queue.ring.inflight() == []

    await eventually(counted, 10)
    assert await tags(acme) == {"a", "b", "nightly"}
    counts = await answer(redis.hgetall(jobs_key(today())))
    assert counts == {str(acme.tenant_id).encode(): b"2"}
    assert 0 < await redis.ttl(jobs_key(today())) <= TTL
    assert await take_marks(redis) == [(today(), acme.tenant_id)]


async def test_a_job_of_a_transaction_that_is_rolled_back_never_runs(
    world: World, acme: TenantHandle, worker: WorkerProcess
) -> None:
    transaction = await world.database.begin(acme.context.write_scope)
    phantom = await make_tag.enqueue(transaction.session, name="phantom")
    await transaction.close()
    real = await enqueue(world, acme, make_tag, name="real")

    async def done() -> bool:
        return await row(world, real) is None

    await eventually(done, 10)
    assert await row(world, phantom) is None
    assert await tags(acme) == {"real"}


async def test_what_an_attempt_wrote_before_it_raised_is_rolled_back(
    world: World, acme: TenantHandle, worker: WorkerProcess
) -> None:
    job_id = await enqueue(world, acme, fails_once, name="once")

    async def done() -> bool:
        return await row(world, job_id) is None

    await eventually(done, 10)
    assert await tags(acme) == {"once"}
    assert [attempt for _, _, attempt in LOG] == [1, 2]


@pytest.mark.parametrize(
    ("what", "attempts", "error"),
    [(always_fails, 2, "it is broken"), (no_json, 1, "the result is not JSON"), (too_long, 2, "TimeoutError")],
    ids=lambda value: getattr(value, "name", None),
)
async def test_a_job_that_cannot_be_done_is_dead_with_its_error_and_writes_nothing(
    world: World, acme: TenantHandle, worker: WorkerProcess, what: Job, attempts: int, error: str
) -> None:
    job_id = await enqueue(world, acme, what, name="never")

    async def dead() -> bool:
        return bool((await row(world, job_id))["status"] == "dead")

    await eventually(dead, 15)
    assert error in (await row(world, job_id))["error"]
    assert await tags(acme) == set()
    buried, total = await worker.queue.queue_of(f"t:{acme.tenant_id}").dead()
    assert (total, buried[0].attempts) == (1, attempts)


async def test_a_job_that_is_discarded_is_neither_dead_nor_tried_again(
    world: World, acme: TenantHandle, worker: WorkerProcess
) -> None:
    job_id = await enqueue(world, acme, discarded, name="gone")

    async def ended() -> bool:
        return await row(world, job_id) is None

    await eventually(ended, 10)
    assert await tags(acme) == set()
    assert (await worker.queue.queue_of(f"t:{acme.tenant_id}").dead())[1] == 0


async def test_of_jobs_with_one_key_one_waits_and_after_its_end_the_next(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    first = await enqueue(world, acme, make_tag, key="digest", name="a")
    assert await enqueue(world, acme, make_tag, key="digest", name="b") == first
    assert await enqueue(world, globex, make_tag, key="digest", name="c") != first
    assert await enqueue(world, acme, fails_once, key="digest", name="d") != first


async def test_a_tenant_cannot_end_anothers_job(world: World, acme: TenantHandle, globex: TenantHandle) -> None:
    job_id = await enqueue(world, acme, make_tag, name="mine")
    async with world.database.transaction(globex.context.write_scope) as transaction:
        assert not await acknowledge(transaction.session, job_id, platform=False)
    assert await row(world, job_id) is not None


def test_arguments_are_checked_when_they_are_given() -> None:
    with pytest.raises(msgspec.ValidationError, match="name"):
        make_tag.entry(key=None, at=None, arguments={"name": 5})
    with pytest.raises(msgspec.ValidationError, match="colour"):
        make_tag.entry(key=None, at=None, arguments={"name": "a", "colour": "b"})
