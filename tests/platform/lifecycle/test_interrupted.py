"""Each operation, interrupted after every one of its steps in turn: the quick relation of tests/faults.

One operation is begun again and again, and gets one step further each time. Nothing of an attempt may be left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from tenantry.kernel.storage import Storage
from tests.platform.belongings import make_due, provisioner
from tests.platform.lifecycle.support import (
    EMPTY,
    SECRET,
    described,
    digests,
    files_of,
    found,
    of_catalog,
    operation_of,
    tenant_row,
    tidy,
    trail,
)
from tests.world import PASSWORD, World


class _Interrupted(asyncio.CancelledError):
    """As if the process had ended here: no handler of errors takes it for an attempt that has failed."""


async def _interrupt_everywhere(api: World, location: str) -> list[str]:
    """Carry out the one operation that is pending, interrupted after its first step, then its second, …"""
    await make_due(api)
    operation = location.rpartition("/")[2]
    seen: list[str] = []
    while (await operation_of(api, operation))["status"] == "pending":
        steps: list[str] = []

        async def listener(step: str, steps: list[str] = steps, borne: int = len(seen)) -> None:
            steps.append(step)
            if len(steps) > borne:
                raise _Interrupted

        async with provisioner(api) as worker:
            worker._listener = listener
            try:
                assert await worker.work_off() == 1
            except _Interrupted:
                assert steps[:-1] == seen
                seen = steps
    done = await operation_of(api, operation)
    assert (done["status"], done["attempts"], done["error"]) == ("done", 1, None)
    return seen


async def _ask(api: World, path: str, body: dict[str, Any] | None = None) -> tuple[UUID, str]:
    """Ask for it; the id of the operation's tenant, and the address of the operation."""
    answer = await api.operator.post(path, **({} if body is None else {"json": body}))
    assert answer.status_code == 202, answer.text
    location = str(answer.headers["Location"])
    return UUID((await operation_of(api, location.rpartition("/")[2]))["tenantId"]), location


@pytest.fixture
async def neighbour(api: World) -> AsyncIterator[None]:
    """Another tenant, of which nothing may have changed in the end."""
    globex = await found(api, "globex", teams=1)

    async def everything() -> list[Any]:
        return [
            await digests(api, globex.id),
            await described(api, globex.id),
            await tenant_row(api, globex.id),
            await trail(api, globex.id),
        ]

    before = await everything()
    yield
    assert await everything() == before


@pytest.mark.usefixtures("neighbour")
async def test_archived_and_restored_with_interruptions_a_tenant_is_to_the_byte_what_it_was(api: World) -> None:
    acme = await found(api, "acme")
    held, shape = await digests(api, acme.id), await described(api, acme.id)
    _, location = await _ask(api, "/platform/tenants/acme/archive", {})
    assert len(await _interrupt_everywhere(api, location)) == 7
    key = f"tenants/{acme.id}/archives/{location.rpartition('/')[2]}.zip"
    assert (await tenant_row(api, acme.id))["archive_key"] == key
    assert (await files_of(api), await of_catalog(api, acme.id)) == ([key], [])
    _, location = await _ask(api, "/platform/tenants/acme/restore")
    assert len(await _interrupt_everywhere(api, location)) == 7
    assert (await digests(api, acme.id), await described(api, acme.id)) == (held, shape)
    row = await tenant_row(api, acme.id)
    assert (row["status"], row["archive_key"]) == ("active", None)
    assert await tidy(api) == 1
    assert await files_of(api) == []
    assert await trail(api, acme.id) == [
        "tenant.create",
        "tenant.archive",
        "tenant.archived",
        "tenant.restore",
        "tenant.restored",
    ]


@pytest.mark.usefixtures("neighbour")
async def test_exported_cloned_and_imported_with_interruptions_each_is_made_once(api: World) -> None:
    acme = await found(api, "acme")
    held, shape = await digests(api, acme.id), await described(api, acme.id)
    _, location = await _ask(api, "/platform/tenants/acme/export", {"credentials": True})
    assert len(await _interrupt_everywhere(api, location)) == 4
    [key] = await files_of(api)
    assert key == f"tenants/{acme.id}/exports/{location.rpartition('/')[2]}.zip"

    body = {"slug": "acme-clone", "name": "Clone", "maskEmails": False}
    clone_id, location = await _ask(api, "/platform/tenants/acme/clone", body)
    assert len(await _interrupt_everywhere(api, location)) == 5
    copied = await digests(api, clone_id)
    empty = {name for name in copied if copied[name] != held[name]}
    assert empty == SECRET - EMPTY
    assert {copied[name].rows for name in empty} == {0}

    storage = Storage.open(api.settings)
    await storage.put_bytes("imports/acme.zip", await storage.get_bytes(key))
    owner = {"ownerEmail": acme.people[0], "ownerPassword": PASSWORD}
    body = {"slug": "acme-import", "key": "imports/acme.zip", **owner}
    import_id, location = await _ask(api, "/platform/imports", body)
    assert len(await _interrupt_everywhere(api, location)) == 7
    arrived = await digests(api, import_id)
    assert {name for name in arrived if arrived[name] != held[name]} == {"user_account"}

    for made, asked in ((clone_id, "tenant.clone"), (import_id, "tenant.import")):
        assert await described(api, made) == shape
        assert (await tenant_row(api, made))["status"] == "active"
        assert await trail(api, made) == [asked]
    assert await digests(api, acme.id) == held
    assert await trail(api, acme.id) == ["tenant.create", "tenant.export"]
    assert await tidy(api) == 1, "the upload"
    assert await files_of(api) == [key]
