from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from tenantry.platform.audit.service import cli_actor
from tests.databases import Template
from tests.platform.support import as_admin, eventually, open_api
from tests.world import PASSWORD, TenantHandle, World


async def test_every_act_is_written_down_with_who_and_why_and_no_other_tenant_s(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    me = (await world.operator.get("/platform/auth/me")).json()
    await world.operator.post(f"/platform/tenants/{acme.slug}/suspend", json={"reason": "Invoice 17 is unpaid"})
    refused = await world.operator.post(f"/platform/tenants/{acme.slug}/suspend", json={"reason": "again"})
    assert refused.status_code == 409
    await world.operator.post(f"/platform/tenants/{acme.slug}/resume")
    found = await world.operator.get("/platform/audit", params={"tenantId": str(acme.tenant_id)})
    assert found.status_code == 200
    entries = found.json()["items"]
    assert [(entry["action"], entry["reason"]) for entry in entries] == [
        ("tenant.resume", None),
        ("tenant.suspend", "Invoice 17 is unpaid"),
        ("tenant.create", None),
    ]
    assert {entry["actor"] for entry in entries} == {f"operator:{me['id']}"}
    assert all(entry["requestId"] for entry in entries)
    assert entries[1]["details"] == {"from": "active", "to": "suspended"}


def test_the_command_line_s_actor_is_the_system_s_account_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anybody could blame somebody else, or stop all commands with a name that no row takes."""
    before = cli_actor()
    assert before.removeprefix("cli:")
    for name in ("somebody-else", "x" * 300):
        for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.setenv(variable, name)
        assert cli_actor() == before


def test_an_account_without_a_name_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    assert cli_actor() == f"cli:{2**31 - 7}"


async def test_what_an_operator_was_before_is_what_the_one_before_has_made_of_them(world: World) -> None:
    """Two change one at once: the trail must not say that both found the same."""
    body = {"email": "sam@platform.example", "password": PASSWORD, "role": "support"}
    sam = (await world.operator.post("/platform/operators", json=body)).json()["id"]
    async with as_admin(world.addresses) as admin, admin.transaction():
        await admin.execute("UPDATE platform.operator SET role = 'auditor' WHERE id = $1", sam)
        second = asyncio.create_task(world.operator.patch(f"/platform/operators/{sam}", json={"role": "operator"}))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        await eventually(lambda: admin.fetchval(waiting), 10)
    assert (await second).json()["role"] == "operator"
    trail = (await world.operator.get("/platform/audit", params={"search": sam})).json()["items"]
    assert trail[0]["details"] == {"role": {"from": "auditor", "to": "operator"}}


async def test_operators_are_made_changed_and_deactivated_by_owners_alone(world: World) -> None:
    body = {"email": "sue@platform.example", "password": PASSWORD, "role": "support"}
    made = await world.operator.post("/platform/operators", json=body)
    assert made.status_code == 201, made.text
    sue = await world.http.post("/platform/auth/login", json={"email": body["email"], "password": PASSWORD})
    token = {"Authorization": f"Bearer {sue.json()['accessToken']}"}
    assert (await world.http.get("/platform/operators", headers=token)).status_code == 403
    assert (await world.http.get("/platform/audit", headers=token)).status_code == 403
    assert (await world.http.get("/platform/tenants", headers=token)).status_code == 200
    address = f"/platform/operators/{made.json()['id']}"
    assert (await world.operator.patch(address, json={"role": "auditor"})).json()["role"] == "auditor"
    assert (await world.http.get("/platform/audit", headers=token)).status_code == 200
    await world.operator.patch(address, json={"isActive": False})
    assert (await world.http.get("/platform/audit", headers=token)).status_code == 401
    trail = (await world.operator.get("/platform/audit", params={"search": made.json()["id"]})).json()["items"]
    assert [entry["action"] for entry in trail] == [
        "operator.change",
        "operator.change",
        "operator.login",
        "operator.create",
    ]


async def test_the_last_active_owner_stays(database_addresses: Template, tmp_path: Path) -> None:
    """In a deployment of its own: in the shared one, other tests have made owners."""
    async with open_api(database_addresses, tmp_path) as api:
        me = (await api.operator.get("/platform/auth/me")).json()
        for change in ({"role": "auditor"}, {"isActive": False}):
            refused = await api.operator.patch(f"/platform/operators/{me['id']}", json=change)
            assert (refused.status_code, refused.json()["type"]) == (409, "/problems/last-platform-owner")
        assert (await api.operator.get("/platform/auth/me")).json()["role"] == "owner"


@pytest.mark.parametrize(
    "statement", ["UPDATE platform.audit_entry SET reason = ''", "DELETE FROM platform.audit_entry"]
)
async def test_the_control_plane_cannot_rewrite_its_trail(world: World, statement: str) -> None:
    async with as_admin(world.addresses) as admin, admin.transaction():
        await admin.execute("SET LOCAL ROLE tenantry_control")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with admin.transaction():
                await admin.execute(statement)


async def test_what_a_tenant_takes_up_is_shown_to_operators(world: World, acme: TenantHandle) -> None:
    await acme.add_user("bob")
    usage = (await world.operator.get(f"/platform/tenants/{acme.slug}/usage")).json()
    assert usage["users"] == 2
    assert usage["size"] > 100_000
    assert usage["lastActivityAt"] is not None
    assert (await world.operator.get("/platform/tenants/nobody-at-all/usage")).status_code == 404
    assert (await acme.get(f"/platform/tenants/{acme.slug}/usage")).status_code == 401
