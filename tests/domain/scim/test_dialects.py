"""What Microsoft Entra and Okta send, as their documents and traces show it, and what comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.domain.scim.support import GROUP, PATCH, USER, Directory, connect, error_of
from tests.world import TenantHandle, World

ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


@pytest.fixture
async def acme(world: World) -> TenantHandle:
    return await world.create_tenant("acme")


@pytest.fixture
async def directory(acme: TenantHandle) -> Directory:
    return await connect(acme)


async def members_of(directory: Directory, path: str) -> set[str]:
    return {each["value"] for each in (await directory.read(path)).get("members", [])}


async def test_entra_provisions_and_deprovisions_a_person(acme: TenantHandle, directory: Directory) -> None:
    # "Test connection" asks for somebody who is not there, and wants an empty list.
    empty = await directory.read("/Users", filter='userName eq "00000000-0000-0000-0000-000000000000"')
    assert (empty["totalResults"], empty.get("Resources", [])) == (0, [])
    made = await directory.ask(
        "POST",
        "/Users",
        {
            "schemas": [USER, ENTERPRISE],
            "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef",
            "userName": "Test_User_ab6490ee@people.example",
            "active": True,
            "displayName": "Test User",
            "emails": [{"primary": True, "type": "work", "value": "Test_User@elsewhere.example"}],
            "meta": {"resourceType": "User"},
            "name": {"formatted": "given family", "familyName": "family", "givenName": "given"},
            "roles": [],
            f"{ENTERPRISE}": {"department": "Sales", "manager": {"value": "x"}},
        },
        headers={"Content-Type": "application/scim+json; charset=utf-8"},
    )
    assert made.status_code == 201, made.text
    user_id = made.json()["id"]
    assert made.headers["Location"].endswith(f"/api/scim/v2/Users/{user_id}")
    path = f"/Users/{user_id}"
    found = await directory.read("/Users", filter='userName eq "test_user_ab6490ee@people.example"')
    assert found["totalResults"] == 1
    # Operations in capitals; the address once more, which is the userName; attributes that are not kept.
    changed = await directory.ask(
        "PATCH",
        path,
        {
            "schemas": [PATCH],
            "Operations": [
                {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "updated@elsewhere.example"},
                {"op": "Replace", "path": "name.familyName", "value": "Updated"},
                {"op": "Add", "path": f"{ENTERPRISE}:department", "value": "Marketing"},
                {"op": "Add", "path": 'phoneNumbers[type eq "mobile"].value', "value": "+1 555"},
                {"op": "Add", "value": {"displayName": "Updated User", "name.givenName": "New", "title": "Boss"}},
            ],
        },
    )
    assert changed.status_code == 204, changed.text
    now = await directory.read(path)
    assert (now["displayName"], now["name"]) == ("Updated User", {"familyName": "Updated", "givenName": "New"})
    assert now["emails"][0]["value"] == now["userName"] == "test_user_ab6490ee@people.example"
    # Of the address alone there is nothing to change.
    only = await directory.patch(path, {"op": "Replace", "value": {"emails": [{"value": "x@y.example"}]}})
    assert only.status_code == 204
    assert only.headers["ETag"] == now["meta"]["version"]
    # A text where SCIM has a boolean, unless the tenant's flag for the standard is set.
    for value in ("False", "True", False):
        answer = await directory.patch(path, {"op": "Replace", "path": "active", "value": value})
        assert answer.status_code == 204, answer.text
        active = (await acme.get(f"/api/users/{user_id}")).json()["isActive"]
        assert active is (value == "True")
    assert (await directory.ask("DELETE", path)).status_code == 204
    assert error_of(await directory.ask("GET", path)) == (404, None)


async def test_entra_keeps_a_group(directory: Directory) -> None:
    people = [(await directory.user(f"user-{number}"))["id"] for number in range(3)]
    assert await directory.find('displayName eq "Sales"', "Groups") == []
    made = await directory.ask(
        "POST",
        "/Groups",
        {
            "schemas": [GROUP, "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"],
            "externalId": "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159",
            "displayName": "Sales",
            "meta": {"resourceType": "Group"},
        },
    )
    assert made.status_code == 201, made.text
    path = f"/Groups/{made.json()['id']}"
    shown = await directory.read(path, excludedAttributes="members")
    assert shown["displayName"] == "Sales"

    async def send(**operation: Any) -> None:
        answer = await directory.patch(path, operation)
        assert answer.status_code == 204, answer.text

    await send(op="Add", path="members", value=[{"value": each} for each in people])
    await send(op="Add", path="members", value=[{"$ref": None, "value": people[0]}])
    assert await members_of(directory, path) == set(people)
    # With a value, as Entra takes members out, and with a filter, as its flag for the standard does.
    await send(op="Remove", path="members", value=[{"$ref": None, "value": people[0]}])
    assert await members_of(directory, path) == set(people[1:])
    await send(op="remove", path=f'members[value eq "{people[1]}"]')
    assert await members_of(directory, path) == {people[2]}
    await send(op="Replace", path="displayName", value="Sales and more")
    assert (await directory.read(path))["displayName"] == "Sales and more"
    assert (await directory.ask("DELETE", path)).status_code == 204


async def test_okta_provisions_updates_and_deactivates_a_person(acme: TenantHandle, directory: Directory) -> None:
    found = await directory.read("/Users", filter='userName eq "bob@people.example"', startIndex=1, count=100)
    assert found["totalResults"] == 0
    sent = {
        "schemas": [USER],
        "userName": "bob@people.example",
        "name": {"givenName": "Bob", "familyName": "Roy"},
        "emails": [{"primary": True, "value": "bob@people.example", "type": "work"}],
        "displayName": "Bob Roy",
        "locale": "en-US",
        "externalId": "00ujl29u0le5T6Aj10h7",
        "groups": [],
        "password": "1mz050nq",
        "active": True,
    }
    made = await directory.ask("POST", "/Users", sent)
    assert made.status_code == 201, made.text
    user_id = made.json()["id"]
    login = {"tenant": acme.slug, "email": "bob@people.example", "password": "1mz050nq"}
    assert (await acme.world.http.post("/api/auth/login", json=login)).status_code == 401
    # An update is a PUT of what it read, with its changes.
    current = await directory.read(f"/Users/{user_id}")
    current["name"]["familyName"] = "Royce"
    put = await directory.ask("PUT", f"/Users/{user_id}", {**current, "displayName": "Bob Royce"})
    assert put.status_code == 200, put.text
    assert (put.json()["displayName"], put.json()["roles"]) == ("Bob Royce", [{"value": "member"}])
    off = await directory.patch(f"/Users/{user_id}", {"op": "replace", "value": {"active": False}})
    assert off.status_code == 204
    assert (await acme.get(f"/api/users/{user_id}")).json()["isActive"] is False
    on = await directory.ask("PUT", f"/Users/{user_id}", {**put.json(), "active": True})
    assert on.json()["active"] is True


async def test_okta_pushes_a_group(directory: Directory) -> None:
    people = [(await directory.user(f"user-{number}"))["id"] for number in range(2)]
    made = await directory.group("Push", people[0])
    path = f"/Groups/{made['id']}"
    # A rename comes with the group's own id, which stays what it is.
    renamed = await directory.patch(
        path, {"op": "replace", "value": {"id": made["id"], "displayName": "Pushed", "schemas": [GROUP]}}
    )
    assert renamed.status_code == 204, renamed.text
    swapped = await directory.patch(
        path,
        {"op": "remove", "path": f'members[value eq "{people[0]}"]'},
        {"op": "add", "path": "members", "value": [{"value": people[1], "display": "user-1@people.example"}]},
    )
    assert swapped.status_code == 204, swapped.text
    assert await members_of(directory, path) == {people[1]}
    all_of_them = await directory.patch(
        path, {"op": "replace", "path": "members", "value": [{"value": each} for each in people]}
    )
    assert all_of_them.status_code == 204
    assert await members_of(directory, path) == set(people)
    other_id = await directory.patch(path, {"op": "replace", "value": {"id": people[0], "displayName": "x"}})
    assert error_of(other_id) == (400, "mutability")
    assert (await directory.read(path))["displayName"] == "Pushed"
