"""What PostgreSQL and the log are told of whose a statement is: slow ones, labels, the pools' figures."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy import text
from structlog.testing import capture_logs

from tenantry.kernel.work import WORK
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.database import Database
from tenantry.tenancy.scope import Scope, label_clause
from tests.platform.support import as_admin
from tests.world import TenantHandle, World

CONTROL = control_scope(ScopeTimes(), read_only=True)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def watchful(world: World) -> AsyncIterator[Database]:
    """A pool of its own, to which every statement is slow."""
    database = Database(
        world.addresses.app_url, pool_size=1, max_overflow=1, slow_after=0.0, application_name="watchful"
    )
    yield database
    await database.close()


async def slow_lines(database: Database, scope: Scope, *, orm: bool) -> list[Any]:
    with capture_logs() as lines:
        async with database.transaction(scope) as transaction:
            if orm:
                await transaction.session.execute(text("SELECT  :secret || '!'"), {"secret": "hunter2"})
            else:
                await transaction.connection.fetchval("SELECT  $1 || '!'", "hunter2")
    assert "hunter2" not in str(lines)
    return [line for line in lines if line["event"] == "slow statement"]


@pytest.mark.parametrize("orm", [True, False], ids=["orm", "driver"])
async def test_a_slow_statement_is_logged_with_whose_it_was_and_without_its_values(
    watchful: Database, acme: TenantHandle, globex: TenantHandle, orm: bool
) -> None:
    before = value("tenantry_slow_statements_total", plan="free")
    token = WORK.set("GET /api/teams")
    try:
        found = [await slow_lines(watchful, tenant.context.read_scope, orm=orm) for tenant in (acme, globex)]
    finally:
        WORK.reset(token)
    for tenant, lines in zip((acme, globex), found, strict=True):
        [line] = [line for line in lines if line["statement"].startswith("SELECT")]
        assert (line["tenant"], line["plan"], line["work"]) == (tenant.slug, "free", "GET /api/teams")
        assert re.fullmatch(r"SELECT \$1\S* \|\| '!'", line["statement"])
        assert line["milliseconds"] >= 0
        assert line["log_level"] == "warning"
    assert value("tenantry_slow_statements_total", plan="free") == before + sum(map(len, found))


async def test_a_slow_commit_and_a_failed_statement_are_logged_as_well(watchful: Database, acme: TenantHandle) -> None:
    with capture_logs() as lines:
        async with watchful.transaction(acme.context.write_scope):
            pass
        with pytest.raises(Exception, match="division by zero"):
            async with watchful.transaction(acme.context.read_scope) as transaction:
                await transaction.connection.fetchval("SELECT 1/0")
    assert [line["statement"] for line in lines] == ["COMMIT", "SELECT 1/0", "ROLLBACK"]


async def test_many_rows_at_once_are_one_slow_statement(watchful: Database, acme: TenantHandle) -> None:
    insert = "INSERT INTO tag (id, slug, name, created_at, updated_at) VALUES ($1, $2, $2, now(), now())"
    with capture_logs() as lines:
        async with watchful.transaction(acme.context.write_scope) as transaction:
            numbers = [(f"01a2075c-ad00-744a-984a-987a6502fe{number}", f"tag-{number}") for number in (10, 11)]
            await transaction.connection.executemany(insert, numbers)
    assert [line["statement"] for line in lines] == [insert, "COMMIT"]


async def test_the_platforms_own_statements_are_counted_apart(watchful: Database) -> None:
    before = value("tenantry_slow_statements_total", plan="_platform")
    lines = await slow_lines(watchful, CONTROL, orm=False)
    assert {line["tenant"] for line in lines} == {"platform"}
    assert value("tenantry_slow_statements_total", plan="_platform") > before


async def test_what_is_quick_is_not_logged(world: World, acme: TenantHandle) -> None:
    assert await slow_lines(world.database, acme.context.read_scope, orm=True) == []


async def application_names(world: World, pid: int) -> str:
    async with as_admin(world.addresses) as admin:
        return await admin.fetchval("SELECT application_name FROM pg_stat_activity WHERE pid = $1", pid)  # type: ignore[no-any-return]


async def test_the_server_knows_whose_transaction_it_is_at(
    world: World, watchful: Database, acme: TenantHandle, globex: TenantHandle
) -> None:
    pids = set()
    for tenant in (acme, globex):
        token = WORK.set("GET /api/teams/{team_id}")
        try:
            async with watchful.transaction(tenant.context.read_scope) as transaction:
                pid = await transaction.connection.fetchval("SELECT pg_backend_pid()")
                assert await application_names(world, pid) == f"watchful:{tenant.slug} GET /api/teams/{{team_id}}"
        finally:
            WORK.reset(token)
        assert await application_names(world, pid) == "watchful", "after the transaction it is the pool's again"
        pids.add(pid)
    assert len(pids) == 1, "one connection, two tenants"


async def test_labels_can_be_switched_off(world: World, acme: TenantHandle) -> None:
    database = Database(world.addresses.app_url, pool_size=1, labels=False, application_name="silent")
    try:
        async with database.transaction(acme.context.read_scope) as transaction:
            assert await transaction.connection.fetchval("SHOW application_name") == "silent"
    finally:
        await database.close()


@given(st.text(max_size=100), st.text(max_size=200))
def test_nothing_ends_a_label_early(tenant: str, work: str) -> None:
    clause = label_clause("tenantry-api", tenant, work)
    match = re.fullmatch(r"; SET LOCAL application_name TO '([A-Za-z0-9 _./{}:?-]*)'", clause)
    assert match is not None
    assert len(match[1]) <= 63


@pytest.mark.parametrize("hostile", ["'; RESET ROLE; --", "\\'; RESET ROLE; --", "*/ x", "a'||'b", "\0", "$$", "ä'"])
async def test_a_hostile_name_is_a_label_and_no_statement(watchful: Database, acme: TenantHandle, hostile: str) -> None:
    scope = acme.context.read_scope
    hostile_scope = Scope(role=scope.role, search_path=scope.search_path, read_only=True, tenant=hostile)
    token = WORK.set(hostile)
    try:
        async with watchful.transaction(hostile_scope) as transaction:
            row = await transaction.connection.fetchrow(
                "SELECT current_user::text AS role, current_setting('application_name') AS label"
            )
    finally:
        WORK.reset(token)
    assert row is not None
    assert row["role"] == scope.role
    assert row["label"].startswith("watchful:")
    assert not set(row["label"]) & set("';\\*$")


async def test_routes_and_jobs_name_what_they_are_at(world: World, acme: TenantHandle) -> None:
    seen: list[str] = []
    begin = Database.begin

    async def listening(self: Database, scope: Scope) -> Any:
        seen.append(f"{scope.tenant} {WORK.get()}")
        return await begin(self, scope)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "begin", listening)
        assert (await acme.get("/api/teams")).status_code == 200
        assert (await world.operator.get("/platform/plans")).status_code == 200
    assert f"{acme.slug} GET /api/teams" in seen
    assert "platform GET /platform/plans" in seen


async def test_pools_count_what_they_open_and_why_they_close(world: World, acme: TenantHandle) -> None:
    database = Database(world.addresses.app_url, pool_size=1, max_overflow=1, application_name="counted")
    scope = acme.context.read_scope

    def opened() -> float:
        return value("tenantry_database_connections_opened_total", pool="counted")

    def closed(reason: str) -> float:
        return value("tenantry_database_connections_closed_total", pool="counted", reason=reason)

    try:
        before = value("tenantry_database_transaction_seconds_count", plane="tenant")
        async with database.transaction(scope), database.transaction(scope):
            database.sample()
            assert value("tenantry_database_connections", pool="counted", state="in_use") == 2
        assert (opened(), closed("surplus")) == (2, 1)
        assert value("tenantry_database_transaction_seconds_count", plane="tenant") == before + 2
        assert value("tenantry_database_wait_seconds_count", pool="counted") == 2
        broken = await database.begin(scope)
        await broken.close(failed=True)
        assert (opened(), closed("invalid")) == (2, 1)
        async with database.transaction(scope):
            pass
        database.sample()
        assert value("tenantry_database_connections", pool="counted", state="in_use") == 0
        assert value("tenantry_database_connections", pool="counted", state="idle") == 1
        assert opened() == 3
    finally:
        await database.close()
    assert closed("end") == 1


async def test_the_registry_tells_how_many_it_knows_and_how_old_that_is(world: World, acme: TenantHandle) -> None:
    text = (await world.http.get("/metrics")).text
    known = re.search(r'tenantry_registry_tenants\{plan="free",status="active"\} (\S+)', text)
    age = re.search(r"^tenantry_registry_age_seconds (\S+)", text, re.MULTILINE)
    assert known is not None
    assert age is not None
    assert float(known[1]) >= 1
    assert 0 <= float(age[1]) < world.settings.registry_stale_after
