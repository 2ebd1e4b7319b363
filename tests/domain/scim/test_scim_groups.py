"""Teams, as a directory provisions them, and those that people made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.domain.scim.support import GROUP, Directory, connect, error_of, events_of
from tests.domain.statements import recorded_statements
from tests.world import TenantHandle, World


@pytest.fixture
async def acme(world: World) -> TenantHandle:
    return await world.create_tenant("acme")


@pytest.fixture
async def directory(acme: TenantHandle) -> Directory:
    return await connect(acme)


def ids(group: dict[str, Any]) -> set[str]:
    return {each["value"] for each in group.get("members", [])}


async def members(tenant: TenantHandle, team_id: str) -> dict[str, str]:
    answer = await tenant.get(f"/api/teams/{team_id}/members", params={"pageSize": 200})
    return {each["userId"]: each["role"] for each in answer.json()["items"]}


async def test_a_group_is_a_team_without_an_owner(acme: TenantHandle, directory: Directory) -> None:
    ann, bob = await directory.user("ann"), await directory.user("bob")
    group = await directory.group("Blue Team", ann["id"], externalId="g1")
    assert ids(group) == {ann["id"]}
    assert group["members"][0]["$ref"].endswith(f"/api/scim/v2/Users/{ann['id']}")
    team = (await acme.get(f"/api/teams/{group['id']}")).json()
    assert (team["name"], team["slug"]) == ("Blue Team", "blue-team")
    assert await members(acme, group["id"]) == {ann["id"]: "member"}
    assert (await directory.read(f"/Users/{ann['id']}"))["groups"][0]["value"] == group["id"]
    path = f"/Groups/{group['id']}"
    put = await directory.ask(
        "PUT", path, {"schemas": [GROUP], "displayName": "Azure", "members": [{"value": bob["id"]}]}
    )
    assert (put.status_code, ids(put.json()), put.json()["displayName"]) == (200, {bob["id"]}, "Azure")
    assert (await directory.ask("DELETE", path)).status_code == 204
    assert (await acme.get(f"/api/teams/{group['id']}")).status_code == 404
    names = [name for name, actor in await events_of(acme, group["id"]) if actor.startswith("api_key:")]
    assert names[:2] == ["team.created", "team.member_added"]
    assert sorted(names[2:5]) == ["team.member_added", "team.member_removed", "team.updated"]
    assert names[5:] == ["team.deleted"]


async def test_a_team_that_people_made_outlives_the_directory(acme: TenantHandle, directory: Directory) -> None:
    bob = await acme.add_user("bob", "member")
    team = await acme.add_team("Red")
    path = f"/Groups/{team['id']}"
    assert (await directory.read(path))["displayName"] == "Red"
    added = await directory.patch(path, {"op": "add", "path": "members", "value": [{"value": str(bob.id)}]})
    assert added.status_code == 204, added.text
    assert (await directory.ask("DELETE", path)).status_code == 204
    assert error_of(await directory.ask("GET", path)) == (404, None)
    assert await directory.find('displayName eq "Red"', "Groups") == []
    assert len(await members(acme, team["id"])) == 2
    # Pushed once more, it is the same team, with whom the directory says now; its owner stays in it.
    again = await directory.ask("POST", "/Groups", {"displayName": "Red", "members": [{"value": str(acme.id)}]})
    assert (again.status_code, again.json()["id"]) == (201, team["id"])
    assert await members(acme, team["id"]) == {str(acme.id): "owner"}


async def test_the_last_owner_of_a_team_stays_in_it(acme: TenantHandle, directory: Directory) -> None:
    bob = await acme.add_user("bob", "member")
    team = await acme.add_team("Red")
    path = f"/Groups/{team['id']}"
    for answer in (
        await directory.ask("PUT", path, {"displayName": "Red", "members": [{"value": str(bob.id)}]}),
        await directory.patch(path, {"op": "remove", "path": "members"}),
    ):
        assert error_of(answer) == (409, None)
    assert await members(acme, team["id"]) == {str(acme.id): "owner"}
    handed = await acme.post(f"/api/teams/{team['id']}/members", json={"userId": str(bob.id), "role": "owner"})
    assert handed.status_code == 201
    taken = await directory.patch(path, {"op": "remove", "path": f'members[value eq "{acme.id}"]'})
    assert taken.status_code == 204
    assert await members(acme, team["id"]) == {str(bob.id): "owner"}


async def test_whom_the_directory_deleted_is_in_no_group_and_stays_where_they_own(
    acme: TenantHandle, directory: Directory
) -> None:
    bob = await acme.add_user("bob", "member")
    team = (await bob.post("/api/teams", json={"name": "Bob's"})).json()
    ann = await directory.user("ann")
    assert (await directory.ask("DELETE", f"/Users/{bob.id}")).status_code == 204
    path = f"/Groups/{team['id']}"
    assert ids(await directory.read(path)) == set()
    assert await directory.find(f'members.value eq "{bob.id}"', "Groups") == []
    put = await directory.ask("PUT", path, {"displayName": "Bob's", "members": [{"value": ann["id"]}]})
    assert (put.status_code, ids(put.json())) == (200, {ann["id"]})
    assert await members(acme, team["id"]) == {str(bob.id): "owner", ann["id"]: "member"}


async def test_groups_hold_users_and_no_groups(directory: Directory) -> None:
    group = await directory.group("Outer")
    inner = {"op": "add", "path": "members", "value": [{"value": group["id"], "type": "Group"}]}
    assert error_of(await directory.patch(f"/Groups/{group['id']}", inner)) == (400, "invalidValue")


async def test_a_list_of_groups_takes_as_many_statements_however_many_there_are(
    acme: TenantHandle, directory: Directory
) -> None:
    people = [await directory.user(f"user-{number}") for number in range(3)]

    async def statements() -> int:
        with recorded_statements(acme.world.database) as found:
            await directory.read("/Groups")
            await directory.read("/Users")
        return len(found)

    await directory.group("One", people[0]["id"])
    few = await statements()
    for number in range(4):
        await directory.group(f"More {number}", *(each["id"] for each in people))
    assert await statements() == few


async def test_a_page_of_large_groups_is_shorter_than_it_was_asked_to_be(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [(await directory.user(f"user-{number}"))["id"] for number in range(2)]
    for number in range(3):
        await directory.group(f"Group {number}", *people)
    monkeypatch.setattr("tenantry.domain.scim.groups._MOST_SHOWN", 4)
    first = await directory.read("/Groups")
    assert (first["totalResults"], first["itemsPerPage"], len(first["Resources"])) == (3, 2, 2)
    last = await directory.read("/Groups", startIndex=3)
    assert [ids(each) for each in last["Resources"]] == [set(people)]
    # One is always shown, and without members all of them.
    monkeypatch.setattr("tenantry.domain.scim.groups._MOST_SHOWN", 1)
    assert len((await directory.read("/Groups"))["Resources"]) == 1
    assert len((await directory.read("/Groups", excludedAttributes="members"))["Resources"]) == 3


async def test_more_members_than_a_request_may_have_are_refused(directory: Directory) -> None:
    group = await directory.group("Large")
    entries = [{"value": f"nobody-{number}"} for number in range(2001)]
    for method, body in (
        ("PUT", {"displayName": "Large", "members": entries}),
        ("PATCH", {"Operations": [{"op": "add", "path": "members", "value": entries}]}),
        ("PATCH", {"Operations": [{"op": "replace", "value": {"members": entries}}]}),
    ):
        assert error_of(await directory.ask(method, f"/Groups/{group['id']}", body)) == (400, "invalidValue")


async def test_operations_are_applied_one_after_the_other(directory: Directory) -> None:
    people = [(await directory.user(f"user-{number}"))["id"] for number in range(3)]
    group = await directory.group("Red", people[0])
    path = f"/Groups/{group['id']}"
    answer = await directory.patch(
        path,
        {"op": "remove", "path": "members"},
        {"op": "add", "path": f"{GROUP}:members", "value": {"value": people[1]}},
        {"op": "add", "value": {"members": [{"value": people[2]}], "displayName": "Blue", "externalId": "g"}},
        {"op": "remove", "path": f'members[type eq "User" and value eq "{people[1]}"]'},
        {"op": "remove", "path": "externalId"},
    )
    assert answer.status_code == 204, answer.text
    found = await directory.read(path)
    assert (ids(found), found["displayName"]) == ({people[2]}, "Blue")
    assert "externalId" not in found
    for wrong in (5, "x", [5], [{"value": 5}], {"display": "x"}):
        refused = await directory.patch(path, {"op": "add", "path": "members", "value": wrong})
        assert error_of(refused) == (400, "invalidValue")
    assert await directory.read(path) == found
