"""Operators come into an organization by its owners' consent, do what that says, and leave a trail."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import select, text, update

from tenantry.domain.operator_access.models import OperatorAccessGrant, OperatorAccessRequest, OperatorAccessSession
from tenantry.kernel.security import AUDIENCE_OPERATOR_ACCESS, AUDIENCE_TENANT, Tokens
from tenantry.tenancy.scope import Scope
from tests.domain.visitors import Visitor, consent, hire, let_in, trail_of
from tests.platform.support import open_api
from tests.world import Caller, TenantHandle, World


@pytest.fixture
async def tenant(world: World) -> TenantHandle:
    """One of the test's own: grants are for any operator."""
    return await world.create_tenant("hosted")


async def _refused(answer: Any, status: int, slug: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}"), answer.text


async def _open(tenant: TenantHandle, operator: Caller, **body: Any) -> Any:
    return await operator.post(f"/platform/tenants/{tenant.slug}/access", json={"reason": "Ticket 1", **body})


# Consent.


async def test_without_consent_nobody_comes_in(world: World, tenant: TenantHandle) -> None:
    operator, _ = await hire(world)
    await _refused(await _open(tenant, operator), 403, "access-not-granted")
    assert [row["name"] for row in await trail_of(tenant) if row["name"].startswith("operator_access.")] == []


async def test_a_grant_lets_an_operator_look_and_the_trail_says_who_when_and_what(
    world: World, tenant: TenantHandle
) -> None:
    operator, _ = await hire(world)
    team = await tenant.add_team("Red")
    granted = await consent(tenant, hours=2)
    visitor = await let_in(tenant, operator)
    assert (await visitor.get("/api/teams")).json()["total"] == 1
    assert (await visitor.get(f"/api/teams/{team['id']}")).json()["name"] == "Red"
    assert (await operator.delete(f"/platform/tenants/{tenant.slug}/access/{visitor.access_id}")).status_code == 204
    assert (await visitor.get("/api/teams")).status_code == 401
    [session] = (await tenant.get("/api/operator-access/sessions")).json()["items"]
    assert session | {"expiresAt": "", "closedAt": "", "createdAt": ""} == {
        "id": str(visitor.access_id),
        "operatorId": str(operator.id),
        "operatorName": "Sue of Support",
        "way": "api",
        "access": "read",
        "reason": "Ticket 4711",
        "grantId": granted["id"],
        "isBreakGlass": False,
        "isOpen": False,
        "expiresAt": "",
        "closedAt": "",
        "createdAt": "",
    }
    acts = await trail_of(tenant, subject=str(visitor.access_id))
    assert [row["name"].partition(".")[2] for row in acts] == ["opened", "used", "used", "closed"]
    assert {row["actor"] for row in acts} == {f"operator:{operator.id}"}
    assert acts[1]["payload"] == {"method": "GET", "route": "/api/teams", "ids": [], "refused": False}
    assert acts[2]["payload"]["route"] == "/api/teams/{team_id}"
    assert acts[2]["payload"]["ids"] == [team["id"]]


async def test_the_trail_has_neither_the_operators_address_nor_their_name(world: World, tenant: TenantHandle) -> None:
    operator, email = await hire(world)
    await consent(tenant, operatorEmail=email)
    visitor = await let_in(tenant, operator)
    await visitor.get("/api/users", params={"search": "ann"})
    said = str(await trail_of(tenant))
    assert email not in said
    assert "Sue" not in said
    assert "ann" not in str([row["payload"] for row in await trail_of(tenant, name="operator_access.used")])


async def test_a_grant_for_one_operator_is_no_other_operators(world: World, tenant: TenantHandle) -> None:
    sue, email = await hire(world)
    bob, _ = await hire(world)
    await consent(tenant, operatorEmail=email.upper())
    await let_in(tenant, sue)
    await _refused(await _open(tenant, bob), 403, "access-not-granted")


async def test_a_grant_to_look_is_none_to_write(world: World, tenant: TenantHandle) -> None:
    operator, _ = await hire(world)
    await consent(tenant)
    await _refused(await _open(tenant, operator, access="write"), 403, "access-not-granted")
    await consent(tenant, access="write")
    await let_in(tenant, operator, access="write")


async def test_a_grant_of_one_organization_opens_no_other(world: World, tenant: TenantHandle) -> None:
    operator, _ = await hire(world)
    other = await world.create_tenant("other")
    await consent(tenant)
    await _refused(await _open(other, operator), 403, "access-not-granted")


