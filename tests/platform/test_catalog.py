"""What a schema for each tenant makes of the database, as it is measured every night."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tenantry.features import SCHEDULES
from tenantry.jobs.schedule import Scheduler
from tenantry.jobs.testing import JobBox
from tenantry.platform.catalog.jobs import measure_catalog
from tenantry.platform.catalog.service import KEPT
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import scope_times
from tests.databases import Template
from tests.platform.support import as_admin, make_provisioner, open_api, tenant_body
from tests.world import World

CATALOG = {"pg_attribute", "pg_class", "pg_statistic"}


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    async with open_api(database_addresses, tmp_path, provision_wait=0.05) as opened:
        yield opened


async def make_tenant(api: World, slug: str) -> None:
    made = await api.operator.post("/platform/tenants", json=tenant_body(slug))
    assert made.status_code in {201, 202}, made.text
    provisioner = make_provisioner(api.addresses)
    try:
        await provisioner.work_off()
    finally:
        await provisioner.close()


def control(api: World) -> Any:
    return control_scope(scope_times(api.settings), read_only=False)


async def measure(api: World) -> str:
    async with api.database.transaction(control(api)) as transaction:
        return str(await measure_catalog(transaction.session))


async def read(api: World) -> dict[str, Any]:
    answer = await api.operator.get("/platform/catalog")
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def plant(admin: asyncpg.Connection[Any], days_ago: int, **fields: int) -> None:
    """The newest measurement as it would have been that long ago, with less of everything."""
    less = {"schemas": 0, "relations": 0, "database_bytes": 0, **fields}
    await admin.execute(
        "INSERT INTO platform.catalog_statistic (id, day, measured_at, schemas, relations, database_bytes, tables,"
        " jobs, oldest_pending, created_at, updated_at) SELECT gen_random_uuid(), day - $1::int, measured_at,"
        " schemas - $2, relations - $3, database_bytes - $4, tables, jobs, oldest_pending, created_at, updated_at"
        " FROM platform.catalog_statistic ORDER BY day DESC LIMIT 1",
        days_ago,
        *less.values(),
    )


async def test_a_schema_more_shows_in_what_is_measured(api: World) -> None:
    assert await read(api) == {"latest": None, "growth": []}
    today = datetime.datetime.now(datetime.UTC).date()
    await measure(api)
    before = (await read(api))["latest"]
    await make_tenant(api, "acme")
    assert datetime.date.fromisoformat(await measure(api)) >= today
    after = (await read(api))["latest"]
    assert (before["schemas"], after["schemas"]) == (0, 1)
    async with as_admin(api.addresses) as admin:
        made = await admin.fetchval(
            "SELECT count(*) FROM pg_class WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^t_')"
        )
        assert after["relations"] == await admin.fetchval("SELECT count(*) FROM pg_class")
        # Of the same day, as it was the last time.
        assert await admin.fetchval("SELECT count(*) FROM platform.catalog_statistic") == 1
    assert after["relations"] - before["relations"] >= made > 20
    assert {table["name"] for table in after["tables"]} == CATALOG
    for table in after["tables"]:
        assert table["bytes"] == table["tableBytes"] + table["indexBytes"] > 0
        assert table["dead"] >= 0
    assert after["catalogBytes"] == sum(table["bytes"] for table in after["tables"])
    assert after["databaseBytes"] > after["catalogBytes"]


async def test_it_counts_what_waits_and_for_how_long(api: World) -> None:
    async with as_admin(api.addresses) as admin:
        for status, due in (("pending", "-1 hour"), ("pending", "-1 minute"), ("later", "1 day"), ("dead", "-9 days")):
            await admin.execute(
                "INSERT INTO platform.outbox (id, name, arguments, status, due, retries, timeout, meta, created_at,"
                " updated_at) VALUES (gen_random_uuid(), 'probe', '{}', $1, now() + $2::text::interval, 2, 60, '{}',"
                " now(), now())",
                status,
                due,
            )
    await measure(api)
    latest = (await read(api))["latest"]
    assert latest["jobs"] == {"pending": 2, "later": 1, "dead": 1}
    assert 3600 <= latest["oldestPending"] < 3700


async def test_growth_is_told_over_a_day_a_week_and_a_month(api: World) -> None:
    await measure(api)
    async with as_admin(api.addresses) as admin:
        for days, schemas in ((1, 2), (6, 5), (9, 7)):
            await plant(admin, days, schemas=schemas, relations=100 * schemas, database_bytes=1000 * schemas)
    found = await read(api)
    day = datetime.date.fromisoformat(found["latest"]["day"])
    rows = [(row["days"], day - datetime.date.fromisoformat(row["since"]), row["schemas"]) for row in found["growth"]]
    # A week ago nothing was measured: the last time before. A month back there is nothing.
    assert rows == [(1, datetime.timedelta(days=1), 2), (7, datetime.timedelta(days=9), 7)]
    assert [row["relations"] for row in found["growth"]] == [200, 700]
    assert [row["databaseBytes"] for row in found["growth"]] == [2000, 7000]
    assert [row["catalogBytes"] for row in found["growth"]] == [0, 0]


async def test_measurements_are_forgotten_after_their_time(api: World) -> None:
    await measure(api)
    async with as_admin(api.addresses) as admin:
        for days in (KEPT - 1, KEPT, KEPT + 100):
            await plant(admin, days)
        await measure(api)
        kept = await admin.fetch("SELECT max(day) OVER () - day AS age FROM platform.catalog_statistic ORDER BY 1")
    assert [row["age"] for row in kept] == [0, KEPT - 1]


async def test_it_comes_by_itself_every_night_and_runs_as_a_worker_runs_it(api: World) -> None:
    clock = Scheduler(schedules=SCHEDULES, database=api.database, control=control(api))
    await clock.enrol()
    box = JobBox(api.database, control(api), [measure_catalog])
    async with as_admin(api.addresses) as admin:
        await admin.execute(
            "UPDATE platform.schedule SET next_run_at = now() - interval '1 hour' WHERE name = 'measure_catalog'"
        )
    await clock.tick()
    assert await box.drain(None) == [(await read(api))["latest"]["day"]]


async def test_tenants_may_neither_ask_for_the_size_nor_read_what_was_measured(api: World) -> None:
    await make_tenant(api, "acme")
    async with as_admin(api.addresses) as admin:
        schema = await admin.fetchval("SELECT nspname FROM pg_namespace WHERE nspname ~ '^t_'")
        for sql in ("SELECT platform.database_size()", "SELECT * FROM platform.catalog_statistic"):
            async with admin.transaction():
                await admin.execute(f'SET LOCAL ROLE "{schema}"')
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with admin.transaction():
                        await admin.fetch(sql)
