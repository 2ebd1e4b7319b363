from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from tenantry.kernel.storage import Storage
from tests.platform.support import as_admin, eventually
from tests.world import Caller, TenantHandle, World


async def _export(caller: Caller) -> dict[str, Any]:
    """Ask for one, and wait until it is done."""
    asked = await caller.post("/api/organization/exports")
    assert asked.status_code == 202, asked.text
    assert asked.json()["status"] == "pending"
    path = asked.headers["Location"]
    assert path == f"/api/organization/exports/{asked.json()['id']}"

    async def done() -> dict[str, Any] | None:
        answer = await caller.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.json()["status"] != "pending" else None

    found = await eventually(done, 20)
    assert found is not None
    assert found["status"] == "done", found
    return found


async def test_everybody_sees_what_the_organization_is(acme: TenantHandle, globex: TenantHandle) -> None:
    viewer = await acme.add_user("viewer", "viewer")
    for caller in (acme, viewer):
        assert (await caller.get("/api/organization")).json() == {
            "id": str(acme.tenant_id),
            "slug": acme.slug,
            "name": "Acme",
            "plan": {"slug": "free", "name": "Free"},
        }
    assert (await globex.get("/api/organization")).json()["slug"] == globex.slug


async def test_its_plan_is_the_present_one(world: World, acme: TenantHandle) -> None:
    changed = await world.operator.patch(f"/platform/tenants/{acme.slug}", json={"plan": "enterprise"})
    assert changed.status_code == 200
    assert (await acme.get("/api/organization")).json()["plan"] == {"slug": "enterprise", "name": "Enterprise"}