async def test_a_grant_ends_by_itself(world: World, tenant: TenantHandle) -> None:
    operator, _ = await hire(world)
    granted = await consent(tenant, hours=1)
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    await _set(tenant, OperatorAccessGrant, UUID(granted["id"]), expires_at=ends)
    opened = (await _open(tenant, operator)).json()
    # Whatever was asked for, nobody stays longer than the grant.
    assert opened["expiresIn"] <= 90
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    await _set(tenant, OperatorAccessGrant, UUID(granted["id"]), expires_at=past)
    await _refused(await _open(tenant, operator), 403, "access-not-granted")
    assert (await tenant.get(f"/api/operator-access/grants/{granted['id']}")).json()["status"] == "expired"


@pytest.mark.parametrize("hours", [0, 73])
async def test_a_grant_is_for_one_to_seventy_two_hours(tenant: TenantHandle, hours: int) -> None:
    answer = await tenant.post("/api/operator-access/grants", json={"hours": hours, "reason": "Ticket"})
    assert answer.status_code in {400, 422}, answer.text
    assert answer.json()["errors"][0]["field"] == "hours"


async def test_only_owners_consent_and_they_prove_who_they_are_first(world: World, tenant: TenantHandle) -> None:
    admin = await tenant.add_user("admin", "admin")
    body = {"hours": 1, "reason": "Ticket"}
    await _refused(await admin.post("/api/operator-access/grants", json=body), 403, "permission-denied")
    async with open_api(world.addresses, world.settings.home, step_up_after=1) as strict:
        owner = Caller(strict.http, tenant.access_token)
        async with world.database.transaction(tenant.context.write_scope) as transaction:
            await transaction.session.execute(
                text("UPDATE user_session SET authenticated_at = now() - interval '1 hour'")
            )
        await _refused(await owner.post("/api/operator-access/grants", json=body), 403, "step-up-required")


# What counts with the next request.


async def test_revoking_puts_them_out_with_their_next_request_in_every_process(
    world: World, tenant: TenantHandle
) -> None:
    operator, _ = await hire(world)
    granted = await consent(tenant)
    visitor = await let_in(tenant, operator)
    async with open_api(world.addresses, world.settings.home) as second:
        elsewhere = Caller(second.http, visitor.access_token)
        for caller in (visitor, elsewhere):
            assert (await caller.get("/api/teams")).status_code == 200
        assert (await tenant.delete(f"/api/operator-access/grants/{granted['id']}")).status_code == 204
        for caller in (visitor, elsewhere):
            assert (await caller.get("/api/teams")).status_code == 401
    # The operators' own list says so as well.
    [listed] = (await operator.get(f"/platform/tenants/{tenant.slug}/access")).json()["items"]
    assert not listed["isOpen"]
    [revoked] = await trail_of(tenant, name="operator_access.revoked")
    assert revoked["payload"]["session_ids"] == [str(visitor.access_id)]
    assert (await tenant.delete(f"/api/operator-access/grants/{granted['id']}")).status_code == 204
    assert len(await trail_of(tenant, name="operator_access.revoked")) == 1


async def test_an_operator_who_is_put_out_is_out(world: World, tenant: TenantHandle) -> None:
    operator, _ = await hire(world)
    await consent(tenant)
    visitor, other = await let_in(tenant, operator), await let_in(tenant, operator)
    assert (await tenant.delete(f"/api/operator-access/sessions/{visitor.access_id}")).status_code == 204
    assert (await visitor.get("/api/teams")).status_code == 401
    assert (await other.get("/api/teams")).status_code == 200


@pytest.mark.parametrize("change", [{"isActive": False}, {"role": "auditor"}])
async def test_an_operator_who_is_none_any_more_is_out(
    world: World, tenant: TenantHandle, change: dict[str, object]
) -> None:
    operator, _ = await hire(world)
    await consent(tenant)
    visitor = await let_in(tenant, operator)
    assert (await visitor.get("/api/teams")).status_code == 200
    assert (await world.operator.patch(f"/platform/operators/{operator.id}", json=change)).status_code == 200
    assert (await visitor.get("/api/teams")).status_code == 401


async def test_what_is_over_is_refused_whatever_the_token_says(world: World, tenant: TenantHandle) -> None:
    operator, _ = await hire(world)
    await consent(tenant)
    visitor = await let_in(tenant, operator)
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    await _set(tenant, OperatorAccessSession, visitor.access_id, expires_at=past)
    assert (await visitor.get("/api/teams")).status_code == 401


# What the token opens.


