"""What a schema's lines tell apart, and that they tell nothing apart that is the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry.platform.provisioning import reference as reference_module
from tenantry.platform.provisioning.fingerprint import (
    Difference,
    describe_schema,
    describe_schemas,
    differences,
    fingerprint,
)
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.platform.provisioning.reference import create_verified, reference
from tenantry.platform.provisioning.schema import (
    create_schema,
    create_schemas,
    drop_schemas,
    enter_schema,
    make_schemas,
)
from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import Tree, compile_script, head, upgrade
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.revisions import UnknownRevisionError
from tests.databases import Template, clone_database, drop_database
from tests.tree import TenantTree, tenant_tree

__all__ = ("tenant_tree",)


@pytest.fixture(scope="module")
async def addresses(template: Template) -> AsyncIterator[Template]:
    """A database for all of this module: its tests leave nothing in it."""
    made = await clone_database(template)
    yield made
    await drop_database(made)


@pytest.fixture(scope="module")
async def engine(addresses: Template) -> AsyncIterator[AsyncEngine]:
    """The owner's, who is no superuser."""
    made = owner_engine(addresses.owner_url)
    yield made
    await made.dispose()


@asynccontextmanager
async def undone(addresses: Template) -> AsyncIterator[DriverConnection]:
    """The owner's connection, in a transaction of which nothing is left."""
    connection: DriverConnection = await asyncpg.connect(addresses.owner_url, connection_class=DriverConnection)
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def test_a_compiled_schema_equals_one_that_was_migrated_step_by_step(
    engine: AsyncEngine, addresses: Template
) -> None:
    expected = await reference(engine, head("tenant"))
    ids = [uuid4(), uuid4()]
    async with undone(addresses) as connection:
        await create_schemas(connection, ids)
        found = await describe_schemas(connection, [schema_name(one) for one in ids])
    assert all(lines == expected for lines in found.values())
    assert {line.partition(" ")[0] for line in expected} == {
        *("schema:", "role", "membership", "table", "column", "constraint", "index", "trigger", "privileges")
    }
    assert not any(str(one.hex) in line for one in ids for lines in found.values() for line in lines)
    assert "column team.name: text NOT NULL" in expected
    assert "membership of tenantry_app in <tenant>: INHERIT false SET true ADMIN false" in expected


async def test_the_reference_leaves_nothing_behind(engine: AsyncEngine, addresses: Template) -> None:
    reference_module._known.clear()
    await reference(engine, head("tenant"))
    async with undone(addresses) as connection:
        left = await connection.fetchval(
            "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 't\\_%'"
            " AND nspname NOT IN (SELECT 't_' || replace(id::text, '-', '') FROM platform.tenant)"
        )
    assert left == 0


