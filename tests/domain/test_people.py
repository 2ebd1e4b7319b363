"""Profiles, and shutting people out and letting them in again."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tenantry.features import JOBS
from tenantry.jobs.testing import JobBox
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import scope_times
from tests.domain.machines import make_key
from tests.domain.test_notification_stream import LONG, _streams, follow, heard
from tests.domain.test_notification_stream import api as api
from tests.world import PASSWORD, Caller, TenantHandle, World


async def deactivate(by: Caller, who: object, **body: Any) -> httpx.Response:
    return await by.post(f"/api/users/{who}/deactivate", **({"json": body} if body else {}))


async def add_member(by: Caller, team: dict[str, Any], who: Caller, role: str = "member") -> None:
    made = await by.post(f"/api/teams/{team['id']}/members", json={"userId": str(who.id), "role": role})
    assert made.status_code == 201, made.text


async def roles_in(tenant: TenantHandle, team: dict[str, Any]) -> dict[str, str]:
    items = (await tenant.get(f"/api/teams/{team['id']}/members")).json()["items"]
    return {member["userId"]: member["role"] for member in items}


async def names_of_events(tenant: TenantHandle) -> list[str]:
    """The newest first."""
    return [each["name"] for each in (await tenant.get("/api/audit", params={"pageSize": 200})).json()["items"]]


# Profiles.


@pytest.fixture(scope="module")
async def kept(world: World) -> TenantHandle:
    """One for all cases: nothing is changed in it."""
    return await world.create_tenant("acme")


async def test_a_profile_has_a_picture_a_language_and_a_time_zone(acme: TenantHandle) -> None:
    wanted = {
        "name": "Ann",
        "avatarUrl": "https://cdn.example/ann.png?size=64",
        "locale": "zh-Hant-TW",
        "timeZone": "America/Argentina/Buenos_Aires",
    }
    ann = await acme.add_user("ann", "member")
    changed = await ann.patch("/api/users/me", json=wanted)
    assert changed.status_code == 200, changed.text
    for answer in (changed, await ann.get("/api/users/me"), await acme.get(f"/api/users/{ann.id}")):
        assert {name: answer.json()[name] for name in wanted} == wanted
    events = (await acme.get("/api/audit", params={"name": "user.updated"})).json()["items"]
    assert events[0]["payload"] == {"fields": ["name", "avatar_url", "locale", "time_zone"]}
    cleared = await acme.patch(f"/api/users/{ann.id}", json={"locale": None, "timeZone": None})
    assert (cleared.json()["locale"], cleared.json()["timeZone"]) == (None, None)
    assert cleared.json()["name"] == "Ann"


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        *(
            ("avatarUrl", bad)
            for bad in (
                "http://cdn.example/ann.png",
                "javascript:alert(1)",
                "https://",
                "https://ann:secret@cdn.example/ann.png",
                "https:///ann.png",
                f"https://cdn.example/{'a' * 500}",
            )
        ),
        *(("locale", bad) for bad in ("", "german", "de_CH", "DE", "de-ch", "de-CH\n")),
        *(("timeZone", bad) for bad in ("", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "europe/nowhere")),
    ],
)
async def test_what_is_no_picture_language_or_zone_is_refused_by_name(kept: TenantHandle, field: str, bad: str) -> None:
    for path in ("/api/users/me", f"/api/users/{kept.id}"):
        answer = await kept.patch(path, json={field: bad})
        assert answer.status_code == 422, bad
        assert answer.json()["errors"][0]["field"] == field
        assert "pattern" not in answer.json()["errors"][0]["message"]


# Shutting out.


async def test_whoever_is_deactivated_is_out_at_once_and_what_they_made_stays(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    ann, theirs = await acme.add_user("ann", "member"), await globex.add_user("ann", "member")
    team = await acme.add_team("Red")
    await add_member(acme, team, ann, "admin")
    await acme.add_user("bob", "member")
    invited = await ann.post(f"/api/teams/{team['id']}/invitations", json={"email": f"bob@{acme.slug}.example"})
    assert invited.status_code == 201, invited.text
    key = await make_key(ann)
    gone = await deactivate(acme, ann.id)
    assert (gone.status_code, gone.json()["isActive"]) == (200, False)
    assert (await ann.get("/api/users/me")).status_code == 401
    assert not await key.works()
    refreshed = await world.http.post("/api/auth/refresh", json={"refreshToken": ann.refresh_token})
    assert refreshed.status_code == 401
    login = {"tenant": acme.slug, "email": f"ann@{acme.slug}.example", "password": PASSWORD}
    assert (await world.http.post("/api/auth/login", json=login)).status_code == 401
    assert (await names_of_events(acme))[:2] == ["api_key.revoked", "user.deactivated"]
    listed = (await acme.get(f"/api/teams/{team['id']}/invitations")).json()["items"]
    assert [(each["id"], each["status"]) for each in listed] == [(invited.json()["id"], "pending")]
    assert (await roles_in(acme, team))[str(ann.id)] == "admin"
    assert (await theirs.get("/api/users/me")).status_code == 200


async def test_whoever_is_let_in_again_logs_in_anew_with_the_roles_they_had(world: World, acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "viewer")
    key = await make_key(ann)
    for _ in range(2):
        assert (await deactivate(acme, ann.id)).status_code == 200
    for _ in range(2):
        back = await acme.post(f"/api/users/{ann.id}/reactivate")
        assert (back.status_code, back.json()["isActive"]) == (200, True)
    assert (await ann.get("/api/users/me")).status_code == 401
    assert not await key.works()
    again = await world.log_in(acme.slug, f"ann@{acme.slug}.example")
    assert [role["slug"] for role in (await again.get("/api/users/me")).json()["roles"]] == ["viewer"]
    names = await names_of_events(acme)
    # Twice is once.
    assert (names.count("user.deactivated"), names.count("user.activated")) == (1, 1)


async def test_the_streams_of_whoever_is_deactivated_end_without_waiting_for_a_sign_of_life(
    api: World, acme: TenantHandle
) -> None:
    _streams(api, keep_alive=LONG)
    ann, bob = await acme.add_user("ann", "member"), await acme.add_user("bob", "member")
    times = scope_times(acme.world.settings)
    box = JobBox(acme.world.database, control_scope(times, read_only=False), JOBS, redis=acme.world.app.state.redis)
    async with follow(api, ann) as hers, follow(api, bob) as his:
        for listener in (hers, his):
            assert (await listener.event()).kind == "ready"
        await heard(api, acme)
        assert (await deactivate(acme, ann.id)).status_code == 200
        await box.drain(acme.context)
        async with asyncio.timeout(LONG / 4):
            assert await hers.rest() == []
        erased = await acme.post(f"/api/users/{bob.id}/erase", json={"email": f"bob@{acme.slug}.example"})
        assert erased.status_code == 204, erased.text
        await box.drain(acme.context)
        async with asyncio.timeout(LONG / 4):
            assert await his.rest() == []


@pytest.mark.parametrize("how", ["deactivate", "patch"])
async def test_the_only_owner_of_a_team_is_not_deactivated_and_the_answer_names_the_teams(
    acme: TenantHandle, how: str
) -> None:
    ann, bob = await acme.add_user("ann", "member"), await acme.add_user("bob", "member")
    red = (await ann.post("/api/teams", json={"name": "Red"})).json()
    blue = (await ann.post("/api/teams", json={"name": "Blue"})).json()
    shared = (await ann.post("/api/teams", json={"name": "Shared"})).json()
    await add_member(ann, shared, bob, "owner")

    async def ask() -> httpx.Response:
        if how == "patch":
            return await acme.patch(f"/api/users/{ann.id}", json={"isActive": False})
        return await deactivate(acme, ann.id)

    refused = await ask()
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/only-team-owner")
    assert refused.json()["teams"] == [{name: team[name] for name in ("id", "slug", "name")} for team in (blue, red)]
    assert (await ann.get("/api/users/me")).status_code == 200
    assert (await ann.delete(f"/api/teams/{blue['id']}")).status_code == 204
    await add_member(ann, red, bob, "owner")
    assert (await ask()).status_code == 200
    # Now it is the other one who cannot go: an owner who is shut out owns nothing.
    assert (await deactivate(acme, bob.id)).status_code == 409


async def test_teams_are_handed_to_a_successor(acme: TenantHandle, globex: TenantHandle) -> None:
    ann, bob, eve = [await acme.add_user(name, "member") for name in ("ann", "bob", "eve")]
    red = (await ann.post("/api/teams", json={"name": "Red"})).json()
    blue = (await ann.post("/api/teams", json={"name": "Blue"})).json()
    shared = (await ann.post("/api/teams", json={"name": "Shared"})).json()
    await add_member(ann, red, bob)
    await add_member(ann, shared, eve, "owner")
    stranger = await globex.add_user("bob", "member")
    assert (await deactivate(acme, eve.id)).status_code == 200
    for wrong in (eve.id, ann.id, stranger.id, uuid4()):
        refused = await deactivate(acme, ann.id, successorId=str(wrong))
        assert refused.status_code == 422, refused.text
        assert refused.json()["errors"][0]["field"] == "successorId"
    assert (await deactivate(acme, ann.id, successorId=str(bob.id))).status_code == 200
    for team in (red, blue, shared):
        assert (await roles_in(acme, team))[str(bob.id)] == "owner"
        assert (await roles_in(acme, team))[str(ann.id)] == "admin"
    moved = (await acme.get("/api/audit", params={"name": "team.ownership_transferred"})).json()["items"]
    assert {each["subject"] for each in moved} == {team["id"] for team in (red, blue, shared)}
    assert {each["payload"]["owner_id"] for each in moved} == {str(bob.id)}


async def test_whoever_may_not_run_teams_gives_none_away(acme: TenantHandle) -> None:
    """Else somebody who only adds people would come by every team."""
    permissions = (await acme.get("/api/users/me")).json()["permissions"]
    role = {"name": "Clerk", "slug": "clerk", "permissions": [name for name in permissions if name != "teams:manage"]}
    assert (await acme.post("/api/roles", json=role)).status_code == 201
    clerk, ann = await acme.add_user("clerk", "clerk"), await acme.add_user("ann", "member")
    red = (await ann.post("/api/teams", json={"name": "Red"})).json()
    address = f"ann@{acme.slug}.example"
    for path, body in (("deactivate", {}), ("erase", {"email": address})):
        refused = await clerk.post(f"/api/users/{ann.id}/{path}", json={**body, "successorId": str(clerk.id)})
        assert (refused.status_code, refused.json()["permission"]) == (403, "teams:manage")
    assert (await roles_in(acme, red)) == {str(ann.id): "owner"}


async def test_of_two_owners_of_a_team_who_are_deactivated_at_once_one_stays(acme: TenantHandle) -> None:
    ann, bob = await acme.add_user("ann", "member"), await acme.add_user("bob", "member")
    for number in range(3):
        team = (await ann.post("/api/teams", json={"name": f"Team {number}"})).json()
        await add_member(ann, team, bob, "owner")
    answers = await asyncio.gather(*(deactivate(acme, who.id) for who in (ann, bob)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_the_last_owner_is_not_deactivated_and_nobody_reaches_above_themselves(acme: TenantHandle) -> None:
    admin = await acme.add_user("admin", "admin")
    refused = await deactivate(acme, acme.id)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/last-owner")
    second = await acme.add_user("second", "owner")
    for path in ("deactivate", "reactivate"):
        assert (await admin.post(f"/api/users/{second.id}/{path}")).status_code == 403
        assert (await admin.post(f"/api/users/{uuid4()}/{path}")).status_code == 404
    assert (await deactivate(second, acme.id)).status_code == 200


async def test_a_user_who_is_out_already_keeps_what_they_own_until_somebody_is_named(acme: TenantHandle) -> None:
    """As after a directory has shut them out, which asks nobody."""
    ann, bob = await acme.add_user("ann", "member"), await acme.add_user("bob", "member")
    red = (await ann.post("/api/teams", json={"name": "Red"})).json()
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(
            text("UPDATE user_account SET is_active = false WHERE id = :id"), {"id": ann.id}
        )
    assert (await deactivate(acme, ann.id)).status_code == 200
    assert await roles_in(acme, red) == {str(ann.id): "owner"}
    assert (await deactivate(acme, ann.id, successorId=str(bob.id))).status_code == 200
    assert await roles_in(acme, red) == {str(ann.id): "admin", str(bob.id): "owner"}
