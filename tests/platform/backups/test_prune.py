"""Old backups go, the last good one never does, and what was purged is gone for good in time."""

from __future__ import annotations

import datetime
import os
import shutil
import time
from pathlib import Path

from tenantry.platform.backups.format import BackupName
from tenantry.platform.backups.retention import Keep, plan_prune, prune
from tenantry.platform.backups.swapping import kept_schemas
from tests.platform.backups.support import ACTOR, Backups, row_of, settle
from tests.platform.lifecycle.support import as_owner, digests, run
from tests.platform.support import as_admin
from tests.world import World

KEEP = Keep(daily=1, weekly=0, monthly=0, purged=30)


async def _older(backups: Backups, name: BackupName, *days: int) -> list[BackupName]:
    """The same backup as if it had been made some days before; manifests say what they are, so it is written anew."""
    manifest = await backups.store.manifest(name)
    made = []
    for number in days:
        moment = name.moment - datetime.timedelta(days=number)
        older = BackupName(f"{moment:%Y%m%dT%H%M%SZ}-{number:08x}", name.tenant_id)
        folder = Path(backups.store._storage._folder or "")
        shutil.copy(folder / name.payload_key, folder / older.payload_key)
        manifest.id = older.id
        await backups.store.put_manifest(manifest)
        made.append(older)
    return made


async def test_what_is_too_old_goes_and_the_last_good_one_stays(api: World, backups: Backups, tmp_path: Path) -> None:
    acme, globex = await settle(api, "acme", "globex")
    newest = {
        tenant.id: (await backups.writer().tenant(await row_of(backups, tenant.slug))).name for tenant in (acme, globex)
    }
    olds = {tenant_id: await _older(backups, name, 1, 2, 3) for tenant_id, name in newest.items()}
    # The newest of acme is no good: fewer octets than it should have.
    path = tmp_path / "home" / "backups" / newest[acme.id].payload_key
    os.truncate(path, path.stat().st_size - 1)
    plan = await plan_prune(backups.engine, backups.store, KEEP)
    assert set(plan.backups) == {*olds[acme.id][1:], *olds[globex.id]}
    await prune(backups.engine, backups.store, plan, actor=ACTOR)
    left = (await backups.store.list()).good
    assert set(left) == {newest[acme.id], olds[acme.id][0], newest[globex.id]}
    assert (await plan_prune(backups.engine, backups.store, KEEP)).is_empty
    async with as_admin(api.addresses) as admin:
        details = await admin.fetchval("SELECT details FROM platform.audit_entry WHERE action = 'backup.pruned'")
    assert '"backups": 5' in details


async def test_where_nothing_is_good_nothing_is_removed(api: World, backups: Backups, tmp_path: Path) -> None:
    [acme] = await settle(api, "acme")
    name = (await backups.writer().tenant(await row_of(backups, "acme"))).name
    names = [name, *await _older(backups, name, 1, 2)]
    for one in names:
        (tmp_path / "home" / "backups" / one.manifest_key).write_bytes(b"nothing")
    plan = await plan_prune(backups.engine, backups.store, KEEP)
    assert plan.is_empty
    assert plan.stuck == (f"tenants/{acme.id}",)


async def test_unfinished_files_go_once_nobody_can_be_writing_them(
    api: World, backups: Backups, tmp_path: Path
) -> None:
    await settle(api, "acme")
    name = (await backups.writer().tenant(await row_of(backups, "acme"))).name
    folder = tmp_path / "home" / "backups" / name.folder
    for number, age in ((1, 90_000), (2, 10)):
        path = folder / f"20260101T000000Z-0000000{number}.backup"
        path.write_bytes(b"half of it")
        os.utime(path, (time.time() - age,) * 2)
    plan = await plan_prune(backups.engine, backups.store, KEEP)
    assert plan.files == (f"{name.folder}/20260101T000000Z-00000001.backup",)
    await prune(backups.engine, backups.store, plan, actor=ACTOR)
    assert len(list(folder.iterdir())) == 3


async def test_all_backups_of_a_purged_tenant_go_in_time_and_nobody_elses(api: World, backups: Backups) -> None:
    acme, globex = await settle(api, "acme", "globex")
    for tenant in (acme, globex):
        await backups.writer().tenant(await row_of(backups, tenant.slug))
    await run(api, "/platform/tenants/acme/purge", {"confirm": "acme"})
    assert (await plan_prune(backups.engine, backups.store, KEEP)).is_empty
    async with as_admin(api.addresses) as admin:
        await admin.execute(
            "UPDATE platform.tenant SET status_changed_at = now() - interval '31 days' WHERE status = 'purged'"
        )
    plan = await plan_prune(backups.engine, backups.store, KEEP)
    assert [name.tenant_id for name in plan.backups] == [acme.id]
    await prune(backups.engine, backups.store, plan, actor=ACTOR)
    assert [name.tenant_id for name in (await backups.store.list()).good] == [globex.id]


async def test_what_was_kept_for_undoing_goes_when_its_time_is_over(api: World, backups: Backups) -> None:
    acme, globex = await settle(api, "acme", "globex")
    before = {}
    for tenant in (acme, globex):
        manifest = await backups.writer().tenant(await row_of(backups, tenant.slug))
        await backups.restorer().restore(tenant.id, manifest)
        before[tenant.id] = await digests(api, tenant.id)
    async with as_owner(api.addresses) as owner:
        [kept] = await kept_schemas(owner, acme.id)
        await owner.execute(
            f'COMMENT ON SCHEMA "{kept.name}" IS \'{{"until": "2026-01-01T00:00:00Z", "backup": "x"}}\''
        )
        [kept] = await kept_schemas(owner, acme.id)
    plan = await plan_prune(backups.engine, backups.store, KEEP)
    assert plan.kept == (kept,)
    await prune(backups.engine, backups.store, plan, actor=ACTOR)
    async with as_owner(api.addresses) as owner:
        assert [one.tenant_id for one in await kept_schemas(owner)] == [globex.id]
    assert {tenant.id: await digests(api, tenant.id) for tenant in (acme, globex)} == before
