from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tenantry.kernel.storage import Storage, StorageFullError, StorageUnavailableError
from tenantry.platform.archives.reader import verify_archive
from tests.platform.belongings import make_due, provisioner
from tests.platform.lifecycle.support import (
    EMPTY,
    ask,
    carry_out,
    carry_out_failing,
    digests,
    files_of,
    found,
    of_catalog,
    operation_of,
    refused_with,
    run,
    tenant_row,
    trail,
)
from tests.platform.support import as_admin
from tests.world import World

_LIMIT = 100_000_000


async def test_an_archive_holds_every_row_and_the_schema_is_gone(api: World, tmp_path: Path) -> None:
    acme, globex = await found(api, "acme"), await found(api, "globex")
    held, neighbour = await digests(api, acme.id), await digests(api, globex.id)
    done = await run(api, "/platform/tenants/acme/archive", {"reason": "Paused"})
    key = f"tenants/{acme.id}/archives/{done['id']}.zip"
    assert done["result"]["key"] == key
    assert await files_of(api) == [key]
    row = await tenant_row(api, acme.id)
    assert (row["status"], row["status_reason"], row["archive_key"], row["revision"]) == (
        "archived",
        "Paused",
        key,
        None,
    )
    assert await of_catalog(api, acme.id) == []
    assert await trail(api, acme.id) == ["tenant.create", "tenant.archive", "tenant.archived"]

    path = tmp_path / "read.zip"
    await Storage.open(api.settings).fetch_to(key, path)
    manifest = await verify_archive(path, size_limit=_LIMIT)
    assert manifest.credentials
    assert {table.name: (table.rows, table.sha256) for table in manifest.tables} == held
    assert min(table.rows for table in manifest.tables if table.name not in EMPTY) > 0
    assert b"globex" not in path.read_bytes()
    assert done["result"]["rows"] == sum(table.rows for table in manifest.tables)
    assert await digests(api, globex.id) == neighbour
    assert (await globex.owner.get("/api/teams")).json()["total"] == 2


async def test_a_tenant_is_refused_within_a_second_of_being_asked_for_and_before_it_is_archived(api: World) -> None:
    acme = await found(api, "acme")
    answer = await api.operator.post("/platform/tenants/acme/archive", json={})
    assert (answer.status_code, answer.json()["kind"]) == (202, "archive")
    assert (await api.operator.get("/platform/tenants/acme")).json()["status"] == "archived"
    refused = await refused_with(api, acme.owner, 403)
    assert refused.json()["type"] == "/problems/tenant-unavailable"
    assert await of_catalog(api, acme.id) == ["role", "schema"]
    # Not yet: processes have a moment to notice, so that nobody meets tables that are gone.
    assert (await operation_of(api, answer.json()["id"]))["attempts"] == 0
    await carry_out(api)
    assert (await refused_with(api, acme.owner, 403)).json()["type"] == "/problems/tenant-unavailable"


async def test_a_write_that_was_under_way_is_waited_for_and_is_in_the_archive(api: World) -> None:
    acme = await found(api, "acme")
    reached, go_on = asyncio.Event(), asyncio.Event()
    context = api.app.state.registry.by_id(acme.id)

    async def write() -> None:
        async with api.database.transaction(context.write_scope) as transaction:
            await transaction.connection.execute(
                "INSERT INTO tag (id, slug, name, created_at, updated_at)"
                " VALUES (gen_random_uuid(), $1, $1, now(), now())",
                "in-flight",
            )
            reached.set()
            await go_on.wait()

    writer = asyncio.create_task(write())
    await reached.wait()
    operation = await ask(api.operator, "/platform/tenants/acme/archive", {})
    await make_due(api)
    async with provisioner(api) as worker:
        working = asyncio.create_task(worker.work_off())
        async with as_admin(api.addresses) as admin, asyncio.timeout(10):
            while not await admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                " AND query LIKE 'LOCK TABLE%'"
            ):
                await asyncio.sleep(0.005)
        assert not working.done()
        go_on.set()
        await writer
        assert await working == 1
    assert (await operation_of(api, operation))["status"] == "done"
    await run(api, "/platform/tenants/acme/restore")
    tags = await acme.owner.get("/api/tags")
    assert "in-flight" in {tag["slug"] for tag in tags.json()["items"]}


async def test_every_write_that_was_answered_with_success_while_it_was_archived_is_there_afterwards(
    api: World,
) -> None:
    acme = await found(api, "acme")
    stored: list[str] = []
    begun = asyncio.Event()

    async def write(writer: int) -> int:
        for number in range(10_000):
            name = f"team-{writer}-{number}"
            answer = await acme.owner.post("/api/teams", json={"name": name})
            if answer.status_code == 201:
                stored.append(name)
                begun.set()
            elif answer.status_code == 403:
                return number
            else:
                # While the tables are locked, a request may be told to come again.
                assert answer.status_code == 503, answer.text
        raise AssertionError("never refused")

    async def operate() -> None:
        await begun.wait()
        await ask(api.operator, "/platform/tenants/acme/archive", {})
        async with provisioner(api) as worker, asyncio.timeout(20):
            while not await worker.work_off():
                await asyncio.sleep(0.01)

    await asyncio.gather(operate(), *(write(writer) for writer in range(3)))
    assert await of_catalog(api, acme.id) == []
    await run(api, "/platform/tenants/acme/restore")
    async with as_admin(api.addresses) as admin:
        names = {row["name"] for row in await admin.fetch(f'SELECT name FROM "{acme.schema}".team')}
    assert stored
    assert set(stored) <= names


