"""What an organization sees of its own jobs, and the jobs that clean up after it."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select
from uuid_utils.compat import uuid7

from tenantry.dev.process import find_free_port
from tenantry.domain.identity.invitations.jobs import forget_old_invitations
from tenantry.domain.identity.invitations.models import Invitation
from tenantry.domain.identity.sessions.jobs import forget_ended_sessions
from tenantry.domain.identity.sessions.models import SpentRefreshToken, UserSession
from tenantry.domain.tags.service import TagService
from tenantry.features import JOBS
from tenantry.jobs.definition import JobRun, job
from tests.jobs.api import JobApi, job_api
from tests.platform.support import as_admin, eventually, open_api
from tests.world import Caller, TenantHandle, World

__all__ = ("job_api",)

HELD = asyncio.Event()


@job("watched", retries=2, timeout=60, backoff=0.01)
async def watched(tags: TagService, run: JobRun, name: str) -> dict[str, str]:
    await tags.create({"name": name, "slug": name})
    await run.progress(0.5)
    await HELD.wait()
    return {"made": name}


@job("watched_failing", retries=2, timeout=60, backoff=0.01)
async def watched_failing() -> None:
    raise RuntimeError("postgresql://secret@inside")


async def until(caller: Caller, job_id: UUID, status: str, progress: float = 0.0) -> dict[str, object]:
    async def ask() -> dict[str, object] | None:
        found: dict[str, object] = (await caller.get(f"/api/jobs/{job_id}")).json()
        return found if found.get("status") == status and found["progress"] >= progress else None  # type: ignore[operator]

    return await eventually(ask, 15) or {}


async def test_an_organization_follows_its_job_to_its_result(
    job_api: JobApi, acme: TenantHandle, globex: TenantHandle
) -> None:
    HELD.clear()
    owner, stranger = await job_api.owner(acme), await job_api.owner(globex)
    job_id = await job_api.enqueue(acme, watched, name="blue")
    waiting = (await owner.get(f"/api/jobs/{job_id}")).json()
    assert (waiting["status"], waiting["progress"], waiting["attempts"]) == ("waiting", 0.0, 0)
    assert (waiting["finishedAt"], waiting["result"]) == (None, None)
    async with job_api.worker(watched):
        active = await until(owner, job_id, "active", 0.5)
        assert (active["progress"], active["attempts"], active["finishedAt"]) == (0.5, 1, None)
        HELD.set()
        done = await until(owner, job_id, "done", 1.0)
    assert (done["name"], done["result"], done["attempts"]) == ("watched", {"made": "blue"}, 1)
    assert done["createdAt"] == waiting["createdAt"]
    assert str(done["finishedAt"]) > str(done["createdAt"])
    assert done["dueAt"] is None
    for other in (job_id, uuid4(), uuid7()):
        answer = await stranger.get(f"/api/jobs/{other}")
        assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such job, or it ended too long ago.")


async def test_a_job_that_is_for_later_says_when(job_api: JobApi, acme: TenantHandle) -> None:
    owner = await job_api.owner(acme)
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    job_id = await job_api.enqueue(acme, watched, at=at, name="later")
    found = (await owner.get(f"/api/jobs/{job_id}")).json()
    assert found["status"] == "scheduled"
    assert datetime.datetime.fromisoformat(found["dueAt"]) == at


async def test_why_a_job_is_dead_is_not_the_organizations_to_know(job_api: JobApi, acme: TenantHandle) -> None:
    owner = await job_api.owner(acme)
    job_id = await job_api.enqueue(acme, watched_failing)
    async with job_api.worker(watched_failing):
        dead = await until(owner, job_id, "dead")
    assert dead["attempts"] == 2
    assert dead["finishedAt"] is not None
    assert "secret" not in str(dead)


async def test_members_may_look_and_viewers_may_not(job_api: JobApi, acme: TenantHandle) -> None:
    job_id = await job_api.enqueue(acme, watched, name="blue")
    await acme.add_user("mary", "member")
    await acme.add_user("vera", "viewer")
    for name, status in (("mary", 200), ("vera", 403)):
        caller = await job_api.api.log_in(acme.slug, f"{name}@{acme.slug}.example")
        assert (await caller.get(f"/api/jobs/{job_id}")).status_code == status


async def test_without_redis_it_is_503(world: World, acme: TenantHandle, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{find_free_port()}/0"
    async with open_api(world.addresses, tmp_path, redis_url=url) as api:
        owner = await api.log_in(acme.slug, acme.owner_email)
        answer = await owner.get(f"/api/jobs/{uuid7()}")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_a_tenant_is_told_of_its_own_rows_alone_by_the_database(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    """Below all of our code: what injected SQL could ask."""
    async with world.database.transaction(acme.context.write_scope) as transaction:
        job_id = await watched.enqueue(transaction.session, name="mine")
    for tenant, expected in ((acme, "watched"), (globex, None)):
        async with world.database.transaction(tenant.context.read_scope) as transaction:
            statement = select(func.platform.own_job(job_id).table_valued("name", "status").c.name)
            assert await transaction.session.scalar(statement) == expected
    async with as_admin(world.addresses) as admin:
        await admin.execute("DELETE FROM platform.outbox WHERE id = $1", job_id)


# The product's own jobs.


async def make_sessions(tenant: TenantHandle, **sessions: tuple[int, int | None]) -> dict[str, UUID]:
    """Sessions that expired so many days ago and, if at all, were revoked so many days ago; each with a spent token."""
    now, made = datetime.datetime.now(datetime.UTC), {}
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        for name, (expired, revoked) in sessions.items():
            made[name] = uuid7()
            transaction.session.add(
                UserSession(
                    id=made[name],
                    user_id=tenant.id,
                    refresh_digest=made[name].bytes,
                    user_agent=name,
                    expires_at=now - datetime.timedelta(days=expired),
                    last_used_at=now - datetime.timedelta(days=max(expired, revoked or 0) + 30),
                    revoked_at=None if revoked is None else now - datetime.timedelta(days=revoked),
                )
            )
        await transaction.session.flush()
        for session_id in made.values():
            transaction.session.add(SpentRefreshToken(session_id=session_id, digest=session_id.bytes))
    return made


async def left(tenant: TenantHandle) -> tuple[set[str], int]:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        session = transaction.session
        names = await session.scalars(select(UserSession.user_agent).where(UserSession.user_agent.not_like("python-%")))
        return {str(name) for name in names}, int(
            await session.scalar(select(func.count()).select_from(SpentRefreshToken)) or 0
        )


async def test_sessions_that_ended_long_ago_are_forgotten_and_no_other_tenants(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    for tenant in (acme, globex):
        await make_sessions(
            tenant, old=(40, None), revoked=(-1, 31), recent=(29, None), just_revoked=(-1, 2), good=(-1, None)
        )
    async with world.database.transaction(acme.context.write_scope) as transaction:
        assert await forget_ended_sessions(transaction.session, batch=1) == 2
    assert await left(acme) == ({"recent", "just_revoked", "good"}, 3)
    assert await left(globex) == ({"old", "revoked", "recent", "just_revoked", "good"}, 5)
    # Whoever is signed in still is.
    assert (await acme.get("/api/users/me")).status_code == 200


async def test_the_last_session_stays_since_operators_are_told_when_it_was(world: World, acme: TenantHandle) -> None:
    await make_sessions(acme, older=(50, None), old=(40, None))
    async with world.database.transaction(acme.context.write_scope) as transaction:
        session = transaction.session
        # The one that signed in the owner would be the last.
        await session.delete(await session.scalar(select(UserSession).where(UserSession.expires_at > func.now())))
    async with world.database.transaction(acme.context.write_scope) as transaction:
        assert await forget_ended_sessions(transaction.session) == 1
    assert (await left(acme))[0] == {"old"}


async def test_old_invitations_are_forgotten_by_a_worker_once_for_one_key(
    job_api: JobApi, acme: TenantHandle, globex: TenantHandle
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    digests = {"expired": (40, None), "accepted": (-1, 31), "recent": (5, None), "open": (-5, None)}
    for tenant in (acme, globex):
        async with job_api.api.database.transaction(tenant.context.write_scope) as transaction:
            for name, (expired, accepted) in digests.items():
                transaction.session.add(
                    Invitation(
                        user_id=tenant.id,
                        digest=name.encode(),
                        expires_at=now - datetime.timedelta(days=expired),
                        accepted_at=None if accepted is None else now - datetime.timedelta(days=accepted),
                    )
                )
    first = await job_api.enqueue(acme, forget_old_invitations, key="forget")
    assert await job_api.enqueue(acme, forget_old_invitations, key="forget") == first
    async with job_api.worker(*JOBS):
        found = await until(await job_api.owner(acme), first, "done")
    assert found["result"] == 2
    for tenant, expected in ((acme, {"recent", "open"}), (globex, set(digests))):
        async with job_api.api.database.transaction(tenant.context.read_scope) as transaction:
            kept = await transaction.session.scalars(select(Invitation.digest))
            assert {digest.decode() for digest in kept} == expected


@pytest.mark.parametrize("what", [forget_ended_sessions, forget_old_invitations], ids=lambda what: str(what.name))
def test_the_jobs_that_clean_up_are_known_to_every_worker(what: object) -> None:
    assert what in JOBS
