from __future__ import annotations

import asyncio
import sys
from typing import Any

import asyncpg
import pytest

from tenantry.cli.problems import ExitCode
from tenantry.kernel.security import INVITATION, Credential
from tests.cli.support import answer, refused, run
from tests.cli.tenants import create_tenant, files_of, people_of
from tests.databases import Template

Env = dict[str, str]


@pytest.fixture
def env(env: Env) -> Env:
    """Processes that notice quickly, so that an archive need not wait for them."""
    return env | {"TENANTRY_REGISTRY_POLL_INTERVAL": "0.05", "TENANTRY_REGISTRY_STALE_AFTER": "0.1"}


def _show(env: Env, slug: str) -> Any:
    return answer(run("tenants", "show", slug, "--json", env=env))


@pytest.mark.usefixtures("provisioner")
def test_a_tenant_is_archived_and_restored_and_its_neighbour_is_not_touched(
    env: Env, database_addresses: Template
) -> None:
    acme, globex = create_tenant(env, "acme"), create_tenant(env, "globex")
    people, neighbours = (people_of(database_addresses, tenant["id"]) for tenant in (acme, globex))
    archived = answer(run("tenants", "archive", "acme", "--reason", "Paused", "--yes", "--json", env=env))
    assert (archived["status"], archived["statusReason"], archived["revision"]) == ("archived", "Paused", None)
    [key] = files_of(env)
    assert key.startswith(f"tenants/{acme['id']}/archives/")
    assert people_of(database_addresses, acme["id"]) == []
    assert "possible: delete, restore" in refused(run("tenants", "archive", "acme", "--yes", env=env), 4)
    assert "possible: delete, restore" in refused(
        run("tenants", "clone", "acme", "b", "--owner-email", "a@b.example", env=env), ExitCode.CONFLICT
    )

    back = run("tenants", "restore", "acme", env=env)
    assert (back.exit_code, back.stdout) == (0, f"acme is active, at the revision {acme['revision']}.\n")
    assert people_of(database_addresses, acme["id"]) == people
    assert people_of(database_addresses, globex["id"]) == neighbours
    assert "possible: archive, clone, delete" in refused(run("tenants", "restore", "acme", env=env), 4)
    trail = answer(run("audit", "--tenant", "acme", "--action", "tenant.archive", "--json", env=env))
    assert [(entry["actor"].partition(":")[0], entry["reason"]) for entry in trail] == [("cli", "Paused")]

    assert run("tenants", "archive", "acme", "--yes", "--quiet", env=env).output == ""
    assert run("tenants", "restore", "acme", "--quiet", env=env).output == ""
    told = run("tenants", "archive", "acme", "--yes", env=env)
    assert told.stdout.startswith("acme is archived: ")
    assert " rows, " in told.stdout


