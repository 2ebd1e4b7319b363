from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import asyncpg
import pytest

from tenantry.cli.shell import _without_password
from tenantry.kernel.actor import cli_actor
from tenantry.tenancy.models import schema_name
from tests.cli.support import OWNER_PASSWORD, answer, refused, run
from tests.databases import Template

Env = dict[str, str]
_WHY = ("--reason", "Ticket 4711", "--break-glass")


@pytest.fixture
def tenants(env: Env, provisioner: None) -> dict[str, str]:
    """The schemas of two tenants, by slug."""
    schemas = {}
    for slug in ("acme", "globex"):
        arguments = ["--name", slug, "--plan", "free", "--owner-email", f"ann@{slug}.example", "--owner-password-stdin"]
        made = answer(run("tenants", "create", slug, *arguments, "--json", env=env, stdin=OWNER_PASSWORD))
        schemas[slug] = schema_name(UUID(made["id"]))
    return schemas


Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(env: Env, capfd: pytest.CaptureFixture[str]) -> Shell:
    """The command: its exit code, and what it, or the psql that it has started, has printed."""

    def call(*arguments: str, glass: bool = True) -> tuple[int, str, str]:
        capfd.readouterr()
        result = run("shell", "--reason", "Ticket 4711", *(["--break-glass"] if glass else []), *arguments, env=env)
        by_psql = capfd.readouterr()
        return result.exit_code, result.stdout + by_psql.out, result.stderr + by_psql.err

    return call


def test_psql_is_in_the_tenant_s_scope_and_sees_no_other(shell: Shell, tenants: dict[str, str]) -> None:
    code, stdout, stderr = shell("--tenant", "acme", "-c", "SELECT current_user, email FROM user_account")
    assert (code, stderr) == (0, "")
    assert f"{tenants['acme']} | ann@acme.example" in stdout
    other = f'SELECT email FROM "{tenants["globex"]}".user_account'
    code, stdout, stderr = shell("--tenant", "acme", "-c", other)
    assert code == 1
    assert "permission denied" in stderr
    assert "ann@globex.example" not in stdout
    # Even so: the role is what the session began with. (SET ROLE would get out, as the help says.)
    code, stdout, stderr = shell("--tenant", "acme", "-c", f"RESET ROLE; {other}")
    assert code == 1
    assert "permission denied" in stderr


def test_nothing_is_changed_by_whoever_has_not_said_so(shell: Shell, tenants: dict[str, str]) -> None:
    change = "UPDATE user_account SET name = 'X'"
    code, _, stderr = shell("--tenant", "acme", "-c", change)
    assert code == 1
    assert "read-only transaction" in stderr
    assert shell("--tenant", "acme", "--write", "-c", change)[:2] == (0, "UPDATE 1\n")
    code, _, stderr = shell(
        "--tenant", "acme", "--python", "-c", "session.add(Tag(name='x', slug='x')); await commit()"
    )
    assert code == 1
    assert "read-only transaction" in stderr


def test_python_has_the_models_and_keeps_what_is_committed(shell: Shell, tenants: dict[str, str]) -> None:
    add = "session.add(Tag(name='{0}', slug='{0}'))"
    count = "print(await session.scalar(select(func.count(Tag.id))))"
    to_write = ("--tenant", "acme", "--write", "--python", "-c")
    code, stdout, stderr = shell(*to_write, f"{add.format('a')}; await commit(); {count}")
    assert (code, stdout, stderr) == (0, "1\n", "")
    code, stdout, _ = shell(*to_write, f"{add.format('b')}; await session.flush(); {count}")
    assert (code, stdout) == (0, "2\n")
    # Left without a commit; and another tenant's is another table.
    assert shell("--tenant", "acme", "--python", "-c", count)[1] == "1\n"
    assert shell("--tenant", "globex", "--python", "-c", count)[1] == "0\n"


def test_the_python_prompt_awaits_and_survives_a_mistake(env: Env, tenants: dict[str, str]) -> None:
    lines = "user = await session.scalar(select(User))\n1 / 0\nprint(user.email)\n"
    result = run("shell", "--tenant", "acme", "--python", *_WHY, env=env, stdin=lines)
    assert result.exit_code == 0
    assert "ann@acme.example" in result.stdout
    assert "ZeroDivisionError" in result.stderr


