"""The warm pool: filled, followed, and taken from in one transaction with everything that makes a tenant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tenantry.features import SEED_HOOKS
from tenantry.kernel.feature import Owner
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.platform.provisioning.warm import WarmPool
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import compile_script, head
from tests.databases import Template
from tests.platform.support import as_admin, make_provisioner, open_api, tenant_body
from tests.tree import TenantTree, tenant_tree
from tests.world import PASSWORD, World

__all__ = ("tenant_tree",)


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    """An API without a provisioner, which does not wait long for one."""
    async with open_api(database_addresses, tmp_path, provision_wait=0.05) as opened:
        yield opened


@pytest.fixture
async def engine(database_addresses: Template) -> AsyncIterator[AsyncEngine]:
    made = owner_engine(database_addresses.owner_url, pool_size=4)
    yield made
    await made.dispose()


def pool_of(size: int, *, batch: int = 3) -> WarmPool:
    return WarmPool(size=size, batch=batch, interval=1.0, seeds=SEED_HOOKS)


async def fill(engine: AsyncEngine, size: int, *, batch: int = 3) -> None:
    pool = pool_of(size, batch=batch)
    while await pool.run(engine):
        pass


async def ask(addresses: Template, question: str, *values: object) -> Any:
    async with as_admin(addresses) as admin:
        return await admin.fetchval(question, *values)


async def pooled(addresses: Template) -> list[str]:
    """The names of the pool's schemas."""
    found = await ask(addresses, "SELECT array_agg('t_' || replace(id::text, '-', '')) FROM platform.warm_schema")
    return sorted(found or [])


async def schemas(addresses: Template) -> list[str]:
    """The names of all tenants' schemas that have a role as well."""
    found = await ask(
        addresses,
        "SELECT array_agg(nspname::text) FROM pg_namespace JOIN pg_roles ON rolname = nspname WHERE nspname ~ '^t_'",
    )
    return sorted(found or [])


async def create(api: World, slug: str, **fields: object) -> dict[str, Any]:
    answer = await api.operator.post("/platform/tenants", json=tenant_body(slug, **fields))
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_the_pool_is_filled_in_batches_and_then_left_alone(
    engine: AsyncEngine, database_addresses: Template
) -> None:
    pool = pool_of(4)
    assert await pool.run(engine), "there is more to do"
    assert len(await pooled(database_addresses)) == 3
    assert not await pool.run(engine)
    ready = await pooled(database_addresses)
    assert len(ready) == 4
    assert await schemas(database_addresses) == ready
    assert not await pool.run(engine)
    assert await pooled(database_addresses) == ready


async def test_two_provisioners_do_not_overfill(engine: AsyncEngine, database_addresses: Template) -> None:
    await asyncio.gather(*[fill(engine, 3, batch=1) for _ in range(4)])
    await fill(engine, 3)
    assert len(await pooled(database_addresses)) == 3
    assert len(await schemas(database_addresses)) == 3


async def test_a_tenant_from_the_pool_can_be_logged_in_to_in_every_process_at_once(
    api: World, engine: AsyncEngine, tmp_path: Path
) -> None:
    await fill(engine, 1)
    async with open_api(api.addresses, tmp_path / "other", keyring=tmp_path / "keyring.json") as other:
        made = await create(api, "acme")
        assert (made["status"], made["revision"], made["ownerInvitation"]) == ("active", head("tenant"), None)
        for process in (api, other):
            await process.log_in("acme", "owner@acme.example")
    assert await pooled(api.addresses) == []
    assert await schemas(api.addresses) == [f"t_{made['id'].replace('-', '')}"]
    assert await ask(api.addresses, "SELECT count(*) FROM platform.operation") == 0
    assert await ask(api.addresses, "SELECT action FROM platform.audit_entry WHERE tenant_id = $1", made["id"]) == (
        "tenant.create"
    )


async def test_the_invitation_names_the_tenant_that_the_schema_became(api: World, engine: AsyncEngine) -> None:
    await fill(engine, 1)
    made = await create(api, "acme", ownerPassword=None)
    accepted = await api.http.post(
        "/api/auth/invitations/accept", json={"token": made["ownerInvitation"], "password": PASSWORD}
    )
    assert accepted.status_code == 200, accepted.text
    caller = await api.log_in("acme", "owner@acme.example")
    roles = (await caller.get("/api/roles")).json()["items"]
    assert {role["slug"] for role in roles} == {"owner", "admin", "member", "viewer"}


