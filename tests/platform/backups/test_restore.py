"""One tenant is put back as it was, all of it or nothing, and its neighbour is not touched."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tenantry.kernel.errors import ConflictException, ResourceNotFoundException, UnavailableException
from tenantry.platform.backups.sealing import BackupDamagedError
from tenantry.platform.backups.swapping import kept_schemas
from tenantry.platform.deletion.holdings import forget_cached
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.tenancy.migrations import head
from tenantry.tenancy.redis import tenant_key
from tests.platform.backups.support import Backups, Settled, row_of, settle
from tests.platform.belongings import open_redis
from tests.platform.lifecycle.support import (
    Digests,
    Inhabited,
    as_owner,
    carry_out,
    described,
    digests,
    found,
    of_catalog,
    run,
    tenant_row,
    trail,
)
from tests.platform.support import as_admin
from tests.tree import TenantTree
from tests.world import PASSWORD, World

UUID_OF_NOBODY = UUID(int=1)
CHANGED = {"user_session"}
"""Whose rows a restore changes: sessions are ended."""


async def _teams(tenant: Inhabited) -> set[str]:
    return {team["name"] for team in (await tenant.owner.get("/api/teams")).json()["items"]}


def _same(one: Digests, other: Digests) -> bool:
    return {name: one[name] for name in one.keys() - CHANGED} == {name: other[name] for name in other.keys() - CHANGED}


async def _neighbour(api: World, tenant: Inhabited | Settled) -> list[Any]:
    return [
        await digests(api, tenant.id),
        await described(api, tenant.id),
        await tenant_row(api, tenant.id),
        await trail(api, tenant.id),
    ]


async def test_a_restored_tenant_is_what_it_was_and_its_neighbour_is_not_touched(api: World, backups: Backups) -> None:
    acme, globex = await found(api, "acme"), await found(api, "globex")
    before, neighbour = await digests(api, acme.id), await _neighbour(api, globex)
    schema = await described(api, acme.id)
    manifest = await backups.writer().tenant(await row_of(backups, "acme"))
    assert (manifest.slug, manifest.revision, manifest.as_revised) == ("acme", head("tenant"), True)
    assert {table.name: (table.rows, table.sha256) for table in manifest.tables} == before

    assert (await acme.owner.post("/api/teams", json={"name": "Made since"})).status_code == 201
    body = {"email": "new@acme.example", "password": PASSWORD, "roles": ["member"]}
    assert (await acme.owner.post("/api/users", json=body)).status_code == 201
    since = await digests(api, acme.id)
    done = await backups.restorer().restore(acme.id, manifest)
    await api.app.state.registry.refresh()

    assert _same(await digests(api, acme.id), before)
    assert await described(api, acme.id) == schema
    assert await _neighbour(api, globex) == neighbour
    row = await tenant_row(api, acme.id)
    assert (row["status"], row["revision"]) == ("active", head("tenant"))
    assert (await trail(api, acme.id))[-2:] == ["backup.created", "backup.restored"]
    # Whoever was signed in when it was made is not again: the session may have been ended since.
    assert (await acme.owner.get("/api/teams")).status_code == 401
    again = Inhabited("acme", acme.id, await api.log_in("acme", "owner@acme.example"), acme.people)
    assert "Made since" not in await _teams(again)
    # And who came since is in no directory of accounts any more.
    async with as_admin(api.addresses) as admin:
        listed = "SELECT count(*) FROM platform.account_tenants($1)"
        assert await admin.fetchval(listed, "new@acme.example") == 0
        assert await admin.fetchval(listed, "ann@acme.example") == 1
        assert await admin.fetchval("SELECT count(DISTINCT tenant_id) FROM platform.account_directory") == 2

    # What it had since is kept, and nobody may enter it, until it is wanted again.
    assert done.kept is not None
    async with as_admin(api.addresses) as admin:
        assert not await admin.fetchval("SELECT has_schema_privilege($1, $2, 'USAGE')", acme.schema, done.kept.name)
    await backups.restorer().undo(acme.id)
    await api.app.state.registry.refresh()
    assert await digests(api, acme.id) == since
    assert await described(api, acme.id) == schema
    assert "Made since" in await _teams(acme)
    assert await _neighbour(api, globex) == neighbour
    assert (await trail(api, acme.id))[-1] == "backup.restore-undone"


async def test_requests_of_the_moment_of_a_restore_wait_and_none_fails(api: World, backups: Backups) -> None:
    acme, globex = await settle(api, "acme", "globex")
    manifest = await backups.writer().tenant(await row_of(backups, "acme"))
    answers: dict[str, list[int]] = {"acme": [], "globex": []}
    stop = asyncio.Event()

    async def write(tenant: Settled) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            answer = await tenant.owner.post("/api/teams", json={"name": f"Team {number} since"})
            answers[tenant.slug].append(answer.status_code)

    async with asyncio.TaskGroup() as group:
        group.create_task(write(acme))
        group.create_task(write(globex))
        await backups.restorer().restore(acme.id, manifest)
        stop.set()
    # Signed out by it, and nothing worse.
    assert set(answers["acme"]) <= {201, 401}
    assert 201 in answers["acme"]
    assert set(answers["globex"]) == {201}


async def test_a_tenant_in_whose_tables_somebody_stays_is_left_as_it_is(
    api: World, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenantry.platform.backups.swapping._PATIENCE", 0.1)
    [acme] = await settle(api, "acme")
    manifest = await backups.writer().tenant(await row_of(backups, "acme"))
    before = await digests(api, acme.id)
    async with as_owner(api.addresses) as other, other.transaction():
        await other.execute(f'LOCK TABLE "t_{acme.id.hex}".team IN ACCESS SHARE MODE')
        with pytest.raises(UnavailableException, match="does not come out"):
            await backups.restorer().restore(acme.id, manifest)
    assert await digests(api, acme.id) == before
    async with as_owner(api.addresses) as owner:
        assert await kept_schemas(owner) == []


async def test_a_damaged_backup_and_anothers_change_nothing(api: World, backups: Backups, tmp_path: Path) -> None:
    acme, globex = await settle(api, "acme", "globex")
    mine = await backups.writer().tenant(await row_of(backups, "acme"))
    others = await backups.writer().tenant(await row_of(backups, "globex"))
    before, neighbour = await digests(api, acme.id), await _neighbour(api, globex)
    with pytest.raises(ConflictException, match="another organization's"):
        await backups.restorer().restore(acme.id, others)
    folder = tmp_path / "home" / "backups"
    # Somebody who may write there, and has no key, puts one in another's place.
    shutil.copy(folder / others.name.payload_key, folder / mine.name.payload_key)
    with pytest.raises(BackupDamagedError):
        await backups.restorer().restore(acme.id, mine)
    shutil.copy(folder / others.name.manifest_key, folder / mine.name.manifest_key)
    with pytest.raises(BackupDamagedError):
        await backups.store.manifest(mine.name)
    assert await digests(api, acme.id) == before
    assert await _neighbour(api, globex) == neighbour


async def test_a_backup_becomes_a_tenant_of_its_own_also_after_its_own_was_purged(api: World, backups: Backups) -> None:
    acme, globex = await settle(api, "acme", "globex")
    manifest = await backups.writer().tenant(await row_of(backups, "acme"))
    before, neighbour = await digests(api, acme.id), await _neighbour(api, globex)
    copy = await backups.restorer().restore_as("acme-copy", manifest)
    assert copy.tenant.id != acme.id
    assert _same(await digests(api, copy.tenant.id), before)
    assert await digests(api, acme.id) == before
    with pytest.raises(ConflictException, match="taken"):
        await backups.restorer().restore_as("acme", manifest)

    await run(api, "/platform/tenants/acme/purge", {"confirm": "acme"})
    with pytest.raises(ConflictException, match="does not come back under its id"):
        await backups.restorer().restore(acme.id, manifest)
    again = await backups.restorer().restore_as("acme", manifest)
    await api.app.state.registry.refresh()
    assert _same(await digests(api, again.tenant.id), before)
    await api.log_in("acme", "owner@acme.example")
    assert await _neighbour(api, globex) == neighbour


async def test_what_is_kept_of_a_tenant_goes_with_it(api: World, backups: Backups) -> None:
    acme, globex = await settle(api, "acme", "globex")
    for tenant in (acme, globex):
        manifest = await backups.writer().tenant(await row_of(backups, tenant.slug))
        await backups.restorer().restore(tenant.id, manifest)
    await api.app.state.registry.refresh()
    await run(api, "/platform/tenants/acme/purge", {"confirm": "acme"})
    assert await of_catalog(api, acme.id) == []
    async with as_owner(api.addresses) as owner:
        assert {kept.tenant_id for kept in await kept_schemas(owner)} == {globex.id}
    with pytest.raises(ResourceNotFoundException):
        await backups.restorer().undo(UUID_OF_NOBODY)


async def test_a_tenant_that_is_busy_or_archived_is_refused_before_anything_is_fetched(
    api: World, backups: Backups
) -> None:
    [acme] = await settle(api, "acme")
    manifest = await backups.writer().tenant(await row_of(backups, "acme"))
    answer = await api.operator.post("/platform/tenants/acme/export", json={"credentials": False})
    assert answer.status_code == 202
    with pytest.raises(ConflictException, match="not finished"):
        await backups.restorer().restore(acme.id, manifest)
    await carry_out(api)
    await run(api, "/platform/tenants/acme/archive", {})
    with pytest.raises(ConflictException, match="tenants restore"):
        await backups.restorer().restore(acme.id, manifest)
    with pytest.raises(ConflictException, match="has no schema"):
        await backups.writer().tenant(await row_of(backups, "acme"))


async def test_a_backup_of_an_older_revision_is_migrated_as_it_is_restored(
    api: World, backups: Backups, tenant_tree: TenantTree
) -> None:
    acme, globex = await settle(api, "acme", "globex")
    manifest = await backups.writer().tenant(await row_of(backups, "acme"))
    neighbour = await _neighbour(api, globex)
    tenant_tree.add()
    newest = tenant_tree.add(
        "op.get_bind().execute(sa.text('UPDATE team SET color = :color'), {'color': 'red'})", online=True
    )
    verdict = await backups.checker.verify(manifest.name, deep=True)
    assert (verdict.problem, verdict.restored, verdict.notes) == (None, True, ())
    done = await backups.restorer().restore(acme.id, manifest)
    assert done.revision == newest != manifest.revision
    assert (await tenant_row(api, acme.id))["revision"] == newest
    async with as_admin(api.addresses) as admin:
        assert await admin.fetchval(f'SELECT array_agg(color) FROM "t_{acme.id.hex}".team') == ["red"]
    # What was there before is of the older revision, and is migrated as well when it comes back.
    await backups.restorer().undo(acme.id)
    async with as_admin(api.addresses) as admin:
        assert await admin.fetchval(f'SELECT version_num FROM "t_{acme.id.hex}".alembic_version') == newest
    assert await _neighbour(api, globex) == neighbour


async def test_a_backup_of_a_newer_release_is_refused(api: World, backups: Backups, tenant_tree: TenantTree) -> None:
    [acme] = await settle(api, "acme")
    newer = tenant_tree.add()
    async with as_owner(api.addresses) as owner, owner.transaction():
        await owner.execute(
            f'SET LOCAL search_path TO "t_{acme.id.hex}"; ALTER TABLE team ADD color text;'
            f"CREATE INDEX ix_team_color ON team (color); UPDATE alembic_version SET version_num = '{newer}'"
        )
    manifest = await backups.writer().tenant(await row_of(backups, "acme"))
    assert manifest.revision == newer
    tenant_tree.remove(newer)
    before = await digests(api, acme.id)
    with pytest.raises(OperationFailed, match="this release does not know"):
        await backups.restorer().restore(acme.id, manifest)
    verdict = await backups.checker.verify(manifest.name, deep=True)
    assert "this release does not know" in (verdict.problem or "")
    assert (await backups.checker.verify(manifest.name)).problem is None
    assert await digests(api, acme.id) == before


async def test_what_was_remembered_of_a_tenant_is_forgotten_and_nothing_of_anothers(api: World) -> None:
    acme, globex = UUID(int=10), UUID(int=11)
    async with open_redis(api) as redis:
        keys = {
            tenant: (tenant_key(tenant, "cache", "x"), tenant_key(tenant, "rate", "x")) for tenant in (acme, globex)
        }
        for key in (*keys[acme], *keys[globex]):
            await redis.set(key, "x", ex=60)
        await forget_cached(redis, acme)
        assert [await redis.exists(key) for key in (*keys[acme], *keys[globex])] == [0, 1, 1, 1]
