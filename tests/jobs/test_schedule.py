"""Jobs that come back by the clock."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from tenantry.domain.tags.service import TagService
from tenantry.jobs.definition import job
from tenantry.jobs.schedule import Schedule, Scheduler, check_timezone
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import scope_times
from tests.platform.support import as_admin
from tests.world import TenantHandle, World


@job("nightly")
async def nightly(tags: TagService, note: str = "none") -> None:
    await tags.create({"name": note, "slug": note})


@job("fresh")
async def fresh() -> None:
    """Comes with a later release."""


@job("sweep_platform", platform=True)
async def sweep_platform() -> None:
    """Nothing."""


@job("picky")
async def picky(name: str) -> None:
    """Cannot be scheduled: nobody gives the name."""


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
async def clock(world: World) -> AsyncIterator[Scheduler]:
    yield scheduler_of(world)
    async with as_admin(world.addresses) as admin:
        await admin.execute("DELETE FROM platform.schedule; DELETE FROM platform.outbox")


def scheduler_of(world: World, *schedules: Schedule) -> Scheduler:
    return Scheduler(
        schedules=schedules or (Schedule(nightly, "30 2 * * *", jitter=3600), Schedule(sweep_platform, "*/5 * * * *")),
        database=world.database,
        control=control_scope(scope_times(world.settings), read_only=False),
    )


async def ask(world: World, question: str, *values: object) -> Any:
    async with as_admin(world.addresses) as admin:
        return await admin.fetchval(question, *values)


async def make_due(world: World, name: str) -> None:
    await ask(world, "UPDATE platform.schedule SET next_run_at = now() - interval '3 days' WHERE name = $1", name)


async def jobs_of(world: World, name: str, tenant_id: UUID | None) -> int:
    return int(
        await ask(
            world,
            "SELECT count(*) FROM platform.outbox WHERE name = $1 AND tenant_id IS NOT DISTINCT FROM $2",
            name,
            tenant_id,
        )
    )


async def test_every_tenant_gets_its_job_once_for_each_time_however_many_workers_look(
    world: World, acme: TenantHandle, globex: TenantHandle, clock: Scheduler
) -> None:
    await clock.enrol()
    await clock.tick()
    assert await jobs_of(world, "nightly", acme.tenant_id) == 0, "it is not due"
    await make_due(world, "nightly")
    others = [scheduler_of(world) for _ in range(3)]
    await asyncio.gather(*(other.tick() for other in (clock, *others)))
    assert await jobs_of(world, "nightly", acme.tenant_id) == 1, "three missed nights are one job"
    assert await jobs_of(world, "nightly", globex.tenant_id) == 1
    assert await ask(world, "SELECT min(next_run_at) > now() FROM platform.schedule WHERE name = 'nightly'")


async def test_the_platforms_job_has_one_row_and_no_tenant(world: World, clock: Scheduler) -> None:
    for _ in range(2):
        await clock.enrol()
    assert await ask(world, "SELECT count(*) FROM platform.schedule WHERE name = 'sweep_platform'") == 1
    await make_due(world, "sweep_platform")
    await clock.tick()
    assert await jobs_of(world, "sweep_platform", None) == 1


async def test_while_the_one_before_waits_there_is_no_second(
    world: World, acme: TenantHandle, clock: Scheduler
) -> None:
    await clock.enrol()
    for _ in range(2):
        await make_due(world, "nightly")
        await clock.tick()
    assert await jobs_of(world, "nightly", acme.tenant_id) == 1


async def test_a_tenant_that_has_switched_it_off_is_left_alone(
    world: World, acme: TenantHandle, globex: TenantHandle, clock: Scheduler
) -> None:
    await clock.enrol()
    await ask(world, "UPDATE platform.schedule SET enabled = false WHERE tenant_id = $1", acme.tenant_id)
    await make_due(world, "nightly")
    await clock.enrol()
    await clock.tick()
    assert await jobs_of(world, "nightly", acme.tenant_id) == 0
    assert await jobs_of(world, "nightly", globex.tenant_id) == 1


async def test_rows_of_a_release_that_was_taken_back_wait(world: World, acme: TenantHandle, clock: Scheduler) -> None:
    await clock.enrol()
    await make_due(world, "nightly")
    older = scheduler_of(world, Schedule(sweep_platform, "*/5 * * * *"))
    await older.tick()
    assert await jobs_of(world, "nightly", acme.tenant_id) == 0


async def test_a_new_schedule_follows_the_clock_that_the_tenant_has_chosen_last(
    world: World, acme: TenantHandle, globex: TenantHandle, clock: Scheduler
) -> None:
    await clock.enrol()
    await ask(
        world,
        "UPDATE platform.schedule SET timezone = 'Asia/Tokyo', timezone_set_at = now() WHERE tenant_id = $1",
        acme.tenant_id,
    )
    newer = scheduler_of(world, Schedule(nightly, "30 2 * * *"), Schedule(fresh, "30 2 * * *"))
    await newer.enrol()
    for tenant, expected in ((acme, "Asia/Tokyo"), (globex, "UTC")):
        zone = "SELECT timezone FROM platform.schedule WHERE name = 'fresh' AND tenant_id = $1"
        assert await ask(world, zone, tenant.tenant_id) == expected
    hour = "SELECT to_char(next_run_at AT TIME ZONE timezone, 'HH24:MI') FROM platform.schedule WHERE name = 'fresh'"
    assert await ask(world, f"{hour} AND tenant_id = $1", acme.tenant_id) == "02:30"


async def test_a_time_zone_that_is_not_known_here_keeps_nobody_else_waiting(
    world: World, acme: TenantHandle, globex: TenantHandle, clock: Scheduler
) -> None:
    """A row is written where the time zones are newer than on the machine that comes to it."""
    await clock.enrol()
    await ask(world, "UPDATE platform.schedule SET timezone = 'Mars/Olympus' WHERE tenant_id = $1", acme.tenant_id)
    await make_due(world, "nightly")
    await clock.tick()
    assert await jobs_of(world, "nightly", acme.tenant_id) == 1
    assert await jobs_of(world, "nightly", globex.tenant_id) == 1
    assert await ask(world, "SELECT min(next_run_at) > now() FROM platform.schedule WHERE name = 'nightly'")


def test_in_its_time_zone_a_nightly_job_comes_at_the_hour_of_the_clock_once_a_day() -> None:
    """Also in the nights in which the clock skips half past two, or shows it twice."""
    schedule = Schedule(nightly, "30 2 * * *")
    moment = datetime.datetime(2026, 3, 27, 12, tzinfo=BERLIN)
    times = []
    for _ in range(3):
        moment = schedule.next_after(moment, tenant_id=None, timezone="Europe/Berlin")
        times.append(moment.astimezone(BERLIN).strftime("%d %H:%M"))
    assert times == ["28 02:30", "29 03:30", "30 02:30"]
    moment = datetime.datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    times = []
    for _ in range(2):
        moment = schedule.next_after(moment, tenant_id=None, timezone="Europe/Berlin")
        times.append(moment.astimezone(BERLIN).strftime("%d %H:%M"))
    assert times == ["25 02:30", "26 02:30"]


def test_what_the_clock_has_shown_once_is_not_due_again_in_the_hour_that_comes_twice() -> None:
    moment = datetime.datetime(2026, 10, 25, 1, 15, tzinfo=datetime.UTC)
    assert moment.astimezone(BERLIN).strftime("%H:%M %z") == "02:15 +0100"
    following = Schedule(nightly, "30 2 * * *").next_after(moment, tenant_id=None, timezone="Europe/Berlin")
    assert following.astimezone(BERLIN).strftime("%d %H:%M") == "26 02:30"


def test_every_quarter_of_an_hour_is_also_in_the_hour_that_comes_twice() -> None:
    schedule = Schedule(nightly, "*/15 * * * *")
    moment = datetime.datetime(2026, 10, 25, 0, 0, tzinfo=datetime.UTC)
    for _ in range(8):
        following = schedule.next_after(moment, tenant_id=None, timezone="Europe/Berlin")
        assert following - moment == datetime.timedelta(minutes=15)
        moment = following


@given(
    moment=st.datetimes(
        min_value=datetime.datetime(2020, 1, 1),
        max_value=datetime.datetime(2040, 1, 1),
        timezones=st.just(datetime.UTC),
    ),
    timezone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    cron=st.sampled_from(["30 2 * * *", "*/7 * * * *", "0 0 1 * *", "15 3 * * 1"]),
    jitter=st.integers(0, 86_400),
)
def test_the_next_time_is_later_and_the_same_for_whoever_asks(
    moment: datetime.datetime, timezone: str, cron: str, jitter: int
) -> None:
    schedule = Schedule(nightly, cron, jitter=jitter)
    tenant_id = uuid7()
    following = schedule.next_after(moment, tenant_id=tenant_id, timezone=timezone)
    assert following > moment
    between = moment + (following - moment) / 2
    assert schedule.next_after(between, tenant_id=tenant_id, timezone=timezone) == following


def test_tenants_are_spread_over_the_jitter() -> None:
    schedule = Schedule(nightly, "0 3 * * *", jitter=3600)
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    times = {schedule.next_after(moment, tenant_id=uuid7()) for _ in range(500)}
    assert len(times) > 400
    assert max(times) - min(times) < datetime.timedelta(hours=1)


def test_what_cannot_be_scheduled_is_refused_when_it_is_declared() -> None:
    for cron in ("", "every day", "61 * * * *", "* * * * * *"):
        with pytest.raises(ValueError, match="crontab"):
            Schedule(nightly, cron)
    with pytest.raises(ValueError, match="name"):
        Schedule(picky, "0 3 * * *")
    with pytest.raises(ValueError, match="jitter"):
        Schedule(nightly, "0 3 * * *", jitter=-1)
    for name in ("Europe/Atlantis", "posix/UTC", "right/UTC", "localtime", "Factory", "..", "", "Europe", "x" * 300):
        with pytest.raises(ValueError, match="no such time zone"):
            check_timezone(name)
    assert check_timezone("Europe/Berlin") == "Europe/Berlin"