async def test_an_empty_pool_leaves_it_to_the_provisioner(api: World, engine: AsyncEngine) -> None:
    await fill(engine, 1)
    await create(api, "first")
    second = await api.operator.post("/platform/tenants", json=tenant_body("second"))
    assert (second.status_code, second.json()["status"]) == (202, "provisioning")
    provisioner = make_provisioner(api.addresses)
    try:
        assert await provisioner.work_off() == 1
    finally:
        await provisioner.close()
    await api.log_in("second", "owner@second.example")


async def test_of_two_creations_of_one_slug_one_is_409_and_its_schema_stays_in_the_pool(
    api: World, engine: AsyncEngine
) -> None:
    await fill(engine, 2)
    body = tenant_body("acme")
    answers = await asyncio.gather(*[api.operator.post("/platform/tenants", json=body) for _ in range(2)])
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert len(await pooled(api.addresses)) == 1
    assert await ask(api.addresses, "SELECT count(*) FROM platform.tenant") == 1
    assert await ask(api.addresses, "SELECT count(*) FROM platform.audit_entry WHERE action = 'tenant.create'") == 1


@pytest.mark.parametrize("fields", [{"plan": "gold"}, {"slug": "admin"}, {"ownerEmail": "nobody"}])
async def test_what_is_refused_takes_nothing_from_the_pool(
    api: World, engine: AsyncEngine, fields: dict[str, object]
) -> None:
    await fill(engine, 1)
    answer = await api.operator.post("/platform/tenants", json=tenant_body("acme") | fields)
    assert answer.status_code == 422
    assert len(await pooled(api.addresses)) == 1
    assert await ask(api.addresses, "SELECT count(*) FROM platform.tenant") == 0


