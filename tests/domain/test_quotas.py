"""No more than the plan allows, however many come at once; and what is there stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, text

from tenantry.domain.identity.users.models import User
from tenantry.domain.tags.models import Tag
from tenantry.kernel.errors import PermissionDeniedException
from tenantry.tenancy.quotas import use_quota
from tests.entitled import entitle, is_over, use_of
from tests.platform.support import eventually
from tests.world import PASSWORD, TenantHandle, World

MAKING: dict[str, tuple[str, Any]] = {
    "tags": ("/api/tags", lambda number: {"name": f"Tag {number}"}),
    "teams": ("/api/teams", lambda number: {"name": f"Team {number}"}),
    "custom_roles": ("/api/roles", lambda number: {"name": f"Role {number}", "permissions": ["tags:read"]}),
    "api_keys": ("/api/api-keys", lambda number: {"name": f"Key {number}", "scopes": ["tags:read"]}),
    "service_accounts": ("/api/service-accounts", lambda number: {"name": f"Machine {number}", "roles": ["viewer"]}),
    "webhook_endpoints": (
        "/api/webhooks",
        lambda number: {"url": f"https://hooks.example.com/{number}", "events": ["team.*"]},
    ),
    "seats": (
        "/api/users",
        lambda number: {"email": f"u{number}@people.example", "password": PASSWORD, "roles": ["viewer"]},
    ),
}


@pytest.mark.parametrize("quota", MAKING)
async def test_what_a_plan_counts_is_refused_beyond_it_and_only_for_that_tenant(
    acme: TenantHandle, globex: TenantHandle, quota: str
) -> None:
    path, body = MAKING[quota]
    used, allowed = await use_of(acme, quota)
    assert allowed is None
    await entitle(acme, quotas={quota: used + 1})
    made = await acme.post(path, json=body(1))
    assert made.status_code == 201, made.text
    assert is_over(await acme.post(path, json=body(2)), quota, used=used + 1, allowed=used + 1)
    assert await use_of(acme, quota) == (used + 1, used + 1)
    for number in (1, 2):
        assert (await globex.post(path, json=body(number))).status_code == 201
    # Whoever makes room may make another one.
    await entitle(acme, quotas={quota: used + 2})
    assert (await acme.post(path, json=body(2))).status_code == 201


@pytest.mark.parametrize("quota", ["tags", "seats"])
async def test_of_many_who_come_at_once_only_as_many_as_there_is_room_for_get_in(
    acme: TenantHandle, quota: str
) -> None:
    path, body = MAKING[quota]
    used, _ = await use_of(acme, quota)
    await entitle(acme, quotas={quota: used + 3})
    answers = await asyncio.gather(*(acme.post(path, json=body(number)) for number in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [403] * 7
    for answer in answers:
        assert answer.status_code == 201 or is_over(answer, quota, used=used + 3, allowed=used + 3)
    assert await use_of(acme, quota) == (used + 3, used + 3)


@pytest.mark.parametrize("is_first", [True, False], ids=["the first ever", "later"])
async def test_whoever_waited_counts_what_was_made_meanwhile(world: World, acme: TenantHandle, is_first: bool) -> None:
    await entitle(acme, quotas={"tags": 1 if is_first else 2})
    if not is_first:
        assert (await acme.post("/api/tags", json={"name": "There already"})).status_code == 201
    scope = acme.context.write_scope

    async def second() -> None:
        async with world.database.transaction(scope) as transaction:
            await use_quota(transaction.session, "tags")

    async def is_waiting() -> bool:
        async with world.database.transaction(scope) as transaction:
            found = await transaction.session.scalar(
                text("SELECT count(*) FROM pg_locks l WHERE NOT l.granted AND l.locktype = 'transactionid'")
            )
        return bool(found)

    async with world.database.transaction(scope) as transaction:
        await use_quota(transaction.session, "tags")
        waiting = asyncio.create_task(second())
        await eventually(is_waiting, 5)
        transaction.session.add(Tag(name="The last", slug="the-last"))
        await transaction.session.flush()
    with pytest.raises(PermissionDeniedException) as refused:
        await waiting
    assert refused.value.members["used"] == refused.value.members["allowed"]


async def test_whoever_gives_up_leaves_the_place_to_the_next(world: World, acme: TenantHandle) -> None:
    await entitle(acme, quotas={"tags": 1})
    transaction = await world.database.begin(acme.context.write_scope)
    try:
        await use_quota(transaction.session, "tags")
        transaction.session.add(Tag(name="Almost", slug="almost"))
        await transaction.flush()
    finally:
        await transaction.close()
    assert (await acme.post("/api/tags", json={"name": "In its place"})).status_code == 201


async def test_a_limit_below_what_there_is_takes_nothing_away_and_lets_nothing_be_added(acme: TenantHandle) -> None:
    for name in ("One", "Two", "Three"):
        assert (await acme.post("/api/tags", json={"name": name})).status_code == 201
    await entitle(acme, quotas={"tags": 1})
    assert await use_of(acme, "tags") == (3, 1)
    listed = (await acme.get("/api/tags")).json()
    assert listed["total"] == 3
    changed = await acme.patch(f"/api/tags/{listed['items'][0]['id']}", json={"name": "Renamed"})
    assert changed.status_code == 200
    assert is_over(await acme.post("/api/tags", json={"name": "Four"}), "tags", used=3, allowed=1)
    for item in listed["items"][:2]:
        assert (await acme.delete(f"/api/tags/{item['id']}")).status_code == 204
    assert is_over(await acme.post("/api/tags", json={"name": "Four"}), "tags", used=1, allowed=1)
    await entitle(acme, quotas={"tags": None})
    assert (await acme.post("/api/tags", json={"name": "Four"})).status_code == 201


async def test_tags_that_come_with_a_team_are_counted_and_without_room_there_is_no_team(acme: TenantHandle) -> None:
    await entitle(acme, quotas={"tags": 2})
    team = await acme.add_team("Red", tags=["one"])
    refused = await acme.post("/api/teams", json={"name": "Blue", "tags": ["one", "two", "three"]})
    assert is_over(refused, "tags", used=1, allowed=2)
    assert (await acme.get("/api/teams")).json()["total"] == 1
    assert is_over(await acme.patch(f"/api/teams/{team['id']}", json={"tags": ["a", "b"]}), "tags", used=1, allowed=2)
    # Those that are there already need no room.
    assert (await acme.patch(f"/api/teams/{team['id']}", json={"tags": ["one", "two"]})).status_code == 200
    await acme.add_team("Green", tags=["two", "one"])


async def test_a_full_storage_takes_no_more_exports(acme: TenantHandle, globex: TenantHandle) -> None:
    await entitle(acme, quotas={"storage": 0})
    assert is_over(await acme.post("/api/organization/exports"), "storage", used=0, allowed=0)
    assert (await globex.post("/api/organization/exports")).status_code == 202


async def test_a_counted_write_costs_one_statement_more_and_without_a_limit_takes_no_lock(
    world: World, acme: TenantHandle
) -> None:
    statements: list[str] = []
    engine = world.database.engine.sync_engine

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    async def make(name: str) -> list[str]:
        statements.clear()
        event.listen(engine, "before_cursor_execute", note)
        try:
            assert (await acme.post("/api/tags", json={"name": name})).status_code == 201
        finally:
            event.remove(engine, "before_cursor_execute", note)
        return [statement for statement in statements if "quota" in statement or "count(" in statement]

    async def locks() -> int:
        async with world.database.transaction(acme.context.read_scope) as transaction:
            return int(await transaction.session.scalar(text("SELECT count(*) FROM quota_lock")) or 0)

    assert len(await make("Free")) == 1
    assert await locks() == 0
    await entitle(acme, quotas={"tags": 10})
    assert len(await make("First")) == 1
    assert len(await make("Second")) == 1
    assert await locks() == 1


async def test_an_organization_has_an_owner_whatever_its_plan_says_of_seats(world: World) -> None:
    made = await world.create_tenant("noseats")
    await entitle(made, quotas={"seats": 0})
    assert await use_of(made, "seats") == (1, 0)
    async with world.database.transaction(made.context.read_scope) as transaction:
        owner = (await transaction.session.scalars(User.__table__.select().with_only_columns(User.is_active))).all()
    assert owner == [True]
