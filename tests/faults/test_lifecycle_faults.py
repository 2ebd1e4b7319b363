"""Whole tenants moved by a provisioner that is killed: after every step, by SIGKILL, and taken up by another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tenantry.kernel.storage import Storage
from tenantry.platform.archives.format import Manifest
from tenantry.platform.archives.reader import verify_archive
from tenantry.tenancy.migrations import head
from tests.databases import Template
from tests.faults.crashing import crash_everywhere
from tests.platform.belongings import make_due
from tests.platform.lifecycle.support import (
    SECRET,
    Digests,
    Inhabited,
    ask,
    described,
    digests,
    files_of,
    found,
    of_catalog,
    operation_of,
    refused_with,
    run,
    tenant_row,
    tidy,
    trail,
)
from tests.platform.support import as_admin, open_api
from tests.world import PASSWORD, World

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Asked:
    """An operation that is pending, and the tenant that it is about."""

    operation: str
    tenant_id: UUID


@dataclass
class Crashes:
    """A deployment whose provisioners are killed, and a tenant in it that none of it is about."""

    api: World
    home: Path
    globex: Inhabited
    before: list[Any]
    files: set[str] = field(default_factory=set)
    """What the storage is to hold, once the chore has gone over it."""

    async def everywhere(
        self, ask_for: Callable[[int], Awaitable[Asked]], check: Callable[[Asked, dict[str, Any]], Awaitable[None]]
    ) -> tuple[str, ...]:
        """Kill after every step of what `ask_for` asks for; `check` is given the operation, which was done once."""

        async def due(number: int) -> Asked:
            asked = await ask_for(number)
            await make_due(self.api)
            return asked

        async def checked(asked: Asked) -> None:
            done = await operation_of(self.api, asked.operation)
            assert (done["status"], done["attempts"], done["error"]) == ("done", 1, None)
            async with as_admin(self.api.addresses) as admin:
                rows = await admin.fetch(
                    "SELECT payload FROM platform.operation WHERE tenant_id = $1 AND kind = $2",
                    asked.tenant_id,
                    done["kind"],
                )
            assert [row["payload"] for row in rows] == ["{}"]
            await check(asked, done)
            await tidy(self.api)
            assert set(await files_of(self.api)) == self.files
            # Whole archives were on their way when the process died.
            assert list((self.home / "storage" / ".scratch").iterdir()) == []
            assert await _everything(self.api, self.globex.id) == self.before

        return await crash_everywhere(self.api.addresses, self.home, due, checked)


async def _everything(api: World, tenant_id: UUID) -> list[Any]:
    return [
        await digests(api, tenant_id),
        await described(api, tenant_id),
        await tenant_row(api, tenant_id),
        await trail(api, tenant_id),
    ]


@pytest.fixture
async def crashes(database_addresses: Template, tmp_path: Path) -> AsyncIterator[Crashes]:
    async with open_api(database_addresses, tmp_path, provision_wait=0.01, registry_poll_interval=0.05) as api:
        globex = await found(api, "globex")
        yield Crashes(api, tmp_path, globex, await _everything(api, globex.id))


async def _manifest(api: World, key: str, folder: Path) -> Manifest:
    path = folder / "read.zip"
    await Storage.open(api.settings).fetch_to(key, path)
    return await verify_archive(path, size_limit=100_000_000)


def _rows(manifest: Manifest) -> Digests:
    return {table.name: (table.rows, table.sha256) for table in manifest.tables}  # type: ignore[misc]


async def test_archives_and_restores_that_are_killed_after_any_step_end_alike(crashes: Crashes, tmp_path: Path) -> None:
    """Those that the first half has archived are those that the second half restores."""
    api = crashes.api
    tenants: dict[UUID, Inhabited] = {}
    held: dict[UUID, tuple[Digests, str]] = {}
    keys: dict[UUID, str] = {}

    async def ask_archive(number: int) -> Asked:
        tenant = await found(api, f"acme-{number}", teams=number % 3 + 1)
        tenants[tenant.id] = tenant
        held[tenant.id] = await digests(api, tenant.id), await described(api, tenant.id)
        return Asked(await ask(api.operator, f"/platform/tenants/{tenant.slug}/archive", {}), tenant.id)

    async def check_archive(asked: Asked, done: dict[str, Any]) -> None:
        key = f"tenants/{asked.tenant_id}/archives/{asked.operation}.zip"
        assert done["result"]["key"] == key
        row = await tenant_row(api, asked.tenant_id)
        assert (row["status"], row["archive_key"], row["revision"]) == ("archived", key, None)
        assert await of_catalog(api, asked.tenant_id) == []
        manifest = await _manifest(api, key, tmp_path)
        assert _rows(manifest) == held[asked.tenant_id][0]
        assert await trail(api, asked.tenant_id) == ["tenant.create", "tenant.archive", "tenant.archived"]
        keys[asked.tenant_id] = key
        crashes.files.add(key)

    steps = await crashes.everywhere(ask_archive, check_archive)
    assert steps == (
        "taken",
        "tables locked",
        "archive written",
        "archive stored",
        "archive verified",
        "schema dropped",
        "recorded",
    )
    waiting = list(keys)

    async def ask_restore(_: int) -> Asked:
        tenant = tenants[waiting.pop()]
        return Asked(await ask(api.operator, f"/platform/tenants/{tenant.slug}/restore"), tenant.id)

    async def check_restore(asked: Asked, done: dict[str, Any]) -> None:
        tenant, key = tenants[asked.tenant_id], keys[asked.tenant_id]
        assert done["result"] == {"archive": key, "revision": head("tenant")}
        row = await tenant_row(api, tenant.id)
        assert (row["status"], row["archive_key"], row["revision"]) == ("active", None, head("tenant"))
        assert await of_catalog(api, tenant.id) == ["role", "schema"]
        assert (await digests(api, tenant.id), await described(api, tenant.id)) == held[tenant.id]
        assert (await trail(api, tenant.id))[3:] == ["tenant.restore", "tenant.restored"]
        # Whoever was signed in before still is.
        await refused_with(api, tenant.owner, 200)
        assert (await tenant.owner.post("/api/teams", json={"name": "Afterwards"})).status_code == 201
        crashes.files.remove(key)

    steps = await crashes.everywhere(ask_restore, check_restore)
    assert steps == (
        "taken",
        "archive fetched",
        "schema made",
        "rows loaded",
        "rows compared",
        "schema migrated",
        "recorded",
    )
    assert crashes.files == set()


@pytest.mark.parametrize("mask", [False, True], ids=["whole", "masked"])
async def test_clones_that_are_killed_after_any_step_end_alike(crashes: Crashes, mask: bool) -> None:
    api = crashes.api
    acme = await found(api, "acme")
    before = await _everything(api, acme.id)
    held: Digests = before[0]
    owner = {"ownerEmail": "dev@tools.example", "ownerPassword": PASSWORD} if mask else {}

    async def ask_clone(number: int) -> Asked:
        body = {"slug": f"clone-{number}", "name": "A clone", "maskEmails": mask, **owner}
        answer = await api.operator.post("/platform/tenants/acme/clone", json=body)
        assert answer.status_code == 202, answer.text
        return Asked(answer.headers["Location"].rpartition("/")[2], UUID(answer.json()["id"]))

    async def check(asked: Asked, done: dict[str, Any]) -> None:
        row = await tenant_row(api, asked.tenant_id)
        assert (row["status"], row["archive_key"], row["revision"]) == ("active", None, head("tenant"))
        assert (done["result"]["source"], done["result"]["masked"]) == (str(acme.id), mask)
        assert await of_catalog(api, asked.tenant_id) == ["role", "schema"]
        assert await described(api, asked.tenant_id) == before[1]
        copied = await digests(api, asked.tenant_id)
        assert {name: copied[name].rows for name in SECRET} == dict.fromkeys(SECRET, 0)
        changed = {name for name in copied.keys() - SECRET if copied[name] != held[name]}
        # The owner who was asked for, and nobody twice; what a directory calls people is masked like their accounts.
        more = {"user_account": 1, "user_role": 1, "directory_user": 0} if mask else {}
        assert {name: copied[name].rows - held[name].rows for name in changed} == more
        assert await trail(api, asked.tenant_id) == ["tenant.clone"]
        assert await _everything(api, acme.id) == before
        await api.log_in(row["slug"], "dev@tools.example" if mask else "owner@acme.example")

    steps = await crashes.everywhere(ask_clone, check)
    assert steps == ("taken", "schema made", "rows copied", "schema migrated", "recorded")


async def test_exports_that_are_killed_after_any_step_end_alike(crashes: Crashes, tmp_path: Path) -> None:
    """By turns an operator's, with everything, and the organization's own."""
    api = crashes.api
    tenants: dict[UUID, tuple[Inhabited, list[Any]]] = {}

    async def ask_export(number: int) -> Asked:
        tenant = await found(api, f"acme-{number}")
        if number % 2:
            operation = await ask(api.operator, f"/platform/tenants/{tenant.slug}/export", {"credentials": True})
        else:
            operation = await ask(tenant.owner, "/api/organization/exports")
        # Once it is asked for: the organization's own trail says so as well.
        tenants[tenant.id] = tenant, await _everything(api, tenant.id)
        assert tenants[tenant.id][1][-1] == ["tenant.create", "tenant.export"]
        return Asked(operation, tenant.id)

    async def check(asked: Asked, done: dict[str, Any]) -> None:
        tenant, before = tenants[asked.tenant_id]
        key = f"tenants/{tenant.id}/exports/{asked.operation}.zip"
        assert done["result"]["key"] == key
        assert await _everything(api, tenant.id) == before
        manifest = await _manifest(api, key, tmp_path)
        assert manifest.credentials == done["result"]["credentials"] == done["requestedBy"].startswith("operator:")
        left_out = set() if manifest.credentials else {*SECRET, "user_account"}
        rows = _rows(manifest)
        assert {name: rows[name] for name in before[0].keys() - left_out} == {
            name: before[0][name] for name in before[0].keys() - left_out
        }
        assert (await tenant.owner.get("/api/teams")).json()["total"] == 2
        crashes.files.add(key)

    steps = await crashes.everywhere(ask_export, check)
    assert steps == ("taken", "archive written", "archive stored", "recorded")
    async with as_admin(api.addresses) as admin:
        await admin.execute(
            "UPDATE platform.operation SET result = jsonb_set(result, '{expiresAt}', to_jsonb(now() - interval '1s'))"
            " WHERE kind = 'export'"
        )
    assert await tidy(api) == len(crashes.files) == len(tenants)
    assert await files_of(api) == []


async def test_imports_that_are_killed_after_any_step_end_alike(crashes: Crashes) -> None:
    api, storage = crashes.api, Storage.open(crashes.api.settings)
    acme = await found(api, "acme")
    before = await _everything(api, acme.id)
    held: Digests = before[0]
    exported = await run(api, "/platform/tenants/acme/export", {"credentials": True})
    before[-1] = ["tenant.create", "tenant.export"]
    crashes.files.add(exported["result"]["key"])
    content = await storage.get_bytes(exported["result"]["key"])

    async def ask_import(number: int) -> Asked:
        key = f"imports/{number}.zip"
        await storage.put_bytes(key, content)
        owner = {"ownerEmail": "owner@acme.example", "ownerPassword": PASSWORD}
        answer = await api.operator.post("/platform/imports", json={"key": key, "slug": f"import-{number}", **owner})
        assert answer.status_code == 202, answer.text
        return Asked(answer.headers["Location"].rpartition("/")[2], UUID(answer.json()["id"]))

    async def check(asked: Asked, done: dict[str, Any]) -> None:
        row = await tenant_row(api, asked.tenant_id)
        assert (row["status"], row["archive_key"], row["revision"]) == ("active", None, head("tenant"))
        assert done["result"]["source"] == str(acme.id)
        assert await of_catalog(api, asked.tenant_id) == ["role", "schema"]
        assert await described(api, asked.tenant_id) == before[1]
        arrived = await digests(api, asked.tenant_id)
        # The owner's password is the one thing that was given anew.
        assert {name for name in arrived if arrived[name] != held[name]} == {"user_account"}
        assert arrived["user_account"].rows == held["user_account"].rows
        assert await trail(api, asked.tenant_id) == ["tenant.import"]
        assert await _everything(api, acme.id) == before
        await api.log_in(row["slug"], "ann@acme.example")

    steps = await crashes.everywhere(ask_import, check)
    assert steps == (
        "taken",
        "archive fetched",
        "schema made",
        "rows loaded",
        "rows compared",
        "schema migrated",
        "recorded",
    )