async def test_an_organization_takes_its_own_data_away_and_nobody_elses(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    await acme.add_team("Red of acme")
    await globex.add_team("Blue of globex")
    done = await _export(acme)
    fetched = await acme.get(f"/api/organization/exports/{done['id']}/content")
    assert fetched.status_code == 200
    assert fetched.headers["content-type"] == "application/zip"
    assert fetched.headers["content-length"] == str(len(fetched.content)) == str(done["bytes"])
    assert fetched.headers["content-disposition"] == f'attachment; filename="{acme.slug}-{done["id"]}.zip"'
    with zipfile.ZipFile(io.BytesIO(fetched.content)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert manifest["tenant"]["id"] == str(acme.tenant_id)
    assert manifest["credentials"] is False
    assert b"Red of acme" in everything
    for word in (b"globex", b"argon2", globex.tenant_id.hex.encode(), str(globex.tenant_id).encode()):
        assert word not in everything


async def test_the_export_of_another_organization_is_none(acme: TenantHandle, globex: TenantHandle) -> None:
    foreign, own = await _export(globex), await _export(acme)
    for export_id in (foreign["id"], str(uuid4())):
        for path in (f"/api/organization/exports/{export_id}", f"/api/organization/exports/{export_id}/content"):
            answer = await acme.get(path)
            assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
    listed = (await acme.get("/api/organization/exports")).json()
    assert ([one["id"] for one in listed["items"]], listed["total"]) == ([own["id"]], 1)


async def test_a_file_that_is_not_the_organizations_own_is_not_given_out_whatever_the_row_says(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    own, foreign = await _export(acme), await _export(globex)
    async with as_admin(world.addresses) as admin:
        for key in (
            f"tenants/{globex.tenant_id}/exports/{foreign['id']}.zip",
            f"tenants/{acme.tenant_id}/archives/{own['id']}.zip",
            f"tenants/{acme.tenant_id}/exports/../../{globex.tenant_id}/exports/{foreign['id']}.zip",
        ):
            await admin.execute(
                "UPDATE platform.operation SET result = jsonb_set(result, '{key}', to_jsonb($2::text)) WHERE id = $1",
                UUID(own["id"]),
                key,
            )
            answer = await acme.get(f"/api/organization/exports/{own['id']}/content")
            assert answer.status_code == 404, key


@pytest.fixture
async def paused(world: World, acme: TenantHandle) -> AsyncIterator[UUID]:
    """Something of acme's that the provisioner will not get to: it is due tomorrow."""
    async with as_admin(world.addresses) as admin:
        operation: UUID = await admin.fetchval(
            "INSERT INTO platform.operation (id, kind, status, tenant_id, payload, attempts, not_before, requested_by,"
            " created_at, updated_at) VALUES (gen_random_uuid(), 'export', 'pending', $1, '{}', 0,"
            " now() + interval '1 day', $2, now(), now()) RETURNING id",
            acme.tenant_id,
            f"user:{acme.tenant_id}/{acme.id}",
        )
        yield operation
        await admin.execute("DELETE FROM platform.operation WHERE id = $1", operation)


async def test_one_export_at_a_time(acme: TenantHandle, globex: TenantHandle, paused: UUID) -> None:
    again = await acme.post("/api/organization/exports")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/export-pending")
    waiting = await acme.get(f"/api/organization/exports/{paused}/content")
    assert (waiting.status_code, waiting.json()["exportStatus"]) == (409, "pending")
    # Another organization does not wait for it.
    await _export(globex)


async def test_of_two_that_are_asked_for_at_once_one_is_refused(acme: TenantHandle) -> None:
    answers = await asyncio.gather(*(acme.post("/api/organization/exports") for _ in range(2)))
    codes = sorted(answer.status_code for answer in answers)
    # The provisioner may have finished the first before the second was asked for.
    assert codes in ([202, 409], [202, 202]), codes


async def test_members_take_no_data_away(world: World, acme: TenantHandle) -> None:
    done = await _export(acme)
    for role, status in (("admin", 200), ("member", 403), ("viewer", 403)):
        caller = await acme.add_user(role, role)
        for path in ("", f"/{done['id']}", f"/{done['id']}/content"):
            assert (await caller.get(f"/api/organization/exports{path}")).status_code == status, (role, path)
        if status == 403:
            assert (await caller.post("/api/organization/exports")).status_code == 403


async def test_an_export_that_has_expired_says_so(world: World, acme: TenantHandle) -> None:
    done = await _export(acme)
    async with as_admin(world.addresses) as admin:
        await admin.execute(
            "UPDATE platform.operation SET result = jsonb_set(result, '{expiresAt}', to_jsonb(now() - interval '1s'))"
            " WHERE id = $1",
            UUID(done["id"]),
        )
    assert (await acme.get(f"/api/organization/exports/{done['id']}")).json()["status"] == "expired"
    gone = await acme.get(f"/api/organization/exports/{done['id']}/content")
    assert (gone.status_code, gone.json()["exportStatus"]) == (409, "expired")


async def test_a_file_that_was_removed_meanwhile_is_an_expired_one(world: World, acme: TenantHandle) -> None:
    done = await _export(acme)
    await Storage.open(world.settings).delete(f"tenants/{acme.tenant_id}/exports/{done['id']}.zip")
    gone = await acme.get(f"/api/organization/exports/{done['id']}/content")
    assert (gone.status_code, gone.json()["exportStatus"]) == (409, "expired")


async def test_the_list_is_sorted_paged_and_searched(acme: TenantHandle) -> None:
    made = [(await _export(acme))["id"] for _ in range(3)]
    page = (await acme.get("/api/organization/exports", params={"pageSize": 2})).json()
    assert [one["id"] for one in page["items"]] == made[:0:-1]
    assert (page["total"], page["page"], page["pageSize"]) == (3, 1, 2)
    ascending = await acme.get(
        "/api/organization/exports", params={"sortOrder": "asc", "page": 2, "pageSize": 2, "search": "DONE"}
    )
    assert [one["id"] for one in ascending.json()["items"]] == made[2:]
    assert (await acme.get("/api/organization/exports", params={"search": "failed"})).json()["total"] == 0
    assert (await acme.get("/api/organization/exports", params={"pagesize": 2})).status_code == 422


async def test_who_asked_is_in_the_operators_trail_and_their_list(world: World, acme: TenantHandle) -> None:
    done = await _export(acme)
    listed = (await world.operator.get(f"/platform/tenants/{acme.slug}/exports")).json()["items"]
    assert [(one["id"], one["requestedBy"]) for one in listed] == [(done["id"], f"user:{acme.tenant_id}/{acme.id}")]
    trail = await world.operator.get("/platform/audit", params={"tenantId": str(acme.tenant_id)})
    assert "tenant.export" in [entry["action"] for entry in trail.json()["items"]]
    # What operators have exported is not the organization's to see.
    assert (await world.operator.post(f"/platform/tenants/{acme.slug}/export", json={})).status_code == 200
    assert (await acme.get("/api/organization/exports")).json()["total"] == 1