async def test_the_reference_is_made_once(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await reference(engine, head("tenant"))
    monkeypatch.setattr(reference_module, "upgrade", None)
    assert await reference(engine, head("tenant")) is first


async def test_of_a_revision_that_is_not_ours_there_is_no_reference(engine: AsyncEngine) -> None:
    with pytest.raises(UnknownRevisionError):
        await reference(engine, "9999")


DRIFT: dict[str, tuple[str, list[Difference]]] = {
    "a column's type": (
        "ALTER TABLE tag ALTER COLUMN name TYPE varchar(50)",
        [
            Difference("column tag.name", "text NOT NULL", "character varying(50) NOT NULL"),
            Difference(
                "constraint ck_tag_name_length on tag",
                "CHECK (((char_length(name) >= 1) AND (char_length(name) <= 100)))",
                "CHECK (((char_length((name)::text) >= 1) AND (char_length((name)::text) <= 100)))",
            ),
        ],
    ),
    "a default": (
        "ALTER TABLE team ALTER COLUMN is_active SET DEFAULT true",
        [Difference("column team.is_active", "boolean NOT NULL", "boolean NOT NULL DEFAULT true")],
    ),
    "another default": (
        "ALTER TABLE role ALTER COLUMN permissions SET DEFAULT '{{all}}'",
        [
            Difference(
                "column role.permissions",
                "text[] NOT NULL DEFAULT '{}'::text[]",
                "text[] NOT NULL DEFAULT '{all}'::text[]",
            )
        ],
    ),
    "nullability": (
        "ALTER TABLE team ALTER COLUMN description SET NOT NULL",
        [Difference("column team.description", "text", "text NOT NULL")],
    ),
    "an identity": (
        "ALTER TABLE team ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY",
        [
            Difference("column team.number", None, "bigint NOT NULL GENERATED ALWAYS AS IDENTITY"),
            Difference(
                "numbers of sequence team_number_seq",
                None,
                "bigint from 1 by 1, 1 to 9223372036854775807, cache 1",
            ),
            Difference("privileges of <tenant> on sequence team_number_seq", None, "SELECT, USAGE"),
            Difference("privileges of tenantry_owner on sequence team_number_seq", None, "SELECT, UPDATE, USAGE"),
            Difference("sequence team_number_seq", None, "owner tenantry_owner"),
        ],
    ),
    "a generated column": (
        "ALTER TABLE team ADD COLUMN shout text GENERATED ALWAYS AS (upper(name)) STORED",
        [Difference("column team.shout", None, "text GENERATED ALWAYS AS (upper(name)) STORED")],
    ),
    "a collation": (
        'ALTER TABLE team ADD COLUMN sorted text COLLATE "C"',
        [Difference("column team.sorted", None, 'text COLLATE "C"')],
    ),
    "a renamed column": (
        "ALTER TABLE team_member RENAME COLUMN role TO rank",
        [
            Difference("column team_member.rank", None, "text NOT NULL"),
            Difference("column team_member.role", "text NOT NULL", None),
            Difference(
                "constraint ck_team_member_role_known on team_member",
                "CHECK ((role = ANY (ARRAY['owner'::text, 'admin'::text, 'member'::text])))",
                "CHECK ((rank = ANY (ARRAY['owner'::text, 'admin'::text, 'member'::text])))",
            ),
        ],
    ),
    "a constraint that is gone": (
        "ALTER TABLE team DROP CONSTRAINT uq_team_slug",
        [Difference("constraint uq_team_slug on team", "UNIQUE (slug)", None)],
    ),
    "a constraint that nothing was held to": (
        "ALTER TABLE team DROP CONSTRAINT ck_team_slug_length,"
        " ADD CONSTRAINT ck_team_slug_length CHECK (char_length(slug) BETWEEN 1 AND 63) NOT VALID",
        [
            Difference(
                "constraint ck_team_slug_length on team",
                "CHECK (((char_length(slug) >= 1) AND (char_length(slug) <= 63)))",
                "CHECK (((char_length(slug) >= 1) AND (char_length(slug) <= 63))) NOT VALID",
            )
        ],
    ),
    "an index that is gone": (
        "DROP INDEX ix_team_member_user_id",
        [
            Difference(
                "index ix_team_member_user_id on team_member",
                "CREATE INDEX ix_team_member_user_id ON team_member USING btree (user_id)",
                None,
            )
        ],
    ),
    "an index of other rows": (
        "CREATE UNIQUE INDEX ix_team_name ON team (lower(name)) WHERE is_active",
        [
            Difference(
                "index ix_team_name on team",
                None,
                "CREATE UNIQUE INDEX ix_team_name ON team USING btree (lower(name)) WHERE is_active",
            )
        ],
    ),
    "a trigger": (
        "CREATE TRIGGER slow BEFORE UPDATE ON team FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        [
            Difference(
                "trigger slow on team",
                None,
                "CREATE TRIGGER slow BEFORE UPDATE ON team FOR EACH ROW"
                " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            )
        ],
    ),
    "a grant to the tenant": (
        "GRANT UPDATE ON alembic_version TO {role}",
        [Difference("privileges of <tenant> on table alembic_version", "SELECT", "SELECT, UPDATE")],
    ),
    "a grant to everybody": (
        "GRANT SELECT ON team TO PUBLIC",
        [Difference("privileges of PUBLIC on table team", None, "SELECT")],
    ),
    "a grant on one column": (
        "GRANT SELECT (email) ON user_account TO tenantry_tenant",
        [Difference("privileges of tenantry_tenant on column user_account.email", None, "SELECT")],
    ),
    "a grant on the schema": (
        "GRANT CREATE ON SCHEMA {role} TO {role}",
        [Difference("privileges of <tenant> on the schema", "USAGE", "CREATE, USAGE")],
    ),
    "a privilege that is gone": (
        "REVOKE DELETE ON tag FROM {role}",
        [Difference("privileges of <tenant> on table tag", "DELETE, INSERT, SELECT, UPDATE", "INSERT, SELECT, UPDATE")],
    ),
    "what new tables will grant": (
        "ALTER DEFAULT PRIVILEGES IN SCHEMA {role} GRANT TRUNCATE ON TABLES TO {role}",
        [
            Difference(
                "privileges of <tenant> on tables that tenantry_owner will make",
                "DELETE, INSERT, SELECT, UPDATE",
                "DELETE, INSERT, SELECT, TRUNCATE, UPDATE",
            )
        ],
    ),
    "a role that may log in": (
        "ALTER ROLE {role} LOGIN",
        [Difference("role <tenant>", "NOLOGIN INHERIT", "LOGIN INHERIT")],
    ),
    "a membership with more rights": (
        "GRANT {role} TO tenantry_app WITH INHERIT TRUE",
        [
            Difference(
                "membership of tenantry_app in <tenant>",
                "INHERIT false SET true ADMIN false",
                "INHERIT true SET true ADMIN false",
            )
        ],
    ),
    "a table": (
        "CREATE UNLOGGED TABLE extra ()",
        [
            Difference("privileges of <tenant> on table extra", None, "DELETE, INSERT, SELECT, UPDATE"),
            Difference("table extra", None, "owner tenantry_owner, unlogged"),
        ],
    ),
    "row security": (
        "ALTER TABLE team ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON team FOR SELECT USING (is_active)",
        [
            Difference("policy own on team", None, "permissive r TO public USING is_active"),
            Difference("table team", "owner tenantry_owner", "owner tenantry_owner, row security enabled"),
        ],
    ),
    "a function": (
        "CREATE FUNCTION one(x int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        [
            Difference(
                "function one(x integer)",
                None,
                "owner tenantry_owner, CREATE OR REPLACE FUNCTION one(x integer)\\n RETURNS integer\\n LANGUAGE sql\\n"
                "AS $function$SELECT 1$function$\\n",
            ),
            Difference("privileges of PUBLIC on function one(x integer)", None, "EXECUTE"),
            Difference("privileges of tenantry_owner on function one(x integer)", None, "EXECUTE"),
        ],
    ),
    "a view": (
        "CREATE VIEW seen AS SELECT id FROM team",
        [
            Difference("column seen.id", None, "uuid"),
            Difference("privileges of <tenant> on view seen", None, "DELETE, INSERT, SELECT, UPDATE"),
            Difference("view seen", None, "owner tenantry_owner,  SELECT id\\n   FROM team;"),
        ],
    ),
    "a type": (
        "CREATE TYPE mood AS ENUM ('fine')",
        [Difference("type mood", None, "there")],
    ),
}


