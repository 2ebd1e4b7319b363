"""The dashboard: what each may see, read beside one another, and never two connections for a request that waits."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import pytest
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from tenantry.domain.dashboard.service import Dashboards
from tenantry.domain.idempotency.jobs import forget_idempotency_keys
from tenantry.domain.webhooks.models import WebhookEndpoint
from tenantry.features import DOMAIN_FEATURES
from tenantry.jobs.models import OutboxEntry
from tenantry.kernel.feature import DashboardPart, Feature
from tenantry.kernel.schema import BaseStruct
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.parallel import ParallelReads
from tests.domain.machines import make_key
from tests.platform.support import open_api
from tests.world import PASSWORD, Caller, TenantHandle, World

OWN = {"notifications", "apiKeys", "teamInvitations"}
ALL = OWN | {"users", "invitations", "teams", "jobs", "activity", "webhooks"}


async def parts_of(caller: Caller) -> dict[str, Any]:
    answer = await caller.get("/api/dashboard")
    assert answer.status_code == 200, answer.text
    assert answer.json()["unavailable"] == []
    return answer.json()["parts"]  # type: ignore[no-any-return]


async def test_an_owner_sees_what_is_going_on(acme: TenantHandle, globex: TenantHandle) -> None:
    bob = await acme.add_user("bob", "member")
    gone = await acme.add_user("gone")
    await acme.patch(f"/api/users/{gone.id}", json={"isActive": False})
    invited = await acme.post("/api/invitations", json={"email": f"new@{acme.slug}.example", "roles": []})
    assert invited.status_code == 201, invited.text
    red = await acme.add_team("Red")
    blue = (await bob.post("/api/teams", json={"name": "Blue"})).json()
    await bob.post(f"/api/teams/{blue['id']}/members", json={"userId": str(acme.id), "role": "member"})
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    key = await make_key(bob, expiresAt=soon.isoformat())
    await make_key(acme)
    hooks = [
        (await acme.post("/api/webhooks", json={"url": "https://hooks.example.com/1", "events": ["*"]})).json()["id"]
        for _ in range(3)
    ]
    await acme.patch(f"/api/webhooks/{hooks[0]}", json={"isEnabled": False})
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        failing = update(WebhookEndpoint).where(WebhookEndpoint.id == hooks[1])
        await transaction.session.execute(failing.values(failing_since=datetime.datetime.now(datetime.UTC)))

    parts = await parts_of(acme)
    assert parts.keys() == ALL
    assert parts["users"] == {"active": 3, "deactivated": 1}
    assert parts["invitations"] == {"pending": 1}
    assert parts["teams"]["total"] == 2
    assert [(team["id"], team["role"]) for team in parts["teams"]["mine"]] == [
        (blue["id"], "member"),
        (red["id"], "owner"),
    ]
    assert parts["apiKeys"]["active"] == 2
    assert [each["id"] for each in parts["apiKeys"]["expiring"]] == [str(key.key_id)]
    assert parts["webhooks"] == {"enabled": 2, "failing": 1, "disabled": 1}
    assert len(parts["activity"]["latest"]) == 10
    trail = (await acme.get("/api/audit", params={"pageSize": 10})).json()["items"]
    assert [each["id"] for each in parts["activity"]["latest"]] == [each["id"] for each in trail]

    # Another organization's shows nothing of it.
    theirs = await parts_of(globex)
    assert theirs["users"] == {"active": 1, "deactivated": 0}
    assert (theirs["teams"], theirs["apiKeys"]) == ({"total": 0, "mine": []}, {"active": 0, "expiring": []})
    assert theirs["webhooks"] == {"enabled": 0, "failing": 0, "disabled": 0}
    assert not {each["id"] for each in theirs["activity"]["latest"]} & {each["id"] for each in trail}


async def test_nobody_sees_what_they_have_no_permission_for(acme: TenantHandle) -> None:
    seen = {
        role: (await parts_of(await acme.add_user(role, *([role] if role != "nobody" else [])))).keys()
        for role in ("admin", "member", "viewer", "nobody")
    }
    assert seen == {
        "admin": ALL,
        "member": ALL - {"activity", "webhooks"},
        "viewer": ALL - {"activity", "webhooks", "jobs"},
        "nobody": OWN,
    }


async def test_what_is_ones_own_is_ones_own(acme: TenantHandle) -> None:
    bob, eve = await acme.add_user("bob", "member"), await acme.add_user("eve", "member")
    soon = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)).isoformat()
    await make_key(bob, expiresAt=soon)
    team = await acme.add_team()
    asked = await acme.post(f"/api/teams/{team['id']}/invitations", json={"email": f"bob@{acme.slug}.example"})
    assert asked.status_code == 201, asked.text
    bobs, eves = await parts_of(bob), await parts_of(eve)
    assert (bobs["apiKeys"]["active"], eves["apiKeys"]["active"]) == (1, 0)
    assert (len(bobs["apiKeys"]["expiring"]), len(eves["apiKeys"]["expiring"])) == (1, 0)
    assert (bobs["teamInvitations"], eves["teamInvitations"]) == ({"pending": 1}, {"pending": 0})
    # To whoever manages keys, everybody's are shown.
    assert (await parts_of(acme))["apiKeys"]["active"] == 1


async def test_jobs_that_have_failed_are_ones_own_organizations(acme: TenantHandle, globex: TenantHandle) -> None:
    made = {}
    for tenant in (acme, globex):
        async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
            made[tenant.slug] = await forget_idempotency_keys.schedule(transaction.session, 3600)
            await forget_idempotency_keys.schedule(transaction.session, 3600, batch=7)
    async with acme.world.database.transaction(control_scope(ScopeTimes(), read_only=False)) as transaction:
        await transaction.session.execute(
            update(OutboxEntry).where(OutboxEntry.id.in_(made.values())).values(status="dead", error="of no business")
        )
    for tenant in (acme, globex):
        [failed] = (await parts_of(tenant))["jobs"]["failed"]
        assert (failed["id"], failed["name"]) == (str(made[tenant.slug]), "forget_idempotency_keys")
        assert failed.keys() == {"id", "name", "failedAt"}


def test_every_part_asks_for_a_permission_that_there_is() -> None:
    known = {permission.name for feature in DOMAIN_FEATURES for permission in feature.permissions}
    parts = [part for feature in DOMAIN_FEATURES for part in feature.dashboard]
    assert {part.name for part in parts} == ALL
    assert {part.permission for part in parts if part.permission is not None} <= known


# With parts that exist for these tests alone.


class Answer(BaseStruct):
    value: Any


def _dashboards(world: World, *parts: DashboardPart, at_once: int = 3, together: int = 3) -> Dashboards:
    reads = ParallelReads(world.database, at_once=at_once, together=together)
    return Dashboards([Feature(name="test", dashboard=parts)], reads)


def _shown(world: World, dashboards: Dashboards) -> Any:
    return patch.dict(world.app.state._state, {"dashboards": dashboards})


def _part(name: str, read: Callable[[AsyncSession], Any]) -> DashboardPart:
    async def with_caller(session: AsyncSession, _: Any) -> Answer:
        return Answer(value=await read(session))

    return DashboardPart(name, with_caller)


_WHERE = text(
    "SELECT current_user::text, current_setting('search_path'), current_setting('transaction_read_only'),"
    " pg_backend_pid()"
)


async def test_parts_are_read_beside_one_another_each_in_a_scope_of_its_own(world: World, acme: TenantHandle) -> None:
    """Each waits until all of them are under way."""
    together = asyncio.Barrier(3)

    async def read(session: AsyncSession) -> list[Any]:
        async with asyncio.timeout(5):
            await together.wait()
        return list((await session.execute(_WHERE)).one())

    with _shown(world, _dashboards(world, *(_part(name, read) for name in "abc"))):
        parts = await parts_of(acme)
    places = [part["value"] for part in parts.values()]
    assert {tuple(place[:3]) for place in places} == {(acme.context.schema, acme.context.schema, "on")}
    assert len({place[3] for place in places}) == 3, "each on a connection of its own"


async def test_no_more_of_them_at_once_than_the_deployment_allows(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    reading, most = 0, 0

    async def read(session: AsyncSession) -> int:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await session.execute(text("SELECT pg_sleep(0.01)"))
        reading -= 1
        return 1

    parts = [_part(f"part{number}", read) for number in range(10)]
    with _shown(world, _dashboards(world, *parts, at_once=3, together=100)):
        assert len(await parts_of(acme)) == 10
    assert most == 3
    most = 0
    with _shown(world, _dashboards(world, *parts, at_once=3, together=4)):
        await asyncio.gather(*(parts_of(tenant) for _ in range(3) for tenant in (acme, globex)))
    assert most == 4, "of all dashboards of the process together"


async def test_a_part_that_fails_is_null_and_the_others_are_there(world: World, acme: TenantHandle) -> None:
    async def well(_: AsyncSession) -> int:
        return 1

    async def slow(session: AsyncSession) -> None:
        await session.execute(text("SET LOCAL statement_timeout TO 50"))
        await session.execute(text("SELECT pg_sleep(60)"))

    async def broken(_: AsyncSession) -> None:
        raise RuntimeError("somebody's secret")

    async def writing(session: AsyncSession) -> None:
        await session.execute(text("DELETE FROM tag"))

    async def wrong(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1 / 0"))

    parts = {"well": well, "slow": slow, "broken": broken, "writing": writing, "wrong": wrong, "also": well}
    with _shown(world, _dashboards(world, *(_part(*each) for each in parts.items()))), capture_logs() as logs:
        answer = await acme.get("/api/dashboard")
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["parts"] == {
        "well": {"value": 1},
        "slow": None,
        "broken": None,
        "writing": None,
        "wrong": None,
        "also": {"value": 1},
    }
    assert {each["part"] for each in shown["unavailable"]} == {"slow", "broken", "writing", "wrong"}
    assert "secret" not in answer.text
    said = {each["part"]: each["log_level"] for each in logs if "part" in each}
    assert (said["slow"], said["broken"]) == ("warning", "error"), "operators see the bug, callers the rest"


async def test_where_nothing_can_be_read_it_is_an_error(world: World, acme: TenantHandle) -> None:
    async def away(_: AsyncSession) -> None:
        raise ConnectionRefusedError(111, "refused")

    with _shown(world, _dashboards(world, _part("a", away), _part("b", away))):
        answer = await acme.get("/api/dashboard")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")


async def test_two_parts_of_one_name_are_refused_at_the_start(world: World) -> None:
    async def read(_: AsyncSession) -> None: ...

    with pytest.raises(ValueError, match="two parts"):
        _dashboards(world, _part("same", read), _part("same", read))


async def test_many_at_once_finish_with_two_connections(world: World, acme: TenantHandle, globex: TenantHandle) -> None:
    """Whoever held one and waited for another would wait for ever, and be answered 503 after five seconds."""
    async with open_api(
        world.addresses,
        world.settings.home,
        database_connections=3,
        database_pool_timeout=5,
        # The thirty-five of either organization are to be answered, however slow the machine is.
        tenant_patience=60,
    ) as api:
        callers = [Caller(api.http, tenant.access_token) for tenant in (acme, globex)]
        async with asyncio.timeout(60):
            answers = await asyncio.gather(
                *(caller.get("/api/dashboard") for _ in range(15) for caller in callers),
                *(caller.get("/api/teams") for _ in range(15) for caller in callers),
                *(
                    caller.post("/api/tags", json={"name": f"tag {uuid4().hex}"}, headers={"Idempotency-Key": str(n)})
                    for n in range(5)
                    for caller in callers
                ),
            )
        assert {each.status_code for each in answers} == {200, 201}
        shown = [each.json() for each in answers if "parts" in each.json()]
        assert len(shown) == 30
        assert all(each["unavailable"] == [] for each in shown)
        engine: Any = api.database.engine
        assert engine.pool.checkedout() == 0


async def test_a_session_that_ended_sees_nothing(world: World, acme: TenantHandle) -> None:
    again = await world.log_in(acme.slug, acme.owner_email, PASSWORD)
    assert (await again.post("/api/auth/logout")).status_code == 204
    assert (await again.get("/api/dashboard")).status_code == 401
