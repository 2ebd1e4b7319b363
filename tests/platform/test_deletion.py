from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tenantry.platform.deletion.chore import DuePurges
from tenantry.tenancy.database import owner_engine
from tests.databases import Template
from tests.platform.belongings import ask_for_purge, furnish, make_due, provisioner, remains
from tests.platform.support import as_admin, eventually, open_api, tenant_body
from tests.world import World


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    async with open_api(database_addresses, tmp_path, provision_wait=0.05, registry_poll_interval=0.05) as opened:
        yield opened


async def _tenant(api: World, slug: str) -> dict[str, Any]:
    answer = await api.operator.get(f"/platform/tenants/{slug}")
    assert answer.status_code == 200
    return answer.json()  # type: ignore[no-any-return]


async def _scalar(api: World, query: str, *values: object) -> Any:
    async with as_admin(api.addresses) as admin:
        return await admin.fetchval(query, *values)


async def _chore(api: World, runs: int = 1) -> int:
    """How many looks of the chore found a purge to ask for."""
    engine = owner_engine(api.addresses.owner_url, pool_size=runs)
    try:
        chore = DuePurges(settle=api.settings.registry_stale_after)
        return sum(await asyncio.gather(*(chore.run(engine) for _ in range(runs))))
    finally:
        await engine.dispose()


async def test_a_deleted_tenant_is_refused_at_once_and_undeleted_with_all_that_it_had(api: World) -> None:
    acme, globex = await furnish(api, "acme"), await furnish(api, "globex")
    before = await remains(api, acme)
    answer = await api.operator.delete("/platform/tenants/acme", params={"reason": "Contract ended"})
    assert answer.status_code == 200
    deleted = answer.json()
    assert (deleted["status"], deleted["statusReason"]) == ("purging", "Contract ended")
    changed, due = (datetime.datetime.fromisoformat(deleted[name]) for name in ("statusChangedAt", "purgeAfter"))
    assert (due - changed).total_seconds() == api.settings.deletion_grace

    async def refused() -> bool:
        answer = await acme.owner.get("/api/teams")
        assert answer.status_code in {200, 403}
        return answer.status_code == 403 and answer.json()["type"] == "/problems/tenant-unavailable"

    await eventually(refused, 5)
    refresh = await api.http.post("/api/auth/refresh", json={"refreshToken": acme.owner.refresh_token})
    assert (refresh.status_code, refresh.json()["type"]) == (403, "/problems/tenant-unavailable")
    assert (await globex.owner.get("/api/teams")).status_code == 200

    answer = await api.operator.post("/platform/tenants/acme/undelete")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["purgeAfter"], answer.json()["statusReason"]) == (
        "active",
        None,
        None,
    )

    async def served() -> bool:
        return (await acme.owner.get("/api/teams")).status_code == 200

    await eventually(served, 5)
    assert (await acme.owner.get("/api/teams")).json()["total"] == acme.teams
    assert (await remains(api, acme))["keys"] == before["keys"]
    assert (await remains(api, acme))["files"] == before["files"]


async def test_undelete_brings_back_the_state_in_which_it_was_deleted(api: World) -> None:
    await furnish(api, "acme")
    await api.operator.post("/platform/tenants/acme/suspend")
    await api.operator.delete("/platform/tenants/acme")
    assert (await api.operator.post("/platform/tenants/acme/undelete")).json()["status"] == "suspended"


async def test_what_the_state_does_not_allow_is_refused_with_what_it_allows(api: World) -> None:
    await furnish(api, "acme")
    undelete = await api.operator.post("/platform/tenants/acme/undelete")
    assert (undelete.status_code, undelete.json()["type"]) == (409, "/problems/invalid-transition")
    assert "undelete" not in undelete.json()["allowed"]
    assert (await api.operator.delete("/platform/tenants/acme")).status_code == 200
    again = await api.operator.delete("/platform/tenants/acme")
    assert again.status_code == 409
    assert (again.json()["state"], again.json()["allowed"]) == ("purging", ["purge", "undelete"])


