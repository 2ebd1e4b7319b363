"""What the server tells a tenant about others, and who may do what, read from the catalog."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.database import Database
from tenantry.tenancy.scope import EMPTY_SCOPE
from tests.isolation.test_database_escapes import REFUSED, Ground, _try
from tests.isolation.test_database_escapes import hardened as hardened
from tests.isolation.test_database_escapes import unhardened as unhardened

# What the server tells about others.


async def test_the_text_of_others_statements_is_not_shown(hardened: Ground) -> None:
    other = Database(hardened.estate.addresses.app_url, pool_size=1, max_overflow=0)
    try:
        async with other.transaction(hardened.globex.context.read_scope) as theirs:
            await theirs.connection.fetch("SELECT 'a secret of globex'")
            pid = await theirs.connection.fetchval("SELECT pg_backend_pid() AS secret_pid")
            async with hardened.database.transaction(hardened.acme.context.read_scope) as transaction:
                rows = await transaction.connection.fetch(
                    "SELECT query, pg_stat_get_backend_activity(pg_stat_get_backend_idset) FROM pg_stat_activity,"
                    " pg_stat_get_backend_idset() WHERE pid = $1",
                    pid,
                )
        assert rows
        assert "secret" not in repr(rows)
        assert {row["query"] for row in rows} == {"<insufficient privilege>"}
    finally:
        await other.close()


async def test_a_shared_connection_shows_the_text_of_statements_but_never_a_value(hardened: Ground) -> None:
    """Prepared statements are the session's, whoever prepared them: hence values are bound, never written in."""
    async with hardened.database.transaction(hardened.globex.context.read_scope) as transaction:
        await transaction.connection.fetch("SELECT id FROM tag WHERE name = $1", "a secret of globex")
    async with hardened.database.transaction(hardened.acme.context.read_scope) as transaction:
        rows = await transaction.connection.fetch("SELECT * FROM pg_prepared_statements")
    assert "SELECT id FROM tag WHERE name = $1" in repr(rows)
    assert "a secret of globex" not in repr(rows)


async def test_the_planners_statistics_are_of_ones_own_tables(hardened: Ground) -> None:
    for tenant in hardened.estate.tenants:
        await hardened.admin.execute(
            f"""INSERT INTO "{tenant.schema}".tag (id, slug, name, description, created_at, updated_at)
                SELECT gen_random_uuid(), 's' || n, 's' || n, 'of {tenant.marker}', now(), now()
                  FROM generate_series(1, 50) n;
                ANALYZE "{tenant.schema}".tag;
                DELETE FROM "{tenant.schema}".tag WHERE name <> '{tenant.marker}'"""
        )
    async with hardened.database.transaction(hardened.acme.context.read_scope) as transaction:
        seen = repr(
            await transaction.connection.fetch(
                "SELECT most_common_vals::text, histogram_bounds::text FROM pg_stats WHERE tablename = 'tag'"
            )
        )
    assert hardened.acme.marker in seen
    assert hardened.globex.marker not in seen


async def test_the_catalog_tells_that_there_are_others_but_nothing_that_they_wrote(hardened: Ground) -> None:
    """Known: everybody reads the catalog. It holds tenants' ids and the sizes of their tables, no name and no row."""
    async with hardened.database.transaction(hardened.acme.context.read_scope) as transaction:
        fetch = transaction.connection.fetch
        assert hardened.globex.schema in repr(await fetch("SELECT nspname FROM pg_namespace"))
        assert await fetch("SELECT n_live_tup FROM pg_stat_user_tables WHERE schemaname = $1", hardened.globex.schema)
        for view in ("tables", "columns", "table_privileges", "schemata"):
            rows = await fetch(f"SELECT * FROM information_schema.{view}")
            assert hardened.globex.schema not in repr(rows)
        for catalog in (
            "pg_namespace",
            "pg_roles",
            "pg_class",
            "pg_description",
            "pg_shdescription",
            "pg_db_role_setting",
        ):
            rows = await fetch(f"SELECT c::text FROM {catalog} c")
            for word in (hardened.globex.marker, f"'{hardened.globex.context.slug}'", "owner@example.com"):
                assert word not in repr(rows)


@pytest.mark.parametrize(
    "call",
    [
        "lo_creat(1)",
        "lo_create(0)",
        "lo_from_bytea(0, 'x')",
        *(
            f"pg_{verb}advisory_lock{kind}({key})"
            for verb in ("", "try_")
            for kind in ("", "_shared")
            for key in ("1", "1, 1")
        ),
    ],
)
async def test_nothing_is_left_behind_outside_the_schema_and_the_transaction(hardened: Ground, call: str) -> None:
    """A large object would keep its owner's role from being dropped, a session's lock would outlive the transaction."""
    assert await _try(hardened, f"SELECT {call}") == REFUSED


async def test_unhardened_another_tenants_large_object_cannot_be_read_either(unhardened: Ground) -> None:
    async with unhardened.database.transaction(unhardened.globex.context.write_scope) as transaction:
        oid = await transaction.connection.fetchval("SELECT lo_from_bytea(0, 'a secret of globex')")
    for sql in (f"SELECT lo_get({oid})", f"SELECT lo_put({oid}, 0, 'x')", f"SELECT lo_unlink({oid})"):
        assert await _try(unhardened, sql) == REFUSED
    async with unhardened.database.transaction(unhardened.globex.context.write_scope) as transaction:
        assert await transaction.connection.fetchval("SELECT lo_get($1)", oid) == b"a secret of globex"
        await transaction.connection.fetchval("SELECT lo_unlink($1)", oid)


