from __future__ import annotations

import pytest

from tenantry.kernel.storage import Storage
from tenantry.tenancy.migrations import head
from tests.platform.lifecycle.support import (
    EMPTY,
    ask,
    carry_out,
    carry_out_failing,
    described,
    digests,
    files_of,
    found,
    of_catalog,
    refused_with,
    run,
    tenant_row,
    tidy,
)
from tests.platform.support import as_admin, tenant_body
from tests.tree import TenantTree
from tests.world import World


async def _archive(api: World, slug: str) -> str:
    """Archive a tenant; the archive's key."""
    return str((await run(api, f"/platform/tenants/{slug}/archive", {}))["result"]["key"])


async def test_archived_and_restored_a_tenant_is_to_the_byte_what_it_was(api: World) -> None:
    acme, globex = await found(api, "acme"), await found(api, "globex")
    held, neighbour = await digests(api, acme.id), await digests(api, globex.id)
    shape = await described(api, acme.id)
    assert {name for name, digest in held.items() if not digest.rows} == EMPTY
    key = await _archive(api, "acme")
    done = await run(api, "/platform/tenants/acme/restore")
    assert done["result"] == {"archive": key, "revision": head("tenant")}
    assert await digests(api, acme.id) == held
    assert await described(api, acme.id) == shape
    assert await digests(api, globex.id) == neighbour
    row = await tenant_row(api, acme.id)
    assert (row["status"], row["archive_key"], row["revision"]) == ("active", None, head("tenant"))
    # Also the sessions are there: whoever was signed in still is, and may write.
    assert (await refused_with(api, acme.owner, 200)).json()["total"] == 2
    assert (await acme.owner.post("/api/teams", json={"name": "After"})).status_code == 201


async def test_a_suspended_tenant_comes_back_suspended_and_for_the_same_reason(api: World) -> None:
    acme, globex = await found(api, "acme"), await found(api, "globex")
    await api.operator.post("/platform/tenants/acme/suspend", json={"reason": "unpaid"})
    for slug in ("acme", "globex"):
        await _archive(api, slug)
        await run(api, f"/platform/tenants/{slug}/restore")
    row = await tenant_row(api, acme.id)
    assert (row["status"], row["status_reason"], row["archive_key"]) == ("suspended", "unpaid", None)
    assert (await tenant_row(api, globex.id))["status"] == "active"
    refused = await refused_with(api, acme.owner, 403)
    assert refused.json()["type"] == "/problems/tenant-suspended"
    # Resumed in between, it is not suspended by what an earlier archive says.
    assert (await api.operator.post("/platform/tenants/acme/resume")).status_code == 200
    await _archive(api, "acme")
    await run(api, "/platform/tenants/acme/restore")
    assert (await tenant_row(api, acme.id))["status"] == "active"


async def test_the_archive_stays_until_the_restore_has_committed_and_goes_then(api: World) -> None:
    await found(api, "acme")
    key = await _archive(api, "acme")
    await run(api, "/platform/tenants/acme/restore")
    assert await files_of(api) == [key]
    assert await tidy(api) == 1
    assert await files_of(api) == []
    # A second round has a file of its own.
    again = await _archive(api, "acme")
    assert again != key
    assert await tidy(api) == 0
    assert await files_of(api) == [again]


async def test_a_tenant_comes_back_at_the_present_revision_from_the_one_that_it_was_archived_at(
    api: World, tenant_tree: TenantTree
) -> None:
    acme = await found(api, "acme")
    await _archive(api, "acme")
    tenant_tree.add()
    tenant_tree.add(
        "names = [row.name for row in op.get_bind().execute(sa.text('SELECT name FROM team'))]\n"
        "op.get_bind().execute(sa.text('UPDATE team SET color = :n'), {'n': str(len(names))})",
        online=True,
    )
    newest = tenant_tree.add('op.create_index("ix_team_name", "team", ["name"])')
    done = await run(api, "/platform/tenants/acme/restore")
    assert done["result"]["revision"] == newest
    async with as_admin(api.addresses) as admin:
        assert await admin.fetchval(f'SELECT version_num FROM "{acme.schema}".alembic_version') == newest
        assert await admin.fetchval(f'SELECT array_agg(DISTINCT color) FROM "{acme.schema}".team') == ["2"]
    assert (await tenant_row(api, acme.id))["revision"] == newest


async def test_an_archive_of_a_newer_release_stays_where_it_is(api: World, tenant_tree: TenantTree) -> None:
    newer = tenant_tree.add()
    # This release's API does not serve it: nobody can move in.
    assert (await api.operator.post("/platform/tenants", json=tenant_body("acme"))).status_code == 202
    await carry_out(api)
    key = await _archive(api, "acme")
    tenant_tree.remove(newer)
    failed = await carry_out_failing(api, await ask(api.operator, "/platform/tenants/acme/restore"))
    assert failed["attempts"] == 1
    assert f"no revision '{newer}'" in failed["error"]
    assert (await api.operator.get("/platform/tenants/acme")).json()["status"] == "archived"
    assert await files_of(api) == [key]


@pytest.mark.parametrize("damage", ["lost", "cut off", "another's"])
async def test_a_tenant_whose_archive_is_no_good_stays_archived_and_leaves_no_schema(api: World, damage: str) -> None:
    acme, globex = await found(api, "acme"), await found(api, "globex")
    key = await _archive(api, "acme")
    storage = Storage.open(api.settings)
    content = await storage.get_bytes(key)
    match damage:
        case "lost":
            await storage.delete(key)
        case "cut off":
            await storage.put_bytes(key, content[: len(content) // 2])
        case _:
            other = await run(api, "/platform/tenants/globex/export", {"credentials": True})
            await storage.put_bytes(key, await storage.get_bytes(other["result"]["key"]))
    neighbour = await digests(api, globex.id)
    await carry_out_failing(api, await ask(api.operator, "/platform/tenants/acme/restore"))
    row = await tenant_row(api, acme.id)
    assert (row["status"], row["archive_key"], row["revision"]) == ("archived", key, None)
    assert await of_catalog(api, acme.id) == []
    assert await digests(api, globex.id) == neighbour
    # Once the file is there again, so is the tenant.
    await storage.put_bytes(key, content)
    await run(api, "/platform/tenants/acme/restore")
    assert (await refused_with(api, acme.owner, 200)).json()["total"] == 2


async def test_a_tenant_that_is_archived_with_its_schema_still_there_is_simply_served_again(api: World) -> None:
    acme = await found(api, "acme")
    held = await digests(api, acme.id)
    async with as_admin(api.addresses) as admin:
        await admin.execute("UPDATE platform.tenant SET status = 'archived' WHERE id = $1", acme.id)
    done = await run(api, "/platform/tenants/acme/restore")
    assert done["result"]["archive"] is None
    assert await digests(api, acme.id) == held
    assert (await tenant_row(api, acme.id))["status"] == "active"
    assert await tidy(api) == 0


async def test_an_archived_tenant_can_be_deleted_undeleted_and_restored(api: World) -> None:
    acme = await found(api, "acme")
    key = await _archive(api, "acme")
    assert (await api.operator.delete("/platform/tenants/acme")).status_code == 200
    refused = await api.operator.post("/platform/tenants/acme/restore")
    assert (refused.status_code, refused.json()["state"]) == (409, "purging")
    assert (await api.operator.post("/platform/tenants/acme/undelete")).json()["status"] == "archived"
    assert await files_of(api) == [key]
    await run(api, "/platform/tenants/acme/restore")
    assert (await refused_with(api, acme.owner, 200)).json()["total"] == 2
