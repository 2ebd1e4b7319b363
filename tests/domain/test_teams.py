from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from tenantry.events.models import AuditEvent
from tests.world import TenantHandle


async def test_a_team_is_made_read_changed_and_deleted(acme: TenantHandle, globex: TenantHandle) -> None:
    made = await acme.post(
        "/api/teams", json={"name": "Red Team", "description": "Ours", "tags": ["Go Live", "Urgent"]}
    )
    assert made.status_code == 201
    team = made.json()
    assert (team["slug"], team["description"], team["isActive"]) == ("red-team", "Ours", True)
    assert [tag["slug"] for tag in team["tags"]] == ["go-live", "urgent"]
    path = f"/api/teams/{team['id']}"
    assert (await acme.get(path)).json() == team
    changed = (await acme.patch(path, json={"name": "Crimson", "isActive": False})).json()
    assert (changed["name"], changed["slug"], changed["isActive"], changed["description"]) == (
        "Crimson",
        "red-team",
        False,
        "Ours",
    )
    assert changed["updatedAt"] > team["updatedAt"]
    assert (await acme.get(path)).json() == changed
    assert (await globex.get(path)).status_code == 404
    assert (await globex.delete(path)).status_code == 404
    assert (await acme.delete(path)).status_code == 204
    assert (await acme.get(path)).status_code == 404
    assert (await acme.delete(path)).status_code == 404


async def test_who_makes_a_team_owns_it(acme: TenantHandle) -> None:
    member = await acme.add_user("ann", "member")
    team = (await member.post("/api/teams", json={"name": "Ann's"})).json()
    members = (await member.get(f"/api/teams/{team['id']}/members")).json()["items"]
    assert [(m["userId"], m["role"], m["email"]) for m in members] == [
        (str(member.id), "owner", f"ann@{acme.slug}.example")
    ]


