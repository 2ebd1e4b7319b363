"""API keys of users: what they open, what they never open, and when they end."""

from __future__ import annotations

import datetime
import hashlib
import secrets
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from tenantry.domain.identity.api_keys.jobs import forget_ended_api_keys
from tenantry.domain.identity.api_keys.last_use import LastUses
from tenantry.domain.identity.api_keys.service import MOST_API_KEYS
from tenantry.domain.organization.jobs import announce_export
from tenantry.features import JOBS, SCHEDULES
from tenantry.jobs.testing import JobBox
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.database import Database
from tests.domain.machines import Machine, change_row, make_key, read_row
from tests.domain.statements import recorded_statements
from tests.world import Caller, TenantHandle, World


def _ago(**span: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(**span)


async def _events(tenant: TenantHandle, subject: object) -> list[tuple[str, str]]:
    found = await tenant.get("/api/audit", params={"subject": str(subject)})
    assert found.status_code == 200, found.text
    return [(item["name"], item["actor"]) for item in reversed(found.json()["items"])]


async def test_a_key_is_shown_once_and_kept_as_a_digest(acme: TenantHandle) -> None:
    made = await acme.post("/api/api-keys", json={"name": "Report", "scopes": ["teams:read", "teams:read"]})
    assert made.status_code == 201, made.text
    key = made.json()["key"]
    kind, tenant, secret = key.split("_")
    assert (kind, tenant, len(secret)) == ("key", acme.tenant_id.hex, 64)
    assert (made.json()["hint"], made.json()["scopes"]) == (key[-4:], ["teams:read"])
    assert (made.json()["userId"], made.json()["serviceAccountId"]) == (str(acme.id), None)
    for path in ("/api/api-keys", f"/api/api-keys/{made.json()['id']}", "/api/organization/api-keys"):
        answer = await acme.get(path)
        assert answer.status_code == 200
        assert made.json()["id"] in answer.text
        assert secret not in answer.text
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        [row] = await transaction.connection.fetch("SELECT * FROM api_key")
    assert row["digest"] == hashlib.sha256(key.encode()).digest()
    assert secret not in repr(tuple(row.values()))


async def test_a_key_may_do_what_its_scopes_and_its_owners_roles_both_permit(acme: TenantHandle) -> None:
    bob = await acme.add_user("bob", "member")
    machine = await make_key(bob, "teams:read", "teams:write")
    made = await machine.post("/api/teams", json={"name": "Robots"})
    assert made.status_code == 201, made.text
    assert (await machine.get("/api/users")).status_code == 403
    me = await machine.get("/api/users/me")
    assert me.json()["id"] == str(bob.id)
    assert me.json()["permissions"] == ["roles:read", "teams:read", "teams:write"]
    # Its owner may write no teams any more: neither may the key, with its next request.
    assert (await acme.patch(f"/api/users/{bob.id}", json={"roles": ["viewer"]})).status_code == 200
    assert (await machine.post("/api/teams", json={"name": "Robots"})).status_code == 403
    assert (await machine.get("/api/teams")).status_code == 200


async def test_nobody_gives_a_key_what_they_do_not_have(acme: TenantHandle) -> None:
    bob = await acme.add_user("bob", "member")
    refused = await bob.post("/api/api-keys", json={"name": "x", "scopes": ["teams:read", "users:write"]})
    assert (refused.status_code, refused.json()["permission"]) == (403, "users:write")
    unknown = await bob.post("/api/api-keys", json={"name": "x", "scopes": ["teams:read", "moon:fly"]})
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (422, "scopes[1]")
    assert (await bob.get("/api/api-keys")).json()["total"] == 0


async def test_an_owners_key_is_no_owner(acme: TenantHandle) -> None:
    """What only owners may do is no permission, so no scope can say that it was meant."""
    ann = await acme.add_user("ann", "member")
    permissions = (await acme.get("/api/users/me")).json()["permissions"]
    machine = await make_key(acme, *permissions)
    assert (await machine.patch(f"/api/users/{ann.id}", json={"name": "Ann"})).status_code == 200
    for path, body in ((f"/api/users/{ann.id}", {"roles": ["owner"]}), (f"/api/users/{acme.id}", {"isActive": False})):
        answer = await machine.patch(path, json=body)
        assert answer.status_code == 403, answer.text


async def test_a_key_that_may_only_read_takes_not_even_its_own_user_out_of_a_team(acme: TenantHandle) -> None:
    bob = await acme.add_user("bob", "member")
    team = await acme.add_team()
    path = f"/api/teams/{team['id']}/members"
    assert (await acme.post(path, json={"userId": str(bob.id), "role": "member"})).status_code == 201
    reader, writer = await make_key(bob, "teams:read"), await make_key(bob, "teams:read", "teams:write")
    refused = await reader.delete(f"{path}/{bob.id}")
    assert (refused.status_code, refused.json()["permission"]) == (403, "teams:write")
    assert (await writer.delete(f"{path}/{bob.id}")).status_code == 204


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/api-keys", None),
        ("POST", "/api/api-keys", {"name": "x", "scopes": []}),
        ("POST", "/api/api-keys/{key}/rotate", {}),
        ("DELETE", "/api/api-keys/{key}", None),
        ("GET", "/api/organization/api-keys", None),
        ("DELETE", "/api/organization/api-keys/{key}", None),
        ("POST", "/api/service-accounts", {"name": "x"}),
        ("GET", "/api/service-accounts", None),
        ("POST", "/api/auth/logout", None),
        ("PATCH", "/api/users/me", {"name": "x"}),
        ("POST", "/api/users", {"email": "eve@example.com", "password": "correct horse battery"}),
    ],
)
async def test_keys_manage_no_credentials(acme: TenantHandle, method: str, path: str, body: Any) -> None:
    permissions = (await acme.get("/api/users/me")).json()["permissions"]
    machine = await make_key(acme, *permissions)
    answer = await machine.request(method, path.format(key=machine.key_id), **({"json": body} if body else {}))
    assert answer.status_code == 403, answer.text
    assert answer.json()["type"] == "/problems/person-required"
    assert await machine.works()


