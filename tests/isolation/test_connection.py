"""One connection, two tenants in turn: neither reads what is the other's, whatever happened in between."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection
from sqlalchemy.exc import DBAPIError

from tenantry.kernel.http.failures import explain_failure
from tenantry.tenancy.connection import ScopedConnection
from tenantry.tenancy.database import Database, driver_of
from tenantry.tenancy.scope import EMPTY_SCOPE, Scope, ScopeError
from tests.isolation.estate import Estate, Neighbour
from tests.isolation.machine import ENDINGS, Machine, Turn, turns

FUZZ = settings(max_examples=50, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
async def database(estate: Estate) -> AsyncIterator[Database]:
    """A pool of one connection."""
    made = Database(estate.addresses.app_url, pool_size=1, max_overflow=0)
    yield made
    await made.close()


@pytest.fixture(scope="module")
async def machine(database: Database, estate: Estate, admin: asyncpg.Connection[Any]) -> Machine:
    return Machine(database, estate, admin)


@pytest.fixture(scope="module")
async def fuzzed(machine: Machine) -> AsyncIterator[Machine]:
    """The machine, which must have been put to work when the module is done with it."""
    before = machine.operations
    yield machine
    assert machine.endings.keys() == set(ENDINGS)
    assert machine.operations - before > 1500


@pytest.fixture
def acme(estate: Estate) -> Neighbour:
    return estate.tenants[0]


@pytest.fixture
def globex(estate: Estate) -> Neighbour:
    return estate.tenants[1]


@FUZZ
@given(st.lists(turns(), min_size=6, max_size=16))
async def test_two_tenants_in_turn_read_their_own_row_and_no_other(fuzzed: Machine, sequence: list[Turn]) -> None:
    for turn in sequence:
        await fuzzed.play(turn)


@pytest.mark.parametrize("orm", [True, False], ids=["orm", "driver"])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_turn_leaves_nothing_behind_for_the_next_tenant(machine: Machine, ending: str, orm: bool) -> None:
    for first in (0, 1):
        await machine.play(Turn(first, orm, ("write", "nested", "nested_error"), ending, 15))
        await machine.play(Turn(1 - first, orm, ("read", "write"), "commit", 0))


async def test_tenants_who_wait_for_one_another_read_their_own_row(estate: Estate, admin: Any) -> None:
    """More tasks than connections, some of them cancelled while they wait for one, begin or read."""
    database = Database(estate.addresses.app_url, pool_size=2, max_overflow=0)
    machine = Machine(database, estate, admin)
    refused = 0

    async def reader(number: int) -> None:
        nonlocal refused
        for turn in range(20):
            task = asyncio.create_task(machine.read_loosely((number + turn) % 2))
            if (number * 7 + turn) % 3 == 0:
                for _ in range((number * 11 + turn * 5) % 40):
                    await asyncio.sleep(0)
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                refused += 1

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(reader(number))
        assert refused > 10
        await machine.check_idle()
    finally:
        await database.close()


# What the kernel does with a driver that is used in another way than it should be.


@pytest.fixture
async def driver(estate: Estate) -> AsyncIterator[ScopedConnection]:
    """A connection of the kernel's without a pool around it."""
    connection = await asyncpg.connect(estate.addresses.app_url, connection_class=ScopedConnection)
    yield connection
    connection.terminate()


async def test_a_transaction_without_a_scope_is_refused_and_its_connection_closed(driver: ScopedConnection) -> None:
    with pytest.raises(ScopeError, match="without a scope"):
        await driver.transaction().start()
    assert driver.is_closed()


async def test_the_engine_begins_nothing_without_a_scope(database: Database) -> None:
    with pytest.raises(ScopeError):
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    with pytest.raises(ScopeError):
        async with database.engine.begin() as connection:
            await connection.execute(text("SELECT 1"))


async def test_without_a_transaction_nothing_can_be_read(driver: ScopedConnection, estate: Estate) -> None:
    for table in ("tag", f'"{estate.tenants[0].schema}".tag', "platform.tenant"):
        with pytest.raises((asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError)):
            await driver.fetch(f"SELECT * FROM {table}")


