"""What operators see of jobs and do to them, with real workers."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from tenantry.dev.process import find_free_port
from tenantry.domain.tags.service import TagService
from tenantry.jobs.definition import job
from tenantry.kernel.redis import create_redis
from tenantry.platform.access import OPERATOR_PERMISSIONS
from tenantry.tenancy.redis import queue_name
from tests.jobs.api import JobApi, job_api
from tests.platform.support import as_admin, open_api
from tests.world import TenantHandle, World

__all__ = ("job_api",)

BROKEN: set[str] = set()
RUNS: list[str] = []
HELD = asyncio.Event()


@job("operated", retries=2, timeout=30, backoff=0.01)
async def operated(tags: TagService, name: str) -> str:
    RUNS.append(name)
    await tags.create({"name": name, "slug": name})
    if name in BROKEN:
        raise RuntimeError(f"{name} is broken")
    return name


@job("operated_holding", retries=2, timeout=60, backoff=0.01)
async def operated_holding(tags: TagService, name: str) -> None:
    RUNS.append(name)
    await tags.create({"name": name, "slug": name})
    await HELD.wait()


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    BROKEN.clear()
    RUNS.clear()
    HELD.clear()


async def tags(tenant: TenantHandle) -> set[str]:
    return {item["name"] for item in (await tenant.get("/api/tags")).json()["items"]}


async def listed(jobs: JobApi, **query: str) -> list[dict[str, Any]]:
    answer = await jobs.operator.get("/platform/jobs", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] == len(answer.json()["items"])
    return answer.json()["items"]  # type: ignore[no-any-return]


async def trail(jobs: JobApi, job_id: UUID) -> list[dict[str, Any]]:
    found = await jobs.operator.get("/platform/audit", params={"search": str(job_id)})
    return found.json()["items"]  # type: ignore[no-any-return]


async def buried(jobs: JobApi, tenant: TenantHandle) -> int:
    redis: Redis = create_redis(jobs.redis_url, timeout=5)
    try:
        return int(await redis.zcard(f"saq:{queue_name(tenant.tenant_id)}:dead"))
    finally:
        await redis.aclose()


async def test_a_dead_job_is_shown_with_its_error_and_its_tenant_and_nobody_else_s(
    job_api: JobApi, acme: TenantHandle, globex: TenantHandle
) -> None:
    BROKEN.add("blue")
    job_id = await job_api.enqueue(acme, operated, key="digest", name="blue")
    other = await job_api.enqueue(globex, operated, name="red")
    async with job_api.worker(operated):
        found = await job_api.until(job_id, "dead")
        await job_api.until_gone(other)
    assert (found["tenant"], found["name"], found["key"]) == (acme.slug, "operated", "digest")
    assert (found["attempts"], found["retries"]) == (2, 2)
    assert found["error"] == "RuntimeError: blue is broken"
    assert found["traceback"].startswith("Traceback")
    assert found["finishedAt"] >= found["startedAt"] >= found["createdAt"]
    assert "arguments" not in found
    [row] = await listed(job_api, tenant=acme.slug)
    assert (row["id"], row["status"], row["error"]) == (str(job_id), "dead", found["error"])
    assert "traceback" not in row
    assert await listed(job_api, tenant=globex.slug) == []
    gone = await job_api.operator.get(f"/platform/jobs/{other}")
    assert (gone.status_code, gone.json()["detail"]) == (404, "There is no such job, or it is done.")


async def test_a_dead_job_that_is_retried_runs_once_and_leaves_no_grave(job_api: JobApi, acme: TenantHandle) -> None:
    BROKEN.add("blue")
    job_id = await job_api.enqueue(acme, operated, name="blue")
    async with job_api.worker(operated):
        await job_api.until(job_id, "dead")
        assert await buried(job_api, acme) == 1
        BROKEN.clear()
        RUNS.clear()
        answers = await asyncio.gather(*(job_api.operator.post(f"/platform/jobs/{job_id}/retry") for _ in range(3)))
        await job_api.until_gone(job_id)
    assert [answer.status_code for answer in answers].count(200) == 1, [answer.text for answer in answers]
    # Whoever came second was told so: it waited again, ran, or was done already.
    assert {answer.status_code for answer in answers} <= {200, 404, 409}
    done = next(answer.json() for answer in answers if answer.status_code == 200)
    assert (done["status"], done["attempts"], done["error"]) == ("waiting", 0, None)
    assert RUNS == ["blue"]
    assert await tags(acme) == {"blue"}
    assert await buried(job_api, acme) == 0
    [act] = await trail(job_api, job_id)
    assert (act["action"], act["tenantId"]) == ("job.retry", str(acme.tenant_id))
    assert act["details"] == {"name": "operated", "from": "dead"}
    assert act["actor"].startswith("operator:")


async def test_what_is_not_dead_is_not_retried(job_api: JobApi, acme: TenantHandle) -> None:
    job_id = await job_api.enqueue(acme, operated, name="blue")
    refused = await job_api.operator.post(f"/platform/jobs/{job_id}/retry")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/job-not-dead")
    assert refused.json()["jobStatus"] == "waiting"
    assert (await job_api.operator.post(f"/platform/jobs/{uuid4()}/retry")).status_code == 404
    assert await trail(job_api, job_id) == []


async def test_a_dead_job_waits_for_the_one_that_took_its_key(job_api: JobApi, acme: TenantHandle) -> None:
    first = await job_api.enqueue(acme, operated, key="digest", name="blue")
    async with as_admin(job_api.addresses) as admin:
        await admin.execute("UPDATE platform.outbox SET status = 'dead' WHERE id = $1", first)
    second = await job_api.enqueue(acme, operated, key="digest", name="red")
    refused = await job_api.operator.post(f"/platform/jobs/{first}/retry")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/job-key-taken")
    assert (await job_api.operator.post(f"/platform/jobs/{second}/cancel")).status_code == 200
    assert (await job_api.operator.post(f"/platform/jobs/{first}/retry")).status_code == 200


async def test_a_job_that_is_cancelled_before_its_turn_never_runs(
    job_api: JobApi, acme: TenantHandle, globex: TenantHandle
) -> None:
    cancelled = await job_api.enqueue(acme, operated, name="never")
    kept = await job_api.enqueue(globex, operated, name="kept")
    answer = await job_api.operator.post(f"/platform/jobs/{cancelled}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert await job_api.row(cancelled) is None
    last = await job_api.enqueue(acme, operated, name="last")
    async with job_api.worker(operated):
        await job_api.until_gone(kept)
        await job_api.until_gone(last)
    assert sorted(RUNS) == ["kept", "last"]
    owner = await job_api.owner(acme)
    seen = (await owner.get(f"/api/jobs/{cancelled}")).json()
    assert (seen["status"], seen["name"], seen["result"]) == ("cancelled", "operated", None)
    assert seen["finishedAt"] is not None
    [act] = await trail(job_api, cancelled)
    assert (act["action"], act["details"]) == ("job.cancel", {"name": "operated", "from": "waiting"})
    assert (await job_api.operator.post(f"/platform/jobs/{cancelled}/cancel")).status_code == 404


async def test_a_job_at_work_is_stopped_and_what_it_wrote_is_rolled_back(
    job_api: JobApi, acme: TenantHandle, globex: TenantHandle
) -> None:
    job_id = await job_api.enqueue(acme, operated_holding, name="half")
    other = await job_api.enqueue(globex, operated_holding, name="whole")
    async with job_api.worker(operated_holding):
        for each in (job_id, other):
            found = await job_api.until(each, "active")
            assert found["worker"]
        while len(RUNS) < 2:
            await asyncio.sleep(0.01)
        # By name: the clock may have brought jobs of its own.
        active = await listed(job_api, status="active", name=operated_holding.name)
        assert {row["id"] for row in active} == {str(job_id), str(other)}
        answer = await job_api.operator.post(f"/platform/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled"), answer.text
        assert await job_api.row(job_id) is None
        HELD.set()
        await job_api.until_gone(other)
    assert (await tags(acme), await tags(globex)) == (set(), {"whole"})
    assert sorted(RUNS) == ["half", "whole"]
    assert (await (await job_api.owner(acme)).get(f"/api/jobs/{job_id}")).json()["status"] == "cancelled"


async def test_a_dead_job_that_is_cancelled_is_forgotten(job_api: JobApi, acme: TenantHandle) -> None:
    BROKEN.add("blue")
    job_id = await job_api.enqueue(acme, operated, name="blue")
    async with job_api.worker(operated):
        await job_api.until(job_id, "dead")
    assert (await job_api.operator.post(f"/platform/jobs/{job_id}/cancel")).status_code == 200
    assert await job_api.row(job_id) is None
    assert await buried(job_api, acme) == 0


async def test_jobs_are_listed_by_their_state_and_counted(
    job_api: JobApi, acme: TenantHandle, globex: TenantHandle
) -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    waiting = await job_api.enqueue(acme, operated, name="now")
    scheduled = await job_api.enqueue(acme, operated, at=later, name="later")
    dead = await job_api.enqueue(globex, operated_holding, name="dead")
    async with as_admin(job_api.addresses) as admin:
        await admin.execute("UPDATE platform.outbox SET status = 'dead', error = 'a\nb' WHERE id = $1", dead)
    for status, tenant, expected in (
        ("waiting", acme, waiting),
        ("scheduled", acme, scheduled),
        ("dead", globex, dead),
    ):
        assert [row["id"] for row in await listed(job_api, tenant=tenant.slug, status=status)] == [str(expected)]
    assert await listed(job_api, tenant=acme.slug, status="dead") == []
    assert [row["id"] for row in await listed(job_api, tenant=globex.slug, name="operated_holding")] == [str(dead)]
    assert await listed(job_api, tenant=globex.slug, name="operated") == []
    for tenant, expected_counts in ((acme, (1, 1, 0, 0)), (globex, (0, 0, 0, 1))):
        answer = await job_api.operator.get("/platform/jobs/stats", params={"tenant": tenant.slug})
        [counts] = answer.json()["tenants"]
        assert tuple(counts[name] for name in ("waiting", "scheduled", "active", "dead")) == expected_counts
        assert (counts["tenant"], counts["tenantId"]) == (tenant.slug, str(tenant.tenant_id))
        assert (counts["oldestWaiting"] is None) == (tenant is globex)
    everything = (await job_api.operator.get("/platform/jobs/stats")).json()
    assert everything["total"]["dead"] >= 1
    assert everything["workers"] == []


async def test_workers_that_are_alive_are_counted_and_what_they_did(job_api: JobApi, acme: TenantHandle) -> None:
    job_id = await job_api.enqueue(acme, operated, name="blue")
    async with job_api.worker(operated):
        await job_api.until_gone(job_id)
        [worker] = (await job_api.operator.get("/platform/jobs/stats")).json()["workers"]
    assert worker["id"]
    assert worker["uptime"] >= 0


async def test_an_unknown_tenant_is_named_with_those_like_it(job_api: JobApi, acme: TenantHandle) -> None:
    for path in ("/platform/jobs", "/platform/jobs/stats"):
        answer = await job_api.operator.get(path, params={"tenant": acme.slug[:-1] + "x"})
        assert answer.status_code == 404
        assert "nearest" in answer.json()


def test_every_operator_sees_jobs_and_only_those_who_run_the_platform_touch_them() -> None:
    assert all("jobs:read" in held for held in OPERATOR_PERMISSIONS.values())
    assert {role for role, held in OPERATOR_PERMISSIONS.items() if "jobs:write" in held} == {"operator", "owner"}


async def test_without_redis_it_is_503_and_nothing_is_done(world: World, acme: TenantHandle, tmp_path: Path) -> None:
    async with world.database.transaction(acme.context.write_scope) as transaction:
        job_id = await operated.enqueue(transaction.session, name="blue")
    url = f"redis://127.0.0.1:{find_free_port()}/0"
    async with open_api(world.addresses, tmp_path, redis_url=url) as api:
        for method, path in (
            ("GET", "/platform/jobs"),
            ("GET", "/platform/jobs/stats"),
            ("GET", f"/platform/jobs/{job_id}"),
            ("POST", f"/platform/jobs/{job_id}/cancel"),
            ("POST", f"/platform/jobs/{job_id}/retry"),
        ):
            answer = await api.operator.request(method, path)
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable"), answer.text
            assert int(answer.headers["Retry-After"]) >= 1
    async with as_admin(world.addresses) as admin:
        assert await admin.fetchval("SELECT status FROM platform.outbox WHERE id = $1", job_id) == "pending"
        trail = await admin.fetchval("SELECT count(*) FROM platform.audit_entry WHERE target = $1", str(job_id))
    assert trail == 0
