"""`tenantry migrate tenants`, `status` and `resume`, as a deployment runs them."""

from __future__ import annotations

import asyncio
import json
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from tenantry.cli.problems import ExitCode
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.revision_files import read_line
from tenantry.tenancy.revisions import revisions
from tests.cli.support import ROOT, answer, bare_environment, refused, run
from tests.databases import Template
from tests.platform.rollouts.support import add_team, as_owner, make_tenants, start, states
from tests.platform.support import as_admin
from tests.tree import TenantTree, program_of, tenant_tree

__all__ = ("tenant_tree",)

NO_HYPHENS = """op.create_check_constraint("slug_plain", "team", "slug !~ '-'")"""


@pytest.fixture
def owner_env(env: dict[str, str], database_addresses: Template) -> dict[str, str]:
    return env | {"TENANTRY_DATABASE_OWNER_URL": database_addresses.owner_url}


def make(addresses: Template, *slugs: str) -> dict[str, UUID]:
    return asyncio.run(make_tenants(addresses, *slugs))


def revisions_of(addresses: Template) -> dict[str, str]:
    return asyncio.run(states(addresses))


def test_tenants_are_migrated_once_and_then_there_is_nothing_to_do(
    database_addresses: Template, owner_env: dict[str, str], tenant_tree: TenantTree
) -> None:
    make(database_addresses, "acme", "globex")
    new = tenant_tree.add()
    done = answer(run("migrate", "tenants", "--json", env=owner_env))
    assert done | {"rollout": None} == {
        "rollout": None,
        "target": new,
        "status": "done",
        "haltedReason": None,
        "tenants": 2,
        "done": 2,
        "failed": 0,
        "pending": 0,
        "failures": [],
    }
    assert UUID(done["rollout"])
    assert revisions_of(database_addresses) == {"acme": new, "globex": new}
    again = answer(run("migrate", "tenants", "--json", env=owner_env))
    assert again == done | {"rollout": None, "tenants": 0, "done": 0}
    assert run("migrate", "tenants", env=owner_env).stdout == f"All 2 tenants are at {new} already.\n"
    assert run("migrate", "tenants", "--quiet", env=owner_env).output == ""


