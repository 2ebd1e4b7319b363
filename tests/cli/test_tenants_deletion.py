from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tenantry.cli.problems import ExitCode
from tenantry.kernel.security import Keyring
from tenantry.platform.deletion.certificate import sign_certificate
from tests.cli.support import OWNER_PASSWORD, answer, refused, run
from tests.databases import Template

Env = dict[str, str]


@pytest.fixture
def env(env: Env) -> Env:
    """Processes that notice quickly, so that a purge need not wait for them."""
    return env | {"TENANTRY_REGISTRY_POLL_INTERVAL": "0.05", "TENANTRY_REGISTRY_STALE_AFTER": "0.1"}


def _create(env: Env, slug: str) -> Any:
    arguments = ["tenants", "create", slug, "--name", slug.title(), "--plan", "free", "--json"]
    arguments += ["--owner-email", f"ann@{slug}.example", "--owner-password-stdin"]
    return answer(run(*arguments, env=env, stdin=f"{OWNER_PASSWORD}\n"))


def _at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner's stdin says that it is one."""
    kind = type("Terminal", (), {"isatty": lambda self: True, "__getattr__": lambda self, n: getattr(sys.stdin, n)})
    monkeypatch.setattr("tenantry.cli.tenants_deletion.sys", type("Sys", (), {"stdin": kind()}))


@pytest.mark.usefixtures("provisioner")
def test_a_tenant_is_deleted_undeleted_and_neither_twice(env: Env) -> None:
    _create(env, "acme")
    deleted = answer(
        run("tenants", "delete", "acme", "--reason", "Ended", "--grace", "7200", "--yes", "--json", env=env)
    )
    assert (deleted["status"], deleted["statusReason"]) == ("purging", "Ended")
    assert deleted["purgeAfter"] is not None
    again = refused(run("tenants", "delete", "acme", "--yes", env=env), ExitCode.CONFLICT)
    assert "possible: purge, undelete" in again
    back = run("tenants", "undelete", "acme", env=env)
    assert (back.exit_code, back.stdout) == (0, "acme is active.\n")
    refused(run("tenants", "undelete", "acme", env=env), ExitCode.CONFLICT)
    trail = answer(run("audit", "--tenant", "acme", "--action", "tenant.delete", "--json", env=env))
    assert [(entry["actor"].partition(":")[0], entry["reason"]) for entry in trail] == [("cli", "Ended")]


