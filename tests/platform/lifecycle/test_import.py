from __future__ import annotations

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tenantry.kernel.security import INVITATION, Credential
from tenantry.kernel.storage import Storage
from tests.databases import Template, clone_database, drop_database
from tests.platform.belongings import provisioner
from tests.platform.lifecycle.support import (
    carry_out,
    carry_out_failing,
    digests,
    files_of,
    found,
    of_catalog,
    open_deployment,
    run,
    tenant_row,
    tidy,
)
from tests.platform.support import as_admin
from tests.tree import TenantTree
from tests.world import PASSWORD, Caller, World

KEY = "imports/acme.zip"


@pytest.fixture
async def elsewhere(template: Template, tmp_path: Path) -> AsyncIterator[World]:
    """Another deployment, with a database and a storage of its own."""
    addresses = await clone_database(template)
    async with open_deployment(addresses, tmp_path / "elsewhere") as opened:
        yield opened
    await drop_database(addresses)


async def _exported(api: World, slug: str, *, credentials: bool = False) -> bytes:
    done = await run(api, f"/platform/tenants/{slug}/export", {"credentials": credentials})
    return await Storage.open(api.settings).get_bytes(done["result"]["key"])


async def _upload(world: World, content: bytes, key: str = KEY) -> None:
    await Storage.open(world.settings).put_bytes(key, content)


def _body(**more: Any) -> dict[str, Any]:
    return {"key": KEY, "slug": "acme-two", "ownerEmail": "owner@acme.example", **more}


async def _imported(world: World, **more: Any) -> tuple[UUID, dict[str, Any]]:
    answer = await world.operator.post("/platform/imports", json=_body(**more))
    assert answer.status_code == 202, answer.text
    await carry_out(world)
    tenant_id = UUID(answer.json()["id"])
    assert (await tenant_row(world, tenant_id))["status"] == "active"
    return tenant_id, answer.json()


async def test_an_export_is_imported_in_another_deployment_to_the_byte(api: World, elsewhere: World) -> None:
    acme, globex = await found(api, "acme"), await found(elsewhere, "globex")
    held, neighbour = await digests(api, acme.id), await digests(elsewhere, globex.id)
    await _upload(elsewhere, await _exported(api, "acme", credentials=True))
    tenant_id, answer = await _imported(elsewhere, ownerPassword=PASSWORD)
    assert tenant_id != acme.id
    assert (answer["name"], answer["plan"], answer["ownerInvitation"]) == ("Acme", "free", None)
    arrived = await digests(elsewhere, tenant_id)
    # The owner's password is the one thing that was given anew.
    assert {name for name in held if held[name] != arrived[name]} == {"user_account"}
    assert arrived["user_account"].rows == held["user_account"].rows
    assert await digests(elsewhere, globex.id) == neighbour
    *others, bob = acme.people
    for email in others:
        await elsewhere.log_in("acme-two", email)
    # Whoever has a second factor is asked for it there as well.
    login = {"tenant": "acme-two", "email": bob, "password": PASSWORD}
    asked = await elsewhere.http.post("/api/auth/login", json=login)
    assert (asked.status_code, asked.json()["type"]) == (401, "/problems/second-factor-required")
    assert await digests(api, acme.id) == held


async def test_without_credentials_the_owner_is_invited_and_the_others_wait_to_be(api: World, elsewhere: World) -> None:
    acme = await found(api, "acme")
    await _upload(elsewhere, await _exported(api, "acme"))
    tenant_id, answer = await _imported(elsewhere, name="Acme again", plan="team")
    invitation = answer["ownerInvitation"]
    assert Credential.parse(invitation, INVITATION).tenant_id == tenant_id
    for email in acme.people:
        login = {"tenant": "acme-two", "email": email, "password": PASSWORD}
        assert (await elsewhere.http.post("/api/auth/login", json=login)).status_code == 401
    accepted = await elsewhere.http.post(
        "/api/auth/invitations/accept", json={"token": invitation, "password": PASSWORD}
    )
    assert accepted.status_code == 200, accepted.text
    owner = Caller(elsewhere.http, accepted.json()["accessToken"])
    assert (await owner.get("/api/users/me")).json()["email"] == "owner@acme.example"
    assert (await owner.get("/api/users")).json()["total"] == len(acme.people)
    assert (await owner.get("/api/teams")).json()["total"] == 2
    row = await tenant_row(elsewhere, tenant_id)
    assert (row["name"], row["plan"], row["owner_email"]) == ("Acme again", "team", "owner@acme.example")


