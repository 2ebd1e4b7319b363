from __future__ import annotations

import asyncio

from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.kernel.settings import load_settings
from tenantry.platform.catalog.service import measure
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import create_database, scope_times
from tests.cli.support import answer, run
from tests.databases import Template
from tests.platform.support import as_admin

Env = dict[str, str]


def measure_now(env: Env) -> None:
    settings = load_settings(env)

    async def work() -> None:
        database = create_database(settings, application_name="test", pool_size=1)
        try:
            async with database.transaction(control_scope(scope_times(settings), read_only=False)) as transaction:
                session: AsyncSession = transaction.session
                await measure(session)
        finally:
            await database.close()

    asyncio.run(work())


def test_before_the_first_night_there_is_nothing_to_show(env: Env) -> None:
    assert "schedules run --platform measure_catalog" in run("catalog", env=env).stdout
    assert answer(run("catalog", "--json", env=env)) == {"latest": None, "growth": []}


def test_what_was_measured_is_shown_with_its_growth(env: Env, database_addresses: Template) -> None:
    measure_now(env)

    async def plant() -> None:
        async with as_admin(database_addresses) as admin:
            await admin.execute(
                "INSERT INTO platform.catalog_statistic SELECT gen_random_uuid(), day - 1, measured_at, schemas,"
                " relations - 1234, database_bytes - 3 * 1024 * 1024, tables, jobs, oldest_pending, created_at,"
                " updated_at FROM platform.catalog_statistic"
            )

    asyncio.run(plant())
    shown = run("catalog", env=env).stdout
    for word in ("pg_attribute", "pg_class", "pg_statistic", "relations", "+1,234", "+3.0 MiB", "+0.0 MiB"):
        assert word in shown
    found = answer(run("catalog", "--json", env=env))
    assert [(row["days"], row["relations"]) for row in found["growth"]] == [(1, 1234)]
    assert len(found["latest"]["tables"]) == 3
