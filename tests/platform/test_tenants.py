from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.platform.support import as_admin, eventually, open_api, tenant_body
from tests.world import PASSWORD, Caller, TenantHandle, World


async def test_a_new_tenant_is_there_and_can_be_logged_in_to_at_once(world: World) -> None:
    made = await world.operator.post("/platform/tenants", json=tenant_body("brand-new", name="Brand New", plan="team"))
    assert made.status_code == 201
    assert made.headers["Location"] == "/platform/tenants/brand-new"
    body = made.json()
    assert (body["status"], body["plan"], body["ownerInvitation"]) == ("active", "team", None)
    assert body["revision"]
    caller = await world.log_in("brand-new", "owner@brand-new.example")
    assert (await caller.post("/api/teams", json={"name": "First"})).status_code == 201
    shown = (await world.operator.get(made.headers["Location"])).json()
    assert shown == {name: value for name, value in body.items() if name != "ownerInvitation"}


async def test_a_new_tenant_can_be_logged_in_to_through_every_other_process_at_once(world: World) -> None:
    # It shares the keys, as all processes of a deployment do, and learns of tenants by the registry alone.
    async with open_api(world.addresses, world.settings.home) as other:
        for number in range(5):
            slug = f"seen-by-all-{number}"
            assert (await world.operator.post("/platform/tenants", json=tenant_body(slug))).status_code == 201
            caller = await other.log_in(slug, f"owner@{slug}.example")
            assert (await caller.get("/api/users/me")).status_code == 200


async def test_an_owner_without_a_password_is_invited(world: World) -> None:
    made = await world.operator.post("/platform/tenants", json=tenant_body("by-invitation", ownerPassword=None))
    assert made.status_code == 201
    accepted = await world.http.post(
        "/api/auth/invitations/accept", json={"token": made.json()["ownerInvitation"], "password": PASSWORD}
    )
    assert accepted.status_code == 200
    await world.log_in("by-invitation", "owner@by-invitation.example")


async def test_two_creations_of_one_slug_at_once_are_one_201_and_one_409(world: World) -> None:
    answers = await asyncio.gather(
        *(world.operator.post("/platform/tenants", json=tenant_body("twice")) for _ in range(2))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["type"] == "/problems/slug-taken"
    await world.log_in("twice", "owner@twice.example")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"slug": "www"}, "slug"),
        ({"slug": "platform"}, "slug"),
        ({"slug": "Upper"}, "slug"),
        ({"slug": "-dash"}, "slug"),
        ({"slug": "x" * 64}, "slug"),
        ({"plan": "gold"}, "plan"),
        ({"ownerEmail": "no address"}, "ownerEmail"),
        ({"ownerPassword": "short"}, "ownerPassword"),
        ({"ownerPassword": "Owner@Never-Made.example"}, "ownerPassword"),
        ({"ownerPassword": "The Owner Herself", "ownerName": "the owner herself"}, "ownerPassword"),
        ({"ownerName": "two\nlines"}, "ownerName"),
        ({"name": "two\n"}, "name"),
        ({"name": ""}, "name"),
    ],
)
async def test_what_cannot_be_is_named(world: World, change: dict[str, str], field: str) -> None:
    body = {**tenant_body("never-made"), **change}
    answer = await world.operator.post("/platform/tenants", json=body)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    if field == "plan":
        assert "enterprise, free, team" in answer.json()["errors"][0]["message"]
    assert (await world.operator.get("/platform/tenants/never-made")).status_code == 404


async def _answers(caller: Caller, path: str, status: int) -> None:
    """Wait for that status; it has to be there within a second."""

    async def ask() -> bool:
        return (await caller.get(path)).status_code == status

    await eventually(ask, 1.0)


