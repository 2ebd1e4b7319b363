from __future__ import annotations

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tenantry.kernel.security import AUDIENCE_PLATFORM, Tokens
from tenantry.kernel.storage import Storage, StorageFullError
from tenantry.platform.operators.models import Operator
from tenantry.tenancy.context import ScopeTimes, control_scope
from tests.databases import Template
from tests.platform.belongings import make_due, provisioner
from tests.platform.lifecycle.support import (
    SECRET,
    ask,
    carry_out,
    carry_out_failing,
    digests,
    files_of,
    found,
    open_deployment,
    run,
)
from tests.platform.support import as_admin
from tests.world import Caller, World


async def _operator(api: World, role: str) -> Caller:
    """Somebody with this role."""
    operator_id = uuid4()
    async with api.database.transaction(control_scope(ScopeTimes(), read_only=False)) as transaction:
        transaction.session.add(
            Operator(id=operator_id, email=f"{operator_id.hex}@example.com", hashed_password="none", role=role)
        )
    tokens = Tokens(api.app.state.keyring, api.settings.token_issuer)
    return Caller(api.http, tokens.issue(audience=AUDIENCE_PLATFORM, sub=operator_id, ttl=600)[0])


def _members(content: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(members.pop("manifest.json")), members


async def test_an_export_holds_the_tenant_without_what_people_sign_in_with_and_nothing_of_another(api: World) -> None:
    acme, globex = await found(api, "acme"), await found(api, "globex")
    before = await digests(api, acme.id), await digests(api, globex.id)
    done = await run(api, "/platform/tenants/acme/export", {})
    listed = (await api.operator.get("/platform/tenants/acme/exports")).json()["items"]
    assert [(one["id"], one["status"], one["credentials"], one["expired"]) for one in listed] == [
        (done["id"], "done", False, False)
    ]
    fetched = await api.operator.get(f"/platform/tenants/acme/exports/{done['id']}/content")
    assert fetched.status_code == 200
    assert fetched.headers["content-type"] == "application/zip"
    assert fetched.headers["content-disposition"] == f'attachment; filename="acme-{done["id"]}.zip"'
    assert fetched.headers["content-length"] == str(len(fetched.content)) == str(listed[0]["bytes"])
    assert fetched.headers["cache-control"] == "no-store"
    assert hashlib.sha256(fetched.content).hexdigest() == listed[0]["sha256"]
    manifest, members = _members(fetched.content)
    assert (manifest["credentials"], manifest["tenant"]["slug"]) == (False, "acme")
    assert manifest["leftOut"] == sorted(SECRET)
    everything = b"".join(members.values())
    assert b"argon2" not in everything
    assert b"ann@acme.example" in everything
    assert b"globex" not in everything
    assert (await digests(api, acme.id), await digests(api, globex.id)) == before
    assert (await acme.owner.get("/api/teams")).status_code == 200, "served as before"


async def test_an_export_sees_one_moment_while_people_go_on_writing(api: World) -> None:
    acme = await found(api, "acme")
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def listener(step: str) -> None:
        if step == "archive written":
            reached.set()
            await go_on.wait()

    operation = await ask(api.operator, "/platform/tenants/acme/export", {})
    await make_due(api)
    async with provisioner(api) as worker:
        worker._listener = listener
        working = asyncio.create_task(worker.work_off())
        await reached.wait()
        # Neither writers nor operators wait for it.
        assert (await acme.owner.post("/api/teams", json={"name": "Later"})).status_code == 201
        assert (await api.operator.post("/platform/tenants/acme/suspend", json={})).status_code == 200
        assert (await api.operator.post("/platform/tenants/acme/resume")).status_code == 200
        busy = await api.operator.post("/platform/tenants/acme/archive", json={})
        assert (busy.status_code, busy.json()["type"]) == (409, "/problems/operation-pending")
        assert (await api.operator.get("/platform/tenants/acme")).json()["status"] == "active"
        go_on.set()
        assert await working == 1
    content = (await api.operator.get(f"/platform/tenants/acme/exports/{operation}/content")).content
    assert b"Later" not in _members(content)[1]["tables/team.csv"]


async def test_credentials_are_for_those_who_may_purge(api: World) -> None:
    await found(api, "acme")
    operator, support = await _operator(api, "operator"), await _operator(api, "support")
    refused = await operator.post("/platform/tenants/acme/export", json={"credentials": True})
    assert (refused.status_code, refused.json()["permission"]) == (403, "tenants:purge")
    assert (await support.post("/platform/tenants/acme/export", json={})).status_code == 403
    whole = await run(api, "/platform/tenants/acme/export", {"credentials": True})
    plain = await ask(operator, "/platform/tenants/acme/export", {"credentials": False})
    await carry_out(api)
    content = f"/platform/tenants/acme/exports/{whole['id']}/content"
    assert (await operator.get(content)).status_code == 403
    assert (await support.get(content)).status_code == 403
    assert (await operator.get(content.replace(whole["id"], plain))).status_code == 200
    fetched = await api.operator.get(content)
    assert b"argon2" in _members(fetched.content)[1]["tables/user_account.csv"]


async def test_an_export_of_another_tenant_is_not_this_ones(api: World) -> None:
    await found(api, "acme"), await found(api, "globex")
    done = await run(api, "/platform/tenants/globex/export", {})
    for path in (
        f"/platform/tenants/acme/exports/{done['id']}/content",
        f"/platform/tenants/globex/exports/{uuid4()}/content",
        f"/platform/tenants/nobody/exports/{done['id']}/content",
    ):
        assert (await api.operator.get(path)).status_code == 404, path
    assert (await api.operator.get("/platform/tenants/acme/exports")).json()["total"] == 0


async def test_what_is_not_ready_yet_or_any_more_is_no_file(api: World) -> None:
    await found(api, "acme")
    operation = await ask(api.operator, "/platform/tenants/acme/export", {})
    path = f"/platform/tenants/acme/exports/{operation}/content"
    waiting = await api.operator.get(path)
    assert (waiting.status_code, waiting.json()["exportStatus"]) == (409, "pending")
    await carry_out(api, export_ttl=1)
    assert (await api.operator.get(path)).status_code == 200
    async with as_admin(api.addresses) as admin:
        await admin.execute(
            "UPDATE platform.operation SET result = jsonb_set(result, '{expiresAt}', to_jsonb(now() - interval '1s'))"
            " WHERE kind = 'export'"
        )
    async with provisioner(api) as worker:
        [chore] = [one for one in worker._chores if one.name == "files that have expired"]
        assert await chore.run(worker._engine)
        assert not await chore.run(worker._engine)
    assert await files_of(api) == []
    gone = await api.operator.get(path)
    assert (gone.status_code, gone.json()["exportStatus"]) == (409, "expired")
    [listed] = (await api.operator.get("/platform/tenants/acme/exports")).json()["items"]
    assert listed["expired"] is True


async def test_an_export_for_which_there_is_no_room_leaves_nothing_and_says_why(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = await found(api, "acme")
    put = Storage.put_file

    async def full(self: Storage, key: str, path: Path) -> None:
        await put(self, key, path)
        raise StorageFullError

    monkeypatch.setattr(Storage, "put_file", full)
    operation = await ask(api.operator, "/platform/tenants/acme/export", {})
    failed = await carry_out_failing(api, operation)
    assert "is full" in failed["error"]
    assert await files_of(api) == []
    assert (await acme.owner.get("/api/teams")).status_code == 200
    answer = await api.operator.get(f"/platform/tenants/acme/exports/{operation}/content")
    assert answer.json()["exportStatus"] == "failed"


async def test_no_connection_is_held_while_a_file_is_fetched(
    database_addresses: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a pool of one: whoever reads slowly keeps nobody out."""
    async with open_deployment(database_addresses, tmp_path / "home", database_connections=2) as api:
        acme = await found(api, "acme")
        done = await run(api, "/platform/tenants/acme/export", {})
        stream = Storage.stream
        in_use: list[int] = []

        async def watched(self: Storage, key: str) -> AsyncIterator[bytes]:
            pool: Any = api.database.engine.pool
            in_use.append(pool.checkedout())
            assert (await acme.owner.get("/api/teams")).status_code == 200
            async for piece in stream(self, key):
                yield piece

        monkeypatch.setattr(Storage, "stream", watched)
        path = f"/platform/tenants/acme/exports/{done['id']}/content"
        assert (await api.operator.get(path)).status_code == 200
        assert in_use == [0]


async def test_old_uploads_that_nobody_imported_are_removed_and_those_that_wait_are_not(api: World) -> None:
    storage = Storage.open(api.settings)
    await storage.put_bytes("imports/one.zip", b"x")
    async with provisioner(api, export_ttl=3600) as worker:
        [chore] = [one for one in worker._chores if one.name == "files that have expired"]
        await chore.run(worker._engine)
    assert await files_of(api) == ["imports/one.zip"]
    async with provisioner(api, export_ttl=0) as worker:
        [chore] = [one for one in worker._chores if one.name == "files that have expired"]
        await chore.run(worker._engine)
    assert await files_of(api) == []