@pytest.mark.usefixtures("provisioner")
def test_the_slug_is_typed_before_a_tenant_is_taken_offline(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    create_tenant(env, "acme")
    assert "give --yes" in refused(run("tenants", "archive", "acme", env=env), ExitCode.USAGE)
    kind = type("Terminal", (), {"isatty": lambda self: True, "__getattr__": lambda self, n: getattr(sys.stdin, n)})
    monkeypatch.setattr("tenantry.cli.tenants_deletion.sys", type("Sys", (), {"stdin": kind()}))
    mistyped = run("tenants", "archive", "acme", env=env, stdin="acne\n")
    assert mistyped.exit_code == ExitCode.FAILED
    assert "nothing was done" in mistyped.stderr
    assert _show(env, "acme")["status"] == "active"
    assert run("tenants", "archive", "acme", env=env, stdin="acme\n").exit_code == 0
    # It would have to be typed for nothing.
    assert "possible" in refused(run("tenants", "archive", "acme", env=env, stdin="acme\n"), ExitCode.CONFLICT)


@pytest.mark.parametrize(
    "arguments",
    [
        ["archive", "acne", "--yes"],
        ["restore", "acne"],
        ["clone", "acne", "b", "--owner-email", "a@b.example"],
        ["export", "acne"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_slug_that_is_mistyped_is_corrected(env: Env, arguments: list[str]) -> None:
    create_tenant(env, "acme", "--wait", "0")
    assert "Did you mean 'acme'?" in refused(run("tenants", *arguments, env=env), ExitCode.USAGE)


@pytest.mark.usefixtures("provisioner")
def test_a_clone_is_masked_unless_it_is_said_otherwise(env: Env, database_addresses: Template) -> None:
    acme, globex = create_tenant(env, "acme"), create_tenant(env, "globex")
    people = people_of(database_addresses, acme["id"])
    nobody = run("tenants", "clone", "acme", "acme-two", env=env)
    assert nobody.exit_code == ExitCode.USAGE
    assert "owner-email: Expected an address" in nobody.stderr

    masked = answer(run("tenants", "clone", "acme", "acme-two", "--owner-email", "dev@b.example", "--json", env=env))
    assert (masked["name"], masked["plan"], masked["done"]) == ("Acme", "free", True)
    assert str(Credential.parse(masked["ownerInvitation"], INVITATION).tenant_id) == masked["id"]
    copied = people_of(database_addresses, masked["id"])
    assert len(copied) == len(people) + 1
    assert ("dev@b.example", None) in copied
    assert all("acme.example" not in email and hashed is None for email, hashed in copied)

    options = ["--no-mask-emails", "--name", "Acme, as it is", "--plan", "team"]
    told = run("tenants", "clone", "acme", "acme-three", *options, env=env)
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith("acme-three is active, with ")
    assert "invitation" not in told.stdout, "its owner logs in as before"
    whole = _show(env, "acme-three")
    assert (whole["name"], whole["plan"]) == ("Acme, as it is", "team")
    assert people_of(database_addresses, whole["id"]) == people
    assert people_of(database_addresses, acme["id"]) == people
    assert [email for email, _ in people_of(database_addresses, globex["id"])] == ["ann@globex.example"]

    taken = run("tenants", "clone", "acme", "globex", "--no-mask-emails", env=env)
    assert taken.exit_code == ExitCode.CONFLICT
    assert "'globex' is taken" in taken.stderr


def test_an_invitation_to_a_clone_is_never_swallowed(env: Env) -> None:
    result = run("tenants", "clone", "acme", "b", "--owner-email", "a@b.example", "--quiet", env=env)
    assert "--quiet would not show" in refused(result, ExitCode.USAGE)


def _activate(addresses: Template) -> None:
    """As if a provisioner had been here, and were gone."""

    async def write() -> None:
        admin = await asyncpg.connect(addresses.admin_url)
        try:
            await admin.execute("UPDATE platform.operation SET status = 'done', finished_at = now()")
            await admin.execute("UPDATE platform.tenant SET status = 'active'")
        finally:
            await admin.close()

    asyncio.run(write())


def test_without_a_provisioner_it_is_recorded_and_the_tenant_is_refused(env: Env, database_addresses: Template) -> None:
    create_tenant(env, "acme", "--wait", "0")
    create_tenant(env, "globex", "--wait", "0")
    _activate(database_addresses)
    contradiction = run("tenants", "archive", "acme", "--wait", "1", "--no-wait", "--yes", env=env)
    assert "contradict" in refused(contradiction, ExitCode.USAGE)
    late = run("tenants", "archive", "acme", "--wait", "0", "--yes", env=env)
    assert late.exit_code == ExitCode.UNAVAILABLE
    assert "The provisioner has not finished yet" in late.stderr
    assert "acme is refused. Its archive is recorded as the operation " in late.stdout
    assert (_show(env, "acme")["status"], _show(env, "globex")["status"]) == ("archived", "active")
    recorded = answer(run("tenants", "archive", "globex", "--no-wait", "--yes", "--json", env=env))
    assert (recorded["kind"], recorded["status"]) == ("archive", "pending")
    pending = run("tenants", "restore", "acme", env=env)
    assert pending.exit_code == ExitCode.CONFLICT, "the provisioner would be at work on it twice"
