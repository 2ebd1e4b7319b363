"""A backup is a tenant as it was at one moment, whole or not there at all."""

from __future__ import annotations

import asyncio
import re
import stat
import time
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer
from prometheus_client import REGISTRY

from tenantry.kernel.storage import Storage, StorageUnavailableError
from tenantry.platform.archives.writer import table_digests
from tenantry.platform.backups.creating import BackupWriter
from tenantry.platform.backups.sealing import BackupDamagedError
from tenantry.platform.backups.store import BackupStore
from tenantry.platform.gauges import DeploymentGauges
from tenantry.tenancy.database import owner_engine
from tests.platform.backups.support import Backups, row_of, settle
from tests.platform.lifecycle.support import as_owner, digests
from tests.platform.support import as_admin
from tests.world import World, settings_for


async def test_a_backup_of_a_tenant_that_is_written_to_shows_one_moment(api: World, backups: Backups) -> None:
    acme, globex = await settle(api, "acme", "globex")
    made = 0
    stop = asyncio.Event()

    async def write() -> None:
        nonlocal made
        while not stop.is_set():
            await acme.add_team(f"Team {made}")
            made += 1

    writing = asyncio.create_task(write())
    while made == 0:
        await asyncio.sleep(0.005)
    written: list[int] = []

    async def listener(step: str) -> None:
        # Between its moment and its first row, and so on: others go on to commit.
        before = made
        while made < before + 2:
            await asyncio.sleep(0.005)
        written.append(made)

    manifest = await backups.writer(listener).tenant(await row_of(backups, "acme"))
    stop.set()
    await writing
    assert len(written) == 4
    async with backups.store.open_archive(manifest) as reader:
        rows = {table.name: b"".join([piece async for piece in reader.rows(table)]) for table in reader.manifest.tables}
    teams = set(re.findall(rb"([0-9a-f-]{36}),", rows["team"].split(b"\n", 1)[1]))
    assert 2 <= len(rows["team"].splitlines()) - 1 <= written[0] + 2
    # Every member's team is there, and every team has the member who made it.
    members = rows["team_member"].splitlines()[1:]
    assert len(members) == len(rows["team"].splitlines()) - 1
    assert all(any(team in member for team in teams) for member in members)
    assert (await digests(api, globex.id))["team"].rows == 1


