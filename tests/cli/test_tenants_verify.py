from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from tenantry.cli.problems import ExitCode
from tenantry.tenancy.migrations import head
from tenantry.tenancy.models import schema_name
from tests.cli.support import answer, refused, run
from tests.databases import Template
from tests.platform.rollouts.support import make_tenants

Env = dict[str, str]


@pytest.fixture
def env(env: Env, database_addresses: Template) -> Env:
    """With the owner's address, and three tenants."""
    tenants = asyncio.run(make_tenants(database_addresses, "acme", "globex", "initech"))
    return env | {
        "TENANTRY_DATABASE_OWNER_URL": database_addresses.owner_url,
        **{slug: schema_name(tenant_id) for slug, tenant_id in tenants.items()},
    }


def as_owner(addresses: Template, *statements: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(addresses.owner_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(work())


def verify(env: Env, *arguments: str) -> Any:
    return run("tenants", "verify", *arguments, env=env)


def test_schemas_as_they_should_be_end_with_0(env: Env) -> None:
    result = verify(env, "--all")
    assert (result.exit_code, result.stdout) == (ExitCode.OK, "3 tenants verified, 0 not as expected.\n")
    found = answer(verify(env, "globex", "acme", "--json"))
    assert [(row["slug"], row["revision"], row["ok"]) for row in found] == [
        ("globex", head("tenant"), True),
        ("acme", head("tenant"), True),
    ]
    assert verify(env, "acme", "--quiet").output == ""


def test_every_difference_is_named_and_the_end_is_1(env: Env, database_addresses: Template) -> None:
    as_owner(
        database_addresses,
        f'ALTER TABLE "{env["globex"]}".team ALTER COLUMN name DROP NOT NULL',
        f'DROP INDEX "{env["globex"]}".ix_team_member_user_id',
        f'GRANT SELECT ON "{env["globex"]}".user_account TO "{env["acme"]}"',
    )
    result = verify(env, "--all")
    assert result.exit_code == ExitCode.FAILED
    assert result.stdout.splitlines() == [
        f"globex, revision {head('tenant')}:",
        "  column team.name: expected text NOT NULL, found text",
        "  index ix_team_member_user_id on team_member: missing, expected CREATE INDEX ix_team_member_user_id"
        " ON team_member USING btree (user_id)",
        f"  privileges of {env['acme']} on table user_account: unexpected, found SELECT",
        "3 tenants verified, 1 not as expected.",
    ]
    found = answer(verify(env, "globex", "--json"), ExitCode.FAILED)
    assert found[0]["differences"][0] == {
        "subject": "column team.name",
        "expected": "text NOT NULL",
        "found": "text",
    }
    assert verify(env, "globex", "--quiet").output == ""
    assert verify(env, "acme").exit_code == ExitCode.OK


def test_a_ledger_that_says_something_else_than_the_schema_is_drift(env: Env, database_addresses: Template) -> None:
    as_owner(database_addresses, f"UPDATE \"{env['acme']}\".alembic_version SET version_num = '0000'")
    result = verify(env, "acme")
    assert result.exit_code == ExitCode.FAILED
    assert f"revision: expected {head('tenant')}, found 0000" in result.stdout


def test_a_schema_that_is_gone_is_drift(env: Env, database_addresses: Template) -> None:
    as_owner(database_addresses, f'DROP SCHEMA "{env["acme"]}" CASCADE')
    result = verify(env, "acme")
    assert result.exit_code == ExitCode.FAILED
    # The role is still there, and with it what it is a member of.
    assert "schema: missing, expected owner tenantry_owner" in result.stdout


def test_a_table_of_versions_that_is_gone_is_drift(env: Env, database_addresses: Template) -> None:
    as_owner(database_addresses, f'DROP TABLE "{env["acme"]}".alembic_version')
    result = verify(env, "acme")
    assert result.exit_code == ExitCode.FAILED
    assert "table alembic_version: missing" in result.stdout


def test_a_revision_of_another_release_cannot_be_compared(env: Env, database_addresses: Template) -> None:
    as_owner(database_addresses, "UPDATE platform.tenant SET revision = '9999' WHERE slug = 'acme'")
    result = verify(env, "--all")
    assert result.exit_code == ExitCode.FAILED
    assert "acme: the tree 'tenant' has no revision '9999'" in result.stdout
    assert "3 tenants verified, 1 not as expected." in result.stdout


def test_a_tenant_without_a_schema_is_left_out_of_all_and_named_alone(env: Env, database_addresses: Template) -> None:
    as_owner(
        database_addresses, "UPDATE platform.tenant SET status = 'archived', archive_key = 'k' WHERE slug = 'acme'"
    )
    assert "2 tenants verified, 0" in verify(env, "--all").stdout
    result = verify(env, "acme")
    assert result.exit_code == ExitCode.FAILED
    assert "acme: it has no schema" in result.stdout


def test_an_unknown_slug_exits_with_2_and_offers_the_nearest(env: Env) -> None:
    assert refused(verify(env, "amce"), ExitCode.USAGE) == "There is no organization 'amce'. Did you mean 'acme'?"
    assert refused(verify(env, "acme", "globexx"), ExitCode.USAGE).endswith("Did you mean 'globex'?")
    assert refused(verify(env, "zzz"), ExitCode.USAGE) == "There is no organization 'zzz'."


def test_nobody_or_everybody_and_somebody_is_wrong_usage(env: Env) -> None:
    assert "--all" in refused(verify(env), ExitCode.USAGE)
    assert "--all" in refused(verify(env, "acme", "--all"), ExitCode.USAGE)


def test_without_the_owners_address_nothing_can_be_verified(env: Env) -> None:
    del env["TENANTRY_DATABASE_OWNER_URL"]
    result = verify(env, "--all")
    assert result.exit_code == ExitCode.USAGE
    assert "TENANTRY_DATABASE_OWNER_URL" in result.stderr
