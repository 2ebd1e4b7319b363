from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from tenantry.cli.shell import _without_password
from tenantry.tenancy.models import schema_name
from tests.cli.support import OWNER_PASSWORD, answer, refused, run
from tests.databases import Template

Env = dict[str, str]


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

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        result = run("shell", *arguments, env=env)
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


def test_read_only_changes_nothing(shell: Shell, tenants: dict[str, str]) -> None:
    change = "UPDATE user_account SET name = 'X'"
    code, _, stderr = shell("--tenant", "acme", "--read-only", "-c", change)
    assert code == 1
    assert "read-only transaction" in stderr
    assert shell("--tenant", "acme", "-c", change)[:2] == (0, "UPDATE 1\n")
    code, _, stderr = shell(
        "--tenant", "acme", "--python", "--read-only", "-c", "session.add(Tag(name='x', slug='x')); await commit()"
    )
    assert code == 1
    assert "read-only transaction" in stderr


def test_python_has_the_models_and_keeps_what_is_committed(shell: Shell, tenants: dict[str, str]) -> None:
    add = "session.add(Tag(name='{0}', slug='{0}'))"
    count = "print(await session.scalar(select(func.count(Tag.id))))"
    code, stdout, stderr = shell("--tenant", "acme", "--python", "-c", f"{add.format('a')}; await commit(); {count}")
    assert (code, stdout, stderr) == (0, "1\n", "")
    code, stdout, _ = shell("--tenant", "acme", "--python", "-c", f"{add.format('b')}; await session.flush(); {count}")
    assert (code, stdout) == (0, "2\n")
    # Left without a commit; and another tenant's is another table.
    assert shell("--tenant", "acme", "--python", "-c", count)[1] == "1\n"
    assert shell("--tenant", "globex", "--python", "-c", count)[1] == "0\n"


def test_the_python_prompt_awaits_and_survives_a_mistake(env: Env, tenants: dict[str, str]) -> None:
    lines = "user = await session.scalar(select(User))\n1 / 0\nprint(user.email)\n"
    result = run("shell", "--tenant", "acme", "--python", env=env, stdin=lines)
    assert result.exit_code == 0
    assert "ann@acme.example" in result.stdout
    assert "ZeroDivisionError" in result.stderr


def test_a_tenant_that_is_not_there_exits_with_3(env: Env) -> None:
    assert "no organization 'nobody'" in refused(run("shell", "--tenant", "nobody", "-c", "SELECT 1", env=env), 2)
    assert "no organization 'nobody'" in refused(run("shell", "--tenant", "nobody", "--python", env=env), 2)


def test_no_password_is_an_argument_of_psql(template: Template) -> None:
    address, password = _without_password("postgresql://app:p%40ss@[::1]:5432,db:1/name?sslmode=require")
    assert address == "postgresql://app@[::1]:5432,db:1/name?sslmode=require"
    assert password == "p@ss"
    assert _without_password("postgresql://app@db/name") == ("postgresql://app@db/name", None)
    assert "roles-of-a-test-run" not in _without_password(template.app_url)[0]
