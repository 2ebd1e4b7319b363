"""What operators see of schedules and change in them."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from tenantry.features import SCHEDULES
from tenantry.jobs.schedule import Scheduler
from tenantry.platform.access import OPERATOR_PERMISSIONS
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import scope_times
from tests.platform.support import as_admin
from tests.world import TenantHandle, World

OWN = sorted(schedule.name for schedule in SCHEDULES if not schedule.job.platform)
NIGHTLY = "forget_ended_sessions"
PLATFORMS = "measure_catalog"


@pytest.fixture(autouse=True)
async def _nothing_is_left(world: World) -> AsyncIterator[None]:
    yield
    async with as_admin(world.addresses) as admin:
        await admin.execute("DELETE FROM platform.schedule; DELETE FROM platform.outbox")


@pytest.fixture
def clock(world: World) -> Scheduler:
    return Scheduler(
        schedules=SCHEDULES,
        database=world.database,
        control=control_scope(scope_times(world.settings), read_only=False),
    )


def path_of(tenant: TenantHandle, name: str = NIGHTLY) -> str:
    return f"/platform/tenants/{tenant.slug}/schedules/{name}"


async def change(world: World, path: str, **fields: object) -> dict[str, Any]:
    answer = await world.operator.patch(path, json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def listed(world: World, **query: str) -> list[dict[str, Any]]:
    answer = await world.operator.get("/platform/schedules", params={"pageSize": "200", **query})
    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] == len(answer.json()["items"])
    return answer.json()["items"]  # type: ignore[no-any-return]


async def ask(world: World, question: str, *values: object) -> Any:
    async with as_admin(world.addresses) as admin:
        return await admin.fetchval(question, *values)


async def acts(world: World, tenant_id: UUID | None, action: str) -> list[Any]:
    async with as_admin(world.addresses) as admin:
        return await admin.fetch(
            "SELECT actor, target, details::text AS details FROM platform.audit_entry"
            " WHERE tenant_id IS NOT DISTINCT FROM $1 AND action = $2 ORDER BY id",
            tenant_id,
            action,
        )


def when(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


async def test_each_tenant_has_its_schedules_and_the_platform_its_own(
    world: World, acme: TenantHandle, globex: TenantHandle, clock: Scheduler
) -> None:
    await clock.enrol()
    for tenant in (acme, globex):
        rows = await listed(world, tenant=tenant.slug)
        assert sorted(row["name"] for row in rows) == OWN
        assert {(row["tenant"], row["tenantId"]) for row in rows} == {(tenant.slug, str(tenant.tenant_id))}
    [own] = [row for row in await listed(world, platform="true") if row["name"] == PLATFORMS]
    assert (own["name"], own["tenant"], own["tenantId"], own["cron"]) == (PLATFORMS, None, None, "15 4 * * *")
    await change(world, path_of(acme), enabled=False)
    for tenant, off, on in ((acme, 1, 0), (globex, 0, 1)):
        # Of them alone: others have made more tenants than are on a page.
        assert len(await listed(world, name=NIGHTLY, enabled="false", tenant=tenant.slug)) == off
        assert len(await listed(world, name=NIGHTLY, enabled="true", tenant=tenant.slug)) == on
    both = await world.operator.get("/platform/schedules", params={"platform": "true", "tenant": acme.slug})
    assert (both.status_code, both.json()["errors"][0]["field"]) == (422, "platform")


async def test_a_time_zone_counts_from_the_next_time_on(world: World, acme: TenantHandle, clock: Scheduler) -> None:
    await clock.enrol()
    before = (await world.operator.get(path_of(acme))).json()
    tokyo = await change(world, path_of(acme), timeZone="Asia/Tokyo")
    assert (before["timeZone"], tokyo["timeZone"]) == ("UTC", "Asia/Tokyo")
    # Nightly at three, and within two hours after: by whichever clock it follows.
    for row in (before, tokyo):
        assert 3 <= when(row["nextRunAt"]).astimezone(ZoneInfo(row["timeZone"])).hour < 5
        assert when(row["nextRunAt"]) > datetime.datetime.now(datetime.UTC)
    assert (await world.operator.get(path_of(acme))).json() == tokyo
    [act] = await acts(world, acme.tenant_id, "schedule.change")
    assert act["target"] == NIGHTLY
    assert act["actor"].startswith("operator:")
    assert '"Asia/Tokyo"' in act["details"]


@pytest.mark.parametrize(
    "name",
    ["Europe/Atlantis", "../../etc/passwd", "/etc/localtime", "localtime", "posix/UTC", "Europe", "ü", "UTC\x00"],
)
async def test_a_time_zone_that_is_none_is_refused_by_its_field(world: World, acme: TenantHandle, name: str) -> None:
    for path, body in (
        (path_of(acme), {"timeZone": name}),
        (f"/platform/schedules/{PLATFORMS}", {"timeZone": name}),
        (f"/platform/tenants/{acme.slug}/schedules", {"timeZone": name}),
    ):
        answer = await world.operator.patch(path, json=body)
        assert answer.status_code == 422, answer.text
        assert [error["field"] for error in answer.json()["errors"]] == ["timeZone"]
    assert await listed(world, tenant=acme.slug) == []


async def test_what_was_missed_while_it_was_off_stays_missed(
    world: World, acme: TenantHandle, globex: TenantHandle, clock: Scheduler
) -> None:
    await clock.enrol()
    await change(world, path_of(acme), enabled=False)
    await ask(world, "UPDATE platform.schedule SET next_run_at = now() - interval '3 days' WHERE name = $1", NIGHTLY)
    await change(world, path_of(acme), enabled=True)
    await clock.tick()
    jobs = "SELECT count(*) FROM platform.outbox WHERE name = $1 AND tenant_id = $2"
    assert await ask(world, jobs, NIGHTLY, acme.tenant_id) == 0
    assert await ask(world, jobs, NIGHTLY, globex.tenant_id) == 1


async def test_switching_on_what_is_on_does_not_put_it_off(world: World, acme: TenantHandle, clock: Scheduler) -> None:
    await clock.enrol()
    await ask(world, "UPDATE platform.schedule SET next_run_at = now() - interval '3 days' WHERE name = $1", NIGHTLY)
    await change(world, path_of(acme), enabled=True)
    await clock.tick()
    found = await ask(world, "SELECT count(*) FROM platform.outbox WHERE tenant_id = $1", acme.tenant_id)
    assert found == 1
    assert await acts(world, acme.tenant_id, "schedule.change") == []


async def test_a_tenant_that_has_no_rows_yet_can_be_changed_and_keeps_that(
    world: World, acme: TenantHandle, clock: Scheduler
) -> None:
    going_to_be = (await world.operator.get(path_of(acme))).json()
    assert (going_to_be["enabled"], going_to_be["timeZone"], going_to_be["lastRunAt"]) == (True, "UTC", None)
    assert await listed(world, tenant=acme.slug) == []
    made = await change(world, path_of(acme), enabled=False)
    assert made["enabled"] is False
    await clock.enrol()
    rows = {row["name"]: row["enabled"] for row in await listed(world, tenant=acme.slug)}
    assert rows == {name: name != NIGHTLY for name in OWN}
    assert len(await acts(world, acme.tenant_id, "schedule.change")) == 1


async def test_a_change_of_nothing_makes_nothing(world: World, acme: TenantHandle) -> None:
    assert (await change(world, path_of(acme)))["enabled"] is True
    assert await listed(world, tenant=acme.slug) == []
    assert await acts(world, acme.tenant_id, "schedule.change") == []


async def test_one_clock_for_all_schedules_of_a_tenant_and_for_those_to_come(
    world: World, acme: TenantHandle, globex: TenantHandle, clock: Scheduler
) -> None:
    await clock.enrol()
    # One was in this release all along, and one comes with the next.
    await ask(world, "DELETE FROM platform.schedule WHERE name = $1", NIGHTLY)
    everything = await change(world, f"/platform/tenants/{acme.slug}/schedules", timeZone="Asia/Tokyo")
    assert sorted(row["name"] for row in everything["items"]) == OWN
    assert {row["timeZone"] for row in everything["items"]} == {"Asia/Tokyo"}
    [act] = await acts(world, acme.tenant_id, "schedule.set_timezone")
    assert NIGHTLY in act["details"]
    await ask(world, "DELETE FROM platform.schedule WHERE name = 'seal_audit'")
    await clock.enrol()
    assert {row["timeZone"] for row in await listed(world, tenant=acme.slug)} == {"Asia/Tokyo"}
    assert {row["timeZone"] for row in await listed(world, tenant=globex.slug)} == {"UTC"}
    nightly = (await world.operator.get(path_of(acme))).json()
    assert 3 <= when(nightly["nextRunAt"]).astimezone(ZoneInfo("Asia/Tokyo")).hour < 5


async def test_the_clock_that_was_chosen_last_is_that_of_what_comes_later(
    world: World, acme: TenantHandle, clock: Scheduler
) -> None:
    await change(world, path_of(acme, "seal_audit"), timeZone="Asia/Tokyo")
    await change(world, path_of(acme), timeZone="Europe/Berlin")
    # What the clock does to a row is no choice of anybody's.
    await ask(world, "UPDATE platform.schedule SET next_run_at = now() WHERE name = 'seal_audit'")
    await clock.tick()
    going_to_be = (await world.operator.get(path_of(acme, "forget_old_invitations"))).json()
    await clock.enrol()
    rows = {row["name"]: row["timeZone"] for row in await listed(world, tenant=acme.slug)}
    assert rows["forget_old_invitations"] == going_to_be["timeZone"] == "Europe/Berlin"
    assert rows["seal_audit"] == "Asia/Tokyo"


async def test_it_runs_now_once_however_many_ask(world: World, acme: TenantHandle, globex: TenantHandle) -> None:
    answers = await asyncio.gather(*(world.operator.post(f"{path_of(acme)}/run") for _ in range(3)))
    assert {answer.status_code for answer in answers} == {202}, [answer.text for answer in answers]
    [job_id] = {answer.json()["jobId"] for answer in answers}
    assert sorted(answer.json()["alreadyWaiting"] for answer in answers) == [False, True, True]
    assert {answer.headers["Location"] for answer in answers} == {f"/platform/jobs/{job_id}"}
    async with as_admin(world.addresses) as admin:
        [row] = await admin.fetch("SELECT id, tenant_id, name, key, status, meta::text AS meta FROM platform.outbox")
    assert (str(row["id"]), row["tenant_id"], row["name"]) == (job_id, acme.tenant_id, NIGHTLY)
    assert (row["key"], row["status"]) == ("schedule", "pending")
    assert '"actor": "operator:' in row["meta"]
    assert len(await acts(world, acme.tenant_id, "schedule.run")) == 3
    assert await acts(world, globex.tenant_id, "schedule.run") == []


async def test_the_platforms_own_is_changed_and_run_like_a_tenants(world: World, clock: Scheduler) -> None:
    off = await change(world, f"/platform/schedules/{PLATFORMS}", enabled=False, timeZone="Europe/Berlin")
    assert (off["enabled"], off["timeZone"], off["tenant"]) == (False, "Europe/Berlin", None)
    assert when(off["nextRunAt"]).astimezone(ZoneInfo("Europe/Berlin")).hour == 4
    await clock.enrol()
    assert [row for row in await listed(world, platform="true") if row["name"] == PLATFORMS] == [off]
    ran = await world.operator.post(f"/platform/schedules/{PLATFORMS}/run")
    assert ran.status_code == 202, ran.text
    found = await ask(world, "SELECT tenant_id IS NULL FROM platform.outbox WHERE id = $1", UUID(ran.json()["jobId"]))
    assert found is True


async def test_a_tenants_schedule_is_none_of_the_platforms_nor_the_other_way_round(
    world: World, acme: TenantHandle
) -> None:
    wrong = (f"/platform/schedules/{NIGHTLY}", path_of(acme, PLATFORMS), path_of(acme, "nothing"))
    for path in wrong:
        for method, target, body in (
            ("GET", path, None),
            ("PATCH", path, {"enabled": False}),
            ("POST", f"{path}/run", None),
        ):
            sent = {} if body is None else {"json": body}
            answer = await world.operator.request(method, target, **sent)
            assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found"), answer.text
    unknown = await world.operator.patch(f"/platform/tenants/{acme.slug}x/schedules/{NIGHTLY}", json={"enabled": True})
    assert (unknown.status_code, unknown.json()["nearest"][:1]) == (404, [acme.slug])
    assert await ask(world, "SELECT count(*) FROM platform.schedule") == 0


async def test_of_a_release_that_was_taken_back_it_is_shown_and_rests(
    world: World, acme: TenantHandle, clock: Scheduler
) -> None:
    await clock.enrol()
    await ask(
        world,
        "UPDATE platform.schedule SET name = 'of_tomorrow' WHERE name = $1 AND tenant_id = $2",
        NIGHTLY,
        acme.tenant_id,
    )
    [row] = await listed(world, name="of_tomorrow", tenant=acme.slug)
    assert (row["cron"], row["jitter"]) == (None, None)
    assert (await world.operator.get(path_of(acme, "of_tomorrow"))).status_code == 404


async def test_what_a_clock_does_meanwhile_is_not_lost(world: World, acme: TenantHandle, clock: Scheduler) -> None:
    """Workers look at the row while an operator changes it: neither undoes the other."""
    await clock.enrol()
    await ask(world, "UPDATE platform.schedule SET next_run_at = now() - interval '1 hour' WHERE name = $1", NIGHTLY)
    await asyncio.gather(clock.tick(), change(world, path_of(acme), timeZone="Asia/Tokyo"))
    await clock.tick()
    row = (await world.operator.get(path_of(acme))).json()
    assert row["timeZone"] == "Asia/Tokyo"
    assert 3 <= when(row["nextRunAt"]).astimezone(ZoneInfo("Asia/Tokyo")).hour < 5


async def test_a_purged_tenant_gets_no_schedule_any_more(world: World, acme: TenantHandle) -> None:
    await ask(world, "UPDATE platform.tenant SET status = 'purged' WHERE id = $1", acme.tenant_id)
    for method, path, body in (
        ("PATCH", path_of(acme), {"enabled": False}),
        ("PATCH", f"/platform/tenants/{acme.slug}/schedules", {"timeZone": "UTC"}),
        ("POST", f"{path_of(acme)}/run", None),
    ):
        answer = await world.operator.request(method, path, **({} if body is None else {"json": body}))
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/invalid-transition")
    assert await ask(world, "SELECT count(*) FROM platform.schedule WHERE tenant_id = $1", acme.tenant_id) == 0


def test_every_operator_sees_schedules_and_only_those_who_run_the_platform_touch_them(world: World) -> None:
    guards = {
        handler.operation_id: {guard.permission for guard in handler.resolve_guards() if hasattr(guard, "permission")}
        for route in world.app.routes
        if "/schedules" in route.path
        for handler in route.route_handlers  # type: ignore[union-attr]
        if getattr(handler, "operation_id", None)
    }
    reading = {name for name, asked in guards.items() if asked == {"jobs:read"}}
    assert reading == {"ListSchedules", "GetPlatformSchedule", "GetTenantSchedule"}
    assert all(asked == {"jobs:write"} for name, asked in guards.items() if name not in reading)
    assert {role for role, held in OPERATOR_PERMISSIONS.items() if "jobs:write" in held} == {"operator", "owner"}