def test_a_tenant_that_is_not_there_exits_with_3(env: Env) -> None:
    assert "no organization 'nobody'" in refused(
        run("shell", *_WHY, "--tenant", "nobody", "-c", "SELECT 1", env=env), 2
    )
    assert "no organization 'nobody'" in refused(run("shell", *_WHY, "--tenant", "nobody", "--python", env=env), 2)


def test_without_a_reason_nobody_goes_in(env: Env, tenants: dict[str, str]) -> None:
    result = run("shell", "--tenant", "acme", "-c", "SELECT 1", env=env)
    assert result.exit_code == 2
    assert "--reason" in result.stderr


def test_without_consent_nobody_goes_in_but_by_breaking_the_glass(shell: Shell, tenants: dict[str, str]) -> None:
    asking = ("--tenant", "acme", "-c", "SELECT 'was in'")
    code, stdout, stderr = shell(*asking, glass=False)
    assert code != 0
    assert "was in" not in stdout
    assert "No owner has granted this access" in stderr
    grant = (
        "session.add(OperatorAccessGrant(reason='Ticket', can_write=False,"
        " expires_at=await session.scalar(select(func.now() + func.make_interval(0, 0, 0, 1))))); await commit()"
    )
    assert shell("--tenant", "acme", "--write", "--python", "-c", grant)[0] == 0
    code, stdout, _ = shell(*asking, glass=False)
    assert (code, "was in" in stdout) == (0, True)
    # To look, it says, and so not to write; and it says nothing of another organization.
    assert shell("--write", *asking, glass=False)[0] != 0
    assert shell("--tenant", "globex", "-c", "SELECT 'was in'", glass=False)[0] != 0


def test_both_trails_say_who_was_in_why_and_until_when(shell: Shell, env: Env, tenants: dict[str, str]) -> None:
    assert shell("--tenant", "acme", "-c", "SELECT 1")[0] == 0
    seen = "SELECT name, actor FROM audit_event WHERE name LIKE 'operator_access.%' ORDER BY id"
    code, stdout, _ = shell("--tenant", "acme", "-c", seen)
    assert code == 0
    told = [line.split("|") for line in stdout.splitlines() if "operator_access." in line]
    assert [(name.strip(), actor.strip()) for name, actor in told] == [
        ("operator_access.glass_broken", "operator"),
        ("operator_access.closed", "operator"),
        ("operator_access.glass_broken", "operator"),
    ]
    listed = "SELECT operator_name, way, reason, closed_at IS NOT NULL AS over FROM operator_access_session ORDER BY id"
    code, stdout, _ = shell("--tenant", "acme", "-c", listed)
    first = next(line for line in stdout.splitlines() if "Ticket" in line)
    name, way, reason, over = (cell.strip() for cell in first.split("|"))
    assert (name, way, reason, over) == (cli_actor(), "shell", "Ticket 4711", "t")
    acts = answer(run("audit", "--action", "access.shell", "--json", env=env))
    assert {(act["actor"], act["reason"]) for act in acts} == {(cli_actor(), "Ticket 4711")}


def test_a_schema_that_is_too_old_to_tell_its_owners_is_entered_with_the_glass_broken_alone(
    shell: Shell, env: Env, tenants: dict[str, str], database_addresses: Template
) -> None:
    """Whoever has to repair it can, and the platform's trail says so."""

    async def lag() -> None:
        admin = await asyncpg.connect(database_addresses.admin_url)
        await admin.execute("UPDATE platform.tenant SET revision = '0015' WHERE slug = 'acme'")
        await admin.close()

    asyncio.run(lag())
    code, stdout, stderr = shell("--tenant", "acme", "-c", "SELECT 'was in'")
    assert (code, "was in" in stdout) == (0, True)
    assert "the platform's trail alone has it" in stderr
    assert shell("--tenant", "acme", "-c", "SELECT 'was in'", glass=False)[0] != 0
    assert len(answer(run("audit", "--action", "access.shell", "--json", env=env))) == 1


def test_no_password_is_an_argument_of_psql(template: Template) -> None:
    address, password = _without_password("postgresql://app:p%40ss@[::1]:5432,db:1/name?sslmode=require")
    assert address == "postgresql://app@[::1]:5432,db:1/name?sslmode=require"
    assert password == "p@ss"
    assert _without_password("postgresql://app@db/name") == ("postgresql://app@db/name", None)
    assert "roles-of-a-test-run" not in _without_password(template.app_url)[0]
