"""The helpers for tests of jobs: they do what a worker does, and no more."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from tenantry.domain.tags.service import TagService
from tenantry.jobs.definition import Discard, Job, JobRun, job
from tenantry.jobs.testing import JobBox
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import scope_times
from tests.platform.support import as_admin
from tests.world import TenantHandle, World


@job("plant")
async def plant(tags: TagService, session: AsyncSession, name: str, more: int = 0) -> str:
    await tags.create({"name": name, "slug": name})
    if more:
        await plant.enqueue(session, name=f"{name}x", more=more - 1)
    return name


@job("stumble")
async def stumble(tags: TagService, name: str) -> None:
    await tags.create({"name": name, "slug": name})
    raise RuntimeError("stumbled")


@job("drop")
async def drop(name: str) -> None:
    raise Discard(name)


@job("again")
async def again(session: AsyncSession) -> None:
    await again.enqueue(session)


@job("hint_at")
async def hint_at(tags: TagService, run: JobRun, name: str, fails: bool = False) -> str:
    tag = await tags.create({"name": name, "slug": name})

    async def say(redis: Redis) -> None:
        _said.append((name, redis))
        if name == "cut":
            raise RedisConnectionError("away")

    run.hints.append(say)
    if fails:
        raise RuntimeError("stumbled")
    return tag.name


_said: list[tuple[str, Redis]] = []


@pytest.fixture
async def box(world: World) -> AsyncIterator[JobBox]:
    control = control_scope(scope_times(world.settings), read_only=False)
    yield JobBox(world.database, control, (plant, stumble, drop, again))
    async with as_admin(world.addresses) as admin:
        await admin.execute("DELETE FROM platform.outbox")


async def put(world: World, tenant: TenantHandle, what: Job, **arguments: object) -> None:
    async with world.database.transaction(tenant.context.write_scope) as transaction:
        await what.enqueue(transaction.session, **arguments)  # type: ignore[arg-type]


async def tags(tenant: TenantHandle) -> set[str]:
    return {item["name"] for item in (await tenant.get("/api/tags")).json()["items"]}


async def test_what_is_enqueued_is_seen_and_run_with_what_it_enqueues(
    world: World, acme: TenantHandle, globex: TenantHandle, box: JobBox
) -> None:
    await put(world, acme, plant, name="a", more=2)
    await put(world, globex, plant, name="b")
    [waiting] = await box.enqueued(acme.context, plant)
    assert (waiting.name, waiting.arguments) == ("plant", {"name": "a", "more": 2})
    assert await box.enqueued(acme.context, drop) == []
    assert await box.drain(acme.context) == ["a", "ax", "axx"]
    assert (await tags(acme), await tags(globex)) == ({"a", "ax", "axx"}, set())
    assert await box.drain(acme.context) == []
    assert len(await box.enqueued(globex.context)) == 1


async def test_what_is_due_later_waits_until_it_is_asked_for(world: World, acme: TenantHandle, box: JobBox) -> None:
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    await put(world, acme, plant, name="later", at=tomorrow)
    assert await box.drain(acme.context) == []
    assert await box.drain(acme.context, at=tomorrow) == ["later"]


async def test_what_a_job_raises_is_raised_and_its_row_stays(world: World, acme: TenantHandle, box: JobBox) -> None:
    await put(world, acme, stumble, name="never")
    with pytest.raises(RuntimeError, match="stumbled"):
        await box.drain(acme.context)
    assert await tags(acme) == set()
    assert len(await box.enqueued(acme.context)) == 1


async def test_a_hint_is_said_once_its_job_is_committed_and_is_none_of_its_business(
    world: World, acme: TenantHandle
) -> None:
    _said.clear()
    redis, control = world.app.state.redis, control_scope(scope_times(world.settings), read_only=False)
    box = JobBox(world.database, control, (hint_at,), redis=redis)
    for name in ("heard", "cut"):
        await put(world, acme, hint_at, name=name)
    with capture_logs() as logs:
        # Redis is away for the second, whose job has ended well all the same.
        assert await box.drain(acme.context) == ["heard", "cut"]
    assert _said == [("heard", redis), ("cut", redis)]
    assert [entry["event"] for entry in logs] == ["a job's hint was not said"]
    assert await tags(acme) == {"heard", "cut"}
    await put(world, acme, hint_at, name="never", fails=True)
    with pytest.raises(RuntimeError, match="stumbled"):
        await box.drain(acme.context)
    assert len(_said) == 2
    async with as_admin(world.addresses) as admin:
        await admin.execute("DELETE FROM platform.outbox")


async def test_a_discarded_job_is_gone(world: World, acme: TenantHandle, box: JobBox) -> None:
    await put(world, acme, drop, name="x")
    assert await box.drain(acme.context) == [None]
    assert await box.enqueued(acme.context) == []


async def test_a_job_without_end_is_told_of(
    world: World, acme: TenantHandle, box: JobBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenantry.jobs.testing._MOST", 5)
    await put(world, acme, again)
    with pytest.raises(AssertionError, match="does 'again' enqueue itself"):
        await box.drain(acme.context)