def test_the_glance_and_the_look_say_the_same(
    database_addresses: Template, owner_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(database_addresses, "acme")
    glanced = answer(run("migrate", "tenants", "--json", env=owner_env))
    monkeypatch.setattr("tenantry.cli.migrate_glance.glance", lambda: None)
    assert answer(run("migrate", "tenants", "--json", env=owner_env)) == glanced


def test_a_release_that_comes_back_leaves_a_newer_ones_shared_schema_alone(
    database_addresses: Template, owner_env: dict[str, str]
) -> None:
    """What deploys a release migrates first, also when it is the release before that is deployed again."""
    newer = "9999"

    async def put() -> None:
        async with as_admin(database_addresses) as admin:
            await admin.execute(f"UPDATE platform.alembic_version SET version_num = '{newer}'")

    asyncio.run(put())
    assert answer(run("migrate", "shared", "--json", env=owner_env)) == {"tree": "shared", "from": newer, "to": newer}
    assert run("migrate", "shared", env=owner_env).stdout == f"The shared schema is at {newer} already.\n"


def test_the_order_of_the_files_is_alembics() -> None:
    for tree in ("shared", "tenant"):
        assert list(read_line(tree)) == [revision.id for revision in revisions(tree)]


SCRIPT = """
import sys
from pathlib import Path
from tenantry.tenancy import revision_files
revision_files.migrations_folder = lambda: Path(sys.argv[1])
from tenantry.cli import tenantry
code = tenantry.main(['migrate', 'tenants', '--json'], standalone_mode=False)
heavy = set(sys.argv[2:]) & set(sys.modules)
sys.exit(f'{heavy}' if heavy else code)
"""


def migrated_without(modules: set[str], tree: TenantTree, env: dict[str, str]) -> dict[str, Any]:
    """What `migrate tenants` answers in a process of its own, which is not to import any of the modules."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tree.folder), *modules],
        env=bare_environment(**env),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_run_imports_what_it_needs_and_no_more(
    database_addresses: Template, owner_env: dict[str, str], tenant_tree: TenantTree
) -> None:
    """Its start is to be short beside migrating a thousand tenants, which takes a second."""
    make(database_addresses, "acme")
    new = tenant_tree.add()
    never = {"litestar", "advanced_alchemy", "sqlalchemy.orm", "sqlalchemy.ext.asyncio", "rich.progress", "numpy"}
    done = migrated_without(never, tenant_tree, owner_env)
    assert (done["status"], done["done"], done["target"]) == ("done", 1, new)
    idle = {"alembic", "sqlalchemy", "pydantic", "msgspec", "structlog"}
    again = migrated_without(never | idle, tenant_tree, owner_env)
    assert (again["status"], again["tenants"]) == ("done", 0)


def test_what_it_must_not_import_is_noticed(
    database_addresses: Template, owner_env: dict[str, str], tenant_tree: TenantTree
) -> None:
    make(database_addresses, "acme")
    tenant_tree.add("op.get_bind().exec_driver_sql('SELECT 1')", online=True)
    with pytest.raises(AssertionError, match="asyncio"):
        migrated_without({"sqlalchemy.ext.asyncio"}, tenant_tree, owner_env)
    assert set(revisions_of(database_addresses).values()) == {tenant_tree.head}


def test_a_plan_changes_nothing(
    database_addresses: Template, owner_env: dict[str, str], tenant_tree: TenantTree
) -> None:
    make(database_addresses, "acme", "globex")
    new = tenant_tree.add()
    found = answer(run("migrate", "tenants", "--plan", "--json", env=owner_env))
    assert found == {
        "target": new,
        "tenants": 2,
        "current": 0,
        "stale": 2,
        "groups": [
            {
                "revision": tenant_tree.base,
                "tenants": 2,
                "steps": [{"revision": new, "doc": f"Step {new}.", "online": False, "irreversible": None}],
            }
        ],
        "unknown": {},
        "provisioning": 0,
    }
    shown = run("migrate", "tenants", "--plan", env=owner_env).stdout
    assert shown.startswith(f"0 of 2 tenants are at {new}.\n")
    assert f"{new} Step {new}." in shown
    assert set(revisions_of(database_addresses).values()) == {tenant_tree.base}
    assert answer(run("migrate", "status", "--json", env=owner_env))["rollout"] is None


def test_failures_are_listed_with_their_sql_and_can_be_resumed(
    database_addresses: Template, owner_env: dict[str, str], tenant_tree: TenantTree
) -> None:
    made = make(database_addresses, "acme", "globex")
    asyncio.run(add_team(database_addresses, made["acme"], "red-team"))
    new = tenant_tree.add(NO_HYPHENS)
    result = run("migrate", "tenants", env=owner_env)
    assert result.exit_code == ExitCode.FAILED
    assert result.stdout.startswith(f"0 of 2 tenants are at {new}, 1 failed, 1 are not begun.\n")
    assert "ALTER TABLE team ADD CONSTRAINT" in result.stdout
    assert "23514: check constraint" in result.stdout
    said = re.search(r"halted: the canary acme failed. `tenantry migrate resume (\S+)` goes on", result.stderr)
    assert said is not None
    status = answer(run("migrate", "status", "--json", env=owner_env))
    assert status["revisions"] == [
        {"revision": tenant_tree.base, "tenants": 2, "state": "stale"},
        {"revision": new, "tenants": 0, "state": "head"},
    ]
    assert status["rollout"]["rollout"] == said[1]
    assert [failure["slug"] for failure in status["rollout"]["failures"]] == ["acme"]
    assert "is halted: 0 of 2 done, 1 failed, 1 to go." in run("migrate", "status", env=owner_env).stdout

    async def repair() -> None:
        async with as_owner(database_addresses) as owner:
            await owner.execute(f"""UPDATE "{schema_name(made["acme"])}".team SET slug = 'red'""")

    asyncio.run(repair())
    assert answer(run("migrate", "resume", "--json", env=owner_env))["done"] == 2
    assert revisions_of(database_addresses) == {"acme": new, "globex": new}
    assert "is done, and cannot be resumed" in refused(run("migrate", "resume", env=owner_env), ExitCode.CONFLICT)


def test_an_unknown_slug_is_refused_with_the_nearest(
    database_addresses: Template, owner_env: dict[str, str], tenant_tree: TenantTree
) -> None:
    make(database_addresses, "acme", "globex")
    new = tenant_tree.add()
    said = refused(run("migrate", "tenants", "--only", "acne", env=owner_env), ExitCode.USAGE)
    assert said == "only: there is no organization 'acne' (acme?)"
    assert answer(run("migrate", "tenants", "--only", "acme", "--json", env=owner_env))["done"] == 1
    assert revisions_of(database_addresses) == {"acme": new, "globex": tenant_tree.base}


def test_what_cannot_be_undone_is_to_be_allowed(
    database_addresses: Template, owner_env: dict[str, str], tenant_tree: TenantTree
) -> None:
    make(database_addresses, "acme")
    new = tenant_tree.add(
        "op.execute('DELETE FROM tag')", irreversible="the rows are gone", downgrade="raise NotImplementedError"
    )
    said = refused(run("migrate", "tenants", env=owner_env), ExitCode.USAGE)
    assert said == f"the revisions {new} cannot be undone: give --yes to run them"
    assert answer(run("migrate", "tenants", "--yes", "--json", env=owner_env))["done"] == 1


def test_migrating_tenants_needs_the_owner(env: dict[str, str]) -> None:
    for command in ("tenants", "resume"):
        result = run("migrate", command, env=env)
        assert result.exit_code == ExitCode.USAGE
        assert "TENANTRY_DATABASE_OWNER_URL: expected an address" in result.stderr


def test_there_is_nothing_to_resume_at_first(owner_env: dict[str, str]) -> None:
    assert refused(run("migrate", "resume", env=owner_env), ExitCode.NOT_FOUND) == "there has not been any rollout"


@contextmanager
def locked(addresses: Template, tenant_id: UUID) -> Iterator[Any]:
    """A tenant's table, locked by somebody's transaction; yields a function that counts who waits."""
    loop = asyncio.new_event_loop()
    stack = as_owner(addresses)
    busy = loop.run_until_complete(stack.__aenter__())
    loop.run_until_complete(busy.execute(f'BEGIN; LOCK TABLE "{schema_name(tenant_id)}".team IN ACCESS SHARE MODE'))
    asking = as_owner(addresses)
    other = loop.run_until_complete(asking.__aenter__())

    def waiting() -> int:
        question = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenantry-rollout'"
            " AND datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(loop.run_until_complete(other.fetchval(question)))

    try:
        yield waiting
    finally:
        loop.run_until_complete(stack.__aexit__(None, None, None))
        loop.run_until_complete(asking.__aexit__(None, None, None))
        loop.close()


def until(ask: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def program(tree: TenantTree, env: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        program_of(tree, "migrate", "tenants", *arguments),
        env=bare_environment(**env),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_ctrl_c_finishes_what_is_under_way_and_says_how_to_go_on(
    database_addresses: Template, owner_env: dict[str, str], tenant_tree: TenantTree
) -> None:
    made = make(database_addresses, "acme", "globex", "initech")
    new = tenant_tree.add()
    arguments = ("--concurrency", "1", "--canary", "0", "--lock-timeout", "60", "--json")
    with program(tenant_tree, owner_env, *arguments) as process:
        with locked(database_addresses, made["acme"]) as waiting:
            until(waiting)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            said = process.stderr.readline()

            def is_cancelled() -> bool:
                status = answer(run("migrate", "status", "--json", env=owner_env))
                return bool(status["rollout"]["status"] == "cancelled")

            until(is_cancelled)
            assert process.poll() is None
        out, _ = process.communicate(timeout=30)
    assert process.returncode == ExitCode.FAILED
    report = json.loads(out)
    assert said.startswith(
        f"Cancelled: the tenants under way are finished. `tenantry migrate resume {report['rollout']}"
    )
    assert (report["status"], report["done"], report["pending"]) == ("cancelled", 1, 2)
    assert answer(run("migrate", "resume", report["rollout"], "--json", env=owner_env))["done"] == 3
    assert set(revisions_of(database_addresses).values()) == {new}


def test_a_second_command_shows_the_first_ones_progress(
    database_addresses: Template, owner_env: dict[str, str], tenant_tree: TenantTree
) -> None:
    made = make(database_addresses, "acme", "globex")
    new = tenant_tree.add()
    arguments = ("--canary", "0", "--lock-timeout", "60", "--json")
    with (
        program(tenant_tree, owner_env, *arguments) as first,
        program(tenant_tree, owner_env, *arguments) as second,
    ):
        with locked(database_addresses, made["acme"]) as waiting:
            until(waiting)
            assert " is running already; this is its progress." in _first_to_speak(first, second)
            assert waiting() == 1
        # Unlocked: both tell the same.
        reports = [json.loads(process.communicate(timeout=30)[0]) for process in (first, second)]
    assert reports[0] == reports[1]
    assert (reports[0]["status"], reports[0]["done"]) == ("done", 2)
    assert (first.returncode, second.returncode) == (0, 0)
    assert set(revisions_of(database_addresses).values()) == {new}


def _first_to_speak(*processes: subprocess.Popen[str]) -> str:
    with selectors.DefaultSelector() as selector:
        for process in processes:
            assert process.stderr is not None
            selector.register(process.stderr, selectors.EVENT_READ)
        ready = selector.select(timeout=20)
        assert ready
        return str(ready[0][0].fileobj.readline())  # type: ignore[union-attr]


def test_a_rollout_whose_command_was_killed_is_taken_over_by_a_provisioner(
    database_addresses: Template, owner_env: dict[str, str], tenant_tree: TenantTree, request: pytest.FixtureRequest
) -> None:
    make(database_addresses, "acme", "globex")
    new = tenant_tree.add()
    # What a command that was killed leaves behind.
    asyncio.run(start(database_addresses))
    request.getfixturevalue("provisioner")
    until(lambda: set(revisions_of(database_addresses).values()) == {new})
    until(lambda: answer(run("migrate", "status", "--json", env=owner_env))["rollout"]["status"] == "done")