async def test_an_owner_who_is_not_in_the_archive_is_made(api: World) -> None:
    acme = await found(api, "acme")
    await _upload(api, await _exported(api, "acme"))
    await _imported(api, ownerEmail="New@Owner.example", ownerPassword=PASSWORD, ownerName="Nan")
    owner = await api.log_in("acme-two", "new@owner.example")
    me = (await owner.get("/api/users/me")).json()
    assert (me["name"], [role["slug"] for role in me["roles"]]) == ("Nan", ["owner"])
    assert (await owner.get("/api/users")).json()["total"] == len(acme.people) + 1
    # Beside the one that it was made of, in the same deployment.
    assert (await acme.owner.get("/api/users")).json()["total"] == len(acme.people)


async def test_the_upload_is_removed_once_it_is_imported(api: World) -> None:
    await found(api, "acme")
    await _upload(api, await _exported(api, "acme"))
    await _imported(api)
    assert KEY in await files_of(api)
    async with provisioner(api) as worker:
        [chore] = [one for one in worker._chores if one.name == "files that have expired"]
        assert await chore.run(worker._engine)
        assert not await chore.run(worker._engine)
    assert KEY not in await files_of(api)


async def test_an_archive_of_an_older_release_ends_at_the_present_revision(api: World, tenant_tree: TenantTree) -> None:
    await found(api, "acme")
    await _upload(api, await _exported(api, "acme"))
    newest = tenant_tree.add()
    tenant_id, _ = await _imported(api)
    async with as_admin(api.addresses) as admin:
        assert await admin.fetchval(f'SELECT version_num FROM "t_{tenant_id.hex}".alembic_version') == newest
        assert await admin.fetchval(f'SELECT count(color) FROM "t_{tenant_id.hex}".team') == 0


def _rewritten(content: bytes, **changes: Any) -> bytes:
    """The archive with another manifest."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "manifest.json":
                data = json.dumps({**json.loads(data), **changes}).encode()
            target.writestr(name, data)
    return made.getvalue()


def _flipped(content: bytes) -> bytes:
    """With one bit of a table's rows turned over: of the ZIP's own headers, some say nothing."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        member = archive.getinfo("tables/user_account.csv")
    place = content.index(b"tables/user_account.csv") + len("tables/user_account.csv") + member.compress_size // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no archive at all": (lambda _: b"hello", "expected a ZIP file"),
    "cut off": (lambda content: content[:-200], "ZIP"),
    "damaged": (_flipped, ""),
    "another product's": (lambda content: _rewritten(content, format="somebody-elses"), "expected the format"),
    "of a later format": (lambda content: _rewritten(content, formatVersion=2), "expected version 1"),
    "of a newer release": (lambda content: _rewritten(content, revision="9999"), "a revision that this release"),
    "with a table less": (lambda content: _rewritten(content, tables=[]), "the manifest names no such member"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_archive_is_refused_before_anything_is_written(api: World, kind: str) -> None:
    await found(api, "acme")
    spoil, words = BAD[kind]
    await _upload(api, spoil(await _exported(api, "acme")))
    answer = await api.operator.post("/platform/imports", json=_body())
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-archive"), answer.text
    assert words in answer.json()["detail"]
    assert (await api.operator.get("/platform/tenants")).json()["total"] == 1
    async with as_admin(api.addresses) as admin:
        assert await admin.fetchval("SELECT count(*) FROM platform.operation WHERE kind = 'import'") == 0


async def test_an_archive_that_is_too_large_is_refused(api: World, tmp_path: Path) -> None:
    await found(api, "acme")
    content = await _exported(api, "acme")
    async with open_deployment(api.addresses, tmp_path / "home", import_size_limit=2048) as strict:
        await _upload(strict, content)
        answer = await strict.operator.post("/platform/imports", json=_body())
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-archive")
        assert "expected at most 2048 bytes" in answer.json()["detail"]


async def test_rows_that_break_a_constraint_are_found_out_by_the_provisioner_and_nothing_is_left(api: World) -> None:
    """Whoever has made the archive has made its digests as well: that rows fit together only the database can tell."""
    await found(api, "acme")
    content = await _exported(api, "acme")
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(made, "w") as target:
        manifest = json.loads(source.read("manifest.json"))
        for table in manifest["tables"]:
            data = source.read(table["file"])
            if table["name"] == "user_account":
                lines = data.split(b"\n")
                table["rows"], data = 0, lines[0] + b"\n"
                table["bytes"] = len(data)
                table["sha256"] = hashlib.sha256(data).hexdigest()
            target.writestr(table["file"], data)
        target.writestr("manifest.json", json.dumps(manifest))
    await _upload(api, made.getvalue())
    answer = await api.operator.post("/platform/imports", json=_body())
    assert answer.status_code == 202, answer.text
    failed = await carry_out_failing(api, answer.headers["Location"].rpartition("/")[2])
    assert failed["attempts"] == 1
    assert "rows that the table does not take" in failed["error"]
    tenant_id = UUID(answer.json()["id"])
    assert await of_catalog(api, tenant_id) == []
    row = await tenant_row(api, tenant_id)
    assert (row["status"], row["status_reason"]) == ("failed", "import failed")
    assert KEY in await files_of(api), "for another attempt"


@pytest.mark.parametrize(
    "key",
    [
        "tenants/018f0000-0000-7000-8000-000000000001/archives/x.zip",
        "imports/../tenants/x.zip",
        "imports",
        "imports/",
        "imports//x.zip",
        "/imports/x.zip",
        "imports/.hidden",
        "IMPORTS/x.zip",
    ],
)
async def test_only_what_lies_below_imports_can_be_imported(api: World, key: str) -> None:
    answer = await api.operator.post("/platform/imports", json=_body(key=key))
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == ["key"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "key"),
        ({"slug": "platform"}, 422, "slug"),
        ({"plan": "gold"}, 422, "plan"),
        ({"ownerEmail": "nobody"}, 422, "ownerEmail"),
        ({"ownerPassword": "short"}, 422, "ownerPassword"),
    ],
)
async def test_what_cannot_be_is_said_at_once(api: World, body: dict[str, Any], status: int, field: str) -> None:
    answer = await api.operator.post("/platform/imports", json=_body(**body))
    assert answer.status_code == status, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_tenant_that_is_there_is_never_overwritten(api: World) -> None:
    acme = await found(api, "acme")
    await _upload(api, await _exported(api, "acme"))
    held = await digests(api, acme.id)
    answer = await api.operator.post("/platform/imports", json=_body(slug="acme"))
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/slug-taken")
    assert await digests(api, acme.id) == held


