from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from tenantry.events.models import AuditEvent
from tests.world import PASSWORD, Caller, TenantHandle, World

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


# Roles of the organization's own.


async def _make(caller: Caller, slug: str, *permissions: str, **fields: Any) -> dict[str, Any]:
    answer = await caller.post(
        "/api/roles", json={"name": slug.title(), "slug": slug, "permissions": list(permissions), **fields}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def _events(world: World, tenant: TenantHandle) -> list[tuple[str, UUID, dict[str, Any]]]:
    async with world.database.transaction(tenant.context.read_scope) as transaction:
        rows = await transaction.session.execute(select(AuditEvent).order_by(AuditEvent.id))
        return [(event.name, event.subject, event.payload) for event in rows.scalars()]


async def test_a_role_is_made_read_changed_and_deleted(world: World, acme: TenantHandle, globex: TenantHandle) -> None:
    made = await acme.post(
        "/api/roles",
        json={"name": "Tag Keeper", "description": "Labels.", "permissions": ["tags:write", "tags:read", "tags:read"]},
    )
    assert made.status_code == 201
    role = made.json()
    assert (role["slug"], role["isBuiltin"], role["permissions"]) == ("tag-keeper", False, ["tags:read", "tags:write"])
    path = f"/api/roles/{role['id']}"
    assert (await acme.get(path)).json() == role
    for answer in (
        await globex.get(path),
        await globex.patch(path, json={"name": "Mine"}),
        await globex.delete(path),
    ):
        assert answer.status_code == 404
    changed = (await acme.patch(path, json={"name": "Keeper", "permissions": ["tags:read"]})).json()
    assert (changed["name"], changed["slug"], changed["description"]) == ("Keeper", "tag-keeper", "Labels.")
    assert changed["permissions"] == ["tags:read"]
    # What has no other value than before is no change.
    assert (await acme.patch(path, json={"name": "Keeper"})).status_code == 200
    assert (await acme.delete(path)).status_code == 204
    assert (await acme.get(path)).status_code == 404
    recorded = [event for event in await _events(world, acme) if event[0].startswith("role.")]
    assert recorded == [
        ("role.created", UUID(role["id"]), {}),
        ("role.updated", UUID(role["id"]), {"fields": ["name", "permissions"]}),
        ("role.deleted", UUID(role["id"]), {}),
    ]
    assert not [event for event in await _events(world, globex) if event[0].startswith("role.")]


async def test_a_changed_role_counts_with_the_next_request(acme: TenantHandle, globex: TenantHandle) -> None:
    role = await _make(acme, "labeller", "tags:write")
    same = await _make(globex, "labeller", "tags:write")
    caller, stranger = await acme.add_user("somebody", "labeller"), await globex.add_user("somebody", "labeller")
    assert (await caller.post("/api/tags", json={"name": "one"})).status_code == 201
    await acme.patch(f"/api/roles/{role['id']}", json={"permissions": ["tags:read"]})
    assert (await caller.post("/api/tags", json={"name": "two"})).status_code == 403
    assert (await caller.get("/api/tags")).status_code == 200
    # The role of the same name in another organization is another one.
    assert (await stranger.post("/api/tags", json={"name": "two"})).status_code == 201
    assert (await globex.get(f"/api/roles/{same['id']}")).json()["permissions"] == ["tags:write"]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_unknown_permission_is_named(acme: TenantHandle, method: str) -> None:
    role = await _make(acme, "labeller", "tags:write")
    path = "/api/roles" if method == "POST" else f"/api/roles/{role['id']}"
    body = {"name": "Pilot", "permissions": ["tags:read", "rockets:launch", "@owner"]}
    answer = await acme.request(method, path, json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["permissions.1", "permissions.2"]
    assert (await acme.get("/api/roles", params={"search": "Pilot"})).json()["total"] == 0
    assert (await acme.get(f"/api/roles/{role['id']}")).json() == role


@pytest.mark.parametrize("slug", ["owner", "admin", "member", "viewer"])
async def test_a_built_in_role_is_not_changed_and_not_deleted(acme: TenantHandle, slug: str) -> None:
    [before] = (await acme.get("/api/roles", params={"search": slug})).json()["items"]
    path = f"/api/roles/{before['id']}"
    for answer in (
        await acme.patch(path, json={"name": "Mine"}),
        await acme.patch(path, json={"permissions": []}),
        await acme.delete(path),
    ):
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/builtin-role")
    assert (await acme.get(path)).json() == before
    taken = await acme.post("/api/roles", json={"name": "Mine", "slug": slug, "permissions": []})
    assert (taken.status_code, taken.json()["detail"]) == (409, "There is a role of that slug already.")


async def test_a_role_named_like_a_built_in_one_is_another(acme: TenantHandle) -> None:
    role = (await acme.post("/api/roles", json={"name": "Owner", "permissions": ["tags:read"]})).json()
    assert role["slug"].startswith("owner-")
    caller = await acme.add_user("somebody", role["slug"])
    assert (await caller.get("/api/users/me")).json()["permissions"] == ["tags:read"]
    assert (await caller.patch(f"/api/users/{acme.id}", json={"name": "Mine"})).status_code == 403


async def test_nobody_makes_a_role_that_permits_more_than_they_may_do(acme: TenantHandle) -> None:
    await _make(acme, "role-keeper", "roles:read", "roles:manage", "tags:read")
    strong = await _make(acme, "strong", "tags:read", "users:write")
    keeper = await acme.add_user("keeper", "role-keeper")
    refused = await keeper.post("/api/roles", json={"name": "More", "permissions": ["tags:read", "tags:write"]})
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/beyond-own-permissions")
    assert refused.json()["permissions"] == ["tags:write"]
    weak = await _make(keeper, "weak", "tags:read")
    for permissions in (["users:write"], ["tags:read", "webhooks:manage"]):
        answer = await keeper.patch(f"/api/roles/{weak['id']}", json={"permissions": permissions})
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/beyond-own-permissions")
    # What is above them is out of their reach, also to be taken away.
    for answer in (
        await keeper.patch(f"/api/roles/{strong['id']}", json={"permissions": ["tags:read"]}),
        await keeper.patch(f"/api/roles/{strong['id']}", json={"name": "Weak"}),
        await keeper.delete(f"/api/roles/{strong['id']}"),
    ):
        assert answer.status_code == 403
        assert answer.json()["permissions"] == ["users:write"]
    own = (await keeper.get("/api/users/me")).json()["permissions"]
    assert own == ["roles:manage", "roles:read", "tags:read"]
    assert (await keeper.patch(f"/api/roles/{weak['id']}", json={"permissions": own})).status_code == 200


async def test_nobody_grows_with_a_role_of_their_own(acme: TenantHandle) -> None:
    role = await _make(acme, "keeper", "roles:manage", "users:write", "users:read")
    keeper = await acme.add_user("keeper", "keeper")
    path = f"/api/roles/{role['id']}"
    answer = await keeper.patch(path, json={"permissions": [*role["permissions"], "audit:read"]})
    assert answer.status_code == 403
    assert (await acme.get(path)).json() == role
    for roles in (["keeper", "admin"], ["owner"]):
        assert (await keeper.patch(f"/api/users/{keeper.id}", json={"roles": roles})).status_code == 403
    assert (await keeper.get("/api/users/me")).json()["permissions"] == sorted(role["permissions"])


async def test_a_role_that_somebody_holds_is_not_deleted(acme: TenantHandle, globex: TenantHandle) -> None:
    role = await _make(acme, "labeller", "tags:write")
    for name in ("ann", "bob"):
        await acme.add_user(name, "labeller", "viewer")
    await globex.add_user("ann", "viewer")
    answer = await acme.delete(f"/api/roles/{role['id']}")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/role-in-use")
    assert answer.json()["users"] == 2
    holders = (await acme.get("/api/users", params={"role": "labeller"})).json()
    assert [user["email"] for user in holders["items"]] == [f"{name}@{acme.slug}.example" for name in ("ann", "bob")]
    assert holders["total"] == 2
    for user in holders["items"]:
        assert (await acme.patch(f"/api/users/{user['id']}", json={"roles": ["viewer"]})).status_code == 200
    assert (await acme.delete(f"/api/roles/{role['id']}")).status_code == 204


async def test_a_role_that_is_given_and_deleted_at_once_is_one_or_the_other(acme: TenantHandle) -> None:
    user = await acme.add_user("ann", "viewer")
    for number in range(4):
        role = await _make(acme, f"labeller-{number}", "tags:write")
        given, deleted = await asyncio.gather(
            acme.patch(f"/api/users/{user.id}", json={"roles": [role["slug"]]}),
            acme.delete(f"/api/roles/{role['id']}"),
        )
        assert (given.status_code, deleted.status_code) in {(200, 409), (409, 204), (422, 204)}, given.text
        held = [each["slug"] for each in (await acme.get(f"/api/users/{user.id}")).json()["roles"]]
        assert held == [role["slug"]] if given.status_code == 200 else role["slug"] not in held


async def test_two_roles_of_one_slug_at_once_are_one_201_and_one_409(acme: TenantHandle) -> None:
    body = {"name": "Same", "slug": "same", "permissions": []}
    answers = await asyncio.gather(*(acme.post("/api/roles", json=body) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]


@pytest.mark.parametrize("field", ["name", "permissions"])
async def test_null_is_refused_where_a_role_must_have_a_value(acme: TenantHandle, field: str) -> None:
    role = await _make(acme, "labeller", "tags:write", description="Labels.")
    answer = await acme.patch(f"/api/roles/{role['id']}", json={field: None})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert (await acme.patch(f"/api/roles/{role['id']}", json={"description": None})).json()["description"] is None
