"""People, as a directory provisions them: who is let in, who is shut out, and what is out of its reach."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text, update

from tenantry.domain.identity.users.models import User
from tests.domain.machines import make_key
from tests.domain.scim.support import SCIM, USER, Directory, connect, error_of, events_of
from tests.world import PASSWORD, TenantHandle, World

LEAVES = {"op": "replace", "path": "active", "value": False}
RETURNS = {"op": "replace", "path": "active", "value": True}


@pytest.fixture
async def acme(world: World) -> TenantHandle:
    return await world.create_tenant("acme")


@pytest.fixture
async def directory(acme: TenantHandle) -> Directory:
    return await connect(acme)


async def id_of(tenant: TenantHandle, email: str) -> str:
    answer = await tenant.get("/api/users", params={"search": email})
    [found] = answer.json()["items"]
    user_id: str = found["id"]
    return user_id


async def test_a_provisioned_user_is_a_member_without_a_password(acme: TenantHandle, directory: Directory) -> None:
    made = await directory.user(
        "Ann",
        externalId="00u1",
        name={"givenName": "Ann", "familyName": "Lee", "formatted": "Ms Ann Lee"},
        emails=[{"value": "ann@elsewhere.example", "primary": True}],
        title="Engineer",
        password="a password of hers",
        phoneNumbers=[{"value": "1"}],
    )
    assert {key: made[key] for key in ("userName", "externalId", "displayName", "active", "roles")} == {
        "userName": "ann@people.example",
        "externalId": "00u1",
        "displayName": "Ann Lee",
        "active": True,
        "roles": [{"value": "member"}],
    }
    assert made["emails"] == [{"value": "ann@people.example", "type": "work", "primary": True}]
    assert made.keys().isdisjoint({"password", "title", "phoneNumbers"})
    assert made["meta"]["location"] == f"http://localhost{SCIM}/Users/{made['id']}"
    account = (await acme.get(f"/api/users/{made['id']}")).json()
    assert (account["email"], account["name"], account["isVerified"]) == ("ann@people.example", "Ann Lee", False)
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        found = await transaction.session.execute(select(User.hashed_password).where(User.id == UUID(made["id"])))
        assert found.scalar_one() is None
    assert await events_of(acme, made["id"]) == [("user.created", f"api_key:{directory.machine.key_id}")]


async def test_a_name_that_is_taken_is_a_conflict(directory: Directory) -> None:
    await directory.user("ann")
    for name in ("ann@people.example", "ANN@People.Example", directory.tenant.owner_email):
        again = await directory.ask("POST", "/Users", {"schemas": [USER], "userName": name, "active": True})
        assert error_of(again) == (409, "uniqueness")
    bob = await directory.user("bob")
    renamed = await directory.patch(
        f"/Users/{bob['id']}", {"op": "replace", "path": "userName", "value": "ann@people.example"}
    )
    assert error_of(renamed) == (409, "uniqueness")
    assert (await directory.read(f"/Users/{bob['id']}"))["userName"] == "bob@people.example"


async def test_who_is_deactivated_is_out_with_the_next_request(acme: TenantHandle, directory: Directory) -> None:
    bob = await acme.add_user("bob", "member")
    assert (await bob.get("/api/users/me")).status_code == 200
    key = await make_key(bob)
    assert (await directory.patch(f"/Users/{bob.id}", LEAVES)).status_code == 204
    assert (await bob.get("/api/users/me")).status_code == 401
    assert not await key.works()
    assert (await directory.read(f"/Users/{bob.id}"))["active"] is False
    assert (await directory.patch(f"/Users/{bob.id}", RETURNS)).status_code == 204
    # The session stays ended: the person logs in again.
    assert (await bob.get("/api/users/me")).status_code == 401
    names = [name for name, _ in await events_of(acme, str(bob.id))]
    assert names == ["user.created", "user.deactivated", "user.activated"]


async def test_deleting_shuts_out_and_hides_and_provisioning_again_lets_in(
    acme: TenantHandle, directory: Directory
) -> None:
    bob = await acme.add_user("bob", "admin")
    team, owned = await acme.add_team("Red"), await bob.post("/api/teams", json={"name": "His own"})
    body = {"userId": str(bob.id), "role": "admin"}
    assert (await acme.post(f"/api/teams/{team['id']}/members", json=body)).status_code == 201
    assert (await directory.ask("DELETE", f"/Users/{bob.id}")).status_code == 204
    assert (await bob.get("/api/users/me")).status_code == 401
    for method, sent in (("GET", None), ("DELETE", None), ("PUT", {"userName": "x@x.example"})):
        assert error_of(await directory.ask(method, f"/Users/{bob.id}", sent)) == (404, None)
    assert error_of(await directory.patch(f"/Users/{bob.id}", RETURNS)) == (404, None)
    email = f"bob@{acme.slug}.example"
    assert await directory.find(f'userName eq "{email}"') == []
    # To the organization the account is there, deactivated, and out of the teams that it did not own.
    account = (await acme.get(f"/api/users/{bob.id}")).json()
    assert account["isActive"] is False
    members = (await acme.get(f"/api/teams/{team['id']}/members")).json()["items"]
    assert str(bob.id) not in {each["userId"] for each in members}
    own = (await acme.get(f"/api/teams/{owned.json()['id']}/members")).json()["items"]
    assert [each["userId"] for each in own] == [str(bob.id)]
    # Who comes back has what the directory says now, and not what they were.
    again = await directory.ask("POST", "/Users", {"schemas": [USER], "userName": email, "active": True})
    assert again.status_code == 201, again.text
    assert (again.json()["id"], again.json()["roles"]) == (str(bob.id), [{"value": "member"}])
    assert await directory.find(f'userName eq "{email}"') == [email]


async def test_who_is_let_in_again_by_people_is_there_again(acme: TenantHandle, directory: Directory) -> None:
    made = await directory.user("ann")
    assert (await directory.ask("DELETE", f"/Users/{made['id']}")).status_code == 204
    assert (await acme.patch(f"/api/users/{made['id']}", json={"isActive": True})).status_code == 200
    assert (await directory.read(f"/Users/{made['id']}"))["active"] is True
    again = await directory.ask("POST", "/Users", {"userName": made["userName"], "active": True})
    assert error_of(again) == (409, "uniqueness")


async def test_the_last_owner_stays_whatever_the_directory_says(acme: TenantHandle, directory: Directory) -> None:
    owner = await id_of(acme, acme.owner_email)
    before = await directory.read(f"/Users/{owner}")
    for answer in (
        await directory.patch(f"/Users/{owner}", LEAVES),
        await directory.ask("DELETE", f"/Users/{owner}"),
        await directory.ask("PUT", f"/Users/{owner}", {"userName": acme.owner_email, "active": False}),
    ):
        assert error_of(answer) == (409, None)
        assert "last active owner" in answer.json()["detail"]
    assert await directory.read(f"/Users/{owner}") == before
    assert (await acme.get("/api/users/me")).status_code == 200
    # With a second one the first can go: that somebody has left counts for owners as well.
    await acme.add_user("second", "owner")
    assert (await directory.patch(f"/Users/{owner}", LEAVES)).status_code == 204
    assert (await acme.get("/api/users/me")).status_code == 401


async def test_a_directory_gives_nobody_more_than_a_member_may_and_its_key(acme: TenantHandle) -> None:
    directory = await connect(acme)
    admin, owner = await acme.add_user("admin", "admin"), await acme.add_user("other", "owner")
    member = await directory.user("ann")

    def given(*slugs: str) -> dict[str, Any]:
        return {"op": "replace", "path": "roles", "value": [{"value": slug} for slug in slugs]}

    rename = {"op": "replace", "path": "userName", "value": "mallory@people.example"}
    refused = [
        await directory.patch(f"/Users/{member['id']}", given("admin")),
        await directory.patch(f"/Users/{member['id']}", given("owner")),
        await directory.patch(f"/Users/{admin.id}", given("member")),
        # By a link to another address whoever has the directory's key would be an administrator.
        await directory.patch(f"/Users/{admin.id}", rename),
        await directory.patch(f"/Users/{owner.id}", rename),
        await directory.ask("POST", "/Users", {"userName": "eve@people.example", "roles": [{"value": "admin"}]}),
        await directory.ask("POST", "/Users", {"userName": "eve@people.example", "roles": [{"value": "owner"}]}),
    ]
    assert [error_of(answer) for answer in refused] == [(403, None)] * len(refused)
    assert await directory.find('userName sw "eve@"') == await directory.find('userName sw "mallory@"') == []
    # It shuts an administrator out, and does not let them in again.
    assert (await directory.patch(f"/Users/{admin.id}", LEAVES)).status_code == 204
    assert error_of(await directory.patch(f"/Users/{admin.id}", RETURNS)) == (403, None)
    # What gives nobody anything it may do to everybody.
    named = {"op": "replace", "value": {"displayName": "Owen", "externalId": "00u7"}}
    assert (await directory.patch(f"/Users/{owner.id}", named)).status_code == 204
    assert (await directory.read(f"/Users/{owner.id}"))["displayName"] == "Owen"
    assert (await directory.patch(f"/Users/{member['id']}", given("viewer"))).status_code == 204
    assert (await directory.read(f"/Users/{member['id']}"))["roles"] == [{"value": "viewer"}]
    unknown = await directory.patch(f"/Users/{member['id']}", given("nobodys"))
    assert error_of(unknown) == (400, "invalidValue")


async def test_a_directory_whose_key_may_what_administrators_may_governs_them(acme: TenantHandle) -> None:
    permissions = (await (await acme.add_user("model", "admin")).get("/api/users/me")).json()["permissions"]
    directory = await connect(acme, *[name for name in permissions if name != "roles:read"])
    ann = await directory.user("ann", roles=[{"value": "admin"}])
    assert ann["roles"] == [{"value": "admin"}]
    assert (await directory.patch(f"/Users/{ann['id']}", LEAVES, RETURNS)).status_code == 204
    owner = await acme.add_user("other", "owner")
    rename = {"op": "replace", "path": "userName", "value": "x@people.example"}
    assert error_of(await directory.patch(f"/Users/{owner.id}", rename)) == (403, None)


async def test_another_address_voids_the_links_that_were_mailed_to_the_one_before(
    acme: TenantHandle, directory: Directory
) -> None:
    bob = await acme.add_user("bob", "member")
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(
            text(
                "INSERT INTO password_reset (id, user_id, digest, expires_at, created_at, updated_at)"
                " VALUES (:id, :user_id, '\\x01', now() + interval '1 hour', now(), now())"
            ),
            {"id": uuid4(), "user_id": bob.id},
        )
        await transaction.session.execute(update(User).where(User.id == bob.id).values(is_verified=True))
    answer = await directory.patch(
        f"/Users/{bob.id}", {"op": "replace", "path": "userName", "value": "Robert@people.example"}
    )
    assert answer.status_code == 204, answer.text
    account = (await acme.get(f"/api/users/{bob.id}")).json()
    assert (account["email"], account["isVerified"]) == ("robert@people.example", False)
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        open_links = await transaction.session.scalar(text("SELECT count(*) FROM password_reset WHERE used_at IS NULL"))
    assert open_links == 0
    assert ("user.updated", f"api_key:{directory.machine.key_id}") in await events_of(acme, str(bob.id))


async def test_put_sets_what_is_sent_and_leaves_roles_and_active_to_who_speaks_of_them(directory: Directory) -> None:
    made = await directory.user(
        "ann", externalId="1", name={"givenName": "Ann", "familyName": "Lee"}, roles=[{"value": "viewer"}]
    )
    assert (await directory.patch(f"/Users/{made['id']}", LEAVES)).status_code == 204
    put = await directory.ask(
        "PUT", f"/Users/{made['id']}", {"userName": "ann@people.example", "name": {"givenName": "Anna"}}
    )
    assert put.status_code == 200, put.text
    found = put.json()
    assert (found["active"], found["roles"], found["displayName"]) == (False, [{"value": "viewer"}], "Anna")
    assert found["name"] == {"givenName": "Anna"}
    assert "externalId" not in found
    emptied = await directory.ask("PUT", f"/Users/{made['id']}", {"userName": "ann@people.example", "roles": []})
    assert "roles" not in emptied.json()


async def test_a_change_that_changes_nothing_is_no_event_and_no_new_version(
    acme: TenantHandle, directory: Directory
) -> None:
    made = await directory.user("ann", displayName="Ann")
    before = await events_of(acme, made["id"])
    for _ in range(2):
        answer = await directory.patch(
            f"/Users/{made['id']}", {"op": "replace", "value": {"displayName": "Ann", "active": True}}
        )
        assert answer.headers["ETag"] == made["meta"]["version"]
    assert await events_of(acme, made["id"]) == before


async def test_versions_keep_two_directories_from_undoing_each_other(directory: Directory) -> None:
    made = await directory.user("ann")
    path, version = f"/Users/{made['id']}", made["meta"]["version"]
    assert version.startswith('W/"')
    unchanged = await directory.ask("GET", path, headers={"If-None-Match": version})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    rename = {"op": "replace", "path": "displayName", "value": "Ann"}
    changed = await directory.patch(path, rename, headers={"If-Match": version})
    assert changed.status_code == 204
    assert changed.headers["ETag"] != version
    late = {"op": "replace", "path": "displayName", "value": "Late"}
    assert error_of(await directory.patch(path, late, headers={"If-Match": version})) == (412, None)
    assert error_of(await directory.ask("DELETE", path, headers={"If-Match": version})) == (412, None)
    put = {"userName": "ann@people.example", "displayName": "Late"}
    assert error_of(await directory.ask("PUT", path, put, headers={"If-Match": version})) == (412, None)
    assert (await directory.read(path))["displayName"] == "Ann"
    assert (await directory.ask("DELETE", path, headers={"If-Match": changed.headers["ETag"]})).status_code == 204


async def test_ids_and_names_of_another_organization_are_those_of_nothing(world: World, directory: Directory) -> None:
    globex = await world.create_tenant("globex")
    theirs = await connect(globex)
    victim = await theirs.user("victim")
    group = await theirs.group("Theirs", victim["id"])
    before = [await theirs.read(path) for path in ("/Users", "/Groups")]
    own = await directory.group("Own")
    add = {"op": "add", "path": "members", "value": [{"value": victim["id"]}]}
    nothing = {**add, "value": [{"value": str(uuid4())}]}
    for path, stranger in ((f"/Users/{victim['id']}", f"/Users/{uuid4()}"), (f"/Groups/{group['id']}", "/Groups/x")):
        for method, body in (("GET", None), ("DELETE", None), ("PUT", {"userName": "a@b.example", "displayName": "x"})):
            answers = [error_of(await directory.ask(method, each, body)) for each in (path, stranger)]
            assert answers == [(404, None)] * 2
        assert error_of(await directory.patch(path, {"op": "remove", "path": "externalId"})) == (404, None)
    assert error_of(await directory.patch(f"/Groups/{own['id']}", add)) == (400, "invalidValue")
    told = [(await directory.patch(f"/Groups/{own['id']}", each)).text for each in (add, nothing)]
    assert told[0] == told[1]
    assert await directory.find('userName eq "victim@people.example"') == []
    # The same name is free here.
    await directory.user("victim")
    assert [await theirs.read(path) for path in ("/Users", "/Groups")] == before


async def test_without_the_permission_or_a_good_key_nothing_is_told(acme: TenantHandle, directory: Directory) -> None:
    powerless = await make_key(acme)
    for caller in (powerless, await acme.add_user("admin", "admin")):
        assert error_of(await caller.get(f"{SCIM}/Users")) == (403, None)
    for header in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
        answer = await acme.world.http.get(f"{SCIM}/ServiceProviderConfig", headers=header)
        assert error_of(answer) == (401, None)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    # An owner may look with a token of their own.
    assert (await acme.get(f"{SCIM}/Users")).status_code == 200
    wanted = {"name": "Stolen", "scopes": ["scim:manage"]}
    admin = await acme.add_user("second-admin", "admin")
    assert (await admin.post("/api/api-keys", json=wanted)).status_code == 403
    assert (await acme.delete(f"/api/organization/api-keys/{directory.machine.key_id}")).status_code == 204
    assert error_of(await directory.ask("GET", "/Users")) == (401, None)


async def test_who_has_logged_in_keeps_their_password_when_the_directory_takes_them_up(
    acme: TenantHandle, directory: Directory
) -> None:
    bob = await acme.add_user("bob", "member")
    linked = await directory.patch(f"/Users/{bob.id}", {"op": "Add", "path": "externalId", "value": "00u2"})
    assert linked.status_code == 204
    login = {"tenant": acme.slug, "email": f"bob@{acme.slug}.example", "password": PASSWORD}
    assert (await acme.world.http.post("/api/auth/login", json=login)).status_code == 200


async def test_who_was_provisioned_is_invited_to_set_a_password(acme: TenantHandle, directory: Directory) -> None:
    ann = await directory.user("ann", displayName="Ann", roles=[{"value": "viewer"}])
    assert await events_of(acme, ann["id"]) == [("user.created", f"api_key:{directory.machine.key_id}")]
    wanted = {"email": "Ann@people.example", "name": "Somebody", "roles": ["admin"]}
    invited = await acme.post("/api/invitations", json=wanted)
    assert (invited.status_code, invited.json()["userId"]) == (201, ann["id"]), invited.text
    now = await directory.read(f"/Users/{ann['id']}")
    assert (now["displayName"], now["roles"]) == ("Ann", [{"value": "viewer"}])
    # Once: the invitation that there is can be sent again.
    assert (await acme.post("/api/invitations", json=wanted)).status_code == 409
