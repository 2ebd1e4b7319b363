"""Every way out of a tenant's role that SQL might offer to whoever gets to say one statement.

Twice over: on a hardened server, and on one where `set_config` and `plpgsql` are everybody's, as they are where the
administrator is no superuser. What gets through there is asserted just as exactly, so that the documents can say so.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from tenantry.tenancy.bootstrap import hardening_report
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.database import Database
from tenantry.tenancy.scope import EMPTY_SCOPE
from tests.databases import Template
from tests.isolation.estate import Estate, Neighbour, open_estate

REFUSED, HARMLESS, OUT = "refused", "without effect", "out"


@dataclass(frozen=True)
class Ground:
    """A database with two tenants on different plans, and a pool of one connection that they share."""

    estate: Estate
    hardened: bool
    database: Database
    admin: asyncpg.Connection[Any]

    @property
    def acme(self) -> Neighbour:
        return self.estate.tenants[0]

    @property
    def globex(self) -> Neighbour:
        return self.estate.tenants[1]

    def fill(self, sql: str) -> str:
        return sql.replace("{own}", self.acme.schema).replace("{other}", self.globex.schema)


@asynccontextmanager
async def _open_ground(template: Template, *, hardened: bool) -> AsyncIterator[Ground]:
    async with open_estate(template, plans=("free", "enterprise")) as estate:
        admin = await asyncpg.connect(estate.addresses.admin_url)
        database = Database(estate.addresses.app_url, pool_size=1, max_overflow=0)
        try:
            if not hardened:
                await admin.execute(
                    "GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO PUBLIC;"
                    "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC;"
                    "GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint), lo_from_bytea(oid, bytea) TO PUBLIC"
                )
            elif not (await hardening_report(admin)).complete:
                pytest.skip("the server's administrator is no superuser: it cannot be hardened")
            yield Ground(estate, hardened, database, admin)
        finally:
            await database.close()
            await admin.close()


@pytest.fixture(scope="module")
async def hardened(template: Template) -> AsyncIterator[Ground]:
    async with _open_ground(template, hardened=True) as opened:
        yield opened


@pytest.fixture(scope="module")
async def unhardened(template: Template) -> AsyncIterator[Ground]:
    async with _open_ground(template, hardened=False) as opened:
        yield opened


@pytest.fixture(params=["hardened", "unhardened"])
def ground(request: pytest.FixtureRequest) -> Ground:
    found: Ground = request.getfixturevalue(request.param)
    return found


async def _try(ground: Ground, sql: str) -> str:
    """What one statement of acme's achieves: whether globex's row can be read, by it or after it."""
    transaction = await ground.database.begin(ground.acme.context.write_scope)
    connection = transaction.connection
    try:
        try:
            seen = repr(await connection.fetch(ground.fill(sql)))
        except asyncpg.PostgresError:
            return REFUSED
        with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
            seen += repr(await connection.fetch(f'SELECT name FROM "{ground.globex.schema}".tag'))
        return OUT if ground.globex.marker in seen else HARMLESS
    finally:
        await transaction.close()


REFUSED_EVERYWHERE = {
    # Another tenant's rows
    "select": 'SELECT * FROM "{other}".tag',
    "insert": 'INSERT INTO "{other}".team_tag SELECT id, id FROM tag',
    "update": "UPDATE \"{other}\".tag SET name = 'x'",
    "delete": 'DELETE FROM "{other}".tag',
    "merge": 'MERGE INTO "{other}".tag t USING tag s ON false WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)',
    "truncate another's": 'TRUNCATE "{other}".tag',
    "lock": 'LOCK TABLE "{other}".tag IN ACCESS SHARE MODE',
    "for update": 'SELECT * FROM "{other}".tag FOR UPDATE',
    "in a cte": 'WITH x AS (SELECT * FROM "{other}".tag) SELECT * FROM x',
    "by regclass": "SELECT '\"{other}\".tag'::regclass",
    "explain analyze": 'EXPLAIN ANALYZE SELECT * FROM "{other}".tag',
    "copy to stdout": 'COPY "{other}".tag TO STDOUT',
    "query_to_xml": "SELECT query_to_xml('SELECT * FROM \"{other}\".tag', true, false, '')",
    "table_to_xml": "SELECT table_to_xml('\"{other}\".tag', true, false, '')",
    "schema_to_xml": "SELECT schema_to_xml('{other}', true, false, '')",
    "query_to_xml with set role": "SELECT query_to_xml('SET ROLE \"{other}\"; SELECT * FROM tag', true, false, '')",
    "ts_stat": "SELECT * FROM ts_stat('SELECT to_tsvector(name) FROM \"{other}\".tag')",
    "ts_rewrite": "SELECT ts_rewrite('a'::tsquery, 'SELECT name::tsquery, name::tsquery FROM \"{other}\".tag')",
    "dblink": "SELECT * FROM dblink('', 'SELECT name FROM \"{other}\".tag') AS t (name text)",
    # The control plane
    "platform.tenant": "SELECT * FROM platform.tenant",
    "platform.plan": "SELECT * FROM platform.plan",
    "platform.operator": "SELECT * FROM platform.operator",
    "platform.operation": "SELECT * FROM platform.operation",
    "platform.alembic_version": "SELECT * FROM platform.alembic_version",
    "suspend another": "UPDATE platform.tenant SET status = 'suspended'",
    "current_tenant_id": "SELECT platform.current_tenant_id()",
    "note_change": "SELECT 1 WHERE platform.note_change() IS NULL",
    # The version of one's own schema, and its form
    "write the version": "UPDATE alembic_version SET version_num = '0000'",
    "delete the version": "DELETE FROM alembic_version",
    "truncate": "TRUNCATE tag",
    "alter a table": "ALTER TABLE tag ADD COLUMN x int",
    "drop a table": "DROP TABLE tag",
    "create a table": "CREATE TABLE mine (x int)",
    "create a table elsewhere": 'CREATE TABLE "{other}".mine (x int)',
    "create a table in public": "CREATE TABLE public.mine (x int)",
    "create a table in platform": "CREATE TABLE platform.mine (x int)",
    "create a temporary table": "CREATE TEMP TABLE tag (x int)",
    "select into temp": "SELECT 1 AS x INTO TEMP tag",
    "create a temporary view": "CREATE TEMP VIEW tag AS SELECT 1",
    "create a temporary function": "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "create a view": 'CREATE VIEW mine AS SELECT * FROM "{other}".tag',
    "create a function": "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "create a function in public": "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "replace a function": "CREATE OR REPLACE FUNCTION platform.own_plan() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "create a schema": "CREATE SCHEMA mine",
    "create a schema for another": 'CREATE SCHEMA AUTHORIZATION "{other}"',
    "create a trigger": "CREATE TRIGGER x AFTER INSERT ON tag EXECUTE FUNCTION platform.note_change()",
    "create an event trigger": "CREATE EVENT TRIGGER x ON ddl_command_end EXECUTE FUNCTION platform.note_change()",
    "create a rule": "CREATE RULE x AS ON SELECT TO tag DO INSTEAD SELECT 1",
    "create a domain": "CREATE DOMAIN d AS int",
    "create an operator": "CREATE OPERATOR === (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int)",
    "create dblink": "CREATE EXTENSION dblink",
    "create postgres_fdw": "CREATE EXTENSION postgres_fdw",
    "create a trusted extension": "CREATE EXTENSION hstore",
    "create a language": "CREATE LANGUAGE plperl",
    "create a publication": "CREATE PUBLICATION p FOR ALL TABLES",
    "create a statistics object": 'CREATE STATISTICS s ON id, name FROM "{other}".tag',
    "own another's": 'REASSIGN OWNED BY "{other}" TO "{own}"',
    "drop another's": 'DROP OWNED BY "{other}"',
    "alter default privileges": 'ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner GRANT ALL ON TABLES TO "{own}"',
    # Roles
    "set session authorization": "SET SESSION AUTHORIZATION tenantry_owner",
    "set session authorization to another": 'SET SESSION AUTHORIZATION "{other}"',
    "set role owner": "SET ROLE tenantry_owner",
    "set role group": "SET ROLE tenantry_tenant",
    "create a role": "CREATE ROLE mine",
    "become a superuser": 'ALTER ROLE "{own}" SUPERUSER',
    "bypass row security": 'ALTER ROLE "{own}" BYPASSRLS',
    "log in": 'ALTER ROLE "{own}" LOGIN',
    "alter another": "ALTER ROLE \"{other}\" PASSWORD 'x'",
    "alter the application": "ALTER ROLE tenantry_app PASSWORD 'x'",
    "grant oneself another": 'GRANT "{other}" TO "{own}"',
    "grant oneself to another": 'GRANT "{own}" TO "{other}"',
    "join pg_read_all_data": 'GRANT pg_read_all_data TO "{own}"',
    "alter the database": "ALTER DATABASE postgres SET search_path = public",
    "alter the system": "ALTER SYSTEM SET log_statement = 'all'",
    "become the session": "SELECT set_config('session_authorization', 'tenantry_owner', true)",
    # The server
    "copy to a file": "COPY tag TO '/tmp/x'",
    "copy from a file": "COPY tag FROM '/etc/passwd'",
    "copy to a program": "COPY tag TO PROGRAM 'cat'",
    "copy from a program": "COPY tag FROM PROGRAM 'id'",
    "pg_read_file": "SELECT pg_read_file('PG_VERSION')",
    "pg_read_binary_file": "SELECT pg_read_binary_file('PG_VERSION')",
    "pg_stat_file": "SELECT pg_stat_file('PG_VERSION')",
    "pg_ls_dir": "SELECT pg_ls_dir('.')",
    "pg_ls_waldir": "SELECT pg_ls_waldir()",
    "pg_ls_logdir": "SELECT pg_ls_logdir()",
    "pg_ls_tmpdir": "SELECT pg_ls_tmpdir()",
    "pg_current_logfile": "SELECT pg_current_logfile()",
    "lo_import": "SELECT lo_import('/etc/passwd')",
    "lo_export": "SELECT lo_export(1, '/tmp/x')",
    "load a library": "LOAD 'dblink'",
    "pg_authid": "SELECT * FROM pg_authid",
    "pg_shadow": "SELECT * FROM pg_shadow",
    "pg_largeobject": "SELECT * FROM pg_largeobject",
    "pg_statistic": "SELECT stavalues1::text FROM pg_statistic",
    "pg_hba_file_rules": "SELECT * FROM pg_hba_file_rules",
    "pg_file_settings": "SELECT * FROM pg_file_settings",
    "write the catalog": "UPDATE pg_class SET relacl = NULL",
    "pg_terminate_backend": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tenantry_app'",
    "pg_cancel_backend": "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'tenantry_app'",
    "pg_reload_conf": "SELECT pg_reload_conf()",
    "pg_switch_wal": "SELECT pg_switch_wal()",
    "pg_stat_reset": "SELECT pg_stat_reset()",
    "replication": "SELECT pg_create_logical_replication_slot('x', 'pgoutput')",
    # Several statements, which the extended protocol does not take
    "reset role and read": 'SELECT 1; RESET ROLE; SET ROLE "{other}"; SELECT * FROM tag',
    "commit and read": 'COMMIT; SET ROLE "{other}"; SELECT * FROM tag',
    "after a comment": "SELECT 1 /* */; RESET ROLE --",
}


@pytest.mark.parametrize("sql", REFUSED_EVERYWHERE.values(), ids=REFUSED_EVERYWHERE.keys())
async def test_a_way_out_is_closed(ground: Ground, sql: str) -> None:
    assert await _try(ground, sql) == REFUSED


async def test_what_was_refused_has_left_the_neighbour_as_it_was(ground: Ground) -> None:
    """And this is what `_try` would have seen, had any of them got through."""
    async with ground.database.transaction(ground.globex.context.read_scope) as transaction:
        [row] = await transaction.connection.fetch("SELECT name, description FROM tag")
    assert tuple(row) == (ground.globex.marker, f"{ground.globex.marker}:0")
    assert await _try(ground, "SELECT 1") == HARMLESS


ONLY_HARDENED = {
    "set_config of the role": ("SELECT set_config('role', '{other}', true)", OUT),
    "set_config of the role, for good": ("SELECT set_config('role', '{other}', false)", OUT),
    "set_config in a condition": ("SELECT 1 FROM tag WHERE set_config('role', '{other}', true) <> ''", OUT),
    "set_config to none": ("SELECT set_config('role', 'none', true)", HARMLESS),
    "set_config of the path": ("SELECT set_config('search_path', '{other}', true)", HARMLESS),
    "set_config of a time limit": ("SELECT set_config('statement_timeout', '0', true)", HARMLESS),
    # A view that leaves out the role; elsewhere it would do for a time limit.
    "update of pg_settings": ("UPDATE pg_settings SET setting = '{other}' WHERE name = 'role'", HARMLESS),
    "update of a time limit": ("UPDATE pg_settings SET setting = '0' WHERE name = 'statement_timeout'", HARMLESS),
    "anonymous block": ("DO $$BEGIN EXECUTE 'SET ROLE \"{other}\"'; END$$", OUT),
    "anonymous block step by step": ('DO $$BEGIN SET LOCAL ROLE NONE; SET LOCAL ROLE "{other}"; END$$', OUT),
    "ts_stat with set_config": (
        "SELECT * FROM ts_stat($$SELECT to_tsvector(set_config('role', '{other}', false))$$)",
        OUT,
    ),
}


@pytest.mark.parametrize(("sql", "elsewhere"), ONLY_HARDENED.values(), ids=ONLY_HARDENED.keys())
async def test_a_way_out_is_closed_by_hardening_alone(ground: Ground, sql: str, elsewhere: str) -> None:
    """One injected expression is enough where the server could not be hardened: docs/security.md says so."""
    assert await _try(ground, sql) == (REFUSED if ground.hardened else elsewhere)


@pytest.mark.parametrize(
    "sql", ['SET ROLE "{other}"', 'SET LOCAL ROLE "{other}"', 'SET SESSION ROLE "{other}"', 'SET role = "{other}"']
)
async def test_a_statement_that_is_itself_set_role_gets_out(ground: Ground, sql: str) -> None:
    """Known, and in docs/security.md: it takes control of a whole statement, not of a value or an expression in one.

    PostgreSQL checks SET ROLE against the session's user, who must be able to become every tenant.
    """
    assert await _try(ground, sql) == OUT


@pytest.mark.parametrize("sql", ["RESET ROLE", "SET ROLE NONE", "SET SESSION AUTHORIZATION DEFAULT", "COMMIT", "ABORT"])
async def test_a_statement_that_drops_the_role_leaves_one_with_nothing(ground: Ground, sql: str) -> None:
    assert await _try(ground, sql) == HARMLESS
    transaction = await ground.database.begin(ground.acme.context.write_scope)
    await transaction.connection.fetch(sql)
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError)):
        await transaction.connection.fetch("SELECT * FROM tag")
    await transaction.close()


@pytest.mark.parametrize(
    "sql",
    [
        'SET ROLE "{other}"',
        'SET search_path TO "{other}"',
        "SET default_transaction_read_only TO on",
        "SET statement_timeout TO 1",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "COMMIT AND CHAIN",
        "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM tag",
        "LISTEN x",
        "PREPARE x AS SELECT * FROM tag",
    ],
)
async def test_what_a_statement_leaves_in_the_session_is_not_the_next_tenants_scope(ground: Ground, sql: str) -> None:
    """Even one that was taken over as a whole, and whose transaction was committed."""
    transaction = await ground.database.begin(ground.acme.context.write_scope)
    pid = await transaction.connection.fetchval("SELECT pg_backend_pid()")
    await transaction.connection.fetch(ground.fill(sql))
    await transaction.commit()
    await transaction.close()
    for tenant in (ground.globex, ground.acme):
        async with ground.database.transaction(tenant.context.write_scope) as transaction:
            row = await transaction.connection.fetchrow(
                "SELECT pg_backend_pid(), current_user::text, current_setting('search_path'), name FROM tag"
            )
            assert tuple(row or ()) == (pid, tenant.schema, tenant.schema, tenant.marker)
            await transaction.session.connection()
    for table in ("tag", f'"{ground.globex.schema}".tag'):
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError)):
            async with ground.database.transaction(EMPTY_SCOPE) as transaction:
                await transaction.connection.fetch(f"SELECT * FROM {table}")
    # The next test begins on a connection of its own.
    transaction = await ground.database.begin(EMPTY_SCOPE)
    await transaction.close(failed=True)


async def test_a_first_statement_may_lift_read_only_which_guards_against_mistakes_alone(hardened: Ground) -> None:
    """Known: it takes a whole statement, and the first one; the tenant's own rights are what bounds it."""
    await _lift(hardened, "SET TRANSACTION READ WRITE")
    with pytest.raises(asyncpg.ActiveSQLTransactionError):
        await _lift(hardened, "SELECT 1", "SET TRANSACTION READ WRITE")