async def test_the_same_slug_may_be_in_two_organizations_and_once_in_each(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    assert (await acme.post("/api/teams", json={"name": "A", "slug": "red"})).status_code == 201
    assert (await globex.post("/api/teams", json={"name": "A", "slug": "red"})).status_code == 201
    again = await acme.post("/api/teams", json={"name": "B", "slug": "red"})
    assert (again.status_code, again.json()["detail"]) == (409, "There is a team of that slug already.")


async def test_a_second_team_of_a_name_gets_a_slug_of_its_own(acme: TenantHandle) -> None:
    first, second = await acme.add_team("Red"), await acme.add_team("Red")
    assert first["slug"] == "red"
    assert second["slug"].startswith("red-")
    long = [await acme.add_team("x" * 100) for _ in range(2)]
    assert all(len(team["slug"]) <= 63 for team in long)


async def test_a_name_without_any_letter_of_ours_still_makes_a_team(acme: TenantHandle) -> None:
    assert (await acme.add_team("日本語"))["slug"] == "team"


async def test_two_teams_of_one_slug_at_once_are_one_201_and_one_409(acme: TenantHandle) -> None:
    answers = await asyncio.gather(*(acme.post("/api/teams", json={"name": "Red", "slug": "same"}) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]


async def test_tags_of_a_change_replace_all_and_missing_keeps_them(acme: TenantHandle) -> None:
    team = await acme.add_team("Red", tags=["one", "two"])
    path = f"/api/teams/{team['id']}"
    kept = (await acme.patch(path, json={"description": None})).json()
    assert [tag["name"] for tag in kept["tags"]] == ["one", "two"]
    replaced = (await acme.patch(path, json={"tags": ["two", "three"]})).json()
    assert [tag["name"] for tag in replaced["tags"]] == ["three", "two"]
    assert (await acme.get(path)).json()["tags"] == replaced["tags"]
    assert (await acme.patch(path, json={"tags": []})).json()["tags"] == []
    names = [tag["name"] for tag in (await acme.get("/api/tags")).json()["items"]]
    assert names == ["one", "three", "two"], "tags outlive the teams that carried them"


async def test_two_spellings_of_one_tag_are_one(acme: TenantHandle) -> None:
    team = await acme.add_team("Red", tags=["Go Live", "go-live", "GO LIVE"])
    assert len(team["tags"]) == 1
    other = await acme.add_team("Blue", tags=["go live"])
    assert other["tags"] == team["tags"]


async def test_teams_made_at_once_share_a_new_tag_or_are_told_to_try_again(acme: TenantHandle) -> None:
    answers = await asyncio.gather(
        *(acme.post("/api/teams", json={"name": f"Team {number}", "tags": ["brand new"]}) for number in range(4))
    )
    codes = [answer.status_code for answer in answers]
    assert 201 in codes
    assert set(codes) <= {201, 409}
    assert (await acme.get("/api/tags")).json()["total"] == 1
    # Nothing half done: as many teams as were acknowledged.
    assert (await acme.get("/api/teams")).json()["total"] == codes.count(201)


async def test_a_tag_of_which_nothing_can_be_kept_names_the_field(acme: TenantHandle) -> None:
    answer = await acme.post("/api/teams", json={"name": "Red", "tags": ["!!!"]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "tags"
    assert (await acme.get("/api/teams")).json()["total"] == 0


async def test_an_empty_change_changes_nothing(acme: TenantHandle) -> None:
    team = await acme.add_team("Red", tags=["one"])
    assert (await acme.patch(f"/api/teams/{team['id']}", json={})).json() == team
    assert (await acme.patch(f"/api/teams/{uuid4()}", json={})).status_code == 404


async def test_a_deleted_team_takes_its_memberships_along_and_nobody(acme: TenantHandle) -> None:
    team = await acme.add_team("Red", tags=["one"])
    ann = await acme.add_user("ann", "member")
    await acme.post(f"/api/teams/{team['id']}/members", json={"userId": str(ann.id)})
    assert (await acme.delete(f"/api/teams/{team['id']}")).status_code == 204
    assert (await ann.get("/api/users/me")).json()["teams"] == []
    assert (await acme.get("/api/tags")).json()["total"] == 1


@pytest.mark.parametrize("field", ["name", "slug", "isActive", "tags"])
async def test_null_is_refused_where_there_must_be_a_value(acme: TenantHandle, field: str) -> None:
    team = await acme.add_team("Red")
    answer = await acme.patch(f"/api/teams/{team['id']}", json={field: None})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def _members(acme: TenantHandle, team: dict[str, Any]) -> dict[str, str]:
    items = (await acme.get(f"/api/teams/{team['id']}/members")).json()["items"]
    return {member["userId"]: member["role"] for member in items}


async def test_members_come_change_and_go(acme: TenantHandle) -> None:
    team, ann = await acme.add_team("Red"), await acme.add_user("ann", "member")
    path = f"/api/teams/{team['id']}/members"
    joined = await acme.post(path, json={"userId": str(ann.id)})
    assert joined.status_code == 201
    assert (joined.json()["role"], joined.json()["email"]) == ("member", f"ann@{acme.slug}.example")
    changed = await acme.patch(f"{path}/{ann.id}", json={"role": "admin"})
    assert (changed.status_code, changed.json()["role"]) == (200, "admin")
    assert (await acme.patch(f"{path}/{ann.id}", json={})).json()["role"] == "admin"
    assert await _members(acme, team) == {str(acme.id): "owner", str(ann.id): "admin"}
    assert (await acme.delete(f"{path}/{ann.id}")).status_code == 204
    assert (await acme.delete(f"{path}/{ann.id}")).status_code == 404
    assert await _members(acme, team) == {str(acme.id): "owner"}


async def test_a_user_is_in_a_team_once(acme: TenantHandle) -> None:
    team, ann = await acme.add_team("Red"), await acme.add_user("ann", "member")
    path = f"/api/teams/{team['id']}/members"
    answers = await asyncio.gather(*(acme.post(path, json={"userId": str(ann.id)}) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    again = await acme.post(path, json={"userId": str(ann.id), "role": "admin"})
    assert (again.status_code, again.json()["detail"]) == (409, "The user is in the team already.")


async def test_who_is_no_active_user_of_the_organization_cannot_join(acme: TenantHandle, globex: TenantHandle) -> None:
    team, gone, stranger = await acme.add_team("Red"), await acme.add_user("gone"), await globex.add_user("stranger")
    await acme.patch(f"/api/users/{gone.id}", json={"isActive": False})
    answers = [
        await acme.post(f"/api/teams/{team['id']}/members", json={"userId": str(user_id)})
        for user_id in (uuid4(), gone.id, stranger.id)
    ]
    assert [answer.status_code for answer in answers] == [422] * 3
    assert [answer.json()["errors"] for answer in answers] == [answers[0].json()["errors"]] * 3
    assert answers[0].json()["errors"][0]["field"] == "userId"


async def test_nobody_joins_a_team_of_another_organization(acme: TenantHandle, globex: TenantHandle) -> None:
    theirs, ann = await globex.add_team("Red"), await acme.add_user("ann", "member")
    for team_id in (theirs["id"], uuid4()):
        answer = await acme.post(f"/api/teams/{team_id}/members", json={"userId": str(ann.id)})
        assert answer.status_code == 404
        assert (await acme.get(f"/api/teams/{team_id}/members")).status_code == 404
    assert await _members(globex, theirs) == {str(globex.id): "owner"}


async def test_a_team_always_keeps_an_owner(acme: TenantHandle) -> None:
    team, ann = await acme.add_team("Red"), await acme.add_user("ann", "member")
    path = f"/api/teams/{team['id']}/members"
    for answer in (
        await acme.delete(f"{path}/{acme.id}"),
        await acme.patch(f"{path}/{acme.id}", json={"role": "member"}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/last-team-owner")
    await acme.post(path, json={"userId": str(ann.id), "role": "owner"})
    assert (await acme.delete(f"{path}/{acme.id}")).status_code == 204
    assert (await ann.patch(f"{path}/{ann.id}", json={"role": "admin"})).status_code == 409


async def test_of_two_team_owners_who_leave_at_once_one_stays(acme: TenantHandle) -> None:
    team, ann = await acme.add_team("Red"), await acme.add_user("ann", "member")
    path = f"/api/teams/{team['id']}/members"
    await acme.post(path, json={"userId": str(ann.id), "role": "owner"})
    answers = await asyncio.gather(acme.delete(f"{path}/{acme.id}"), ann.delete(f"{path}/{ann.id}"))
    assert sorted(answer.status_code for answer in answers) == [204, 409]
    assert list((await _members(acme, team)).values()) == ["owner"]


async def test_a_plain_member_runs_nothing_but_may_leave(acme: TenantHandle) -> None:
    team, ann, bob = (
        await acme.add_team("Red"),
        await acme.add_user("ann", "member"),
        await acme.add_user("bob", "member"),
    )
    path = f"/api/teams/{team['id']}/members"
    for user in (ann, bob):
        await acme.post(path, json={"userId": str(user.id)})
    assert (await ann.delete(f"{path}/{bob.id}")).status_code == 403
    assert (await ann.patch(f"{path}/{ann.id}", json={"role": "owner"})).status_code == 403
    assert (await ann.post(path, json={"userId": str(bob.id)})).status_code == 403
    assert (await ann.delete(f"{path}/{ann.id}")).status_code == 204


async def test_who_may_only_look_may_still_leave(acme: TenantHandle) -> None:
    team, viewer = await acme.add_team("Red"), await acme.add_user("viewer", "viewer")
    path = f"/api/teams/{team['id']}/members"
    await acme.post(path, json={"userId": str(viewer.id)})
    assert (await viewer.delete(f"{path}/{acme.id}")).status_code == 403
    assert (await viewer.delete(f"{path}/{viewer.id}")).status_code == 204


async def test_an_administrator_of_a_team_makes_no_owner_and_removes_none(acme: TenantHandle) -> None:
    team = await acme.add_team("Red")
    deputy, ann = await acme.add_user("deputy", "member"), await acme.add_user("ann", "member")
    path = f"/api/teams/{team['id']}/members"
    await acme.post(path, json={"userId": str(deputy.id), "role": "admin"})
    for answer in (
        await deputy.patch(f"{path}/{deputy.id}", json={"role": "owner"}),
        await deputy.post(path, json={"userId": str(ann.id), "role": "owner"}),
        await deputy.patch(f"{path}/{acme.id}", json={"role": "member"}),
        await deputy.delete(f"{path}/{acme.id}"),
        await deputy.post(f"/api/teams/{team['id']}/transfer-ownership", json={"userId": str(deputy.id)}),
    ):
        assert answer.status_code == 403
    assert (await deputy.post(path, json={"userId": str(ann.id), "role": "admin"})).status_code == 201
    assert await _members(acme, team) == {str(acme.id): "owner", str(deputy.id): "admin", str(ann.id): "admin"}


async def _handed_over(acme: TenantHandle) -> list[dict[str, Any]]:
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        found = await transaction.session.scalars(
            select(AuditEvent).where(AuditEvent.name == "team.ownership_transferred").order_by(AuditEvent.id)
        )
        return [{"actor": event.actor, "subject": str(event.subject), **event.payload} for event in found]


async def test_a_team_is_handed_over_and_the_old_owner_administers_it(acme: TenantHandle, globex: TenantHandle) -> None:
    captain, ann = await acme.add_user("captain", "member"), await acme.add_user("ann", "member")
    team = (await captain.post("/api/teams", json={"name": "Red"})).json()
    path = f"/api/teams/{team['id']}"
    await captain.post(f"{path}/members", json={"userId": str(ann.id)})
    assert (await globex.post(f"{path}/transfer-ownership", json={"userId": str(ann.id)})).status_code == 404
    answer = await captain.post(f"{path}/transfer-ownership", json={"userId": str(ann.id)})
    assert (answer.status_code, answer.json()["userId"], answer.json()["role"]) == (200, str(ann.id), "owner")
    assert await _members(acme, team) == {str(captain.id): "admin", str(ann.id): "owner"}
    back = await captain.post(f"{path}/transfer-ownership", json={"userId": str(captain.id)})
    assert back.status_code == 403
    assert await _handed_over(acme) == [
        {
            "actor": f"user:{captain.id}",
            "subject": team["id"],
            "owner_id": str(ann.id),
            "former_owner_ids": [str(captain.id)],
        }
    ]
    assert await _handed_over(globex) == []


async def test_a_team_is_handed_over_to_an_active_member_alone(acme: TenantHandle, globex: TenantHandle) -> None:
    team, gone, outside = await acme.add_team("Red"), await acme.add_user("gone"), await acme.add_user("outside")
    stranger = await globex.add_user("stranger")
    await acme.post(f"/api/teams/{team['id']}/members", json={"userId": str(gone.id)})
    await acme.patch(f"/api/users/{gone.id}", json={"isActive": False})
    for user_id in (gone.id, outside.id, stranger.id, uuid4(), acme.id):
        answer = await acme.post(f"/api/teams/{team['id']}/transfer-ownership", json={"userId": str(user_id)})
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == ["userId"]
    assert (await _members(acme, team))[str(acme.id)] == "owner"
    assert await _handed_over(acme) == []


async def test_one_of_several_owners_hands_over_their_own_part(acme: TenantHandle) -> None:
    team, ann, bob = await acme.add_team("Red"), await acme.add_user("ann", "member"), await acme.add_user("bob")
    path = f"/api/teams/{team['id']}"
    await acme.post(f"{path}/members", json={"userId": str(ann.id), "role": "owner"})
    await acme.post(f"{path}/members", json={"userId": str(bob.id)})
    assert (await ann.post(f"{path}/transfer-ownership", json={"userId": str(bob.id)})).status_code == 200
    assert await _members(acme, team) == {str(acme.id): "owner", str(ann.id): "admin", str(bob.id): "owner"}
    # To another owner: they step back, and there is one less.
    assert (await acme.post(f"{path}/transfer-ownership", json={"userId": str(bob.id)})).status_code == 200
    assert await _members(acme, team) == {str(acme.id): "admin", str(ann.id): "admin", str(bob.id): "owner"}


async def test_who_manages_all_teams_takes_one_from_all_its_owners(acme: TenantHandle) -> None:
    captain, second, ann = [await acme.add_user(name, "member") for name in ("captain", "second", "ann")]
    team = (await captain.post("/api/teams", json={"name": "Red"})).json()
    path = f"/api/teams/{team['id']}"
    await captain.post(f"{path}/members", json={"userId": str(second.id), "role": "owner"})
    await captain.post(f"{path}/members", json={"userId": str(ann.id)})
    assert (await acme.post(f"{path}/transfer-ownership", json={"userId": str(ann.id)})).status_code == 200
    assert await _members(acme, team) == {str(captain.id): "admin", str(second.id): "admin", str(ann.id): "owner"}
    [event] = await _handed_over(acme)
    assert set(event["former_owner_ids"]) == {str(captain.id), str(second.id)}


async def test_an_owner_who_hands_over_twice_at_once_does_so_once(acme: TenantHandle) -> None:
    captain, ann, bob = [await acme.add_user(name, "member") for name in ("captain", "ann", "bob")]
    team = (await captain.post("/api/teams", json={"name": "Red"})).json()
    path = f"/api/teams/{team['id']}"
    for user in (ann, bob):
        await captain.post(f"{path}/members", json={"userId": str(user.id)})
    answers = await asyncio.gather(
        *(captain.post(f"{path}/transfer-ownership", json={"userId": str(user.id)}) for user in (ann, bob))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 403]
    roles = await _members(acme, team)
    assert sorted(roles.values()) == ["admin", "member", "owner"]
    assert roles[str(captain.id)] == "admin"


async def test_a_deactivated_owner_does_not_keep_a_team_owned(acme: TenantHandle) -> None:
    team, gone = await acme.add_team("Red"), await acme.add_user("gone", "member")
    path = f"/api/teams/{team['id']}/members"
    await acme.post(path, json={"userId": str(gone.id), "role": "owner"})
    await acme.patch(f"/api/users/{gone.id}", json={"isActive": False})
    answer = await acme.delete(f"{path}/{acme.id}")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/last-team-owner")
