"""Who may start what, who carries it out, and who comes late."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tenantry.kernel.errors import ConflictException, ResourceNotFoundException, ValidationFailedException
from tenantry.platform.provisioning import creation
from tenantry.platform.rollouts import steering
from tenantry.platform.rollouts.chore import RolloutChore
from tenantry.platform.rollouts.planning import Group
from tenantry.platform.rollouts.runner import EXECUTOR_LOCK
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.database import Database, owner_engine
from tenantry.tenancy.revisions import revisions
from tests.databases import Template
from tests.platform.rollouts.support import (
    add_team,
    as_owner,
    cancel,
    make_tenants,
    plan_of,
    quick_runner,
    resume,
    roll_out,
    rows_of,
    start,
    states,
)
from tests.platform.support import eventually, make_provisioner, open_api, tenant_body
from tests.tree import TenantTree
from tests.world import settings_for

OPTIONS: dict[str, Any] = {"canary": 0, "concurrency": 1, "halt_after": 1, "lock_timeout": 100, "max_attempts": 1}


async def test_one_rollout_runs_at_a_time(database_addresses: Template, tenant_tree: TenantTree) -> None:
    first = await start(database_addresses)
    with pytest.raises(ConflictException) as caught:
        await start(database_addresses)
    assert caught.value.problem is steering.ROLLOUT_RUNNING
    assert caught.value.members == {"rollout": str(first)}
    await cancel(database_addresses, first)
    second = await start(database_addresses)
    with pytest.raises(ConflictException) as caught:
        await resume(database_addresses, first)
    assert caught.value.members == {"rollout": str(second)}


async def test_of_many_that_are_started_at_once_one_runs(database_addresses: Template) -> None:
    found = await asyncio.gather(*(start(database_addresses) for _ in range(8)), return_exceptions=True)
    ids = [one for one in found if not isinstance(one, BaseException)]
    assert len(ids) == 1
    for other in found:
        if isinstance(other, BaseException):
            assert isinstance(other, ConflictException)
            assert other.members == {"rollout": str(ids[0])}


async def test_the_control_planes_rights_are_enough_to_steer(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    await make_tenants(database_addresses, "acme")
    tenant_tree.add()
    database = Database(database_addresses.app_url, pool_size=1)
    scope = control_scope(ScopeTimes(), read_only=False)
    try:
        async with database.transaction(scope) as transaction:
            made = await steering.start_rollout(
                transaction.session, requested_by="operator:1", only=["acme", "acme"], **OPTIONS
            )
        assert (made.status, made.target, made.only) == ("running", tenant_tree.head, ["acme"])
        async with database.transaction(scope) as transaction:
            assert (await steering.cancel(transaction.session, made.id, actor="operator:1")).status == "cancelled"
        async with database.transaction(scope) as transaction:
            assert (await steering.resume(transaction.session, made.id, actor="operator:2")).status == "running"
    finally:
        await database.close()
    async with as_owner(database_addresses) as owner:
        acts = await owner.fetch("SELECT actor, action, target FROM platform.audit_entry ORDER BY id")
    assert [tuple(act) for act in acts] == [
        ("operator:1", "rollout.start", str(made.id)),
        ("operator:1", "rollout.cancel", str(made.id)),
        ("operator:2", "rollout.resume", str(made.id)),
    ]


async def test_what_is_not_there_is_refused(database_addresses: Template, tenant_tree: TenantTree) -> None:
    await make_tenants(database_addresses, "acme", "globex")
    with pytest.raises(ValidationFailedException) as caught:
        await start(database_addresses, only=["acne", "acme"])
    assert [(error.field, error.message) for error in caught.value.errors] == [
        ("only", "there is no organization 'acne' (acme?)")
    ]
    with pytest.raises(ValidationFailedException) as caught:
        await start(database_addresses, target="9999")
    assert caught.value.errors[0].field == "target"
    for act in (resume, cancel):
        with pytest.raises(ResourceNotFoundException):
            await act(database_addresses, uuid4())
    ended = await roll_out(database_addresses)
    for act in (resume, cancel):
        with pytest.raises(ConflictException) as refused:
            await act(database_addresses, ended.rollout_id)
        assert refused.value.members == {"state": "done"}


async def test_a_plan_says_who_is_where(database_addresses: Template, tenant_tree: TenantTree) -> None:
    await make_tenants(database_addresses, "old", "older")
    first = tenant_tree.add()
    await make_tenants(database_addresses, "newer")
    head = tenant_tree.add("op.add_column('tag', sa.Column('color', sa.Text(), nullable=True))")
    made = await make_tenants(database_addresses, "newest", "foreign")
    async with as_owner(database_addresses) as owner:
        await owner.execute("UPDATE platform.tenant SET revision = '9999' WHERE id = $1", made["foreign"])
    found = await plan_of(database_addresses)
    line = revisions("tenant")
    assert (found.target, found.tenants, found.current, found.stale) == (head, 5, 1, 3)
    assert found.groups == (Group(tenant_tree.base, 2, line[-2:]), Group(first, 1, line[-1:]))
    assert (found.unknown, found.provisioning) == ({"9999": 1}, 0)
    assert (await plan_of(database_addresses, only=["old"])).stale == 1
    assert (await plan_of(database_addresses, target=first)).stale == 2


async def test_of_two_runners_one_works_and_the_other_sees_it_to_the_end(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    slugs = [f"org-{number}" for number in range(6)]
    await make_tenants(database_addresses, *slugs)
    tenant_tree.add("op.execute('SELECT pg_sleep(0.05)')")
    rollout = await start(database_addresses, concurrency=1)
    seen: list[int] = []
    first, second = await asyncio.gather(
        quick_runner(database_addresses).run(rollout),
        quick_runner(database_addresses).run(rollout, lambda progress: seen.append(progress.done)),
    )
    assert first == second
    assert first is not None
    assert (first.status, first.done) == ("done", 6)
    assert seen == sorted(seen)
    assert seen[-1] == 6
    assert {row["attempts"] for row in (await rows_of(database_addresses, rollout)).values()} == {1}


async def test_a_runner_that_does_not_wait_leaves_it_to_whoever_works(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    """A provisioner's: it has other chores."""
    await make_tenants(database_addresses, "acme")
    tenant_tree.add()
    rollout = await start(database_addresses)
    async with as_owner(database_addresses) as somebody, somebody.transaction():
        await somebody.execute("SELECT pg_advisory_xact_lock($1)", EXECUTOR_LOCK)
        assert await quick_runner(database_addresses).run(rollout, wait=False) is None
    ended = await quick_runner(database_addresses).run(rollout, wait=False)
    assert ended is not None
    assert (ended.status, ended.done) == ("done", 1)