async def test_the_empty_scope_reads_nothing_of_anybody(database: Database, estate: Estate) -> None:
    for table in ("tag", f'"{estate.tenants[0].schema}".tag', "platform.tenant", "platform.own_plan()"):
        with pytest.raises((asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError)):
            async with database.transaction(EMPTY_SCOPE) as transaction:
                await transaction.connection.fetch(f"SELECT * FROM {table}")


async def test_a_savepoint_of_the_driver_at_the_top_closes_the_connection(
    driver: ScopedConnection, acme: Neighbour
) -> None:
    driver.arm(acme.context.write_scope)
    await driver.transaction().start()
    with pytest.raises(ScopeError, match="inside an open one"):
        await driver.transaction().start()
    assert driver.is_closed()


async def test_a_connection_inside_a_transaction_takes_no_other_scope(
    driver: ScopedConnection, acme: Neighbour, globex: Neighbour
) -> None:
    driver.arm(acme.context.write_scope)
    await driver.transaction().start()
    with pytest.raises(ScopeError, match="reused inside an open transaction"):
        driver.arm(globex.context.write_scope)
    assert driver.is_closed()


async def test_a_scope_is_good_for_one_transaction(driver: ScopedConnection, acme: Neighbour) -> None:
    driver.arm(acme.context.write_scope)
    async with driver.transaction():
        assert await driver.fetchval("SELECT name FROM tag") == acme.marker
    with pytest.raises(ScopeError):
        await driver.transaction().start()


@pytest.mark.parametrize(
    "begin",
    [
        "BEGIN;",
        "BEGIN",
        "begin",
        "  Begin Work ;",
        "BEGIN TRANSACTION",
        "start transaction",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;",
        "BEGIN ISOLATION LEVEL REPEATABLE READ;",
        "begin read only",
    ],
)
async def test_every_form_of_begin_is_scoped(driver: ScopedConnection, acme: Neighbour, begin: str) -> None:
    driver.arm(acme.context.write_scope)
    await driver.execute(begin)
    assert await driver.fetchval("SELECT current_user") == acme.schema
    assert await driver.fetchval("SELECT name FROM tag") == acme.marker
    assert await driver.execute("rollback;") == "ROLLBACK"
    assert await driver.fetchval("SELECT current_user") == "tenantry_app"
    with pytest.raises(ScopeError):
        await driver.execute(begin)
    assert driver.is_closed()


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_the_levels_of_isolation_are_scoped_too(
    driver: ScopedConnection, acme: Neighbour, isolation: Any
) -> None:
    driver.arm(acme.context.read_scope)
    async with driver.transaction(isolation=isolation):
        level, read_only, name = await driver.fetchrow(  # type: ignore[misc]
            "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), name FROM tag"
        )
    assert (level, read_only, name) == (isolation.replace("_", " "), "on", acme.marker)


@pytest.mark.parametrize(
    "begin", ['BEGIN; SET ROLE "tenantry_control"', "BEGIN READ ONLY, READ WRITE", "BEGIN /* */", "BEGIN ROLE 'x'"]
)
async def test_a_mode_that_is_none_is_refused(driver: ScopedConnection, acme: Neighbour, begin: str) -> None:
    driver.arm(acme.context.write_scope)
    with pytest.raises(ScopeError):
        await driver.execute(begin)
    assert driver.is_closed() or not driver.is_in_transaction()


async def test_a_read_only_scope_cannot_be_asked_to_write(driver: ScopedConnection, acme: Neighbour) -> None:
    driver.arm(acme.context.read_scope)
    await driver.execute("BEGIN READ WRITE")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await driver.execute("UPDATE tag SET description = $1", "x")


async def test_a_read_only_scope_refuses_writes_in_each_of_a_connections_transactions(
    database: Database, acme: Neighbour
) -> None:
    for orm in (False, True, False, True):
        transaction = await database.begin(acme.context.read_scope)
        run: Any = transaction.session.execute if orm else transaction.connection.fetch
        write: Any = text("UPDATE tag SET description = 'x'") if orm else "UPDATE tag SET description = 'x'"
        with pytest.raises((asyncpg.ReadOnlySQLTransactionError, DBAPIError), match="read-only transaction"):
            await run(write)
        await transaction.close()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "SELECT 1; SELECT 2",
        "RESET ROLE",
        "COMMIT; BEGIN",
        "ROLLBACK; RESET ROLE",
        "COMMIT AND CHAIN",
        "ROLLBACK TO x",
        "ABORT",
        "END",
        "PREPARE TRANSACTION 'x'",
        "/* */ BEGIN",
        "-- \nBEGIN",
        "LISTEN x",
        "",
    ],
)
async def test_the_simple_protocol_takes_nothing_but_a_transactions_verbs(
    driver: ScopedConnection, acme: Neighbour, query: str
) -> None:
    driver.arm(acme.context.write_scope)
    async with driver.transaction():
        with pytest.raises(ScopeError, match="extended protocol"):
            await driver.execute(query)
        assert await driver.fetchval("SELECT current_user") == acme.schema