async def _lift(ground: Ground, *statements: str) -> None:
    transaction = await ground.database.begin(ground.acme.context.read_scope)
    try:
        for statement in (*statements, "UPDATE tag SET description = 'lifted'"):
            await transaction.connection.fetch(statement)
    finally:
        await transaction.close()


# What a tenant may do in the shared schema.


async def test_own_plan_shows_a_tenant_its_own_plan_alone(hardened: Ground) -> None:
    for tenant in (hardened.acme, hardened.globex):
        async with hardened.database.transaction(tenant.context.read_scope) as transaction:
            rows = await transaction.connection.fetch("SELECT slug FROM platform.own_plan()")
        assert [row["slug"] for row in rows] == [tenant.context.plan.slug]
    assert hardened.acme.context.plan != hardened.globex.context.plan


@pytest.mark.parametrize("scope", [EMPTY_SCOPE, control_scope(ScopeTimes(), read_only=True)], ids=["none", "control"])
async def test_own_plan_is_nobodys_without_a_tenant(hardened: Ground, scope: Any) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with hardened.database.transaction(scope) as transaction:
            await transaction.connection.fetch("SELECT * FROM platform.own_plan()")


async def test_own_plan_takes_no_name_but_the_roles(hardened: Ground) -> None:
    """The owner may execute it, and is no tenant."""
    owner = await asyncpg.connect(hardened.estate.addresses.owner_url)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="no tenant in this transaction"):
            await owner.fetch("SELECT * FROM platform.own_plan()")
    finally:
        await owner.close()


async def test_functions_with_their_owners_rights_cannot_be_led_astray(hardened: Ground) -> None:
    """Their path is fixed, with the temporary schema last, and nobody has them by default."""
    functions = await hardened.admin.fetch(
        "SELECT p.oid::regprocedure::text AS name, proconfig, proacl::text FROM pg_proc p"
        " JOIN pg_namespace n ON n.oid = pronamespace"
        " WHERE prosecdef AND nspname NOT IN ('pg_catalog', 'information_schema')"
    )
    assert {function["name"] for function in functions} >= {"platform.own_plan()", "platform.current_tenant_id()"}
    for function in functions:
        assert function["proconfig"] == ["search_path=pg_catalog, pg_temp"], function["name"]
        # An entry without a name is PUBLIC's; no entries at all would mean PUBLIC.
        assert function["proacl"], function["name"]
        assert "{=" not in function["proacl"], function["name"]
        assert ",=" not in function["proacl"], function["name"]