@pytest.mark.usefixtures("provisioner")
@pytest.mark.parametrize("command", ["delete", "purge"])
def test_the_slug_is_typed_before_anything_is_destroyed(
    env: Env, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    _create(env, "acme")
    nobody = refused(run("tenants", command, "acme", env=env), ExitCode.USAGE)
    assert "give --yes" in nobody
    _at_a_terminal(monkeypatch)
    mistyped = run("tenants", command, "acme", env=env, stdin="acne\n")
    assert mistyped.exit_code == ExitCode.FAILED
    assert "nothing was done" in mistyped.stderr
    assert answer(run("tenants", "show", "acme", "--json", env=env))["status"] == "active"
    typed = run("tenants", command, "acme", "--quiet", env=env, stdin="acme\n")
    assert typed.exit_code == 0, typed.output
    assert typed.stdout == ""


@pytest.mark.parametrize("command", ["delete", "undelete", "purge"])
def test_a_tenant_that_does_not_exist_is_not_asked_about(env: Env, command: str) -> None:
    options = [] if command == "undelete" else ["--yes"]
    assert "no organization 'nobody'" in refused(run("tenants", command, "nobody", *options, env=env), 2)


@pytest.mark.usefixtures("provisioner")
def test_a_purge_prints_the_certificate_which_is_listed_shown_and_verified(env: Env, tmp_path: Path) -> None:
    made, _ = _create(env, "acme"), _create(env, "globex")
    printed = answer(run("tenants", "purge", "acme", "--reason", "Erasure", "--wait", "60", "--yes", "--json", env=env))
    assert (printed["tenantId"], printed["certificate"]["reason"]) == (made["id"], "Erasure")
    assert printed["certificate"]["requestedBy"].startswith("cli")
    # What is left of it is shown to those who ask for it, and its slug is free.
    assert [row["slug"] for row in answer(run("tenants", "list", "--json", env=env))] == ["globex"]
    [tombstone] = answer(run("tenants", "list", "--status", "purged", "--json", env=env))
    assert (tombstone["id"], tombstone["name"], tombstone["ownerEmail"]) == (made["id"], "(purged)", "")
    assert answer(run("tenants", "show", tombstone["slug"], "--json", env=env))["usage"]["size"] == 0
    assert "purged: a change" in refused(run("tenants", "rename", tombstone["slug"], "acme", env=env), 4)
    refused(run("tenants", "purge", "acme", "--yes", env=env), ExitCode.USAGE)

    [listed] = answer(run("certificates", "list", "--json", env=env))
    assert (listed["slug"], listed["tenantId"]) == ("acme", made["id"])
    assert "acme" in run("certificates", "list", env=env).stdout
    for name in ("acme", made["id"]):
        assert answer(run("certificates", "show", name, env=env)) == printed
    assert run("certificates", "show", "acme", "--jws", env=env).stdout == f"{printed['jws']}\n"
    refused(run("certificates", "show", "globex", env=env), ExitCode.NOT_FOUND)

    file = tmp_path / "acme.json"
    file.write_text(json.dumps(printed), encoding="utf-8")
    told = run("certificates", "verify", str(file), env=env)
    assert told.exit_code == 0
    assert "Genuine: acme " in told.stdout
    assert "the deployment's present keys" in told.stdout
    assert answer(run("certificates", "verify", "-", "--json", env=env, stdin=printed["jws"]))["genuine"] is True


def test_without_a_provisioner_a_purge_is_recorded(env: Env, database_addresses: Template) -> None:
    async def make() -> None:
        admin = await asyncpg.connect(database_addresses.admin_url)
        try:
            await admin.execute(
                "INSERT INTO platform.tenant (id, slug, name, status, status_changed_at, plan, owner_email, created_at,"
                " updated_at) VALUES (gen_random_uuid(), 'acme', 'Acme', 'failed', now(), 'free', 'a@b.example', now(),"
                " now())"
            )
        finally:
            await admin.close()

    asyncio.run(make())
    refused(run("tenants", "purge", "acme", "--wait", "1", "--no-wait", "--yes", env=env), ExitCode.USAGE)
    recorded = answer(run("tenants", "purge", "acme", "--no-wait", "--yes", "--json", env=env))
    assert (recorded["kind"], recorded["status"]) == ("purge", "pending")
    late = run("tenants", "purge", "acme", "--wait", "0", "--yes", env=env)
    assert late.exit_code == ExitCode.CONFLICT, "it was asked for a moment ago"
    assert "cannot be undeleted" in refused(run("tenants", "undelete", "acme", env=env), ExitCode.CONFLICT)


@pytest.mark.usefixtures("provisioner")
def test_a_certificate_is_verified_when_its_key_was_rotated_away_and_forged_ones_never_are(
    env: Env, tmp_path: Path
) -> None:
    _create(env, "acme")
    printed = answer(run("tenants", "purge", "acme", "--wait", "60", "--yes", "--json", env=env))
    keyring = tmp_path / "home" / "keyring.json"
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps(Keyring.open(keyring, retain=60).jwks()), encoding="utf-8")
    kid = json.loads(jwks.read_text(encoding="utf-8"))["keys"][0]["kid"]
    # As it is when the last token that the old key signed has expired.
    keyring.unlink()
    other = Keyring.open(keyring, retain=60)

    found = answer(run("certificates", "verify", "-", "--json", env=env, stdin=printed["jws"]))
    assert (found["kid"], found["trustedBy"]) == (kid, "the deployment's records")
    # Somebody else's machine, which has nothing but what was handed out.
    elsewhere = {"TENANTRY_HOME": str(tmp_path / "elsewhere")}
    for option in (["--jwks", str(jwks)], ["--thumbprint", kid]):
        assert run("certificates", "verify", "-", *option, env=elsewhere, stdin=printed["jws"]).exit_code == 0
    stranger = Keyring.open(tmp_path / "stranger.json", retain=60)
    forged, _ = sign_certificate({**printed["certificate"], "reason": "Another"}, stranger)
    for option in ([], ["--jwks", str(jwks)], ["--thumbprint", kid], ["--thumbprint", other.signing_key().kid]):
        result = run("certificates", "verify", "-", *option, env=env, stdin=forged)
        assert result.exit_code == ExitCode.FAILED
        assert "not genuine" in result.stderr
    changed = printed["jws"].rpartition(".")[0] + "." + forged.rpartition(".")[2]
    assert "not genuine" in run("certificates", "verify", "-", env=env, stdin=changed).stderr


@pytest.mark.parametrize("content", ['{"a": 1}', "{"])
def test_what_holds_no_certificate_is_wrong_usage(env: Env, content: str) -> None:
    said = refused(run("certificates", "verify", "-", env=env, stdin=content), ExitCode.USAGE)
    assert "a member `jws`" in said