async def test_nothing_of_anybodys_can_be_read_in_the_place_of_backups(
    api: World, backups: Backups, tmp_path: Path
) -> None:
    await settle(api, "acme")
    await backups.writer().tenant(await row_of(backups, "acme"))
    await backups.writer().shared()
    folder = tmp_path / "home" / "backups"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = path.read_bytes()
        assert b"acme" not in content
        assert b"PK\x03\x04" not in content
    for path in (folder, *folder.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077
    assert stat.S_IMODE((tmp_path / "home" / "backup-keys.json").stat().st_mode) == 0o600


async def test_one_tenant_that_fails_does_not_keep_the_others_from_being_backed_up(
    api: World, backups: Backups
) -> None:
    acme, globex = await settle(api, "acme", "globex")
    async with as_admin(api.addresses) as admin:
        # A sequence of nobody's, whose value no archive holds.
        await admin.execute(f'CREATE SEQUENCE "t_{acme.id.hex}".stray')
    told: list[tuple[int, int]] = []
    made = await backups.writer().all(concurrency=2, tell=lambda done, all_: told.append((done, all_)))
    assert [(one.label, one.error is None) for one in made] == [("shared", True), ("acme", False), ("globex", True)]
    assert "stray" in str(made[1].error)
    assert told[-1] == (2, 2)
    latest = (await backups.store.list()).latest()
    assert set(latest) == {None, globex.id}
    async with as_admin(api.addresses) as admin:
        trail = await admin.fetch("SELECT tenant_id, target FROM platform.audit_entry WHERE action = 'backup.created'")
        assert {(row["tenant_id"], row["target"]) for row in trail} == {(None, "shared"), (globex.id, None)}
        assert await _last_whole(api) == 0
        await admin.execute(f'DROP SEQUENCE "t_{acme.id.hex}".stray')
    assert all(one.error is None for one in await backups.writer().all(concurrency=2))
    assert time.time() - await _last_whole(api) < 60


async def _last_whole(api: World) -> float:
    """When everything was last backed up, as the provisioner's metrics tell it."""
    engine = owner_engine(api.addresses.owner_url)
    try:
        await DeploymentGauges(warm_schemas=0).run(engine)
    finally:
        await engine.dispose()
    told = REGISTRY.get_sample_value("tenantry_backup_last_timestamp_seconds")
    assert told is not None
    return told


async def test_a_backup_that_was_not_stored_to_its_end_is_none(
    api: World, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settle(api, "acme")
    put = Storage.put_bytes

    async def fail(self: Storage, key: str, data: bytes) -> None:
        if key.endswith(".manifest"):
            raise StorageUnavailableError
        await put(self, key, data)

    monkeypatch.setattr(Storage, "put_bytes", fail)
    with pytest.raises(StorageUnavailableError):
        await backups.writer().tenant(await row_of(backups, "acme"))
    listing = await backups.store.list()
    assert listing.good == ()
    assert [key.rpartition(".")[2] for key, _ in listing.partial] == ["backup"]


async def test_a_suspended_tenant_is_backed_up_and_a_schema_that_was_changed_by_hand_is_told(
    api: World, backups: Backups
) -> None:
    [acme] = await settle(api, "acme")
    suspended = await api.operator.post("/platform/tenants/acme/suspend", json={"reason": "unpaid"})
    assert suspended.status_code == 200
    async with as_owner(api.addresses) as owner:
        await owner.execute(f'CREATE INDEX by_hand ON "t_{acme.id.hex}".team (created_at)')
    assert [tenant.slug for tenant in await backups.writer().tenants()] == ["acme"]
    manifest = await backups.writer().tenant(await row_of(backups, "acme"))
    assert (manifest.status, manifest.as_revised) == ("suspended", False)
    verdict = await backups.checker.verify(manifest.name, deep=True)
    assert verdict.problem is None
    assert "changed by hand" in verdict.notes[0]


async def test_backups_are_kept_in_a_bucket_as_well(api: World, backups: Backups, tmp_path: Path) -> None:
    [acme] = await settle(api, "acme")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        async with httpx.AsyncClient() as http:
            (await http.put(f"{endpoint}/backups")).raise_for_status()
        settings = settings_for(
            api.addresses,
            tmp_path / "home",
            backup_url="s3://backups/deployment",
            backup_key_file=tmp_path / "home" / "backup-keys.json",
            backup_s3_endpoint=endpoint,
            backup_s3_region="us-east-1",
            backup_s3_access_key_id="testing",
            backup_s3_secret_access_key="a-secret-key",
        )
        store = BackupStore.open(settings)
        there = Backups(backups.engine, store)
        manifest = await there.writer().tenant(await row_of(backups, "acme"))
        assert (await store.list()).good == (manifest.name,)
        assert (await there.checker.verify(manifest.name)).problem is None
        await acme.add_team("Since")
        async with as_owner(api.addresses) as owner, owner.transaction():
            assert (await table_digests(owner, f"t_{acme.id.hex}"))["team"].rows == 2
        await there.restorer().restore(acme.id, manifest)
        assert (await digests(api, acme.id))["team"].rows == 1
        await store.delete(manifest.name)
        assert (await store.list()).good == ()
        with pytest.raises(BackupDamagedError, match="not there any more"):
            await store.manifest(manifest.name)
    finally:
        server.stop()


def test_only_the_owner_writes_backups() -> None:
    """A process that serves has neither their keys nor their place: nothing that it imports knows them."""
    assert BackupWriter.__module__ == "tenantry.platform.backups.creating"
    sources = Path(__file__).parents[3] / "src" / "tenantry"
    for root in ("asgi.py", "worker.py", "features.py"):
        assert "backups" not in (sources / root).read_text()