async def test_an_onlooker_takes_over_from_a_runner_that_is_gone(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    slugs = [f"org-{number}" for number in range(6)]
    await make_tenants(database_addresses, *slugs)
    new = tenant_tree.add("op.execute('SELECT pg_sleep(0.05)')")
    rollout = await start(database_addresses, concurrency=1)
    works = asyncio.create_task(quick_runner(database_addresses).run(rollout))

    async def has_begun() -> bool:
        return any(row["status"] == "done" for row in (await rows_of(database_addresses, rollout)).values())

    # Not earlier: a cancellation in the middle of asyncpg's connecting ends in a complaint of its own.
    await eventually(has_begun, 10)
    watches = asyncio.create_task(quick_runner(database_addresses).run(rollout))
    works.cancel()
    ended = await watches
    assert ended is not None
    assert (ended.status, ended.done) == ("done", 6)
    assert set((await states(database_addresses)).values()) == {new}
    with pytest.raises(asyncio.CancelledError):
        await works


async def test_a_tenant_made_by_an_older_release_meanwhile_ends_at_head(
    database_addresses: Template, tenant_tree: TenantTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provisioner of the release before is still running, and has just taken up a new tenant."""
    await make_tenants(database_addresses, "acme")
    taken, go_on = asyncio.Event(), asyncio.Event()

    async def hold(step: str) -> None:
        if step == "schema made":
            taken.set()
            await go_on.wait()

    provisioner = make_provisioner(database_addresses, listener=hold)
    async with open_api(database_addresses, tmp_path / "home", provision_wait=0.01) as api:
        assert (await api.operator.post("/platform/tenants", json=tenant_body("late"))).status_code == 202
        working = asyncio.create_task(provisioner.work_off())
        await taken.wait()
        new = tenant_tree.add()
        # It ends as the older release, whose head it knows, would end it.
        monkeypatch.setattr(creation, "head", lambda _: tenant_tree.base)
        rollout = await start(database_addresses)
        # The roles of all tests' tenants are granted one after the other: making this one may take its time.
        running = asyncio.create_task(quick_runner(database_addresses, settle=60).run(rollout))

        async def acme_is_done() -> bool:
            return (await states(database_addresses))["acme"] == new

        await eventually(acme_is_done, 10)
        go_on.set()
        assert await working == 1
        ended = await running
    assert ended is not None
    await provisioner.close()
    assert (ended.status, ended.done) == ("done", 2)
    assert await states(database_addresses) == {"acme": new, "late": new}


async def test_the_provisioner_brings_late_tenants_to_head_by_itself(
    database_addresses: Template, tenant_tree: TenantTree, tmp_path: Path
) -> None:
    made = await make_tenants(database_addresses, "acme", "broken", "late")
    await add_team(database_addresses, made["broken"], "red-team")
    new = tenant_tree.add("""op.create_check_constraint("slug_plain", "team", "slug !~ '-'")""")
    chore = RolloutChore(database_addresses.owner_url, settings_for(database_addresses, tmp_path))
    engine = owner_engine(database_addresses.owner_url)
    try:
        # A release is rolled out by people, not by itself.
        assert await chore.run(engine) is False
        assert set((await states(database_addresses)).values()) == {tenant_tree.base}
        async with as_owner(database_addresses) as owner:
            await owner.execute("UPDATE platform.tenant SET archive_key = 'k' WHERE slug = 'late'")
            await roll_out(database_addresses)
            assert await chore.run(engine) is False
            await owner.execute("UPDATE platform.tenant SET archive_key = NULL WHERE slug = 'late'")
            assert await chore.run(engine) is True
            assert await chore.run(engine) is False
            # The one that failed is not tried every second.
            assert await chore.run(engine) is False
            rollouts = await owner.fetch('SELECT status, requested_by, "only" FROM platform.rollout ORDER BY id')
    finally:
        await engine.dispose()
    assert await states(database_addresses) == {"acme": new, "broken": tenant_tree.base, "late": new}
    assert [tuple(row) for row in rollouts] == [("done", "cli:test", None), ("done", "provisioner", ["late"])]


async def test_a_rollout_to_a_revision_that_a_provisioner_does_not_know_waits_for_another(
    database_addresses: Template, tenant_tree: TenantTree, tmp_path: Path
) -> None:
    await make_tenants(database_addresses, "acme")
    new = tenant_tree.add()
    rollout = await start(database_addresses)
    tenant_tree.remove(new)
    chore = RolloutChore(database_addresses.owner_url, settings_for(database_addresses, tmp_path))
    engine = owner_engine(database_addresses.owner_url)
    try:
        assert await chore.run(engine) is False
        assert await rows_of(database_addresses, rollout) == {}
        tenant_tree.add()
        assert await chore.run(engine) is False
    finally:
        await engine.dispose()
    assert await states(database_addresses) == {"acme": new}