async def test_unhardened_an_advisory_lock_outlives_its_transaction(unhardened: Ground) -> None:
    """Known: an injected call can hinder whoever takes the same number, until the pooled connection is closed."""
    await _lock(unhardened)
    assert await unhardened.admin.fetchval("SELECT pg_try_advisory_lock(20261123)") is False
    transaction = await unhardened.database.begin(EMPTY_SCOPE)
    await transaction.close(failed=True)
    await unhardened.admin.fetchval("SELECT pg_advisory_lock(20261123)")
    await unhardened.admin.fetchval("SELECT pg_advisory_unlock_all()")


async def _lock(ground: Ground) -> None:
    async with ground.database.transaction(ground.acme.context.write_scope) as transaction:
        await transaction.connection.fetch("SELECT pg_advisory_lock(20261123)")


# Who may do what, read from the catalog.


async def test_the_control_plane_reads_no_tenants_rows(hardened: Ground) -> None:
    for tenant in hardened.estate.tenants:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with hardened.database.transaction(control_scope(ScopeTimes(), read_only=True)) as transaction:
                await transaction.connection.fetch(f'SELECT * FROM "{tenant.schema}".tag')


async def test_the_owner_is_no_superuser_and_the_application_has_no_right_of_its_own(hardened: Ground) -> None:
    roles = {
        row["rolname"]: row
        for row in await hardened.admin.fetch(
            "SELECT * FROM pg_roles WHERE rolname LIKE 'tenantry%' OR rolname ~ '^t_'"
        )
    }
    for name, role in roles.items():
        for right in ("rolsuper", "rolbypassrls", "rolreplication", "rolcreatedb"):
            assert not role[right], f"{name} has {right}"
        assert role["rolcreaterole"] == (name == "tenantry_owner"), name
        assert role["rolcanlogin"] == (name in {"tenantry_owner", "tenantry_app"}), name
    assert not roles["tenantry_app"]["rolinherit"]


async def test_memberships_are_those_that_a_scope_needs_and_no_other(hardened: Ground) -> None:
    rows = await hardened.admin.fetch(
        "SELECT r.rolname AS role, m.rolname AS member, admin_option, inherit_option, set_option FROM pg_auth_members a"
        " JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member"
        " WHERE m.rolname LIKE 'tenantry%' OR m.rolname = ANY($1::text[])",
        [tenant.schema for tenant in hardened.estate.tenants],
    )
    schemas = {tenant.schema for tenant in hardened.estate.tenants}
    found = {(row["role"], row["member"]): tuple(row)[2:] for row in rows if _concerns(row, schemas)}
    expected = {
        ("tenantry_control", "tenantry_app"): (False, False, True),
        ("tenantry_tenant", "tenantry_owner"): (True, False, False),
    }
    for schema in schemas:
        expected |= {
            (schema, "tenantry_app"): (False, False, True),
            ("tenantry_tenant", schema): (False, True, False),
            # Who makes a role may grant it on; the owner is not the tenant for that.
            (schema, "tenantry_owner"): (True, False, False),
        }
    assert found == expected


def _concerns(row: Any, schemas: set[str]) -> bool:
    """Other tests' tenants live on the same server."""
    return all(not name.startswith("t_") or name in schemas for name in (row["role"], row["member"]))


async def test_every_right_in_a_tenants_schema_is_its_own_or_the_owners(hardened: Ground) -> None:
    rows = await hardened.admin.fetch(
        """
        SELECT nspname AS schema, a.grantee::regrole::text AS grantee, privilege_type AS right, 'schema' AS what
          FROM pg_namespace, aclexplode(nspacl) a WHERE nspname ~ '^t_'
        UNION ALL
        SELECT nspname, a.grantee::regrole::text, privilege_type, relname
          FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace, aclexplode(relacl) a WHERE nspname ~ '^t_'
        """
    )
    assert {row["schema"] for row in rows} == {tenant.schema for tenant in hardened.estate.tenants}
    for row in rows:
        assert row["grantee"] in {row["schema"], "tenantry_owner"}, dict(row)
        if row["grantee"] == row["schema"]:
            allowed = {"USAGE"} if row["what"] == "schema" else {"SELECT", "INSERT", "UPDATE", "DELETE"}
            assert row["right"] in ({"SELECT"} if row["what"] == "alembic_version" else allowed), dict(row)


async def test_nothing_outside_the_catalog_is_everybodys(hardened: Ground) -> None:
    rows = await hardened.admin.fetch(
        """
        WITH ours AS (SELECT * FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast'))
        SELECT nspname AS name FROM ours, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a WHERE grantee = 0
        UNION ALL
        SELECT relname FROM pg_class JOIN ours ON ours.oid = relnamespace,
               aclexplode(coalesce(relacl, acldefault('r', relowner))) a WHERE grantee = 0
        UNION ALL
        SELECT proname FROM pg_proc JOIN ours ON ours.oid = pronamespace,
               aclexplode(coalesce(proacl, acldefault('f', proowner))) a WHERE grantee = 0
        """
    )
    assert [row["name"] for row in rows] == []


async def test_the_schema_public_and_temporary_objects_are_nobodys(hardened: Ground) -> None:
    for role in ("tenantry_app", "tenantry_control", "tenantry_tenant", hardened.acme.schema):
        for right in ("USAGE", "CREATE"):
            assert not await hardened.admin.fetchval("SELECT has_schema_privilege($1, 'public', $2)", role, right)
        for right in ("TEMPORARY", "CREATE"):
            assert not await hardened.admin.fetchval(
                "SELECT has_database_privilege($1, current_database(), $2)", role, right
            )
