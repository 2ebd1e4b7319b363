"""Service accounts: machines with roles of their own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.domain.machines import Machine, make_account, make_key, read_row
from tests.world import Caller, TenantHandle, World


async def _names(tenant: TenantHandle, subject: str) -> list[str]:
    found = await tenant.get("/api/audit", params={"subject": subject.rpartition("/")[2]})
    return [item["name"] for item in reversed(found.json()["items"])]


async def _custom_role(tenant: TenantHandle, slug: str, *permissions: str) -> None:
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await transaction.connection.execute(
            "INSERT INTO role (id, slug, name, is_builtin, permissions, created_at, updated_at)"
            " VALUES (gen_random_uuid(), $1, $1, false, $2, now(), now())",
            slug,
            list(permissions),
        )


async def test_a_service_account_acts_by_its_keys(acme: TenantHandle) -> None:
    path = await make_account(acme, roles=("admin",))
    machine = await make_key(acme, "tags:write", "users:read", path=f"{path}/api-keys")
    made = await machine.post("/api/tags", json={"name": "urgent"})
    assert made.status_code == 201, made.text
    assert (await machine.get("/api/users")).status_code == 200
    assert (await machine.get("/api/audit")).status_code == 403
    [event] = (await acme.get("/api/audit", params={"subject": made.json()["id"]})).json()["items"]
    assert event["actor"] == f"api_key:{machine.key_id}"
    [listed] = (await acme.get(f"{path}/api-keys")).json()["items"]
    assert (listed["userId"], listed["serviceAccountId"]) == (None, path.rpartition("/")[2])
    assert listed["createdById"] == str(acme.id)
    assert (await acme.get("/api/api-keys")).json()["total"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/users/me", None),
        ("POST", "/api/teams", {"name": "Robots"}),
        ("POST", "/api/organization/exports", None),
    ],
)
async def test_what_becomes_a_users_takes_a_user(acme: TenantHandle, method: str, path: str, body: Any) -> None:
    account = await make_account(acme)
    machine = await make_key(acme, "teams:write", "organization:export", path=f"{account}/api-keys")
    answer = await machine.request(method, path, **({"json": body} if body else {}))
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/user-required"), answer.text


async def test_a_role_that_is_taken_away_counts_with_the_next_request(acme: TenantHandle) -> None:
    path = await make_account(acme, roles=("member", "viewer"))
    machine = await make_key(acme, "tags:write", path=f"{path}/api-keys")
    changed = await acme.patch(path, json={"roles": ["viewer"], "description": "Looks"})
    assert changed.status_code == 200, changed.text
    assert [role["slug"] for role in changed.json()["roles"]] == ["viewer"]
    assert (await machine.post("/api/tags", json={"name": "urgent"})).status_code == 403
    assert await machine.works()


async def test_one_that_is_switched_off_is_refused_until_it_is_switched_on(acme: TenantHandle) -> None:
    path = await make_account(acme)
    machine = await make_key(acme, path=f"{path}/api-keys")
    assert await machine.works()
    for active in (False, True):
        changed = await acme.patch(path, json={"isActive": active})
        assert (changed.status_code, changed.json()["isActive"]) == (200, active)
        assert await machine.works() is active


async def test_one_that_is_deleted_takes_its_keys_with_it(acme: TenantHandle) -> None:
    path = await make_account(acme)
    machine = await make_key(acme, path=f"{path}/api-keys")
    assert await machine.works()
    assert (await acme.delete(path)).status_code == 204
    assert not await machine.works()
    assert await read_row(acme, machine.key_id) is None
    assert (await acme.get(path)).status_code == 404
    assert await _names(acme, path) == ["service_account.created", "service_account.deleted"]


async def test_its_keys_are_rotated_and_revoked_at_its_own_address_alone(acme: TenantHandle) -> None:
    path, other = await make_account(acme), await make_account(acme, "Reporter")
    machine = await make_key(acme, path=f"{path}/api-keys")
    own = await make_key(acme)
    for wrong in (f"{other}/api-keys/{machine.key_id}", f"{path}/api-keys/{own.key_id}"):
        assert (await acme.post(f"{wrong}/rotate", json={})).status_code == 404
        assert (await acme.delete(wrong)).status_code == 404
    assert (await acme.post(f"/api/api-keys/{machine.key_id}/rotate", json={})).status_code == 404
    rotated = await acme.post(f"{path}/api-keys/{machine.key_id}/rotate", json={"overlap": 0})
    assert rotated.status_code == 200, rotated.text
    fresh = Machine(acme.http, rotated.json()["key"])
    assert [await each.works() for each in (machine, fresh)] == [False, True]
    assert (await acme.delete(f"{path}/api-keys/{machine.key_id}")).status_code == 204
    assert not await fresh.works()
    assert await own.works()


async def test_nobody_makes_a_machine_that_may_do_more_than_they(acme: TenantHandle) -> None:
    await _custom_role(acme, "mechanic", "service_accounts:manage", "roles:read", "tags:read")
    eve = await acme.add_user("eve", "mechanic")
    refused = await eve.post("/api/service-accounts", json={"name": "x", "roles": ["admin"]})
    assert refused.status_code == 403, refused.text
    path = await make_account(eve, roles=("mechanic",))
    assert (await eve.patch(path, json={"roles": ["member"]})).status_code == 403
    # The administrator's machine may do more: eve gets no key of it that does.
    strong = await make_account(acme, "Strong")
    mighty = await make_key(acme, "users:write", path=f"{strong}/api-keys")
    wanted = {"name": "x", "scopes": ["users:write"]}
    assert (await eve.post(f"{strong}/api-keys", json=wanted)).status_code == 403
    assert (await eve.post(f"{strong}/api-keys/{mighty.key_id}/rotate", json={})).status_code == 403
    weak = await make_key(eve, "tags:read", path=f"{strong}/api-keys")
    assert (await weak.get("/api/users")).status_code == 403
    assert (await weak.get("/api/tags")).status_code == 200


async def test_a_machine_does_not_own_the_organization(acme: TenantHandle) -> None:
    answer = await acme.post("/api/service-accounts", json={"name": "x", "roles": ["owner"]})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "roles")
    path = await make_account(acme)
    assert (await acme.patch(path, json={"roles": ["owner"]})).status_code == 422
    assert (await acme.post("/api/service-accounts", json={"name": "y", "roles": ["nobody"]})).status_code == 422


async def test_names_are_given_once_and_changes_are_recorded(acme: TenantHandle) -> None:
    path = await make_account(acme)
    again = await acme.post("/api/service-accounts", json={"name": "Deployer"})
    assert (again.status_code, again.json()["detail"]) == (409, "There is a service account of that name already.")
    assert (await acme.patch(path, json={"name": "Builder", "roles": ["viewer"]})).status_code == 200
    assert (await acme.patch(path, json={"name": "Builder"})).status_code == 200
    found = (await acme.get("/api/audit", params={"subject": path.rpartition("/")[2]})).json()["items"]
    assert [item["name"] for item in found] == ["service_account.updated", "service_account.created"]
    assert found[0]["payload"]["fields"] == ["name", "roles"]


async def test_another_organizations_service_accounts_are_nothing(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    path = await make_account(globex)
    await make_key(globex, path=f"{path}/api-keys")
    for method, suffix, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "x"}),
        ("DELETE", "", None),
        ("GET", "/api-keys", None),
        ("POST", "/api-keys", {"name": "x", "scopes": []}),
    ):
        answer = await acme.request(method, f"{path}{suffix}", **({"json": body} if body else {}))
        assert answer.status_code == 404, answer.text
    assert (await acme.get("/api/service-accounts")).json()["total"] == 0
    assert (await globex.get("/api/service-accounts")).json()["total"] == 1


async def test_members_manage_no_machines(acme: TenantHandle) -> None:
    bob: Caller = await acme.add_user("bob", "member")
    path = await make_account(acme)
    for method, address in (("GET", path), ("DELETE", path), ("GET", f"{path}/api-keys")):
        assert (await bob.request(method, address)).status_code == 403
