from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select, text

from tenantry.domain.team_invitations.jobs import forget_old_team_invitations
from tenantry.domain.team_invitations.models import TeamInvitation
from tenantry.events.models import AuditEvent
from tenantry.features import JOBS
from tenantry.jobs.testing import JobBox
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import scope_times
from tests.world import PASSWORD, Caller, TenantHandle, World

INVALID = "/problems/invitation-invalid"
ENDED = "/problems/team-invitation-ended"


async def _invite(by: Caller, team: dict[str, Any], email: str, **fields: Any) -> dict[str, Any]:
    answer = await by.post(f"/api/teams/{team['id']}/invitations", json={"email": email, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def _accept(world: World, token: str, password: str = PASSWORD, host: str = "localhost") -> httpx.Response:
    return await world.http.post(
        "/api/auth/team-invitations/accept",
        json={"token": token, "password": password, "name": "Ann"},
        headers={"Host": host},
    )


async def _members(tenant: TenantHandle, team: dict[str, Any]) -> dict[str, str]:
    items = (await tenant.get(f"/api/teams/{team['id']}/members")).json()["items"]
    return {member["email"].partition("@")[0]: member["role"] for member in items}


async def _status(tenant: TenantHandle, team: dict[str, Any]) -> list[str]:
    listed = await tenant.get(f"/api/teams/{team['id']}/invitations", params={"sortOrder": "asc"})
    return [each["status"] for each in listed.json()["items"]]


async def _run(tenant: TenantHandle, statement: str) -> None:
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await transaction.session.execute(text(statement))


async def _events(tenant: TenantHandle, *names: str) -> list[AuditEvent]:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        found = await transaction.session.scalars(
            select(AuditEvent).where(AuditEvent.name.in_(names)).order_by(AuditEvent.id)
        )
        return list(found)


# Users of the organization.


async def test_a_user_is_asked_and_joins(acme: TenantHandle, globex: TenantHandle) -> None:
    team, ann = await acme.add_team("Red"), await acme.add_user("ann", "viewer")
    stranger = await globex.add_user("ann", "viewer")
    made = await _invite(acme, team, f"Ann@{acme.slug.upper()}.example", role="admin")
    assert (made["status"], made["role"], made["organizationRole"], made["token"]) == ("pending", "admin", None, None)
    assert (made["userId"], made["email"]) == (str(ann.id), f"ann@{acme.slug}.example")
    assert made["team"] == {"id": team["id"], "slug": "red", "name": "Red"}
    assert made["invitedBy"]["id"] == str(acme.id)
    [mine] = (await ann.get("/api/team-invitations")).json()["items"]
    assert mine == {name: value for name, value in made.items() if name != "token"}
    # Nobody joins by being asked, and nobody answers for another.
    assert await _members(acme, team) == {"owner": "owner"}
    path = f"/api/team-invitations/{made['id']}"
    for other in (acme, stranger, globex):
        for verb in ("accept", "decline"):
            assert (await other.post(f"{path}/{verb}")).status_code == 404
    joined = await ann.post(f"{path}/accept")
    assert (joined.status_code, joined.json()["role"], joined.json()["userId"]) == (200, "admin", str(ann.id))
    assert await _members(acme, team) == {"owner": "owner", "ann": "admin"}
    assert (await ann.get("/api/team-invitations")).json()["total"] == 0
    assert await _status(acme, team) == ["accepted"]
    again = await ann.post(f"{path}/accept")
    assert (again.status_code, again.json()["type"], again.json()["state"]) == (409, ENDED, "accepted")
    names = ("team_invitation.created", "team.member_added", "team_invitation.accepted")
    events = [(event.name, event.actor) for event in await _events(acme, *names)]
    assert events == [(names[0], f"user:{acme.id}"), (names[1], f"user:{ann.id}"), (names[2], f"user:{ann.id}")]
    assert (await globex.get("/api/team-invitations")).json()["total"] == 0


async def test_a_user_declines_and_may_be_asked_again(acme: TenantHandle) -> None:
    team, ann = await acme.add_team("Red"), await acme.add_user("ann", "member")
    first = await _invite(acme, team, f"ann@{acme.slug}.example")
    twice = await acme.post(f"/api/teams/{team['id']}/invitations", json={"email": f"ann@{acme.slug}.example"})
    assert twice.status_code == 409
    assert twice.json()["detail"] == "There is an open invitation for this address already; send it again."
    assert (await ann.post(f"/api/team-invitations/{first['id']}/decline")).status_code == 204
    refused = await ann.post(f"/api/team-invitations/{first['id']}/accept")
    assert (refused.status_code, refused.json()["state"]) == (409, "declined")
    second = await _invite(acme, team, f"ann@{acme.slug}.example")
    assert (await ann.post(f"/api/team-invitations/{second['id']}/accept")).status_code == 200
    in_it = await acme.post(f"/api/teams/{team['id']}/invitations", json={"email": f"ann@{acme.slug}.example"})
    assert (in_it.status_code, in_it.json()["detail"]) == (409, "The user is in the team already.")
    assert await _status(acme, team) == ["declined", "accepted"]


async def test_of_two_who_ask_the_same_person_at_once_one_does(acme: TenantHandle) -> None:
    team = await acme.add_team("Red")
    path = f"/api/teams/{team['id']}/invitations"
    answers = await asyncio.gather(*(acme.post(path, json={"email": "new@people.example"}) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    assert await _status(acme, team) == ["pending"]


async def test_who_is_asked_must_be_able_to_come(acme: TenantHandle) -> None:
    team, gone = await acme.add_team("Red"), await acme.add_user("gone", "member")
    await acme.add_user("ann", "member")
    await acme.patch(f"/api/users/{gone.id}", json={"isActive": False})
    path = f"/api/teams/{team['id']}/invitations"
    for body, field in (
        ({"email": f"gone@{acme.slug}.example"}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": f"ann@{acme.slug}.example", "organizationRole": "admin"}, "organizationRole"),
        ({"email": "new@people.example", "organizationRole": "captain"}, "organizationRole"),
        ({"email": "new@people.example", "role": "captain"}, "role"),
    ):
        answer = await acme.post(path, json=body)
        assert answer.status_code == 422, body
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert await _status(acme, team) == []


async def test_an_answer_and_its_being_taken_back_at_once_are_one_or_the_other(acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    for number in range(4):
        team = await acme.add_team(f"Red {number}")
        path = f"/api/team-invitations/{(await _invite(acme, team, f'ann@{acme.slug}.example'))['id']}"
        answered, revoked = await asyncio.gather(ann.post(f"{path}/accept"), acme.delete(path))
        assert (answered.status_code, revoked.status_code) in {(200, 409), (409, 204)}
        joined = answered.status_code == 200
        assert ("ann" in await _members(acme, team)) is joined
        assert await _status(acme, team) == ["accepted" if joined else "revoked"]


# People who are nobody yet.


async def test_somebody_new_lands_in_the_organization_and_in_the_team(world: World, acme: TenantHandle) -> None:
    team = await acme.add_team("Red")
    made = await _invite(acme, team, "Ann@People.example", role="admin", organizationRole="viewer")
    assert (made["email"], made["userId"], made["organizationRole"]) == ("ann@people.example", None, "viewer")
    # Until they answer there is nobody.
    assert (await acme.get("/api/users", params={"search": "ann@"})).json()["total"] == 0
    answer = await _accept(world, made["token"])
    assert answer.status_code == 200, answer.text
    me = Caller(world.http, answer.json()["accessToken"])
    about = (await me.get("/api/users/me")).json()
    assert (about["name"], about["isVerified"]) == ("Ann", False)
    assert [role["slug"] for role in about["roles"]] == ["viewer"]
    assert [(each["slug"], each["role"]) for each in about["teams"]] == [("red", "admin")]
    await world.log_in(acme.slug, "ann@people.example")
    assert await _status(acme, team) == ["accepted"]
    names = ("user.created", "team.member_added", "team_invitation.accepted", "session.opened")
    events = [event for event in await _events(acme, *names) if event.actor == f"user:{about['id']}"]
    assert [event.name for event in events][:4] == list(names)
    again = await _accept(world, made["token"], "another good password")
    assert (again.status_code, again.json()["type"]) == (400, INVALID)


async def test_of_two_who_accept_at_once_one_gets_in(world: World, acme: TenantHandle) -> None:
    team = await acme.add_team("Red")
    made = await _invite(acme, team, "ann@people.example")
    answers = await asyncio.gather(*(_accept(world, made["token"]) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    assert await _members(acme, team) == {"owner": "owner", "ann": "member"}


async def test_a_refused_password_leaves_the_invitation_good(world: World, acme: TenantHandle) -> None:
    made = await _invite(acme, await acme.add_team("Red"), "ann@people.example")
    for weak in ("short", "ann@people.example"):
        refused = await _accept(world, made["token"], weak)
        assert refused.status_code == 422
        assert [error["field"] for error in refused.json()["errors"]] == ["password"]
    assert (await _accept(world, made["token"])).status_code == 200


async def test_a_credential_that_is_none_is_like_one_that_has_ended(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    team = await acme.add_team("Red")
    made = [await _invite(acme, team, f"{name}@people.example") for name in ("expired", "revoked", "declined", "host")]
    expired, revoked, declined, elsewhere = (each["token"] for each in made)
    await _run(acme, "UPDATE team_invitation SET expires_at = now() - interval '1 s' WHERE email LIKE 'expired@%'")
    assert (await acme.delete(f"/api/team-invitations/{made[1]['id']}")).status_code == 204
    path = "/api/auth/team-invitations/decline"
    assert (await world.http.post(path, json={"token": declined})).status_code == 204
    assert (await world.http.post(path, json={"token": declined})).status_code == 400
    forged = elsewhere.replace(acme.tenant_id.hex, globex.tenant_id.hex)
    for token in (
        expired,
        revoked,
        declined,
        forged,
        "garbage",
        elsewhere.replace("tinv_", "inv_"),
        f"tinv_{'0' * 32}",
    ):
        answer = await _accept(world, token)
        assert (answer.status_code, answer.json()["type"]) == (400, INVALID), token
    refused = await _accept(world, elsewhere, host=f"{globex.slug}.example.com")
    assert (refused.status_code, refused.json()["type"]) == (400, INVALID)
    other_kind = await world.http.post("/api/auth/invitations/accept", json={"token": elsewhere, "password": PASSWORD})
    assert (other_kind.status_code, other_kind.json()["type"]) == (400, INVALID)
    assert (await _accept(world, elsewhere, host=f"{acme.slug}.example.com")).status_code == 200
    assert await _status(acme, team) == ["expired", "revoked", "declined", "accepted"]


async def test_a_renewed_invitation_has_another_credential(world: World, acme: TenantHandle) -> None:
    team = await acme.add_team("Red")
    made = await _invite(acme, team, "ann@people.example", role="admin")
    await _run(acme, "UPDATE team_invitation SET expires_at = now() - interval '1 s'")
    assert await _status(acme, team) == ["expired"]
    renewed = await acme.post(f"/api/team-invitations/{made['id']}/resend")
    assert renewed.status_code == 200
    body = renewed.json()
    assert (body["id"], body["status"], body["role"]) == (made["id"], "pending", "admin")
    assert body["token"] != made["token"]
    assert body["expiresAt"] > made["expiresAt"]
    assert (await _accept(world, made["token"])).status_code == 400
    assert (await _accept(world, body["token"])).status_code == 200
    over = await acme.post(f"/api/team-invitations/{made['id']}/resend")
    assert (over.status_code, over.json()["type"], over.json()["state"]) == (409, ENDED, "accepted")
    assert (await acme.delete(f"/api/team-invitations/{made['id']}")).status_code == 409


async def test_an_expired_invitation_makes_room_for_another(world: World, acme: TenantHandle) -> None:
    team = await acme.add_team("Red")
    first = await _invite(acme, team, "ann@people.example")
    await _run(acme, "UPDATE team_invitation SET expires_at = now() - interval '1 s'")
    second = await _invite(acme, team, "ann@people.example")
    assert (await _accept(world, first["token"])).status_code == 400
    assert (await _accept(world, second["token"])).status_code == 200
    assert await _status(acme, team) == ["expired", "accepted"]


async def test_an_address_that_got_an_account_meanwhile_is_asked_as_a_user(world: World, acme: TenantHandle) -> None:
    team = await acme.add_team("Red")
    made = await _invite(acme, team, f"ann@{acme.slug}.example", role="owner")
    ann = await acme.add_user("ann", "member")
    # Whoever made the account must not thereby be the one who was asked.
    assert (await ann.post(f"/api/team-invitations/{made['id']}/accept")).status_code == 404
    refused = await _accept(world, made["token"])
    assert (refused.status_code, refused.json()["detail"]) == (409, "This e-mail address has an account already.")
    renewed = (await acme.post(f"/api/team-invitations/{made['id']}/resend")).json()
    assert (renewed["userId"], renewed["token"], renewed["organizationRole"]) == (str(ann.id), None, None)
    assert (await ann.post(f"/api/team-invitations/{made['id']}/accept")).json()["role"] == "owner"
    assert (await _accept(world, made["token"])).status_code == 400


async def test_a_credential_is_stored_as_a_digest(acme: TenantHandle) -> None:
    team = await acme.add_team("Red")
    made = await _invite(acme, team, "ann@people.example")
    secret = made["token"].rpartition("_")[2]
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        rows = await transaction.connection.fetch("SELECT * FROM team_invitation WHERE $1", True)
    assert len(rows) == 1
    assert not any(bytes.fromhex(secret) == value for value in rows[0].values())
    listed = await acme.get(f"/api/teams/{team['id']}/invitations")
    assert secret not in listed.text
    assert "token" not in listed.json()["items"][0]


# Who may ask whom.


async def test_who_may_not_add_people_asks_only_users(acme: TenantHandle) -> None:
    await acme.add_user("ann", "viewer")
    captain = await acme.add_user("captain", "member")
    team = (await captain.post("/api/teams", json={"name": "Captain's"})).json()
    assert (await _invite(captain, team, f"ann@{acme.slug}.example"))["userId"]
    refused = await captain.post(f"/api/teams/{team['id']}/invitations", json={"email": "new@people.example"})
    assert (refused.status_code, refused.json()["permission"]) == (403, "users:write")
    assert len(await _status(acme, team)) == 1


async def test_nobody_is_asked_in_with_more_than_the_asker_may_do(world: World, acme: TenantHandle) -> None:
    for slug, permissions in (
        ("scout", ["users:write", "teams:read", "teams:write"]),
        ("auditor", ["audit:read"]),
    ):
        body = {"name": slug.title(), "slug": slug, "permissions": permissions}
        assert (await acme.post("/api/roles", json=body)).status_code == 201
    scout, admin = await acme.add_user("scout", "scout"), await acme.add_user("admin", "admin")
    team = (await scout.post("/api/teams", json={"name": "Scouts"})).json()
    path = f"/api/teams/{team['id']}/invitations"
    for role in ("owner", "admin", "member", "auditor"):
        refused = await scout.post(path, json={"email": "new@people.example", "organizationRole": role})
        assert refused.status_code == 403, role
    # The default is a role like any other.
    assert (await scout.post(path, json={"email": "new@people.example"})).status_code == 403
    assert (
        await admin.post(path, json={"email": "new@people.example", "organizationRole": "owner"})
    ).status_code == 403
    made = await _invite(scout, team, "new@people.example", organizationRole="scout")
    assert (await _accept(world, made["token"])).status_code == 200
    # Neither by renewing what somebody else has made.
    above = await _invite(acme, team, "boss@people.example", organizationRole="admin")
    assert (await scout.post(f"/api/team-invitations/{above['id']}/resend")).status_code == 403
    assert (await _accept(world, above["token"])).status_code == 200


async def test_only_those_who_run_a_team_ask_people_into_it(acme: TenantHandle) -> None:
    team = await acme.add_team("Red")
    member, plain, deputy = [await acme.add_user(name, "member") for name in ("outside", "plain", "deputy")]
    await acme.post(f"/api/teams/{team['id']}/members", json={"userId": str(plain.id)})
    await acme.post(f"/api/teams/{team['id']}/members", json={"userId": str(deputy.id), "role": "admin"})
    made = await _invite(acme, team, f"outside@{acme.slug}.example")
    path = f"/api/teams/{team['id']}/invitations"
    for caller in (member, plain):
        for answer in (
            await caller.get(path),
            await caller.post(path, json={"email": f"plain@{acme.slug}.example"}),
            await caller.post(f"/api/team-invitations/{made['id']}/resend"),
            await caller.delete(f"/api/team-invitations/{made['id']}"),
        ):
            assert answer.status_code == 403
    assert (await deputy.get(path)).json()["total"] == 1
    assert (await deputy.post(f"/api/team-invitations/{made['id']}/resend")).status_code == 200
    assert (await deputy.delete(f"/api/team-invitations/{made['id']}")).status_code == 204
    # An administrator of a team makes no owner of it, by an invitation no more than otherwise.
    body = {"email": f"outside@{acme.slug}.example", "role": "owner"}
    assert (await deputy.post(path, json=body)).status_code == 403
    as_owner = await _invite(acme, team, **body)
    assert (await deputy.post(f"/api/team-invitations/{as_owner['id']}/resend")).status_code == 403


async def test_what_somebody_asked_who_has_left_is_void(world: World, acme: TenantHandle) -> None:
    team, ann = await acme.add_team("Red"), await acme.add_user("ann", "member")
    admin = await acme.add_user("admin", "admin")
    for_user = await _invite(admin, team, f"ann@{acme.slug}.example")
    for_nobody = await _invite(admin, team, "new@people.example")
    await acme.patch(f"/api/users/{admin.id}", json={"isActive": False})
    refused = await ann.post(f"/api/team-invitations/{for_user['id']}/accept")
    assert (refused.status_code, refused.json()["type"]) == (409, ENDED)
    assert (await _accept(world, for_nobody["token"])).status_code == 400
    # Somebody else can vouch for it.
    renewed = (await acme.post(f"/api/team-invitations/{for_user['id']}/resend")).json()
    assert renewed["invitedBy"]["id"] == str(acme.id)
    assert (await ann.post(f"/api/team-invitations/{for_user['id']}/accept")).status_code == 200


async def test_what_somebody_asked_who_may_not_any_more_is_void(world: World, acme: TenantHandle) -> None:
    team, ann = await acme.add_team("Red"), await acme.add_user("ann", "member")
    admin, deputy = await acme.add_user("admin", "admin"), await acme.add_user("deputy", "member")
    place = f"/api/teams/{team['id']}/members"
    await acme.post(place, json={"userId": str(deputy.id), "role": "owner"})
    by_deputy = await _invite(deputy, team, f"ann@{acme.slug}.example", role="owner")
    by_admin = await _invite(admin, team, "new@people.example", organizationRole="admin")
    path = f"/api/team-invitations/{by_deputy['id']}/accept"
    # Who administers the team makes no owner of it, and who is out of it makes nobody anything.
    await acme.patch(f"{place}/{deputy.id}", json={"role": "admin"})
    assert (await ann.post(path)).status_code == 409
    await acme.delete(f"{place}/{deputy.id}")
    assert (await ann.post(path)).json()["type"] == ENDED
    for role in ("member", "viewer"):
        await acme.patch(f"/api/users/{admin.id}", json={"roles": [role]})
        refused = await _accept(world, by_admin["token"])
        assert (refused.status_code, refused.json()["type"]) == (400, INVALID)
    assert (await acme.get("/api/users", params={"search": "new@"})).json()["total"] == 0
    # As it was: with its maker's standing it is good again.
    await acme.patch(f"/api/users/{admin.id}", json={"roles": ["admin"]})
    assert (await _accept(world, by_admin["token"])).status_code == 200
    assert await _members(acme, team) == {"owner": "owner", "new": "member"}


async def test_a_deleted_role_takes_invitations_with_it_and_a_deleted_team_too(
    world: World, acme: TenantHandle
) -> None:
    role = (await acme.post("/api/roles", json={"name": "Scout", "slug": "scout", "permissions": []})).json()
    red, blue = await acme.add_team("Red"), await acme.add_team("Blue")
    by_role = await _invite(acme, red, "one@people.example", organizationRole="scout")
    by_team = await _invite(acme, blue, "two@people.example")
    assert (await acme.delete(f"/api/roles/{role['id']}")).status_code == 204
    assert (await acme.delete(f"/api/teams/{blue['id']}")).status_code == 204
    for made in (by_role, by_team):
        answer = await _accept(world, made["token"])
        assert (answer.status_code, answer.json()["type"]) == (400, INVALID)
    assert await _status(acme, red) == []


@pytest.mark.parametrize("verb", ["POST", "DELETE"])
async def test_an_invitation_of_another_organization_is_not_there(
    acme: TenantHandle, globex: TenantHandle, verb: str
) -> None:
    theirs = await _invite(globex, await globex.add_team("Red"), "ann@people.example")
    for invitation_id in (theirs["id"], uuid4()):
        path = f"/api/team-invitations/{invitation_id}" + ("/resend" if verb == "POST" else "")
        answer = await acme.request(verb, path)
        assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such invitation.")
    [same] = (await globex.get(f"/api/teams/{theirs['team']['id']}/invitations")).json()["items"]
    assert same["status"] == "pending"


async def test_what_has_ended_a_month_ago_is_forgotten(acme: TenantHandle, globex: TenantHandle) -> None:
    team, theirs = await acme.add_team("Red"), await globex.add_team("Red")
    made = [await _invite(acme, team, f"{name}@people.example") for name in ("revoked", "expired", "fresh", "open")]
    kept = await _invite(globex, theirs, "expired@people.example")
    await acme.delete(f"/api/team-invitations/{made[0]['id']}")
    await acme.delete(f"/api/team-invitations/{made[2]['id']}")
    month = "now() - interval '31 days'"
    await _run(acme, f"UPDATE team_invitation SET ended_at = {month} WHERE email LIKE 'revoked@%'")
    await _run(acme, f"UPDATE team_invitation SET expires_at = {month} WHERE email LIKE 'expired@%'")
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        assert await forget_old_team_invitations(transaction.session) == 2
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        left = {each.email for each in await transaction.session.scalars(select(TeamInvitation))}
    assert left == {"fresh@people.example", "open@people.example"}
    assert (await globex.get(f"/api/teams/{theirs['id']}/invitations")).json()["items"][0]["id"] == kept["id"]


async def test_events_of_invitations_hold_ids_and_words(acme: TenantHandle) -> None:
    team = await acme.add_team("Red")
    made = await _invite(acme, team, "ann@people.example", role="admin")
    await acme.post(f"/api/team-invitations/{made['id']}/resend")
    await acme.delete(f"/api/team-invitations/{made['id']}")
    names = ("team_invitation.created", "team_invitation.resent", "team_invitation.revoked")
    events = await _events(acme, *names)
    assert [event.name for event in events] == list(names)
    assert {event.subject for event in events} == {UUID(made["id"])}
    about = {"team_id": team["id"], "role": "admin", "user_id": None}
    assert [event.payload for event in events] == [about, about, {"team_id": team["id"]}]


async def test_who_is_asked_and_who_is_handed_a_team_are_told(world: World, acme: TenantHandle) -> None:
    box = JobBox(world.database, control_scope(scope_times(world.settings), read_only=False), JOBS)
    team = await acme.add_team("Red")
    ann, bob = await acme.add_user("ann", "member"), await acme.add_user("bob", "member")
    made = await _invite(acme, team, f"ann@{acme.slug}.example")
    await _invite(acme, team, "new@people.example")
    await acme.post(f"/api/team-invitations/{made['id']}/resend")
    assert (await ann.post(f"/api/team-invitations/{made['id']}/accept")).status_code == 200
    handed = await acme.post(f"/api/teams/{team['id']}/transfer-ownership", json={"userId": str(ann.id)})
    assert handed.status_code == 200
    await box.drain(acme.context)
    told = {}
    for name, caller in (("ann", ann), ("bob", bob), ("owner", acme)):
        items = (await caller.get("/api/notifications", params={"sortOrder": "asc"})).json()["items"]
        told[name] = [item["kind"] for item in items if not item["kind"].startswith("user.")]
    assert told == {
        "ann": ["team_invitation.created", "team_invitation.resent", "team.ownership_transferred"],
        "bob": [],
        # By their own doing.
        "owner": [],
    }