async def test_the_extended_protocol_takes_one_statement(
    driver: ScopedConnection, acme: Neighbour, globex: Neighbour
) -> None:
    driver.arm(acme.context.write_scope)
    await driver.transaction().start()
    with pytest.raises(asyncpg.PostgresSyntaxError, match="multiple commands"):
        await driver.fetch(f'SELECT 1; RESET ROLE; SET ROLE "{globex.schema}"')


async def test_copy_takes_one_statement(driver: ScopedConnection, acme: Neighbour, globex: Neighbour) -> None:
    """COPY goes through the simple protocol. Through its text, another tenant's row was once written."""
    way_out = f'; RESET ROLE; SET ROLE "{globex.schema}"; UPDATE "{globex.schema}".tag SET description = \'gone\'; '
    driver.arm(acme.context.write_scope)
    async with driver.transaction():
        with pytest.raises(ScopeError, match="semicolon"):
            await driver.copy_from_query(f"SELECT 1) TO STDOUT{way_out}COPY (SELECT 1", output=io.BytesIO())
        with pytest.raises(ScopeError, match="semicolon"):
            await driver.copy_to_table("tag", source=io.BytesIO(), where=f"true{way_out}SELECT 1")
        with pytest.raises(ScopeError, match="semicolon"):
            await driver.copy_records_to_table("tag", records=[], columns=["id"], where=f"true{way_out}SELECT 1")
        assert await driver.fetchval("SELECT current_user") == acme.schema
        output = io.BytesIO()
        await driver.copy_from_query("SELECT name FROM tag WHERE name = $1", acme.marker, output=output)
    assert output.getvalue().decode().strip() == acme.marker


# The pool.


async def test_a_connection_that_the_server_closed_is_not_given_out(
    database: Database, acme: Neighbour, admin: asyncpg.Connection[Any]
) -> None:
    async with database.transaction(acme.context.read_scope) as transaction:
        first = await transaction.connection.fetchval("SELECT pg_backend_pid()")
        closed = asyncio.Event()
        transaction.connection.add_termination_listener(lambda _: closed.set())
    await admin.fetchval("SELECT pg_terminate_backend($1)", first)
    await closed.wait()
    async with database.transaction(acme.context.read_scope) as transaction:
        assert await transaction.connection.fetchval("SELECT pg_backend_pid()") != first
        assert await transaction.connection.fetchval("SELECT name FROM tag") == acme.marker


async def test_a_connection_that_is_not_clean_is_not_given_out(
    database: Database, acme: Neighbour, globex: Neighbour
) -> None:
    proxied = await database.engine.raw_connection()
    dirty = driver_of(proxied)
    proxied.close()
    # Behind the pool's back, as a task would that kept the connection.
    dirty.arm(acme.context.write_scope)
    await dirty.execute("BEGIN")
    async with database.transaction(globex.context.read_scope) as transaction:
        assert await transaction.connection.fetchval("SELECT name FROM tag") == globex.marker
    assert dirty.is_closed()


async def test_a_role_that_is_gone_does_not_poison_the_pool(
    database: Database, acme: Neighbour, globex: Neighbour
) -> None:
    gone = replace(acme.context.write_scope, role=f"t_{'0' * 32}")
    for _ in range(3):
        with pytest.raises(ScopeError, match="does not exist"):
            await database.begin(gone)
        async with database.transaction(globex.context.write_scope) as transaction:
            assert await transaction.connection.fetchval("SELECT name FROM tag") == globex.marker
    pool: Any = database.engine.sync_engine.pool
    assert pool.checkedout() == 0