async def test_a_tenant_that_the_provisioner_is_at_work_on_is_not_deleted(api: World) -> None:
    await furnish(api, "acme")
    async with as_admin(api.addresses) as admin:
        operation = await admin.fetchval(
            "INSERT INTO platform.operation (id, kind, status, tenant_id, payload, attempts, not_before, requested_by,"
            " created_at, updated_at) SELECT gen_random_uuid(), 'export', 'pending', id, '{}', 0, now() + '1h', 'x',"
            " now(), now() FROM platform.tenant RETURNING id"
        )
    for answer in (
        await api.operator.delete("/platform/tenants/acme"),
        await api.operator.post("/platform/tenants/acme/purge", json={"confirm": "acme"}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/operation-pending")
        assert answer.json()["operation"] == str(operation)
    assert (await _tenant(api, "acme"))["status"] == "active"
    assert await _scalar(api, "SELECT count(*) FROM platform.audit_entry WHERE action LIKE 'tenant.%e'") == 1


async def test_a_tenant_that_is_being_made_is_not_deleted(api: World) -> None:
    assert (await api.operator.post("/platform/tenants", json=tenant_body("acme"))).status_code == 202
    answer = await api.operator.delete("/platform/tenants/acme")
    assert (answer.status_code, answer.json()["state"]) == (409, "provisioning")


async def test_a_purge_that_was_asked_for_cannot_be_taken_back(api: World) -> None:
    acme = await furnish(api, "acme")
    operation = await ask_for_purge(api, acme)
    answer = await api.operator.post("/platform/tenants/acme/undelete")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/purge-begun")
    assert answer.json()["operation"] == operation
    async with as_admin(api.addresses) as admin:
        await admin.execute("UPDATE platform.operation SET status = 'failed' WHERE kind = 'purge'")
    # It may have removed files before it failed.
    assert (await api.operator.post("/platform/tenants/acme/undelete")).json()["type"] == "/problems/purge-begun"


async def test_a_purge_begins_only_when_every_process_refuses_the_tenant(api: World) -> None:
    await furnish(api, "acme")
    answer = await api.operator.post("/platform/tenants/acme/purge", json={"confirm": "acme"})
    assert answer.status_code == 202
    async with provisioner(api) as worker:
        assert await worker.work_off() == 0
    waits = await _scalar(
        api,
        "SELECT extract(epoch FROM o.not_before - t.status_changed_at)::float FROM platform.operation o"
        " JOIN platform.tenant t ON t.id = o.tenant_id WHERE o.kind = 'purge'",
    )
    assert waits == api.settings.registry_stale_after


async def test_a_purge_needs_the_slug_once_more(api: World) -> None:
    await furnish(api, "acme")
    answer = await api.operator.post("/platform/tenants/acme/purge", json={"confirm": "acme "})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["confirm"]
    assert (await _tenant(api, "acme"))["status"] == "active"


async def test_every_act_is_in_the_audit_trail_with_who_and_why(api: World) -> None:
    acme = await furnish(api, "acme")
    await api.operator.delete("/platform/tenants/acme", params={"reason": "First"})
    await api.operator.post("/platform/tenants/acme/undelete")
    await ask_for_purge(api, acme, reason="For good")
    async with as_admin(api.addresses) as admin:
        rows = await admin.fetch(
            "SELECT action, reason, split_part(actor, ':', 1) AS kind FROM platform.audit_entry"
            " WHERE tenant_id = $1 AND action <> 'tenant.create' ORDER BY id",
            acme.id,
        )
    assert [tuple(row) for row in rows] == [
        ("tenant.delete", "First", "operator"),
        ("tenant.undelete", None, "operator"),
        ("tenant.delete", "For good", "operator"),
        ("tenant.purge", "For good", "operator"),
    ]


async def test_when_the_grace_time_is_over_the_provisioner_asks_for_the_purge_once(api: World) -> None:
    acme, globex = await furnish(api, "acme"), await furnish(api, "globex")
    for slug in ("acme", "globex"):
        await api.operator.delete(f"/platform/tenants/{slug}", params={"reason": "Ended"})
    assert await _chore(api) == 0, "the grace time has only begun"
    async with as_admin(api.addresses) as admin:
        await admin.execute(
            "UPDATE platform.tenant SET purge_after = now(), status_changed_at = now() - interval '30 days'"
            " WHERE slug = 'acme'"
        )
    await _chore(api, runs=4)
    assert await _chore(api) == 0
    assert await _scalar(api, "SELECT count(*) FROM platform.operation WHERE kind = 'purge'") == 1
    async with provisioner(api) as worker:
        assert await worker.work_off() == 1
    certificate = (await api.operator.get(f"/platform/certificates/{acme.id}")).json()["certificate"]
    assert (certificate["requestedBy"], certificate["reason"]) == ("provisioner", "Ended")
    assert (await _tenant(api, "globex"))["status"] == "purging"
    assert (await remains(api, globex))["catalog"] != []


async def test_a_purge_that_was_given_up_is_asked_for_again_after_a_while(api: World) -> None:
    acme = await furnish(api, "acme")
    await ask_for_purge(api, acme)
    async with as_admin(api.addresses) as admin:
        await admin.execute("UPDATE platform.operation SET status = 'failed', finished_at = now() WHERE kind = 'purge'")
        assert await _chore(api) == 0
        await admin.execute(
            "UPDATE platform.operation SET finished_at = now() - interval '16 minutes' WHERE kind = 'purge'"
        )
        assert await _chore(api) == 1
    await make_due(api)
    async with provisioner(api) as worker:
        assert await worker.work_off() == 1
    assert (await api.operator.get(f"/platform/certificates/{acme.id}")).status_code == 200


async def test_a_purge_that_was_asked_for_early_is_asked_for_again_long_before_the_grace_time_is_over(
    api: World,
) -> None:
    """It cannot be undeleted any more, and half of it may be gone: nothing is left to wait for."""
    acme = await furnish(api, "acme")
    await api.operator.delete("/platform/tenants/acme")
    await ask_for_purge(api, acme, reason="Erasure was asked for")
    assert await _chore(api) == 0
    async with as_admin(api.addresses) as admin:
        await admin.execute(
            "UPDATE platform.operation SET status = 'failed', finished_at = now() - interval '16 minutes'"
            " WHERE kind = 'purge'"
        )
    assert await _chore(api) == 1


async def test_a_running_deployment_purges_while_the_operator_waits(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with open_api(
        database_addresses, tmp_path, provision_wait=60, registry_poll_interval=0.05, registry_stale_after=1
    ) as api:
        async with provisioner(api) as worker:
            running = asyncio.create_task(worker.run())
            try:
                for slug in ("acme", "globex"):
                    assert (await api.operator.post("/platform/tenants", json=tenant_body(slug))).status_code == 201
                answer = await api.operator.post(
                    "/platform/tenants/acme/purge", json={"confirm": "acme", "reason": "Erasure"}
                )
            finally:
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
        assert answer.status_code == 200
        assert answer.json()["certificate"]["reason"] == "Erasure"
        assert (await api.operator.get("/platform/tenants/acme")).status_code == 404
        listed = (await api.operator.get("/platform/certificates")).json()
        assert [item["slug"] for item in listed["items"]] == ["acme"]
        await api.log_in("globex", "owner@globex.example")