async def test_a_suspended_tenant_is_refused_within_a_second_in_every_process_and_served_again(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    async with open_api(world.addresses, world.settings.home) as other:
        callers = [acme, Caller(other.http, acme.access_token)]
        for caller in callers:
            assert (await caller.get("/api/teams")).status_code == 200
        answer = await world.operator.post(f"/platform/tenants/{acme.slug}/suspend", json={"reason": "unpaid"})
        assert (answer.status_code, answer.json()["status"], answer.json()["statusReason"]) == (
            200,
            "suspended",
            "unpaid",
        )
        await asyncio.gather(*(_answers(caller, "/api/teams", 403) for caller in callers))
        refused = await callers[1].get("/api/teams")
        assert refused.json()["type"] == "/problems/tenant-suspended"
        refresh = await other.http.post("/api/auth/refresh", json={"refreshToken": acme.refresh_token})
        assert refresh.status_code == 403
        assert (await globex.get("/api/teams")).status_code == 200
        resumed = await world.operator.post(f"/platform/tenants/{acme.slug}/resume")
        assert (resumed.status_code, resumed.json()["statusReason"]) == (200, None)
        await asyncio.gather(*(_answers(caller, "/api/teams", 200) for caller in callers))


async def test_a_suspension_is_seen_without_any_notification(world: World, acme: TenantHandle) -> None:
    async with open_api(world.addresses, world.settings.home) as other:
        caller = Caller(other.http, acme.access_token)
        assert (await caller.get("/api/teams")).status_code == 200
        other.app.state.registry._notified = lambda *_: None
        async with as_admin(world.addresses) as admin:
            # The connection that listens is gone half-way: it hears nothing, and nobody tells.
            await admin.execute(
                "ALTER TABLE platform.tenant DISABLE TRIGGER note_change;"
                f"UPDATE platform.tenant SET status = 'suspended',"
                f" changed_xid = pg_current_xact_id()::text::bigint WHERE slug = '{acme.slug}';"
                "ALTER TABLE platform.tenant ENABLE TRIGGER note_change"
            )
        await _answers(caller, "/api/teams", 403)


async def test_suspending_twice_or_resuming_what_runs_is_a_conflict(world: World, acme: TenantHandle) -> None:
    path = f"/platform/tenants/{acme.slug}"
    assert (await world.operator.post(f"{path}/resume")).status_code == 409
    assert (await world.operator.post(f"{path}/suspend")).status_code == 200
    again = await world.operator.post(f"{path}/suspend")
    assert (again.status_code, again.json()["state"]) == (409, "suspended")
    for verb in ("suspend", "resume"):
        assert (await world.operator.post(f"/platform/tenants/no-such-tenant/{verb}")).status_code == 404


async def test_renaming_keeps_everything_but_the_name(world: World, acme: TenantHandle, globex: TenantHandle) -> None:
    await acme.add_team("Red")
    slug = f"{acme.slug}-renamed"
    answer = await world.operator.patch(f"/platform/tenants/{acme.slug}", json={"slug": slug, "name": "Acme & Co"})
    assert (answer.status_code, answer.json()["slug"], answer.json()["name"]) == (200, slug, "Acme & Co")
    assert answer.json()["id"] == str(acme.tenant_id)
    assert (await acme.get("/api/teams")).json()["total"] == 1, "tokens go on: they name the id"
    caller = await world.log_in(slug, acme.owner_email)
    assert (await caller.get("/api/teams")).json()["total"] == 1
    old = await world.http.post(
        "/api/auth/login", json={"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD}
    )
    assert old.status_code == 401
    taken = await world.operator.patch(f"/platform/tenants/{slug}", json={"slug": globex.slug})
    assert (taken.status_code, taken.json()["type"]) == (409, "/problems/slug-taken")
    assert (await world.operator.patch(f"/platform/tenants/{slug}", json={"slug": "www"})).status_code == 422
    # The old name is free, and leads to whoever takes it.
    again = await world.operator.post("/platform/tenants", json=tenant_body(acme.slug))
    assert again.status_code == 201
    stranger = await world.log_in(acme.slug, f"owner@{acme.slug}.example")
    assert (await stranger.get("/api/teams")).json()["total"] == 0


async def test_two_tenants_swap_names_and_keep_their_own_data(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    await acme.add_team("Acme's")
    for old, new in ((acme.slug, "swap-aside"), (globex.slug, acme.slug), ("swap-aside", globex.slug)):
        assert (await world.operator.patch(f"/platform/tenants/{old}", json={"slug": new})).status_code == 200
    await world.app.state.registry.refresh()
    caller = await world.log_in(globex.slug, acme.owner_email)
    assert [team["name"] for team in (await caller.get("/api/teams")).json()["items"]] == ["Acme's"]
    wrong = await world.http.post(
        "/api/auth/login", json={"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD}
    )
    assert wrong.status_code == 401


async def test_a_tenant_moves_to_another_plan_and_its_limits_apply(world: World, acme: TenantHandle) -> None:
    path = f"/platform/tenants/{acme.slug}"
    answer = await world.operator.patch(path, json={"plan": "gold"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["message"] == "Expected one of the plans: enterprise, free, team."
    async with as_admin(world.addresses) as admin:
        await admin.execute("UPDATE platform.plan SET statement_timeout = 1234 WHERE slug = 'enterprise'")
    try:
        assert (await world.operator.patch(path, json={"plan": "enterprise"})).json()["plan"] == "enterprise"
        await world.app.state.registry.refresh()
        async with world.database.transaction(acme.context.read_scope) as transaction:
            limit = await transaction.connection.fetchval("SELECT current_setting('statement_timeout')")
        assert limit == "1234ms"
    finally:
        async with as_admin(world.addresses) as admin:
            await admin.execute("UPDATE platform.plan SET statement_timeout = NULL WHERE slug = 'enterprise'")


async def test_an_empty_change_of_a_tenant_changes_nothing(world: World, acme: TenantHandle) -> None:
    path = f"/platform/tenants/{acme.slug}"
    before = (await world.operator.get(path)).json()
    assert (await world.operator.patch(path, json={})).json() == before
    for field in ("slug", "name", "plan"):
        refused = await world.operator.patch(path, json={field: None})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
    assert (await world.operator.patch(path, json={"status": "active"})).status_code == 422


async def test_the_list_finds_by_name_slug_and_address(world: World, acme: TenantHandle) -> None:
    for search in (acme.slug, acme.owner_email.upper()):
        found: dict[str, Any] = (await world.operator.get("/platform/tenants", params={"search": search})).json()
        assert [tenant["slug"] for tenant in found["items"]] == [acme.slug]


async def test_plans_are_listed(world: World) -> None:
    plans = (await world.operator.get("/platform/plans")).json()
    assert [plan["slug"] for plan in plans["items"]] == ["enterprise", "free", "team"]