async def test_a_token_for_one_organization_is_nobodys_in_another(world: World, tenant: TenantHandle) -> None:
    """Nor is one that says it is another's session, a person's, or another operator's: signed by us, all of them."""
    other = await world.create_tenant("other")
    operator, _ = await hire(world)
    bob, _ = await hire(world)
    await consent(tenant)
    visitor = await let_in(tenant, operator)
    tokens = Tokens(world.app.state.keyring, world.settings.token_issuer)
    me = (await tenant.get("/api/sessions")).json()
    own_session = UUID((me["items"] if isinstance(me, dict) else me)[0]["id"])
    assert operator.id is not None
    assert tenant.id is not None
    forged: dict[str, dict[str, Any]] = {
        "in another organization": {
            "sub": operator.id,
            "sid": visitor.access_id,
            "tid": other.tenant_id,
            "opr": "read",
        },
        "as a user": {"sub": operator.id, "sid": visitor.access_id, "tid": tenant.tenant_id},
        "with a person's session": {"sub": tenant.id, "sid": own_session, "tid": tenant.tenant_id, "opr": "read"},
        "another operator": {"sub": bob.id, "sid": visitor.access_id, "tid": tenant.tenant_id, "opr": "read"},
        "to write": {"sub": operator.id, "sid": visitor.access_id, "tid": tenant.tenant_id, "opr": "write"},
    }
    for name, claims in forged.items():
        audience = AUDIENCE_OPERATOR_ACCESS if "opr" in claims else AUDIENCE_TENANT
        token, _ = tokens.issue(audience=audience, ttl=60, **claims)
        for method, path in (("GET", "/api/teams"), ("POST", "/api/tags")):
            answer = await Caller(world.http, token).request(
                method, path, **({"json": {"name": "x"}} if method == "POST" else {})
            )
            assert answer.status_code == 401, (name, answer.text)


async def test_it_opens_nothing_of_the_control_plane_and_cannot_be_renewed(world: World, tenant: TenantHandle) -> None:
    operator, _ = await hire(world, "owner")
    await consent(tenant)
    visitor = await let_in(tenant, operator)
    assert (await visitor.get("/platform/tenants")).status_code == 401
    answer = await world.http.post("/api/auth/refresh", json={"refreshToken": visitor.access_token})
    assert answer.status_code in {400, 401, 422}
    for path in ("/api/auth/logout", "/api/auth/step-up"):
        await _refused(await visitor.post(path, json={"password": "x"}), 403, "operator-refused")


