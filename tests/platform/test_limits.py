"""What operators give single tenants in the place of their plan, and how soon every process knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Template
from tests.entitled import entitle, use_of
from tests.platform.support import as_admin, eventually, make_provisioner, open_api, tenant_body
from tests.world import TenantHandle, World


async def _limits(tenant: TenantHandle) -> dict[str, Any]:
    answer = await tenant.world.operator.get(f"/platform/tenants/{tenant.slug}/limits")
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_a_tenants_own_limits_are_in_the_place_of_its_plans_and_leave_others_alone(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    before = await _limits(acme)
    assert before["plan"] == "free"
    assert before["overrides"]["quotas"] == before["overrides"]["features"] == {}
    assert (before["limits"]["requestRate"], before["limits"]["jobConcurrency"]) == (None, 8)

    told = await entitle(
        acme,
        requestRate=2.5,
        jobConcurrency=3,
        statementTimeout=700,
        quotas={"seats": 7, "storage": "1.5 GB"},
        features={"sso": False},
    )
    assert told == await _limits(acme)
    assert (told["limits"]["requestRate"], told["limits"]["jobConcurrency"]) == (2.5, 3)
    quotas = {each["name"]: (each["used"], each["allowed"]) for each in told["quotas"]}
    assert (quotas["seats"], quotas["storage"], quotas["tags"]) == ((1, 7), (0, 1_500_000_000), (0, None))
    assert {each["name"] for each in told["features"] if not each["isIncluded"]} == {"sso"}
    context = acme.context
    assert (context.plan.request_rate, context.plan.job_concurrency) == (2.5, 3)
    assert (context.write_scope.statement_timeout, context.quota("seats"), context.quota("tags")) == (700, 7, None)
    assert not context.allows("sso")
    assert context.allows("scim")
    assert await _limits(globex) == before

    # All of them are what is sent: what is left out is the plan's again.
    await entitle(acme, quotas={"tags": 2})
    assert (acme.context.plan.request_rate, acme.context.quota("seats"), acme.context.quota("tags")) == (None, None, 2)
    assert acme.context.allows("sso")


async def test_an_organizations_people_see_their_plan_its_limits_and_their_use(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    await entitle(acme, quotas={"tags": 5}, userRate=4, features={"webhooks": False})
    assert (await acme.post("/api/tags", json={"name": "One"})).status_code == 201
    viewer = await acme.add_user("vera", "viewer")
    answer = await viewer.get("/api/tenant")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["slug"], found["plan"]["slug"], found["plan"]["name"]) == (acme.slug, "free", "Free")
    assert found["limits"]["userRate"] == 4
    assert {each["name"]: each["isIncluded"] for each in found["features"]}["webhooks"] is False
    assert await use_of(acme, "tags") == (1, 5)
    assert await use_of(acme, "seats") == (2, None)
    assert await use_of(globex, "tags") == (0, None)
    assert "ETag" in answer.headers


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"quotas": {"seets": 3}}, "quotas.seets", "did you mean seats?"),
        ({"quotas": {"seats": "5 GB"}}, "quotas.seats", "a whole number from 0"),
        ({"quotas": {"seats": -1}}, "quotas.seats", "a whole number from 0"),
        ({"quotas": {"storage": "much"}}, "quotas.storage", "a size such as '10 GB'"),
        ({"features": {"ssso": True}}, "features.ssso", "did you mean sso?"),
        ({"requestRate": 0}, "requestRate", ">= 0.01"),
        ({"statementTimeout": 99}, "statementTimeout", ">= 100"),
        ({"lockTimeout": 9}, "lockTimeout", ">= 10"),
        ({"idleInTransactionTimeout": 999}, "idleInTransactionTimeout", ">= 1000"),
        ({"concurrentRequests": 1.5}, "concurrentRequests", "`int | null`"),
    ],
)
async def test_a_limit_that_cannot_be_is_refused_by_its_name(
    acme: TenantHandle, body: dict[str, Any], field: str, said: str
) -> None:
    refused = await acme.world.operator.request("PUT", f"/platform/tenants/{acme.slug}/limits", json=body)
    assert refused.status_code == 422, refused.text
    [error] = refused.json()["errors"]
    assert error["field"] == field
    assert said in error["message"]
    assert (await _limits(acme))["overrides"]["quotas"] == {}


async def test_operators_see_a_tenant_whose_own_times_are_too_short_to_serve_it(acme: TenantHandle) -> None:
    # As an earlier release let them be: each statement, and each moment between two, has a millisecond.
    short = json.dumps({"statement_timeout": 1, "idle_in_transaction_timeout": 1})
    async with as_admin(acme.world.addresses) as admin:
        await admin.execute("UPDATE platform.tenant SET overrides = $1 WHERE id = $2", short, acme.tenant_id)
    await acme.world.app.state.registry.refresh()
    assert acme.context.read_scope.idle_in_transaction_timeout == 1
    for _ in range(10):
        for looked_at in ("usage", "limits"):
            seen = await acme.world.operator.get(f"/platform/tenants/{acme.slug}/{looked_at}")
            assert seen.status_code == 200, seen.text
    await entitle(acme)
    assert (await acme.get("/api/tags")).status_code == 200


async def test_a_change_of_limits_is_in_the_trail_with_what_it_was_and_nothing_is_where_nothing_changed(
    acme: TenantHandle,
) -> None:
    async def acts() -> list[dict[str, Any]]:
        answer = await acme.world.operator.get(
            "/platform/audit", params={"tenantId": str(acme.tenant_id), "sortOrder": "asc"}
        )
        return [each for each in answer.json()["items"] if each["action"] == "tenant.limits"]

    await entitle(acme, quotas={"seats": 5}, keyRate=1)
    await entitle(acme, quotas={"seats": 5}, keyRate=1)
    await entitle(acme, quotas={"seats": None})
    assert [each["details"] for each in await acts()] == [
        {"key_rate": {"from": None, "to": 1.0}, "quotas.seats": {"from": "-", "to": 5}},
        {"key_rate": {"from": 1.0, "to": None}, "quotas.seats": {"from": 5, "to": None}},
    ]


async def test_an_override_of_no_limit_lifts_the_plans_and_a_plans_change_leaves_it(acme: TenantHandle) -> None:
    world = acme.world
    async with as_admin(world.addresses) as admin:
        await admin.execute(
            "INSERT INTO platform.plan (id, slug, name, created_at, updated_at, quotas)"
            " VALUES (gen_random_uuid(), 'tight', 'Tight', now(), now(), $1)",
            json.dumps({"tags": 1, "teams": 1}),
        )
    try:
        moved = await world.operator.patch(f"/platform/tenants/{acme.slug}", json={"plan": "tight"})
        assert moved.status_code == 200, moved.text
        await entitle(acme, quotas={"tags": None})
        for name in ("One", "Two"):
            assert (await acme.post("/api/tags", json={"name": name})).status_code == 201
        assert (acme.context.quota("tags"), acme.context.quota("teams")) == (None, 1)
    finally:
        # The deployment is others' as well, who count its plans.
        assert (await world.operator.patch(f"/platform/tenants/{acme.slug}", json={"plan": "free"})).is_success
        async with as_admin(world.addresses) as admin:
            await admin.execute("DELETE FROM platform.plan WHERE slug = 'tight'")


async def test_a_change_of_plan_or_of_a_tenants_own_limits_reaches_every_process(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with (
        open_api(database_addresses, tmp_path / "one", provision_wait=0.05) as one,
        open_api(database_addresses, tmp_path / "two") as two,
    ):
        worker = make_provisioner(database_addresses)
        try:
            assert (await one.operator.post("/platform/tenants", json=tenant_body("acme"))).status_code in {201, 202}
            await worker.work_off()
        finally:
            await worker.close()
        await two.app.state.registry.find_slug("acme")

        def sees(api: World, quota: int | None, *, sso: bool, rate: float | None) -> Any:
            async def ask() -> bool:
                found = api.app.state.registry.by_slug("acme")
                assert found is not None
                return (found.quota("seats"), found.allows("sso"), found.plan.request_rate) == (quota, sso, rate)

            return ask

        answer = await one.operator.request(
            "PUT", "/platform/tenants/acme/limits", json={"quotas": {"seats": 3}, "features": {"sso": False}}
        )
        assert answer.status_code == 200, answer.text
        for api in (one, two):
            await eventually(sees(api, 3, sso=False, rate=None), 10)
        async with as_admin(database_addresses) as admin:
            await admin.execute(
                "UPDATE platform.plan SET request_rate = 12, quotas = $1, features = $2 WHERE slug = 'free'",
                json.dumps({"seats": 9}),
                json.dumps({"sso": True}),
            )
        for api in (one, two):
            await eventually(sees(api, 3, sso=False, rate=12.0), 10)
        answer = await two.operator.request("PUT", "/platform/tenants/acme/limits", json={})
        assert answer.status_code == 200, answer.text
        for api in (one, two):
            await eventually(sees(api, 9, sso=True, rate=12.0), 10)


async def test_plans_show_what_they_say(world: World) -> None:
    listed = (await world.operator.get("/platform/plans")).json()["items"]
    free = next(plan for plan in listed if plan["slug"] == "free")
    assert (free["requestRate"], free["quotas"], free["features"], free["jobConcurrency"]) == (None, {}, {}, 8)