async def test_a_key_of_one_organization_opens_nothing_of_another(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    machine = await make_key(acme, "teams:read")
    theirs = await globex.add_team("Blue")
    assert (await machine.get(f"/api/teams/{theirs['id']}")).status_code == 404
    unknown = await _answer(world, f"key_{acme.tenant_id.hex}_{secrets.token_hex(32)}")
    # Under the other's name it is a key that never was; at the other's host as well.
    assert await _answer(world, f"key_{globex.tenant_id.hex}_{machine.key.rpartition('_')[2]}") == unknown
    assert await _answer(world, f"key_{uuid4().hex}_{machine.key.rpartition('_')[2]}") == unknown
    assert await _answer(world, machine.key, host=f"{globex.slug}.example.com") == unknown
    assert unknown[0] == 401
    assert (await _answer(world, machine.key, host=f"{acme.slug}.example.com"))[0] == 200


async def _answer(world: World, key: str, host: str = "localhost") -> tuple[int, Any, Any]:
    answer = await world.http.get("/api/teams", headers={"Authorization": f"Bearer {key}", "Host": host})
    told = answer.json()
    told.pop("requestId", None)
    told.pop("traceId", None)
    return answer.status_code, told, answer.headers.get("WWW-Authenticate")


async def test_however_a_key_has_ended_the_answer_is_that_of_one_that_never_was(
    world: World, acme: TenantHandle
) -> None:
    unknown = await _answer(world, f"key_{acme.tenant_id.hex}_{secrets.token_hex(32)}")
    expired, revoked = await make_key(acme), await make_key(acme)
    bob = await acme.add_user("bob", "member")
    of_nobody = await make_key(bob)
    await change_row(acme, expired.key_id, expires_at=_ago(seconds=1))
    assert (await acme.delete(f"/api/api-keys/{revoked.key_id}")).status_code == 204
    assert (await acme.patch(f"/api/users/{bob.id}", json={"isActive": False})).status_code == 200
    for machine in (expired, revoked, of_nobody):
        assert await _answer(world, machine.key) == unknown
    for text in ("key_", "key_x", expired.key[:-1], expired.key.upper(), f"{expired.key}\n", f"rt{expired.key[3:]}"):
        answer = await world.http.get("/api/teams", headers={"Authorization": f"Bearer {text.strip()}"})
        assert answer.status_code == 401, text


async def test_a_revoked_key_is_refused_with_the_next_request(acme: TenantHandle) -> None:
    machine = await make_key(acme)
    assert await machine.works()
    for _ in range(2):
        assert (await acme.delete(f"/api/api-keys/{machine.key_id}")).status_code == 204
        assert not await machine.works()
    assert [name for name, _ in await _events(acme, machine.key_id)] == ["api_key.created", "api_key.revoked"]
    again = await acme.post(f"/api/api-keys/{machine.key_id}/rotate", json={})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/api-key-ended")


async def test_keys_of_a_user_who_was_shut_out_stay_revoked(acme: TenantHandle) -> None:
    bob = await acme.add_user("bob", "member")
    machine = await make_key(bob)
    assert (await acme.patch(f"/api/users/{bob.id}", json={"isActive": False})).status_code == 200
    assert not await machine.works()
    assert (await acme.patch(f"/api/users/{bob.id}", json={"isActive": True})).status_code == 200
    assert not await machine.works()
    created, revoked = await _events(acme, machine.key_id)
    assert created == ("api_key.created", f"user:{bob.id}")
    assert revoked == ("api_key.revoked", f"user:{acme.id}")


async def test_a_suspended_organizations_keys_are_refused_as_its_tokens_are(world: World, acme: TenantHandle) -> None:
    machine = await make_key(acme)
    suspended = await world.operator.post(f"/platform/tenants/{acme.slug}/suspend", json={"reason": "unpaid"})
    assert suspended.status_code == 200, suspended.text
    await world.app.state.registry.refresh()
    answer = await machine.get("/api/teams")
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/tenant-suspended")
    resumed = await world.operator.post(f"/platform/tenants/{acme.slug}/resume", json={})
    assert resumed.status_code == 200, resumed.text
    await world.app.state.registry.refresh()
    assert await machine.works()


async def _rotate(caller: Caller, machine: Machine, **body: Any) -> Machine:
    answer = await caller.post(f"/api/api-keys/{machine.key_id}/rotate", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["hint"] == answer.json()["key"][-4:]
    assert (answer.json()["previousUntil"] is None) == (body.get("overlap") == 0)
    return Machine(caller.http, answer.json()["key"], key_id=machine.key_id)


async def test_after_a_rotation_the_key_of_before_is_good_for_a_while(acme: TenantHandle) -> None:
    first = await make_key(acme)
    second = await _rotate(acme, first)
    assert await first.works()
    assert await second.works()
    row = await read_row(acme, first.key_id)
    assert row is not None
    assert row.previous_until is not None
    assert datetime.timedelta(hours=23) < row.previous_until - datetime.datetime.now(datetime.UTC)
    await change_row(acme, first.key_id, previous_until=_ago(seconds=1))
    assert not await first.works()
    assert await second.works()
    # Of three keys the first is never good, whatever overlap there was.
    third = await _rotate(acme, second, overlap=600)
    assert [await each.works() for each in (first, second, third)] == [False, True, True]
    # What revokes the key ends both.
    assert (await acme.delete(f"/api/api-keys/{first.key_id}")).status_code == 204
    assert [await each.works() for each in (first, second, third)] == [False, False, False]


async def test_a_rotation_without_overlap_ends_the_old_key_at_once(acme: TenantHandle) -> None:
    first = await make_key(acme)
    second = await _rotate(acme, first, overlap=0)
    assert [await each.works() for each in (first, second)] == [False, True]
    assert [name for name, _ in await _events(acme, first.key_id)] == ["api_key.created", "api_key.rotated"]


async def test_a_key_expires_when_it_was_said_to_and_within_five_years(acme: TenantHandle) -> None:
    for expires_at in (_ago(seconds=1), _ago(days=-5 * 366 - 1)):
        body = {"name": "x", "scopes": [], "expiresAt": expires_at.isoformat()}
        refused = await acme.post("/api/api-keys", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "expiresAt")
    machine = await make_key(acme, expiresAt=_ago(hours=-1).isoformat())
    assert await machine.works()
    await change_row(acme, machine.key_id, expires_at=_ago(seconds=0))
    assert not await machine.works()


async def test_there_is_an_end_to_how_many_good_keys_somebody_has(acme: TenantHandle) -> None:
    machines = [await make_key(acme) for _ in range(MOST_API_KEYS)]
    refused = await acme.post("/api/api-keys", json={"name": "one more", "scopes": []})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/too-many-api-keys")
    assert refused.json()["allowed"] == MOST_API_KEYS
    assert (await acme.delete(f"/api/api-keys/{machines[0].key_id}")).status_code == 204
    await make_key(acme)


async def test_ones_own_keys_are_nobody_elses_but_who_manages_all_sees_and_revokes_them(acme: TenantHandle) -> None:
    bob, ann = await acme.add_user("bob", "member"), await acme.add_user("ann", "admin")
    machine = await make_key(bob)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        # Not even to owners at this address: whoever rotated another's key would have it.
        answer = await acme.request(
            method, f"/api/api-keys/{machine.key_id}{path}", **({"json": {}} if method == "POST" else {})
        )
        assert answer.status_code == 404, answer.text
    assert (await acme.get("/api/api-keys")).json()["total"] == 0
    for path in ("/api/organization/api-keys", f"/api/organization/api-keys/{machine.key_id}"):
        assert (await bob.request("DELETE" if path[-1] != "s" else "GET", path)).status_code == 403
    [seen] = (await ann.get("/api/organization/api-keys")).json()["items"]
    assert (seen["id"], seen["userId"]) == (str(machine.key_id), str(bob.id))
    assert (await ann.delete(f"/api/organization/api-keys/{machine.key_id}")).status_code == 204
    assert not await machine.works()
    assert (await _events(acme, machine.key_id))[-1] == ("api_key.revoked", f"user:{ann.id}")


async def test_a_last_use_is_noted_once_in_five_minutes_and_in_no_transaction_of_a_request(
    world: World, acme: TenantHandle
) -> None:
    machine = await make_key(acme, "teams:write")
    row = await read_row(acme, machine.key_id)
    assert row is not None
    assert row.last_used_at is None
    with recorded_statements(world.database) as statements:
        assert await machine.works()
    assert [each for each in statements if "UPDATE api_key" in each]
    noted = await read_row(acme, machine.key_id)
    assert noted is not None
    assert noted.last_used_at is not None
    assert noted.updated_at == row.updated_at
    with recorded_statements(world.database) as statements:
        assert await machine.works()
        assert (await machine.post("/api/teams", json={"name": "Robots"})).status_code == 201
        assert (await machine.get("/api/users")).status_code == 403
    assert [each for each in statements if "UPDATE api_key" in each] == []
    # Also where the request is refused, after those minutes.
    await change_row(acme, machine.key_id, last_used_at=_ago(minutes=6))
    assert (await machine.get("/api/users")).status_code == 403
    again = await read_row(acme, machine.key_id)
    assert again is not None
    assert again.last_used_at is not None
    assert again.last_used_at > _ago(minutes=1)


async def test_a_key_costs_as_many_round_trips_as_a_token(world: World, acme: TenantHandle) -> None:
    machine = await make_key(acme)
    assert await machine.works()
    counts = []
    for caller in (acme, machine):
        with recorded_statements(world.database) as statements:
            assert (await caller.get("/api/roles")).status_code == 200
        counts.append(len(statements))
    assert counts[0] == counts[1]


async def test_a_key_whose_last_use_cannot_be_noted_is_served_all_the_same(world: World, acme: TenantHandle) -> None:
    machine = await make_key(acme)
    async with world.database.transaction(acme.context.write_scope) as transaction:
        # Somebody is at the row: nobody waits for that.
        await transaction.connection.execute("SELECT id FROM api_key WHERE id = $1 FOR UPDATE", machine.key_id)
        assert await machine.works()
    row = await read_row(acme, machine.key_id)
    assert row is not None
    assert row.last_used_at is None
    assert await machine.works()
    row = await read_row(acme, machine.key_id)
    assert row is not None
    assert row.last_used_at is not None


async def test_a_last_use_that_the_database_refuses_to_note_is_a_line_in_the_log(acme: TenantHandle) -> None:
    machine = await make_key(acme)
    away = Database("postgresql://nobody@127.0.0.1:1/nothing")
    try:
        with capture_logs() as lines:
            await LastUses(away).note(acme.context, machine.key_id)
    finally:
        await away.close()
    [line] = lines
    assert (line["log_level"], line["api_key_id"]) == ("warning", str(machine.key_id))
    assert await machine.works()


async def test_a_job_that_a_machine_has_asked_for_is_its_doing(acme: TenantHandle) -> None:
    machine = await make_key(acme, "organization:export")
    made = await machine.post("/api/organization/exports")
    assert made.status_code == 202, made.text
    box = JobBox(acme.world.database, control_scope(ScopeTimes(), read_only=False), JOBS)
    [told] = [entry.meta for entry in await box.enqueued(acme.context, announce_export)]
    assert told["api_key_id"] == str(machine.key_id)
    assert "user_id" not in told


async def test_the_trail_names_the_key_and_not_its_owner(acme: TenantHandle) -> None:
    machine = await make_key(acme, "teams:write")
    made = await machine.post("/api/teams", json={"name": "Robots"})
    assert made.status_code == 201, made.text
    assert await _events(acme, made.json()["id"]) == [("team.created", f"api_key:{machine.key_id}")]


async def test_keys_that_ended_long_ago_are_forgotten(acme: TenantHandle) -> None:
    good, fresh, revoked, expired = [await make_key(acme) for _ in range(4)]
    await change_row(acme, fresh.key_id, revoked_at=_ago(days=89))
    await change_row(acme, revoked.key_id, revoked_at=_ago(days=91), expires_at=_ago(days=-1))
    await change_row(acme, expired.key_id, expires_at=_ago(days=91))
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        assert await forget_ended_api_keys(transaction.session, batch=1) == 2
    left = {item["id"] for item in (await acme.get("/api/api-keys")).json()["items"]}
    assert left == {str(good.key_id), str(fresh.key_id)}
    assert [schedule.cron for schedule in SCHEDULES if schedule.job is forget_ended_api_keys] == ["15 3 * * *"]