@pytest.mark.parametrize("what", DRIFT)
async def test_drift_is_found_and_named(engine: AsyncEngine, addresses: Template, what: str) -> None:
    change, expected = DRIFT[what]
    wanted = await reference(engine, head("tenant"))
    tenant_id = uuid4()
    async with undone(addresses) as connection:
        await create_schema(connection, tenant_id)
        await connection.execute(change.format(role=schema_name(tenant_id)))
        lines = await describe_schema(connection, schema_name(tenant_id))
    found = [one for one in differences(wanted, lines) if not _is_the_owners(one)]
    assert found == expected
    assert fingerprint(lines) != fingerprint(wanted)


def _is_the_owners(difference: Difference) -> bool:
    # All of them, which differ between versions of the server (MAINTAIN).
    return difference.subject.startswith(("privileges of tenantry_owner on table", "privileges of tenantry_owner on v"))


async def test_the_order_of_columns_is_no_drift(engine: AsyncEngine, addresses: Template) -> None:
    """A column that a rollout adds is the last one."""
    wanted = await reference(engine, head("tenant"))
    tenant_id = uuid4()
    async with undone(addresses) as connection:
        await create_schema(connection, tenant_id)
        await connection.execute(
            "ALTER TABLE user_account DROP COLUMN verified_at; ALTER TABLE user_account ADD verified_at timestamptz"
        )
        lines = await describe_schema(connection, schema_name(tenant_id))
    assert differences(wanted, lines) == []


async def test_an_invalid_index_is_drift(engine: AsyncEngine, addresses: Template) -> None:
    """What CREATE INDEX CONCURRENTLY leaves behind when it fails."""
    tenant_id = uuid4()
    name = schema_name(tenant_id)
    owner: asyncpg.Connection[Any] = await asyncpg.connect(addresses.owner_url)
    try:
        async with owner.transaction():
            await create_schema(owner, tenant_id)  # type: ignore[arg-type]
        for _ in range(2):
            await owner.execute(
                f'INSERT INTO "{name}".tag (id, slug, name, created_at, updated_at)'
                " VALUES (gen_random_uuid(), gen_random_uuid()::text, gen_random_uuid()::text, now(), now())"
            )
        with pytest.raises(asyncpg.UniqueViolationError):
            await owner.execute(f'CREATE UNIQUE INDEX CONCURRENTLY ix_once ON "{name}".tag ((true))')
        async with owner.transaction():
            lines = await describe_schema(owner, name)
        assert [str(one) for one in differences(await reference(engine, head("tenant")), lines)] == [
            "index ix_once on tag: unexpected, found CREATE UNIQUE INDEX ix_once ON tag USING btree ((true)) (invalid)"
        ]
        async with owner.transaction():
            await drop_schemas(owner, [tenant_id])  # type: ignore[arg-type]
            assert await describe_schema(owner, name) == ()
    finally:
        await owner.close()