async def test_a_hook_that_fails_leaves_neither_tenant_nor_owner_and_the_schema_in_the_pool(
    api: World, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(engine, 1)

    async def fail(_: AsyncSession, __: Owner) -> None:
        raise ConnectionError("gone in the middle")

    creator = api.app.state.tenant_creator
    monkeypatch.setattr(creator, "_hooks", (*creator._hooks, fail))
    answer = await api.operator.post("/platform/tenants", json=tenant_body("acme"))
    assert answer.status_code >= 500
    ready = await pooled(api.addresses)
    assert len(ready) == 1
    assert await ask(api.addresses, "SELECT count(*) FROM platform.tenant") == 0
    assert await ask(api.addresses, f'SELECT count(*) FROM "{ready[0]}".user_account') == 0
    monkeypatch.undo()
    made = await create(api, "acme")
    assert f"t_{made['id'].replace('-', '')}" == ready[0]


async def test_a_stale_schema_is_dropped_and_made_anew(
    tenant_tree: TenantTree, engine: AsyncEngine, database_addresses: Template
) -> None:
    """A release with a new revision takes over."""
    await fill(engine, 2)
    before = await pooled(database_addresses)
    tenant_tree.add()
    await fill(engine, 2)
    after = await pooled(database_addresses)
    assert len(after) == 2
    assert not set(before) & set(after)
    assert await schemas(database_addresses) == after
    revisions = await ask(database_addresses, "SELECT array_agg(DISTINCT revision) FROM platform.warm_schema")
    assert revisions == [tenant_tree.head]


async def test_a_release_whose_revisions_have_logic_in_python_fills_its_pool_as_well(
    tenant_tree: TenantTree, engine: AsyncEngine, database_addresses: Template
) -> None:
    tenant_tree.add(
        'rows = op.get_bind().execute(sa.text("SELECT count(*) FROM team")).scalar_one()\n'
        'op.add_column("team", sa.Column(f"found_{rows}", sa.Text()))',
        online=True,
    )
    tenant_tree.add('op.create_index("ix_team_found", "team", ["found_0"])')
    await fill(engine, 2)
    ready = await pooled(database_addresses)
    assert len(ready) == 2
    for schema in ready:
        assert await ask(database_addresses, f'SELECT version_num FROM "{schema}".alembic_version') == tenant_tree.head
        assert await ask(database_addresses, "SELECT to_regclass($1)::text", f"{schema}.ix_team_found") is not None


async def test_the_best_revision_that_is_served_is_taken_first_and_one_that_is_not_served_never(
    api: World, engine: AsyncEngine
) -> None:
    await fill(engine, 2)
    async with as_admin(api.addresses) as admin:
        newer = await admin.fetchval(
            "UPDATE platform.warm_schema SET revision = '9999'"
            " WHERE id = (SELECT id FROM platform.warm_schema ORDER BY id LIMIT 1) RETURNING id"
        )
    made = await create(api, "acme")
    assert made["id"] != str(newer)
    answer = await api.operator.post("/platform/tenants", json=tenant_body("globex"))
    assert answer.status_code == 202
    assert len(await pooled(api.addresses)) == 1


async def test_a_schema_whose_fingerprint_is_another_is_made_anew(
    engine: AsyncEngine, database_addresses: Template
) -> None:
    """A release whose schemas are granted otherwise, at the same revision."""
    await fill(engine, 1)
    (before,) = await pooled(database_addresses)
    async with as_admin(database_addresses) as admin:
        await admin.execute("UPDATE platform.warm_schema SET fingerprint = 'of an older release'")
    await fill(engine, 1)
    (after,) = await pooled(database_addresses)
    assert after != before
    assert await schemas(database_addresses) == [after]


async def test_a_smaller_size_drops_what_is_too_much(engine: AsyncEngine, database_addresses: Template) -> None:
    await fill(engine, 4)
    before = await pooled(database_addresses)
    await fill(engine, 1)
    (left,) = await pooled(database_addresses)
    assert left in before
    assert await schemas(database_addresses) == [left]
    await fill(engine, 0)
    assert await schemas(database_addresses) == []


async def test_a_schema_that_is_being_taken_is_not_dropped(engine: AsyncEngine, database_addresses: Template) -> None:
    await fill(engine, 1)
    async with as_admin(database_addresses) as admin, admin.transaction():
        await admin.execute("DELETE FROM platform.warm_schema")
        await fill(engine, 0)
        assert len(await schemas(database_addresses)) == 1


async def test_a_tenants_schema_is_never_dropped_whatever_the_pool_says(
    api: World, engine: AsyncEngine, database_addresses: Template
) -> None:
    await fill(engine, 1)
    made = await create(api, "acme")
    async with as_admin(database_addresses) as admin:
        await admin.execute(
            "INSERT INTO platform.warm_schema (id, revision, fingerprint, created_at, updated_at)"
            " VALUES ($1, $2, 'x', now(), now())",
            made["id"],
            head("tenant"),
        )
    await fill(engine, 0)
    assert await pooled(database_addresses) == []
    await api.log_in("acme", "owner@acme.example")


async def test_a_schema_that_is_not_what_alembic_makes_never_gets_into_the_pool(
    engine: AsyncEngine, database_addresses: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_script("tenant")
    monkeypatch.setattr(
        "tenantry.platform.provisioning.schema.compile_script",
        lambda _: f"{compiled}DROP INDEX ix_team_member_user_id;",
    )
    pool = pool_of(2)
    with pytest.raises(OperationFailed, match=r"index ix_team_member_user_id on team_member: missing"):
        await pool.run(engine)
    assert await pooled(database_addresses) == []
    assert await schemas(database_addresses) == []
    assert pool.interval == 2.0, "it is not tried again every second"
    monkeypatch.undo()
    await pool.run(engine)
    assert pool.interval == 1.0


async def test_a_provisioner_that_is_killed_leaves_no_half_schema(
    engine: AsyncEngine, database_addresses: Template
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def stall(_: AsyncSession) -> None:
        reached.set()
        await go_on.wait()

    pool = WarmPool(size=1, batch=1, interval=1.0, seeds=(*SEED_HOOKS, stall))
    task = asyncio.create_task(pool.run(engine))
    await reached.wait()
    task.cancel()
    with pytest.raises((asyncio.CancelledError, asyncpg.PostgresError)):
        await task
    await engine.dispose()
    assert await pooled(database_addresses) == []
    assert await schemas(database_addresses) == []


@asynccontextmanager
async def _running(addresses: Template) -> AsyncIterator[None]:
    provisioner = make_provisioner(addresses, poll_interval=0.2)
    task = asyncio.create_task(provisioner.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.slow
async def test_a_hundred_tenants_at_once_all_succeed(
    database_addresses: Template, engine: AsyncEngine, tmp_path: Path
) -> None:
    await fill(engine, 8)
    async with open_api(database_addresses, tmp_path, provision_wait=120) as api, _running(database_addresses):
        slugs = [f"crowd-{number}" for number in range(100)]
        answers = await asyncio.gather(
            *[api.operator.post("/platform/tenants", json=tenant_body(slug, ownerPassword=None)) for slug in slugs]
        )
        assert [answer.status_code for answer in answers] == [201] * 100
        for answer in answers[::20]:
            token = answer.json()["ownerInvitation"]
            accepted = await api.http.post("/api/auth/invitations/accept", json={"token": token, "password": PASSWORD})
            assert accepted.status_code == 200
    assert len(await schemas(database_addresses)) == 100
    assert await ask(database_addresses, "SELECT count(*) FROM platform.operation WHERE status = 'done'") == 92