async def test_one_tenants_broken_connection_leaves_the_others_connections_alone(
    estate: Estate, acme: Neighbour, globex: Neighbour
) -> None:
    database = Database(estate.addresses.app_url, pool_size=2, max_overflow=0)
    try:
        async with database.transaction(globex.context.read_scope) as transaction:
            kept = await transaction.connection.fetchval("SELECT pg_backend_pid()")
            with pytest.raises(ScopeError):
                await database.begin(replace(acme.context.write_scope, role=f"t_{'0' * 32}"))
        async with database.transaction(globex.context.read_scope) as transaction:
            assert await transaction.connection.fetchval("SELECT pg_backend_pid()") == kept
    finally:
        await database.close()


async def test_a_failed_commit_is_an_error_that_a_client_can_be_told(
    database: Database, acme: Neighbour, admin: asyncpg.Connection[Any]
) -> None:
    """A deferred constraint speaks up at COMMIT, where SQLAlchemy's adapter is called without its engine."""
    await admin.execute(
        f'CREATE TABLE "{acme.schema}".late (x int CONSTRAINT late_x UNIQUE DEFERRABLE INITIALLY DEFERRED);'
        f'GRANT ALL ON "{acme.schema}".late TO "{acme.schema}"'
    )
    with pytest.raises(asyncpg.UniqueViolationError) as raised:
        async with database.transaction(acme.context.write_scope) as transaction:
            await transaction.session.execute(text("INSERT INTO late VALUES (1), (1)"))
    problem = explain_failure(raised.value)
    assert problem is not None
    assert problem.status_code == 409
    async with database.transaction(acme.context.read_scope) as transaction:
        assert await transaction.connection.fetch("SELECT * FROM late") == []


# What the kernel relies on without a promise: an upgrade that takes it away must fail here, and not in production.


async def test_the_private_parts_of_the_driver_that_the_kernel_uses_are_there(driver: ScopedConnection) -> None:
    assert driver._server_caps.jit is False
    for name in ("_copy_out", "_copy_in", "_format_copy_where"):
        assert callable(getattr(asyncpg.Connection, name))
    begun: list[Any] = [driver._top_xact]
    driver.arm(EMPTY_SCOPE)
    transaction = driver.transaction()
    await transaction.start()
    begun.append(driver._top_xact)
    await transaction.rollback()
    begun.append(driver._top_xact)
    assert begun == [None, transaction, None]


async def test_the_private_parts_of_sqlalchemys_adapter_that_the_kernel_uses_are_there(
    database: Database, acme: Neighbour
) -> None:
    assert asyncio.iscoroutinefunction(AsyncAdapt_asyncpg_connection._start_transaction)
    transaction = await database.begin(acme.context.read_scope)
    assert type(transaction._adapter) is AsyncAdapt_asyncpg_connection
    adapter: Any = transaction._adapter
    assert adapter._connection is transaction._driver
    assert adapter._transaction is transaction._driver._top_xact
    await transaction.close()
    assert adapter._transaction is None


async def test_arrays_are_read_under_a_tenants_role(
    estate: Estate, acme: Neighbour, admin: asyncpg.Connection[Any]
) -> None:
    """asyncpg would look up their types inside set_config, which no tenant may execute."""
    if not await admin.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        pytest.skip("the server's administrator is no superuser: it cannot be hardened")
    assert not await admin.fetchval(
        "SELECT has_function_privilege($1, 'set_config(text, text, boolean)', 'EXECUTE')", acme.schema
    ), "this test says nothing on a server that is not hardened"
    database = Database(estate.addresses.app_url, pool_size=1, max_overflow=0)
    try:
        async with database.transaction(acme.context.read_scope) as transaction:
            ids, words = await transaction.connection.fetchrow(  # type: ignore[misc]
                "SELECT array_agg(id), array_agg(name) FROM tag WHERE id = ANY($1::uuid[]) OR name = ANY($2::text[])",
                [acme.context.id],
                [acme.marker],
            )
        assert len(ids) == 1
        assert words == [acme.marker]
    finally:
        await database.close()


@pytest.mark.parametrize("name", ['t"; RESET ROLE; --', "T_1", "t-1", "t 1", "a" * 64, "1t", "t'"])
def test_a_scope_is_made_of_plain_names_only(name: str) -> None:
    with pytest.raises(ScopeError):
        Scope(role=name, search_path="platform")
    with pytest.raises(ScopeError):
        Scope(role="tenantry_control", search_path=name)
