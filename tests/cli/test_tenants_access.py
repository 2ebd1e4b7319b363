from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tenantry.kernel.settings import load_settings
from tests.cli.support import OWNER_PASSWORD, answer, refused, run
from tests.databases import OPERATOR_EMAIL, Template
from tests.platform.support import open_api

Env = dict[str, str]
_WHY = ("--operator", OPERATOR_EMAIL, "--reason", "Ticket 4711")


@pytest.fixture
def acme(env: Env, provisioner: None) -> str:
    arguments = ["--name", "Acme", "--plan", "free", "--owner-email", "ann@acme.example", "--owner-password-stdin"]
    answer(run("tenants", "create", "acme", *arguments, "--json", env=env, stdin=OWNER_PASSWORD))
    return "acme"


def _serve(addresses: Template, env: Env, *calls: tuple[str, str, str, Any]) -> list[httpx.Response]:
    """One process of the API on the same home folder: (method, path, token, body) each; None: the owner's token."""

    async def work() -> list[httpx.Response]:
        home = load_settings(env).home
        async with open_api(addresses, home) as api:
            owner = await api.log_in("acme", "ann@acme.example", OWNER_PASSWORD)
            answers = []
            for method, path, token, body in calls:
                headers = {"Authorization": f"Bearer {token or owner.access_token}"}
                answers.append(
                    await api.http.request(method, path, headers=headers, **({} if body is None else {"json": body}))
                )
            return answers

    return asyncio.run(work())


def test_without_consent_there_is_no_token(env: Env, acme: str) -> None:
    assert "No owner has granted this access" in refused(run("tenants", "access", "open", acme, *_WHY, env=env), 1)
    assert answer(run("tenants", "access", "list", acme, "--json", env=env)) == []


def test_a_token_from_the_command_line_opens_what_the_owners_have_granted(
    env: Env, acme: str, database_addresses: Template
) -> None:
    grant = {"hours": 1, "reason": "Ticket 4711", "operatorEmail": OPERATOR_EMAIL}
    [granted] = _serve(database_addresses, env, ("POST", "/api/operator-access/grants", "", grant))
    assert granted.status_code == 201, granted.text
    result = run("tenants", "access", "open", acme, *_WHY, "--minutes", "5", env=env)
    assert result.exit_code == 0, result.output
    token = result.stdout.strip()
    assert "tenants access close acme" in result.stderr
    read, written = _serve(
        database_addresses, env, ("GET", "/api/users", token, None), ("POST", "/api/tags", token, {"name": "Blue"})
    )
    assert (read.status_code, written.status_code) == (200, 403)
    [row] = answer(run("tenants", "access", "list", acme, "--json", env=env))
    assert (row["access"], row["isOpen"], row["isBreakGlass"], row["reason"]) == ("read", True, False, "Ticket 4711")
    assert "Ticket 4711" in run("tenants", "access", "list", acme, env=env).stdout
    assert run("tenants", "access", "close", acme, row["id"], env=env).exit_code == 0
    [after] = _serve(database_addresses, env, ("GET", "/api/users", token, None))
    assert after.status_code == 401
    assert not answer(run("tenants", "access", "list", acme, "--json", env=env))[0]["isOpen"]


def test_with_the_glass_broken_a_token_needs_no_consent_and_the_owners_see_it(
    env: Env, acme: str, database_addresses: Template
) -> None:
    opened = answer(run("tenants", "access", "open", acme, *_WHY, "--break-glass", "--json", env=env))
    assert opened["breakGlass"]
    read, sessions = _serve(
        database_addresses,
        env,
        ("GET", "/api/users", opened["accessToken"], None),
        ("GET", "/api/operator-access/sessions", "", None),
    )
    assert read.status_code == 200
    [seen] = sessions.json()["items"]
    assert (seen["id"], seen["isBreakGlass"], seen["reason"]) == (opened["id"], True, "Ticket 4711")


def test_owners_are_asked_once(env: Env, acme: str) -> None:
    assert "are asked" in run("tenants", "access", "ask", acme, *_WHY, "--hours", "2", env=env).stdout
    refused(run("tenants", "access", "ask", acme, *_WHY, env=env), 4)


def test_whom_nobody_knows_comes_in_nowhere(env: Env, acme: str, tmp_path: Path) -> None:
    stranger = ("--operator", "nobody@example.com", "--reason", "Ticket")
    assert "no operator" in refused(run("tenants", "access", "open", acme, *stranger, env=env), 3)
    assert "no organization" in refused(run("tenants", "access", "open", "nobody", *_WHY, env=env), 2)
    unknown = "00000000-0000-7000-8000-000000000000"
    refused(run("tenants", "access", "close", acme, unknown, env=env), 3)
    assert run("tenants", "access", "open", acme, "--operator", OPERATOR_EMAIL, env=env).exit_code == 2
