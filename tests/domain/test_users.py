from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.world import PASSWORD, Caller, TenantHandle, World


def _new(slug: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"email": f"{name}@{slug}.example", "password": PASSWORD, **fields}


async def test_me_tells_roles_permissions_and_teams(acme: TenantHandle) -> None:
    red = await acme.add_team("Red")
    member = await acme.add_user("ann", "member")
    assert (await acme.post(f"/api/teams/{red['id']}/members", json={"userId": str(member.id)})).status_code == 201
    me = (await member.get("/api/users/me")).json()
    assert me["email"] == f"ann@{acme.slug}.example"
    assert [role["slug"] for role in me["roles"]] == ["member"]
    assert me["teams"] == [{"id": red["id"], "slug": "red", "name": "Red", "role": "member"}]
    assert "teams:write" in me["permissions"]
    assert "users:write" not in me["permissions"]


async def test_nothing_on_the_wire_ever_holds_a_hash(acme: TenantHandle) -> None:
    user = await acme.add_user("ann")
    for path in ("/api/users/me", "/api/users", f"/api/users/{user.id}"):
        answer = await acme.get(path)
        assert answer.status_code == 200
        assert "argon2" not in answer.text
        assert "password" not in answer.text.lower()


async def test_one_address_has_one_account_in_each_organization(acme: TenantHandle, globex: TenantHandle) -> None:
    body = {"email": "Ann@Shared.example", "password": PASSWORD}
    assert (await acme.post("/api/users", json=body)).status_code == 201
    assert (await globex.post("/api/users", json=body)).status_code == 201
    again = await acme.post("/api/users", json={**body, "email": "ann@SHARED.example"})
    assert again.status_code == 409
    assert again.json()["detail"] == "This e-mail address has an account already."


async def test_a_new_user_is_a_member_unless_told_otherwise(acme: TenantHandle) -> None:
    made = await acme.post("/api/users", json=_new(acme.slug, "ann"))
    assert [role["slug"] for role in made.json()["roles"]] == ["member"]


@pytest.mark.parametrize("password", ["short", "ann", "ANN@NAMES.EXAMPLE"])
async def test_a_password_that_is_too_short_or_ones_own_name_names_its_field(acme: TenantHandle, password: str) -> None:
    answer = await acme.post("/api/users", json={"email": "ann@names.example", "password": password})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["password"]


async def test_an_unknown_role_is_named(acme: TenantHandle) -> None:
    answer = await acme.post("/api/users", json=_new(acme.slug, "ann", roles=["member", "captain"]))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "roles"
    assert "captain" in answer.json()["errors"][0]["message"]
    assert (await acme.get("/api/users", params={"search": "ann@"})).json()["total"] == 0


async def test_a_field_that_is_left_out_stays_and_null_clears_it(acme: TenantHandle) -> None:
    user = await acme.add_user("ann")
    path = f"/api/users/{user.id}"
    await acme.patch(path, json={"name": "Ann", "avatarUrl": "https://cdn.example/ann.png"})
    kept = (await acme.patch(path, json={"name": "Anne"})).json()
    assert (kept["name"], kept["avatarUrl"]) == ("Anne", "https://cdn.example/ann.png")
    cleared = (await acme.patch(path, json={"avatarUrl": None})).json()
    assert (cleared["name"], cleared["avatarUrl"]) == ("Anne", None)
    assert (await acme.patch(path, json={})).json() == (await acme.get(path)).json()
    refused = await acme.patch(path, json={"isActive": None})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "isActive"


async def test_people_change_their_own_profile_and_nothing_else_of_themselves(acme: TenantHandle) -> None:
    user = await acme.add_user("ann", "viewer")
    assert (await user.patch("/api/users/me", json={"name": "Ann"})).json()["name"] == "Ann"
    for field, value in (("roles", ["owner"]), ("isSuperuser", True), ("isActive", True), ("email", "a@b.example")):
        answer = await user.patch("/api/users/me", json={field: value})
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"field": field, "source": "body", "message": "Unknown field"}]


async def test_an_avatar_is_an_address_on_one_line(acme: TenantHandle) -> None:
    for bad in ("javascript:alert(1)", "https://cdn.example/a.png\n", "https://cdn.example/ a"):
        answer = await acme.patch("/api/users/me", json={"avatarUrl": bad})
        assert answer.status_code == 422, bad
        assert answer.json()["errors"][0]["field"] == "avatarUrl"


