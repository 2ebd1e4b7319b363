"""Everything is lost but the backups and the keys: a new database, the shared schema, then every tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from tenantry.kernel.errors import ConflictException
from tenantry.platform.backups.creating import run_each
from tenantry.platform.backups.drill import hold_drill, scratch_database
from tenantry.platform.backups.shared import restore_shared
from tenantry.tenancy.migrations import head
from tests.databases import Template, clone_database
from tests.platform.backups.support import ACTOR, Backups, open_backups, row_of, settle
from tests.platform.lifecycle.support import digests, open_deployment, tenant_row, trail
from tests.platform.support import as_admin
from tests.servers import make_database_name
from tests.world import World


@pytest.fixture
async def empty_database(template: Template) -> AsyncIterator[Template]:
    """A database that the owner owns, with nothing in it."""
    name = make_database_name("empty")
    admin = await asyncpg.connect(template.admin_url.replace(template.name, "postgres"))
    try:
        await admin.execute(f'CREATE DATABASE "{name}" OWNER tenantry_owner')
        await admin.execute(f'GRANT CONNECT ON DATABASE "{name}" TO tenantry_app')
    finally:
        await admin.close()
    addresses = Template(
        name=name,
        admin_url=template.admin_url.replace(template.name, name),
        owner_url=template.owner_url.replace(template.name, name),
        app_url=template.app_url.replace(template.name, name),
        redis_url=template.redis_url,
    )
    yield addresses
    await _drop(addresses)


async def _drop(addresses: Template) -> None:
    """The database alone: its tenants' roles are another's as well, and go with that."""
    admin = await asyncpg.connect(addresses.admin_url.replace(addresses.name, "postgres"))
    try:
        await admin.execute(f'DROP DATABASE "{addresses.name}" WITH (FORCE)')
    finally:
        await admin.close()


async def _shared_rows(addresses: Template, *tables: str) -> dict[str, list[Any]]:
    async with as_admin(addresses) as admin:
        return {
            table: [dict(row) for row in await admin.fetch(f"SELECT * FROM platform.{table} ORDER BY 1")]
            for table in tables
        }


async def test_after_a_disaster_everything_is_there_again(
    api: World, backups: Backups, empty_database: Template, tmp_path: Path
) -> None:
    acme, globex = await settle(api, "acme", "globex")
    await api.operator.post("/platform/tenants/globex/suspend", json={"reason": "unpaid"})
    async with as_admin(api.addresses) as admin:
        await admin.execute(
            "INSERT INTO platform.warm_schema (id, revision, fingerprint, created_at, updated_at)"
            " VALUES (gen_random_uuid(), 'x', 'x', now(), now())"
        )
    made = await backups.writer().all(concurrency=2)
    assert all(one.error is None for one in made)
    names = (await backups.store.list()).latest()
    before = {tenant.id: await digests(api, tenant.id) for tenant in (acme, globex)}
    kept = ("operator", "account_directory_key", "account_directory", "operation")
    held = await _shared_rows(api.addresses, *kept)

    async with open_backups(empty_database, tmp_path / "home") as new:
        shared = await new.store.manifest(names[None])
        steps: list[str] = []

        async def listener(step: str) -> None:
            steps.append(step)

        assert await restore_shared(new.engine, new.store, shared, actor=ACTOR, listener=listener) == 2
        assert steps[-2:] == ["schema migrated", "recorded"]
        with pytest.raises(ConflictException, match="not empty"):
            await restore_shared(new.engine, new.store, shared, actor=ACTOR)
        # The warm pool's schemas are not there, and nobody is told that they are.
        assert await _shared_rows(empty_database, "warm_schema") == {"warm_schema": []}
        assert await _shared_rows(empty_database, *kept) == held

        async with open_deployment(empty_database, tmp_path / "new") as api_of_new:
            waiting = await api_of_new.http.post(
                "/api/auth/login",
                json={"tenant": "acme", "email": "owner@acme.example", "password": "correct horse battery"},
            )
            assert waiting.status_code == 503
            assert waiting.json()["type"] == "/problems/tenant-revision"

            async def restore(tenant_id: Any) -> object:
                return await new.restorer().restore(tenant_id, await new.store.manifest(names[tenant_id]))

            done = await run_each([acme.id, globex.id], restore, concurrency=2, label=str)
            assert [one.error for one in done] == [None, None]
            await api_of_new.app.state.registry.refresh()
            owner = await api_of_new.log_in("acme", "owner@acme.example")
            assert [team["name"] for team in (await owner.get("/api/teams")).json()["items"]] == ["Team of acme"]
            assert (await owner.post("/api/teams", json={"name": "Afterwards"})).status_code == 201
            row = await tenant_row(api_of_new, globex.id)
            assert (row["status"], row["status_reason"], row["revision"]) == ("suspended", "unpaid", head("tenant"))
            after = await digests(api_of_new, globex.id)
            changed = {"user_session"}
            assert {name: after[name] for name in after.keys() - changed} == {
                name: before[globex.id][name] for name in after.keys() - changed
            }
            assert (await trail(api_of_new, globex.id))[-1] == "backup.restored"


async def test_a_drill_restores_all_of_it_beside_and_leaves_nothing(
    api: World, backups: Backups, empty_database: Template, tmp_path: Path
) -> None:
    acme, globex = await settle(api, "acme", "globex")
    await backups.writer().all(concurrency=2)
    names = list((await backups.store.list()).latest().values())
    before = {tenant.id: await digests(api, tenant.id) for tenant in (acme, globex)}
    # Of this database: there are others on the server, of tests that run at the same time.
    left = """
    SELECT (SELECT array_agg(nspname ORDER BY nspname) FROM pg_namespace WHERE nspname !~ '^pg_'),
           (SELECT count(DISTINCT d.refobjid) FROM pg_shdepend d
             WHERE d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND d.refclassid = 'pg_authid'::regclass)
    """
    async with as_admin(api.addresses) as admin:
        there = await admin.fetchrow(left)

    beside = await hold_drill(
        backups.store, names, backups.engine, actor=ACTOR, concurrency=2, in_database=False, without_backup=["late"]
    )
    assert (beside.place, beside.good, beside.without_backup) == ("schemas", True, ["late"])
    found = {result.what: result for result in beside.results}
    assert {what: result.restored for what, result in found.items()} == {"shared": False, "acme": True, "globex": True}
    assert all(result.seconds > 0 and result.age_seconds is not None for result in beside.results)
    assert beside.oldest_seconds == max(result.age_seconds or 0 for result in beside.results)

    async with open_backups(empty_database, tmp_path / "home") as scratch:
        report = await hold_drill(scratch.store, names, scratch.engine, actor=ACTOR, concurrency=2, in_database=True)
    assert (report.place, report.good) == ("database", True)
    assert (report.results[0].what, report.results[0].restored) == ("shared", True)
    assert len(report.results) == 3

    damaged = next(name for name in names if name.tenant_id == acme.id)
    path = tmp_path / "home" / "backups" / damaged.payload_key
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    bad = await hold_drill(backups.store, names, backups.engine, actor=ACTOR, concurrency=2, in_database=False)
    assert not bad.good
    assert [result.what for result in bad.results if not result.good] == ["acme"]

    assert {tenant.id: await digests(api, tenant.id) for tenant in (acme, globex)} == before
    async with as_admin(api.addresses) as admin:
        assert await admin.fetchrow(left) == there
        assert await admin.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^(t|kept)_'") == 2


async def test_a_scratch_database_is_gone_after_the_drill_and_so_is_one_of_yesterday(
    template: Template, database_addresses: Template
) -> None:
    drills = "SELECT datname FROM pg_database WHERE datname ~ '^tenantry_drill_'"
    # The owner may make none, as `tenantry bootstrap` makes it.
    async with scratch_database(database_addresses.owner_url) as engine:
        assert engine is None
    async with as_admin(database_addresses) as admin:
        await admin.execute('CREATE DATABASE "tenantry_drill_20200101000000_00000000"')
        async with scratch_database(database_addresses.admin_url) as engine:
            assert engine is not None
            [there] = [row["datname"] for row in await admin.fetch(drills)]
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT current_database()")) == there
        assert await admin.fetch(drills) == []


async def test_one_tenant_comes_back_from_a_copy_of_the_whole_database_as_it_was_some_time_ago(
    database_addresses: Template, tmp_path: Path
) -> None:
    """As from a point-in-time copy: it is backed up there, and restored here."""
    async with open_deployment(database_addresses, tmp_path / "home") as api:
        acme, globex = await settle(api, "acme", "globex")
    copy = await clone_database(database_addresses)
    try:
        async with open_deployment(database_addresses, tmp_path / "home") as api:
            owner = await api.log_in("acme", "owner@acme.example")
            for team in (await owner.get("/api/teams")).json()["items"]:
                assert (await owner.delete(f"/api/teams/{team['id']}")).status_code == 204
            neighbour = await digests(api, globex.id)
            async with (
                open_backups(copy, tmp_path / "home") as there,
                open_backups(database_addresses, tmp_path / "home") as here,
            ):
                manifest = await there.writer().tenant(await row_of(there, "acme"))
                await here.restorer().restore(acme.id, manifest)
            await api.app.state.registry.refresh()
            owner = await api.log_in("acme", "owner@acme.example")
            assert [team["name"] for team in (await owner.get("/api/teams")).json()["items"]] == ["Team of acme"]
            assert await digests(api, globex.id) == neighbour
    finally:
        await _drop(copy)
