from __future__ import annotations

import pytest

from tenantry.cli.problems import ExitCode
from tests.cli.support import answer, refused, run
from tests.databases import OPERATOR_EMAIL

Env = dict[str, str]
PASSWORD = "operator's own secret"


def test_an_operator_is_created_and_listed(env: Env) -> None:
    result = run(
        "operators",
        "create",
        "Ops@Example.com",
        "--role",
        "operator",
        "--password-stdin",
        "--json",
        env=env,
        stdin=PASSWORD,
    )
    made = answer(result)
    assert (made["email"], made["role"], made["isActive"]) == ("ops@example.com", "operator", True)
    assert PASSWORD not in result.output
    assert "argon2" not in result.output
    rows = answer(run("operators", "list", "--json", env=env))
    assert [row["email"] for row in rows] == ["ops@example.com", OPERATOR_EMAIL]
    assert "ops@example.com" in run("operators", "list", env=env).stdout


def test_an_address_has_one_account(env: Env) -> None:
    said = refused(
        run("operators", "create", OPERATOR_EMAIL, "--role", "owner", "--password-stdin", env=env, stdin=PASSWORD),
        ExitCode.CONFLICT,
    )
    assert said == f"{OPERATOR_EMAIL} is an operator already."


@pytest.mark.parametrize(
    ("email", "password", "message"),
    [
        ("ops@example.com", "short", "password: Expected at least"),
        ("ops@example.com", "OPS@example.com", "password: Expected something other"),
        ("nobody", PASSWORD, "email: Expected an e-mail address"),
    ],
)
def test_a_bad_password_or_address_is_refused(env: Env, email: str, password: str, message: str) -> None:
    result = run("operators", "create", email, "--role", "auditor", "--password-stdin", env=env, stdin=password)
    assert message in refused(result, ExitCode.USAGE)
    assert len(answer(run("operators", "list", "--json", env=env))) == 1


def test_a_password_is_never_taken_without_being_told_from_where(env: Env) -> None:
    said = refused(run("operators", "create", "a@b.example", "--role", "owner", env=env, stdin=PASSWORD), 2)
    assert "give --password-stdin" in said


def test_quiet_prints_nothing(env: Env) -> None:
    arguments = ["operators", "create", "ops@example.com", "--role", "auditor", "--password-stdin", "--quiet"]
    assert run(*arguments, env=env, stdin=PASSWORD).output == ""