async def test_a_schema_that_is_gone_is_one_difference(engine: AsyncEngine) -> None:
    assert [str(one) for one in differences(await reference(engine, head("tenant")), ())] == [
        "schema: missing, expected owner tenantry_owner"
    ]


async def test_a_new_schema_that_differs_is_refused_and_nothing_of_it_is_left(
    engine: AsyncEngine, addresses: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_script("tenant")
    monkeypatch.setattr(
        "tenantry.platform.provisioning.schema.compile_script",
        lambda _: f"{compiled}\nALTER TABLE team ADD COLUMN extra text;",
    )
    ids = [uuid4(), uuid4()]

    async def make() -> None:
        async with engine.begin() as connection:
            await create_verified(connection, engine, ids)

    with pytest.raises(OperationFailed, match=r"one by one: column team\.extra: unexpected, found text$"):
        await make()
    async with undone(addresses) as connection:
        assert await describe_schemas(connection, list(map(schema_name, ids))) == {schema_name(one): () for one in ids}


async def test_a_schema_whose_tree_has_logic_in_python_is_migrated_step_by_step(
    tenant_tree: TenantTree, engine: AsyncEngine
) -> None:
    """Such a revision asks the database what is there, which no compiled script can."""
    tenant_tree.add(
        'rows = op.get_bind().execute(sa.text("SELECT count(*) FROM team")).scalar_one()\n'
        'op.add_column("team", sa.Column(f"found_{rows}", sa.Text()))',
        online=True,
    )
    tenant_id = uuid4()
    async with engine.connect() as connection:
        assert len(await create_verified(connection, engine, [tenant_id])) == 64
        columns = await connection.exec_driver_sql("SELECT found_0 FROM team")
        assert columns.all() == []
        version = await connection.exec_driver_sql("SELECT version_num FROM alembic_version")
        assert version.scalar_one() == tenant_tree.head


async def test_of_the_steps_only_those_with_logic_in_python_run_through_alembic(
    tenant_tree: TenantTree, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = tenant_tree.add('op.add_column("team", sa.Column("one", sa.Text()))', online=True)
    tenant_tree.add('op.add_column("team", sa.Column("two", sa.Text()))')
    through_alembic: list[str] = []

    def spy(connection: Connection, tree: Tree, revision: str) -> None:
        # Some other test's provisioner may be at work in this process, on a database of its own.
        if connection.engine is engine.sync_engine:
            through_alembic.append(revision)
        upgrade(connection, tree, revision)

    monkeypatch.setattr("tenantry.platform.provisioning.schema.upgrade", spy)
    async with engine.connect() as connection:
        await create_verified(connection, engine, [uuid4(), uuid4()])
        await connection.exec_driver_sql("SELECT one, two FROM team")
    assert through_alembic == [online, online]


async def test_schemas_without_such_logic_are_made_in_one_round_trip(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql("SELECT 1")
        driver = cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
        messages: list[str] = []
        with driver.query_logger(lambda record: messages.append(record.query)):
            await make_schemas(connection, [uuid4(), uuid4()])
        await connection.rollback()
    assert len(messages) == 1


async def test_describing_a_schema_leaves_the_planner_as_it_was(addresses: Template) -> None:
    planner = "SELECT name, setting FROM pg_settings WHERE name ~ '^(enable_|jit|plan_cache)' ORDER BY name"
    connection: DriverConnection = await asyncpg.connect(addresses.owner_url, connection_class=DriverConnection)
    try:
        before, path = await connection.fetch(planner), await connection.fetchval("SHOW search_path")
        async with connection.transaction():
            await describe_schema(connection, "t_of_nobody")
            assert await connection.fetch(planner) == before
        assert await connection.fetch(planner) == before
        assert await connection.fetchval("SHOW search_path") == path
    finally:
        await connection.close()


async def test_the_path_leads_to_the_new_schema_afterwards(addresses: Template) -> None:
    first, second = uuid4(), uuid4()
    async with undone(addresses) as connection:
        await create_schemas(connection, [first, second])
        assert await _path(connection) == schema_name(second)
        await enter_schema(connection, first)
        assert await _path(connection) == schema_name(first)


async def _path(connection: DriverConnection) -> str:
    return str(await connection.fetchval("SELECT current_schema()"))


def test_lines_that_are_the_same_in_another_order_have_one_fingerprint() -> None:
    assert fingerprint(("a: 1", "b: 2")) == fingerprint(["b: 2", "a: 1"])
    assert fingerprint(("a: 1",)) != fingerprint(("a: 2",))
    assert differences(("a: 1", "a: 2"), ("a: 2", "a: 1")) == []