async def test_who_may_look_changes_nothing_and_postgresql_would_not_let_them(
    world: World, tenant: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, _ = await hire(world)
    await consent(tenant, access="write")
    visitor = await let_in(tenant, operator)
    await _refused(await visitor.post("/api/tags", json={"name": "Blue"}), 403, "operator-read-only")
    # If the check were not there, nor the permissions: the transaction is READ ONLY, whatever the method.
    everything = world.app.state.permissions.all
    monkeypatch.setattr(world.app.state.permissions, "operators_reading", everything)
    monkeypatch.setattr("tenantry.domain.operator_access.principal._refusal", lambda *_: None)
    begun: list[Scope] = []
    database = world.app.state.database
    begin = database.begin

    async def note(scope: Scope) -> Any:
        begun.append(scope)
        return await begin(scope)

    monkeypatch.setattr(database, "begin", note)
    answer = await visitor.post("/api/tags", json={"name": "Blue"})
    assert answer.status_code >= 400
    assert [scope.read_only for scope in begun] == [False, True], "written down, then only read"
    assert (await tenant.get("/api/tags")).json()["total"] == 0


async def test_who_may_only_look_has_no_writing_scope_at_all(tenant: TenantHandle) -> None:
    context = tenant.context.reading_only()
    assert context.write_scope.read_only
    assert context.read_scope == tenant.context.read_scope
    assert not tenant.context.write_scope.read_only
    async with tenant.world.database.transaction(context.write_scope) as transaction:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await transaction.connection.execute("DELETE FROM tag WHERE name = $1", "x")


async def test_with_a_grant_to_write_they_write_what_is_said_and_no_more(world: World, tenant: TenantHandle) -> None:
    operator, _ = await hire(world)
    await consent(tenant, access="write")
    visitor = await let_in(tenant, operator, access="write")
    made = await visitor.post("/api/tags", json={"name": "Blue"})
    assert made.status_code == 201, made.text
    # Their doing, in the trail of what they did it to.
    [created] = await trail_of(tenant, name="tag.created")
    assert (created["actor"], created["subject"]) == (f"operator:{operator.id}", made.json()["id"])
    team = await tenant.add_team("Red")
    assert (await visitor.patch(f"/api/teams/{team['id']}", json={"name": "Green"})).status_code == 200
    for path, body in (
        ("/api/users", {"email": "eve@example.com", "password": "correct horse battery", "roles": []}),
        ("/api/operator-access/grants", {"hours": 72, "reason": "More"}),
        ("/api/webhooks", {"name": "x", "url": "https://example.com/"}),
        ("/api/roles", {"name": "x", "slug": "x", "permissions": []}),
        ("/api/organization/exports", None),
    ):
        answer = await visitor.post(path, **({} if body is None else {"json": body}))
        assert answer.status_code == 403, (path, answer.text)
    refused = [
        row["payload"] for row in await trail_of(tenant, name="operator_access.used") if row["payload"]["refused"]
    ]
    assert len(refused) == 5


async def test_a_request_that_cannot_be_written_down_is_not_answered(
    world: World, tenant: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, _ = await hire(world)
    await tenant.add_team("Red")
    await consent(tenant)
    visitor = await let_in(tenant, operator)

    async def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("tenantry.domain.operator_access.principal.record_event", fail)
    answer = await visitor.get("/api/teams")
    assert answer.status_code >= 500
    assert "Red" not in answer.text


# Requests.


async def test_an_operator_asks_and_an_owner_lets_in_nobody_but_them(world: World, tenant: TenantHandle) -> None:
    sue, _ = await hire(world)
    bob, _ = await hire(world)
    path = f"/platform/tenants/{tenant.slug}/access/requests"
    asked = await sue.post(path, json={"reason": "Ticket 9", "hours": 8, "access": "write"})
    assert asked.status_code == 201, asked.text
    await _refused(await sue.post(path, json={"reason": "Ticket 9"}), 409, "access-request-pending")
    [shown] = (await tenant.get("/api/operator-access/requests")).json()["items"]
    assert (shown["operatorName"], shown["reason"], shown["access"], shown["hours"]) == (
        "Sue of Support",
        "Ticket 9",
        "write",
        8,
    )
    answer = await tenant.post(f"/api/operator-access/requests/{shown['id']}/accept", json={"access": "read"})
    assert answer.json()["status"] == "accepted", answer.text
    [told] = (await sue.get(path)).json()
    assert (told["status"], told["access"]) == ("accepted", "read")
    assert told["grantedUntil"] is not None
    await let_in(tenant, sue)
    await _refused(await _open(tenant, sue, access="write"), 403, "access-not-granted")
    await _refused(await _open(tenant, bob), 403, "access-not-granted")
    again = await tenant.post(f"/api/operator-access/requests/{shown['id']}/decline")
    await _refused(again, 409, "access-request-answered")


async def test_what_is_declined_opens_nothing(world: World, tenant: TenantHandle) -> None:
    sue, _ = await hire(world)
    path = f"/platform/tenants/{tenant.slug}/access/requests"
    asked = (await sue.post(path, json={"reason": "Ticket 9"})).json()["id"]
    assert (await tenant.post(f"/api/operator-access/requests/{asked}/decline")).json()["status"] == "declined"
    await _refused(await _open(tenant, sue), 403, "access-not-granted")
    [event] = await trail_of(tenant, name="operator_access.declined")
    assert event["actor"] == f"user:{tenant.id}"


async def test_a_request_that_nobody_has_answered_for_a_week_is_none(world: World, tenant: TenantHandle) -> None:
    sue, _ = await hire(world)
    path = f"/platform/tenants/{tenant.slug}/access/requests"
    asked = (await sue.post(path, json={"reason": "Ticket 9"})).json()["id"]
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=8)
    await _set(tenant, OperatorAccessRequest, UUID(asked), created_at=long_ago)
    answer = await tenant.post(f"/api/operator-access/requests/{asked}/accept")
    await _refused(answer, 409, "access-request-answered")
    assert (await sue.post(path, json={"reason": "Ticket 9, again"})).status_code == 201
    assert [each["status"] for each in (await sue.get(path)).json()] == ["pending", "expired"]


async def _set(tenant: TenantHandle, model: type[Any], row_id: UUID, **values: Any) -> None:
    """As time would have done it."""
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await transaction.session.execute(update(model).where(model.id == row_id).values(**values))


async def test_who_has_no_operator_row_is_nobody(world: World, tenant: TenantHandle) -> None:
    """The organization's row alone opens nothing: the control plane has to have one as well."""
    operator, _ = await hire(world)
    access_id = uuid4()
    async with world.database.transaction(tenant.context.write_scope) as transaction:
        transaction.session.add(
            OperatorAccessSession(
                id=access_id,
                operator_id=operator.id,
                operator_name="Sue",
                way="api",
                can_write=True,
                reason="Forged",
                expires_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
            )
        )
    tokens = Tokens(world.app.state.keyring, world.settings.token_issuer)
    assert operator.id is not None
    token, _ = tokens.issue(
        audience=AUDIENCE_OPERATOR_ACCESS, sub=operator.id, tid=tenant.tenant_id, sid=access_id, ttl=60, opr="read"
    )
    visitor = Visitor(world.http, token, id=operator.id, access_id=access_id)
    assert (await visitor.get("/api/teams")).status_code == 401
    async with world.database.transaction(replace(tenant.context.read_scope)) as transaction:
        found = await transaction.session.scalar(select(OperatorAccessSession.id))
    assert found == access_id