async def test_an_archive_without_an_owners_role_is_refused(api: World) -> None:
    acme = await found(api, "acme")
    async with as_admin(api.addresses) as admin:
        tables = ("user_role", "service_account_role", "role")
        await admin.execute("".join(f'DELETE FROM "{acme.schema}".{table};' for table in tables))
    await _upload(api, await _exported(api, "acme"))
    answer = await api.operator.post("/platform/imports", json=_body())
    failed = await carry_out_failing(api, answer.headers["Location"].rpartition("/")[2])
    assert "no built-in role 'owner'" in failed["error"]
    assert await of_catalog(api, UUID(answer.json()["id"])) == []


async def test_who_waits_is_told_of_a_refusal_as_such(api: World, tmp_path: Path) -> None:
    """What only the provisioner finds out comes back as the same problem."""
    acme = await found(api, "acme")
    async with as_admin(api.addresses) as admin:
        tables = ("user_role", "service_account_role", "role")
        await admin.execute("".join(f'DELETE FROM "{acme.schema}".{table};' for table in tables))
    content = await _exported(api, "acme")
    async with open_deployment(api.addresses, tmp_path / "home", provision_wait=20) as patient:
        await _upload(patient, content)
        asking = asyncio.create_task(patient.operator.post("/platform/imports", json=_body()))
        async with provisioner(patient) as worker, asyncio.timeout(20):
            while not await worker.work_off():
                await asyncio.sleep(0.01)
            answer = await asking
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-archive")
    assert answer.json()["operation"]


async def test_an_upload_stays_for_as_long_as_another_import_of_it_waits(api: World) -> None:
    await found(api, "acme")
    await _upload(api, await _exported(api, "acme"))
    await _imported(api)
    second = await api.operator.post("/platform/imports", json=_body(slug="acme-three"))
    assert second.status_code == 202, second.text
    assert await tidy(api) == 0
    await carry_out(api)
    assert (await tenant_row(api, UUID(second.json()["id"])))["status"] == "active"
    # Both are done with it: it is removed for the one, and is not there any more for the other.
    assert KEY in await files_of(api)
    assert await tidy(api) == 2
    assert KEY not in await files_of(api)
