from __future__ import annotations

import asyncio

import pytest

from tenantry.cli.problems import ExitCode
from tenantry.tenancy.migrations import head
from tests.cli.support import answer, refused, run
from tests.databases import Template, is_superuser


def test_the_shared_schema_is_migrated_once(empty_database: Template, tmp_path_factory: pytest.TempPathFactory) -> None:
    env = {
        "TENANTRY_HOME": str(tmp_path_factory.mktemp("home")),
        "TENANTRY_DATABASE_URL": empty_database.app_url,
        "TENANTRY_DATABASE_OWNER_URL": empty_database.owner_url,
    }
    assert answer(run("migrate", "shared", "--json", env=env)) == {"tree": "shared", "from": None, "to": head("shared")}
    again = run("migrate", "shared", env=env)
    assert again.stdout == f"The shared schema is at {head('shared')} already.\n"
    assert answer(run("tenants", "list", "--json", env=env)) == []
    assert run("migrate", "shared", "--quiet", env=env).output == ""


def test_migrating_needs_the_owner(env: dict[str, str]) -> None:
    result = run("migrate", "shared", env=env)
    assert result.exit_code == ExitCode.USAGE
    assert "TENANTRY_DATABASE_OWNER_URL: expected an address" in result.stderr


def test_hardening_is_reported_and_done(empty_database: Template) -> None:
    arguments = ["harden", "--admin-url-stdin", "--json"]
    before = run(*arguments, "--check", stdin=empty_database.admin_url)
    nothing = {
        "setConfigRevoked": False,
        "plpgsqlRevoked": False,
        "temporaryRevoked": False,
        "sessionLocksRevoked": False,
        "largeObjectsRevoked": False,
        "complete": False,
    }
    assert answer(before, ExitCode.FAILED) == nothing
    assert before.stderr.startswith("Error: SQL that is injected could cross tenants")
    if not asyncio.run(is_superuser(empty_database.admin_url)):
        # As on a managed server: what the database's owner may do is done, and the rest is said.
        done = run(*arguments, stdin=empty_database.admin_url)
        assert answer(done, ExitCode.FAILED) == nothing | {"temporaryRevoked": True}
        pytest.skip("the server's administrator is no superuser: it cannot be hardened")
    assert answer(run(*arguments, stdin=empty_database.admin_url))["complete"] is True
    shown = run("harden", "--admin-url-stdin", "--check", stdin=empty_database.admin_url)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        "set_config()      closed",
        "plpgsql blocks    closed",
        "temporary tables  closed",
        "session locks     closed",
        "large objects     closed",
    ]


def test_an_administrator_s_address_is_only_taken_from_stdin(empty_database: Template) -> None:
    assert "give --admin-url-stdin" in refused(run("bootstrap", stdin=empty_database.admin_url), ExitCode.USAGE)
    assert "expected postgresql://" in refused(run("bootstrap", "--admin-url-stdin", stdin="mysql://x:y@z/d"), 2)


def test_roles_that_are_there_do_not_get_new_passwords_unasked(empty_database: Template) -> None:
    said = refused(run("bootstrap", "--admin-url-stdin", stdin=empty_database.admin_url), ExitCode.CONFLICT)
    assert "with --yes they get new passwords" in said


def test_only_an_administrator_can_bootstrap(empty_database: Template) -> None:
    said = refused(run("bootstrap", "--admin-url-stdin", stdin=empty_database.app_url), ExitCode.USAGE)
    assert "needs CREATEROLE and CREATEDB" in said