@pytest.mark.parametrize("before", ["active", "suspended"])
async def test_an_archive_for_which_there_is_no_room_is_given_up_and_the_tenant_is_as_it_was(
    api: World, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    acme = await found(api, "acme")
    if before == "suspended":
        assert (await api.operator.post("/platform/tenants/acme/suspend", json={"reason": "Unpaid"})).is_success
    held = await digests(api, acme.id)

    async def full(self: Storage, key: str, path: Path) -> None:
        raise StorageFullError

    monkeypatch.setattr(Storage, "put_file", full)
    operation = await ask(api.operator, "/platform/tenants/acme/archive", {"reason": "Paused"})
    failed = await carry_out_failing(api, operation)
    assert (failed["attempts"], "full" in failed["error"]) == (5, True)
    row = await tenant_row(api, acme.id)
    assert (row["status"], row["archive_key"]) == (before, None)
    assert row["status_reason"] == ("Unpaid" if before == "suspended" else None)
    assert row["revision"] is not None
    assert await digests(api, acme.id) == held
    assert await files_of(api) == []
    if before == "active":
        await refused_with(api, acme.owner, 200)
    trail = (await api.operator.get("/platform/audit", params={"tenantId": str(acme.id)})).json()["items"]
    assert [entry["action"] for entry in trail[:2]] == ["tenant.archive-failed", "tenant.archive"]


async def test_a_disk_that_is_full_while_the_archive_is_written_harms_nothing(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = await found(api, "acme")

    open_file = os.open

    def full(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("/archive.zip"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", full)
    operation = await ask(api.operator, "/platform/tenants/acme/archive", {})
    failed = await carry_out_failing(api, operation)
    assert "There is no room" in failed["error"]
    assert (await tenant_row(api, acme.id))["status"] == "active"
    monkeypatch.undo()
    await run(api, "/platform/tenants/acme/archive", {})
    assert (await tenant_row(api, acme.id))["status"] == "archived"


async def test_an_archive_that_the_storage_gives_back_otherwise_is_not_trusted(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme, globex = await found(api, "acme"), await found(api, "globex")
    other = await run(api, "/platform/tenants/globex/export", {"credentials": True})
    fetch = Storage.fetch_to

    async def swapped(self: Storage, key: str, path: Path) -> None:
        await fetch(self, other["result"]["key"], path)

    monkeypatch.setattr(Storage, "fetch_to", swapped)
    operation = await ask(api.operator, "/platform/tenants/acme/archive", {})
    failed = await carry_out_failing(api, operation)
    assert "not the one that was written" in failed["error"]
    assert await of_catalog(api, acme.id) == ["role", "schema"]
    assert await files_of(api, f"tenants/{acme.id}") == []
    assert len(await files_of(api, f"tenants/{globex.id}")) == 1


async def test_rows_that_are_not_in_the_archive_stop_it(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = await found(api, "acme")

    async def fewer(*_: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setattr("tenantry.platform.lifecycle.archiving.table_digests", fewer)
    failed = await carry_out_failing(api, await ask(api.operator, "/platform/tenants/acme/archive", {}))
    assert "does not hold the rows" in failed["error"]
    assert await of_catalog(api, acme.id) == ["role", "schema"]


async def test_a_failed_archive_that_could_not_be_removed_is_removed_by_the_chore(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = await found(api, "acme")

    async def away(self: Storage, key: str, path: Path | None = None) -> None:
        raise StorageUnavailableError

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "fetch_to", away)
        patch.setattr(Storage, "delete", away)
        await carry_out_failing(api, await ask(api.operator, "/platform/tenants/acme/archive", {}))
    assert len(await files_of(api, f"tenants/{acme.id}")) == 1
    async with provisioner(api) as worker:
        [chore] = [one for one in worker._chores if one.name == "files that have expired"]
        assert await chore.run(worker._engine)
        assert not await chore.run(worker._engine)
    assert await files_of(api) == []


async def test_what_the_state_does_not_allow_is_refused_with_what_it_does(api: World) -> None:
    acme = await found(api, "acme")
    for path in ("restore",):
        answer = await api.operator.post(f"/platform/tenants/acme/{path}")
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/invalid-transition")
        assert "archive" in answer.json()["allowed"]
    await ask(api.operator, "/platform/tenants/acme/archive", {})
    pending = await api.operator.post("/platform/tenants/acme/restore")
    assert (pending.status_code, pending.json()["type"]) == (409, "/problems/operation-pending")
    await carry_out(api)
    for path, body in (("archive", {}), ("export", {}), ("clone", {"slug": "b", "name": "B", "maskEmails": False})):
        answer = await api.operator.post(f"/platform/tenants/acme/{path}", json=body)
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/invalid-transition"), path
        assert answer.json()["allowed"] == ["delete", "restore"]
    assert (await api.operator.post("/platform/tenants/nobody/archive", json={})).status_code == 404
    assert UUID(str(acme.id)) == acme.id
