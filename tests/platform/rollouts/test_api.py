"""Rollouts through the operators' API."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from uuid_utils.compat import uuid7

from tenantry.platform.rollouts.chore import RolloutChore
from tenantry.tenancy.database import owner_engine
from tests.databases import Template
from tests.platform.rollouts.support import add_team, as_owner, ends, make_tenants, states
from tests.platform.support import open_api
from tests.tree import TenantTree
from tests.world import World

ROLLOUTS = "/platform/rollouts"
# Fails in whoever has a team.
NEEDS_NO_TEAM = "op.execute(\"ALTER TABLE team ADD CONSTRAINT ck_team_none CHECK (name = '')\")"


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    """An API without a provisioner: a rollout stays as it was started."""
    async with open_api(database_addresses, tmp_path / "home") as opened:
        yield opened


async def _start(api: World, **body: Any) -> dict[str, Any]:
    answer = await api.operator.post(ROLLOUTS, json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def _carry_out(api: World) -> None:
    """What the provisioner does by itself."""
    engine = owner_engine(api.addresses.owner_url)
    try:
        await RolloutChore(api.addresses.owner_url, api.settings).run(engine)
    finally:
        await engine.dispose()


async def test_what_the_api_starts_the_provisioners_chore_carries_out(api: World, tenant_tree: TenantTree) -> None:
    await make_tenants(api.addresses, "acme", "globex", "initech")
    target = tenant_tree.add()
    answer = await api.operator.post(ROLLOUTS, json={"canary": 2})
    assert answer.status_code == 202
    started = answer.json()
    assert answer.headers["Location"] == f"{ROLLOUTS}/{started['id']}"
    assert (started["status"], started["target"], started["finishedAt"]) == ("running", target, None)
    assert set((await states(api.addresses)).values()) == {tenant_tree.base}, "nothing is migrated in the API"
    await _carry_out(api)
    assert await states(api.addresses) == dict.fromkeys(("acme", "globex", "initech"), target)
    detail = (await api.operator.get(answer.headers["Location"])).json()
    assert (detail["status"], detail["total"], detail["done"], detail["pending"], detail["failed"]) == (
        "done",
        3,
        3,
        0,
        0,
    )
    assert detail["waves"] == [
        {"wave": 0, "total": 2, "pending": 0, "done": 2, "failed": 0},
        {"wave": 1, "total": 1, "pending": 0, "done": 1, "failed": 0},
    ]
    assert detail["finishedAt"] is not None
    assert (detail["rate"], detail["estimatedEnd"]) == (None, None), "it does not run any more"


async def test_what_is_left_out_is_as_the_settings_say(database_addresses: Template, tmp_path: Path) -> None:
    settings = {"rollout_concurrency": 7, "rollout_lock_timeout": 1.5, "rollout_attempts": 3}
    async with open_api(database_addresses, tmp_path, **settings) as api:
        started = await _start(api)
        named = ("canary", "concurrency", "haltAfter", "lockTimeout", "maxAttempts", "only")
        assert [started[name] for name in named] == [1, 7, 5, 1500, 3, None]
        await api.operator.post(f"{ROLLOUTS}/{started['id']}/cancel")
        body = {"canary": 0, "concurrency": 2, "haltAfter": 9, "lockTimeout": 250, "maxAttempts": 1}
        again = await _start(api, **body)
        assert {name: again[name] for name in body} == body


async def test_every_act_is_in_the_audit_trail_with_its_operator(api: World) -> None:
    started = await _start(api)
    path = f"{ROLLOUTS}/{started['id']}"
    assert (await api.operator.post(f"{path}/cancel")).status_code == 200
    assert (await api.operator.post(f"{path}/resume")).status_code == 200
    trail = (await api.operator.get("/platform/audit", params={"search": started["id"]})).json()["items"]
    assert [entry["action"] for entry in trail] == ["rollout.resume", "rollout.cancel", "rollout.start"]
    assert {entry["actor"] for entry in trail} == {started["requestedBy"]}
    assert started["requestedBy"].startswith("operator:")
    # What is refused is nobody's act.
    assert (await api.operator.post(ROLLOUTS, json={})).status_code == 409
    assert (await api.operator.get("/platform/audit", params={"search": started["id"]})).json()["total"] == 3


async def test_a_second_one_is_refused_and_told_of_the_first(api: World) -> None:
    started = await _start(api)
    refused = await api.operator.post(ROLLOUTS, json={})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/rollout-running")
    assert refused.json()["rollout"] == started["id"]
    assert (await api.operator.get(ROLLOUTS)).json()["total"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"target": "9999"}, "target"),
        ({"target": "0001; DROP"}, "target"),
        ({"only": ["no-such-tenant"]}, "only"),
        ({"only": []}, "only"),
        ({"only": ["Acme"]}, "only.0"),
        ({"canary": -1}, "canary"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 65}, "concurrency"),
        ({"haltAfter": 0}, "haltAfter"),
        ({"lockTimeout": 0}, "lockTimeout"),
        ({"maxAttempts": 0}, "maxAttempts"),
        ({"halt_after": 1}, "halt_after"),
    ],
    ids=str,
)
async def test_a_body_that_makes_no_sense_starts_nothing_and_names_the_field(
    api: World, body: dict[str, Any], field: str
) -> None:
    refused = await api.operator.post(ROLLOUTS, json=body)
    assert refused.status_code == 422, refused.text
    assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert (await api.operator.get(ROLLOUTS)).json()["total"] == 0


async def test_it_is_restricted_to_the_tenants_that_are_named(api: World, tenant_tree: TenantTree) -> None:
    await make_tenants(api.addresses, "acme", "globex")
    target = tenant_tree.add()
    started = await _start(api, only=["acme"])
    assert started["only"] == ["acme"]
    await _carry_out(api)
    assert await states(api.addresses) == {"acme": target, "globex": tenant_tree.base}


async def test_the_plan_says_what_would_be_done_and_does_nothing(api: World, tenant_tree: TenantTree) -> None:
    await make_tenants(api.addresses, "acme", "globex")
    first = tenant_tree.add()
    await make_tenants(api.addresses, "initech")
    target = tenant_tree.add("op.execute('SELECT 1')", online=True)
    found = (await api.operator.get(f"{ROLLOUTS}/plan")).json()
    assert (found["target"], found["tenants"], found["current"], found["stale"]) == (target, 3, 0, 3)
    assert [
        (group["revision"], group["tenants"], [(step["id"], step["online"]) for step in group["steps"]])
        for group in found["groups"]
    ] == [(tenant_tree.base, 2, [(first, False), (target, True)]), (first, 1, [(target, True)])]
    assert (found["unknown"], found["provisioning"]) == ({}, 0)
    lower = (await api.operator.get(f"{ROLLOUTS}/plan", params={"target": first, "only": ["acme", "initech"]})).json()
    assert (lower["tenants"], lower["current"], lower["stale"], lower["unknown"]) == (2, 1, 1, {})
    assert (await api.operator.get(ROLLOUTS)).json()["total"] == 0
    assert (await states(api.addresses))["acme"] == tenant_tree.base


@pytest.mark.parametrize(
    ("query", "field"),
    [({"target": "9999"}, "target"), ({"only": "nobody"}, "only"), ({"target": ""}, "target")],
    ids=str,
)
async def test_a_plan_of_what_is_not_there_names_the_parameter(api: World, query: dict[str, str], field: str) -> None:
    refused = await api.operator.get(f"{ROLLOUTS}/plan", params=query)
    assert refused.status_code == 422
    assert [(error["field"], error["source"]) for error in refused.json()["errors"]] == [(field, "query")]


async def test_failures_are_listed_with_their_statement_and_error(api: World, tenant_tree: TenantTree) -> None:
    tenants = await make_tenants(api.addresses, "acme", "globex", "initech")
    await add_team(api.addresses, tenants["globex"], "Red")
    tenant_tree.add(NEEDS_NO_TEAM)
    started = await _start(api, canary=0, haltAfter=10)
    await ends(api.addresses, UUID(started["id"]))
    path = f"{ROLLOUTS}/{started['id']}/tenants"
    failed = (await api.operator.get(path, params={"status": "failed"})).json()
    [failure] = failed["items"]
    assert (failed["total"], failure["slug"], failure["tenantId"]) == (1, "globex", str(tenants["globex"]))
    assert (failure["fromRevision"], failure["attempts"]) == (tenant_tree.base, 1)
    assert failure["error"].startswith("23514:")
    assert "ADD CONSTRAINT ck_team_none" in failure["statement"]
    assert "Red" not in failure["error"], "a row's values are the tenant's"
    done = (await api.operator.get(path, params={"status": "done", "orderBy": "duration"})).json()
    assert {item["slug"] for item in done["items"]} == {"acme", "initech"}
    assert all(item["duration"] >= 0 and item["error"] is None for item in done["items"])
    found = (await api.operator.get(path, params={"search": "NITE"})).json()
    assert [item["slug"] for item in found["items"]] == ["initech"]
    pages = [(await api.operator.get(path, params={"page": page, "pageSize": 2})).json() for page in (1, 2)]
    assert [page["total"] for page in pages] == [3, 3]
    assert len({item["slug"] for page in pages for item in page["items"]}) == 3
    assert (await api.operator.get(path, params={"status": "broken"})).status_code == 422
    assert (await api.operator.get(f"{ROLLOUTS}/{uuid4()}/tenants")).status_code == 404


async def _row(api: World, rollout: str, tenant_id: UUID, wave: int, status: str, **values: Any) -> None:
    async with as_owner(api.addresses) as owner:
        await owner.execute(
            "INSERT INTO platform.rollout_tenant (id, rollout_id, tenant_id, wave, status, attempts, not_before,"
            " duration, finished_at, created_at, updated_at)"
            " VALUES ($1, $2, $3, $4, $5, 1, now(), $6, now() - $7::interval, now(), now())",
            uuid7(),
            UUID(rollout),
            tenant_id,
            wave,
            status,
            values.get("duration"),
            values.get("ago"),
        )


def _ago(seconds: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=seconds)


async def test_rate_and_end_are_estimated_from_the_last_half_minute(api: World) -> None:
    tenants = await make_tenants(api.addresses, *(f"org-{number}" for number in range(9)))
    ids = iter(tenants.values())
    rollout = (await _start(api, canary=1))["id"]
    # Long ago, before it was resumed, say: no part of the rate.
    await _row(api, rollout, next(ids), 0, "done", duration=100, ago=_ago(3600))
    # Three in the last ten seconds, of which the first began ten seconds ago.
    await _row(api, rollout, next(ids), 1, "done", duration=1000, ago=_ago(9))
    await _row(api, rollout, next(ids), 1, "done", duration=2000, ago=_ago(5))
    await _row(api, rollout, next(ids), 1, "failed", ago=_ago(1))
    for tenant_id in ids:
        await _row(api, rollout, tenant_id, 1, "pending")
    before = datetime.datetime.now(datetime.UTC)
    detail = (await api.operator.get(f"{ROLLOUTS}/{rollout}")).json()
    assert (detail["total"], detail["pending"], detail["done"], detail["failed"]) == (9, 5, 3, 1)
    assert 0.25 < detail["rate"] <= 0.3, "3 in a little more than 10 s"
    left = datetime.datetime.fromisoformat(detail["estimatedEnd"]) - before
    assert left.total_seconds() == pytest.approx(5 / detail["rate"], abs=3)
    assert (await api.operator.post(f"{ROLLOUTS}/{rollout}/cancel")).status_code == 200
    ended = (await api.operator.get(f"{ROLLOUTS}/{rollout}")).json()
    assert (ended["rate"], ended["estimatedEnd"], ended["pending"]) == (None, None, 5)


async def test_nothing_is_estimated_before_the_first_tenant_is_done(api: World) -> None:
    tenants = await make_tenants(api.addresses, "acme")
    rollout = (await _start(api))["id"]
    assert (await api.operator.get(f"{ROLLOUTS}/{rollout}")).json()["rate"] is None
    await _row(api, rollout, tenants["acme"], 1, "pending")
    detail = (await api.operator.get(f"{ROLLOUTS}/{rollout}")).json()
    assert (detail["pending"], detail["rate"], detail["estimatedEnd"]) == (1, None, None)


async def test_it_is_cancelled_and_resumed_from_the_states_that_allow_it(api: World) -> None:
    rollout = (await _start(api))["id"]
    path = f"{ROLLOUTS}/{rollout}"
    refused = await api.operator.post(f"{path}/resume")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/rollout-state")
    assert refused.json()["state"] == "running"
    cancelled = await api.operator.post(f"{path}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert (await api.operator.post(f"{path}/cancel")).status_code == 409
    resumed = await api.operator.post(f"{path}/resume")
    assert (resumed.status_code, resumed.json()["status"]) == (200, "running")
    await _carry_out(api)
    assert (await api.operator.get(path)).json()["status"] == "done"
    for verb in ("cancel", "resume"):
        assert (await api.operator.post(f"{path}/{verb}")).status_code == 409
        assert (await api.operator.post(f"{ROLLOUTS}/{uuid4()}/{verb}")).status_code == 404
    assert (await api.operator.get(f"{ROLLOUTS}/{uuid4()}")).status_code == 404


async def test_the_list_has_the_newest_first_and_is_narrowed_by_status(api: World) -> None:
    made = []
    for _ in range(3):
        made.append((await _start(api))["id"])
        if len(made) < 3:
            await api.operator.post(f"{ROLLOUTS}/{made[-1]}/cancel")
    listed = (await api.operator.get(ROLLOUTS)).json()
    assert [rollout["id"] for rollout in listed["items"]] == made[::-1]
    running = (await api.operator.get(ROLLOUTS, params={"status": "running"})).json()
    assert [rollout["id"] for rollout in running["items"]] == made[2:]
    assert (await api.operator.get(ROLLOUTS, params={"state": "running"})).status_code == 422


async def test_the_document_tells_of_the_stream(api: World) -> None:
    document = (await api.http.get("/schema/openapi.json")).json()
    operation = document["paths"]["/platform/rollouts/{rollout_id}/events"]["get"]
    assert operation["responses"]["200"]["content"] == {
        "text/event-stream": {"schema": {"$ref": "#/components/schemas/RolloutEvent"}}
    }
    assert "content" not in operation["responses"]["204"]
    assert {parameter["name"]: parameter["in"] for parameter in operation["parameters"]} == {
        "rollout_id": "path",
        "Last-Event-ID": "header",
    }
    assert "RolloutDetail" in document["components"]["schemas"]