async def test_only_an_owner_makes_an_owner_or_touches_one(acme: TenantHandle) -> None:
    admin = await acme.add_user("admin", "admin")
    made = await admin.post("/api/users", json=_new(acme.slug, "eve", roles=["owner"]))
    assert made.status_code == 403
    assert (await admin.patch(f"/api/users/{admin.id}", json={"roles": ["owner"]})).status_code == 403
    for change in ({"isActive": False}, {"roles": ["viewer"]}, {"name": "Mallory"}):
        assert (await admin.patch(f"/api/users/{acme.id}", json=change)).status_code == 403
    assert (await acme.patch(f"/api/users/{admin.id}", json={"roles": ["owner"]})).status_code == 200
    assert (await admin.patch(f"/api/users/{acme.id}", json={"name": "Bob"})).status_code == 200


async def test_nobody_hands_out_more_than_they_hold(world: World, acme: TenantHandle) -> None:
    recruiter = await acme.add_user("recruiter", "viewer")
    async with world.database.transaction(acme.context.write_scope) as transaction:
        for slug, permissions in (("recruiter", ["users:read", "users:write"]), ("labeller", ["tags:write"])):
            await transaction.connection.fetch(
                "INSERT INTO role (id, slug, name, is_builtin, permissions, created_at, updated_at)"
                " VALUES ($1, $2, $2, false, $3, now(), now())",
                uuid4(),
                slug,
                permissions,
            )
    assert (await acme.patch(f"/api/users/{recruiter.id}", json={"roles": ["recruiter"]})).status_code == 200
    for number, role in enumerate(("admin", "member", "labeller", "owner")):
        answer = await recruiter.post("/api/users", json=_new(acme.slug, f"new{number}", roles=[role]))
        assert answer.status_code == 403, role
        assert (await recruiter.patch(f"/api/users/{recruiter.id}", json={"roles": [role]})).status_code == 403
    assert (await recruiter.post("/api/users", json=_new(acme.slug, "ann", roles=["recruiter"]))).status_code == 201


async def test_the_last_owner_stays_one(acme: TenantHandle) -> None:
    changes: list[dict[str, Any]] = [
        {"isActive": False},
        {"roles": ["admin"]},
        {"roles": []},
        {"roles": ["owner"], "isActive": False},
    ]
    for change in changes:
        answer = await acme.patch(f"/api/users/{acme.id}", json=change)
        assert answer.status_code == 409, change
        assert answer.json()["type"] == "/problems/last-owner"
    assert (await acme.patch(f"/api/users/{acme.id}", json={"roles": ["owner", "admin"]})).status_code == 200


async def test_a_deactivated_owner_does_not_count_as_another_one(acme: TenantHandle) -> None:
    second = await acme.add_user("second", "owner")
    assert (await acme.patch(f"/api/users/{second.id}", json={"isActive": False})).status_code == 200
    assert (await acme.patch(f"/api/users/{acme.id}", json={"roles": ["member"]})).status_code == 409


@pytest.mark.parametrize("change", [{"roles": ["member"]}, {"isActive": False}])
async def test_of_two_owners_who_step_down_at_once_one_stays(acme: TenantHandle, change: dict[str, Any]) -> None:
    second = await acme.add_user("second", "owner")
    answers = await asyncio.gather(
        acme.patch(f"/api/users/{acme.id}", json=change), second.patch(f"/api/users/{second.id}", json=change)
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_a_user_of_another_organization_is_not_there(acme: TenantHandle, globex: TenantHandle) -> None:
    stranger = await globex.add_user("ann")
    for method, arguments in (("GET", {}), ("PATCH", {"json": {"name": "Mine"}})):
        there = await acme.request(method, f"/api/users/{stranger.id}", **arguments)
        nowhere = await acme.request(method, f"/api/users/{uuid4()}", **arguments)
        assert there.status_code == nowhere.status_code == 404
        assert there.json()["detail"] == nowhere.json()["detail"]
    assert (await globex.get(f"/api/users/{stranger.id}")).json()["name"] is None


async def test_a_role_that_is_taken_away_counts_with_the_next_request(acme: TenantHandle) -> None:
    admin = await acme.add_user("admin", "admin")
    assert (await admin.post("/api/users", json=_new(acme.slug, "one"))).status_code == 201
    await acme.patch(f"/api/users/{admin.id}", json={"roles": ["viewer"]})
    assert (await admin.post("/api/users", json=_new(acme.slug, "two"))).status_code == 403


async def test_a_superuser_may_do_everything(world: World, acme: TenantHandle) -> None:
    user: Caller = await acme.add_user("root", "viewer")
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.connection.fetch("UPDATE user_account SET is_superuser = true WHERE id = $1", user.id)
    assert (await user.post("/api/tags", json={"name": "Mine"})).status_code == 201
    assert set((await user.get("/api/users/me")).json()["permissions"]) == set(world.app.state.permissions.all)
