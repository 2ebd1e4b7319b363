from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.world import PASSWORD, TenantHandle, World

WRITES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "users:write": ("POST", "/api/users", {"email": "new@people.example", "password": PASSWORD}),
    "tags:write": ("POST", "/api/tags", {"name": "Urgent"}),
    "teams:write": ("POST", "/api/teams", {"name": "Red"}),
}
MAY_WRITE = {
    "owner": {"users:write", "tags:write", "teams:write"},
    "admin": {"users:write", "tags:write", "teams:write"},
    "member": {"tags:write", "teams:write"},
    "viewer": set[str](),
}
READS = ("/api/users", "/api/tags", "/api/teams", "/api/roles", "/api/permissions")


@pytest.mark.parametrize("role", MAY_WRITE)
async def test_a_built_in_role_may_do_what_it_says_and_no_more(acme: TenantHandle, role: str) -> None:
    caller = await acme.add_user("somebody", role)
    for path in READS:
        assert (await caller.get(path)).status_code == 200, path
    for permission, (method, path, body) in WRITES.items():
        answer = await caller.request(method, path, json=body)
        assert answer.status_code == (201 if permission in MAY_WRITE[role] else 403), (role, permission)
        if answer.status_code == 403:
            assert answer.json()["permission"] == permission


async def test_who_holds_no_role_may_only_ask_who_they_are(acme: TenantHandle) -> None:
    nobody = await acme.add_user("nobody", "member")
    assert (await acme.patch(f"/api/users/{nobody.id}", json={"roles": []})).status_code == 200
    assert (await nobody.get("/api/users/me")).json()["permissions"] == []
    for path in (*READS, f"/api/teams/{uuid4()}"):
        assert (await nobody.get(path)).status_code == 403, path


async def test_only_who_may_manage_runs_the_teams_of_others(acme: TenantHandle) -> None:
    red = await acme.add_team("Red")
    member, admin = await acme.add_user("member", "member"), await acme.add_user("admin", "admin")
    assert (await member.patch(f"/api/teams/{red['id']}", json={"name": "Mine"})).status_code == 403
    assert (await member.delete(f"/api/teams/{red['id']}")).status_code == 403
    assert (await admin.patch(f"/api/teams/{red['id']}", json={"name": "Crimson"})).status_code == 200


async def test_the_catalogue_says_which_roles_hold_what(acme: TenantHandle) -> None:
    roles = {role["slug"]: role for role in (await acme.get("/api/roles")).json()["items"]}
    assert roles.keys() == MAY_WRITE.keys()
    assert all(role["isBuiltin"] for role in roles.values())
    for permission in (await acme.get("/api/permissions")).json():
        holders = {slug for slug, role in roles.items() if permission["name"] in role["permissions"]}
        assert set(permission["roles"]) == holders


async def test_a_role_of_the_organizations_own_grants_what_it_stores_and_is_known(
    world: World, acme: TenantHandle
) -> None:
    caller = await acme.add_user("somebody", "viewer")
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.connection.fetch(
            "INSERT INTO role (id, slug, name, is_builtin, permissions, created_at, updated_at)"
            " VALUES ($1, 'labeller', 'Labeller', false, $2, now(), now())",
            uuid4(),
            ["tags:write", "rockets:launch"],
        )
    answer = await acme.patch(f"/api/users/{caller.id}", json={"roles": ["labeller"]})
    assert answer.status_code == 200
    assert (await caller.get("/api/users/me")).json()["permissions"] == ["tags:write"]
    assert (await caller.post("/api/tags", json={"name": "Urgent"})).status_code == 201
    assert (await caller.get("/api/tags")).status_code == 403
    both = await acme.patch(f"/api/users/{caller.id}", json={"roles": ["labeller", "viewer"]})
    assert both.status_code == 200
    assert (await caller.get("/api/tags")).status_code == 200


async def test_a_role_that_only_calls_itself_owner_is_none(world: World, acme: TenantHandle) -> None:
    # `slug` is unique, so it takes the removal of the built-in one; what a built-in role grants follows from the
    # mark, never from the name alone.
    caller = await acme.add_user("somebody", "viewer")
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.connection.fetch("UPDATE role SET is_builtin = false WHERE slug = 'viewer'")
    assert (await caller.get("/api/users/me")).json()["permissions"] == []
