from __future__ import annotations

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest

from tenantry.cli.problems import ExitCode
from tests.cli.support import answer, refused, run
from tests.cli.tenants import create_tenant, people_of
from tests.databases import Template

Env = dict[str, str]


@pytest.fixture
def env(env: Env, database_addresses: Template) -> Env:
    """With the owner's address, as the processes of backups have it."""
    return env | {"TENANTRY_DATABASE_OWNER_URL": database_addresses.owner_url}


def _execute(addresses: Template, *statements: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(addresses.admin_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(work())


def _folder(env: Env) -> Path:
    return Path(env["TENANTRY_HOME"]) / "backups"


@pytest.mark.usefixtures("provisioner")
def test_a_night_of_backups_and_a_tenant_that_is_restored(env: Env, database_addresses: Template) -> None:
    acme, globex = create_tenant(env, "acme"), create_tenant(env, "globex")
    people = {tenant["slug"]: people_of(database_addresses, tenant["id"]) for tenant in (acme, globex)}
    made = answer(run("backup", "create", "--all", "--json", env=env))
    assert (made["failed"], [one["what"] for one in made["made"]]) == (0, ["shared", "acme", "globex"])
    assert all(one["error"] is None and one["rows"] > 0 and one["readable"] for one in made["made"])
    assert run("backup", "create", "acme", "--quiet", env=env).output == ""

    listed = answer(run("backup", "list", "--json", env=env))
    assert [one["slug"] for one in listed if one["kind"] == "tenant"].count("acme") == 2
    latest = answer(run("backup", "list", "--latest", "--tenant", acme["id"], "--json", env=env))
    assert [one["id"] for one in latest] == [max(one["id"] for one in listed if one["slug"] == "acme")]
    shown = run("backup", "list", env=env)
    assert "globex" in shown.stdout
    assert "shared" in shown.stdout

    # Needs no database.
    away = {name: value for name, value in env.items() if "DATABASE" not in name}
    verified = answer(run("backup", "verify", "--latest", "--json", env=away))
    assert {one["what"]: (one["good"], one["restored"]) for one in verified} == dict.fromkeys(
        ("shared", "acme", "globex"), (True, False)
    )
    deep = answer(run("backup", "verify", latest[0]["id"], "--deep", "--json", env=env))
    assert [(one["what"], one["good"], one["restored"]) for one in deep] == [("acme", True, True)]

    schema = f"t_{acme['id'].replace('-', '')}"
    _execute(database_addresses, f"UPDATE \"{schema}\".user_account SET name = 'Mallory'")
    assert people_of(database_addresses, acme["id"]) == people["acme"]
    assert "give --yes" in refused(run("backup", "restore", "acme", env=env), ExitCode.USAGE)
    restored = answer(run("backup", "restore", "acme", "--yes", "--json", env=env))
    assert (restored["slug"], restored["status"], restored["revision"]) == ("acme", "active", acme["revision"])
    assert restored["kept"].startswith(f"kept_{schema.removeprefix('t_')}_")
    assert people_of(database_addresses, globex["id"]) == people["globex"]
    back = run("backup", "restore", "acme", "--undo", "--yes", env=env)
    assert (back.exit_code, back.stdout.splitlines()[0]) == (
        0,
        f"acme is restored, active, at the revision {acme['revision']}.",
    )

    copy = answer(run("backup", "restore", "acme", "--from", latest[0]["id"], "--as", "acme-2", "--json", env=env))
    assert copy["slug"] == "acme-2"
    assert people_of(database_addresses, copy["id"]) == people["acme"]
    trail = answer(run("audit", "--action", "backup.restored", "--json", env=env))
    assert [entry["actor"].partition(":")[0] for entry in trail] == ["cli"]

    report = Path(env["TENANTRY_HOME"]) / "drill.json"
    drilled = answer(run("backup", "drill", "--all", "--report", str(report), "--json", env=env))
    assert (drilled["good"], drilled["place"], drilled["withoutBackup"]) == (True, "schemas", ["acme-2"])
    assert json.loads(report.read_text()) == drilled
    spoken = run("backup", "drill", "--sample", "1", env=env)
    assert spoken.exit_code == 0
    assert "1 tenants have no backup: acme-2" in spoken.stderr


@pytest.mark.usefixtures("provisioner")
def test_a_damaged_backup_is_told_and_never_restored(env: Env, database_addresses: Template) -> None:
    acme = create_tenant(env, "acme")
    [made] = answer(run("backup", "create", "acme", "--json", env=env))["made"]
    people = people_of(database_addresses, acme["id"])
    [path] = _folder(env).glob("tenants/*/*.backup")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    verified = run("backup", "verify", "--sample", "3", env=env)
    assert verified.exit_code == ExitCode.FAILED
    assert f"acme ({made['id']}): " in verified.stderr
    assert run("backup", "drill", "--quiet", env=env).exit_code == ExitCode.FAILED
    refusal = refused(run("backup", "restore", "acme", "--yes", "--quiet", env=env), ExitCode.CONFLICT)
    assert "not the file that its manifest describes" in refusal
    assert people_of(database_addresses, acme["id"]) == people


@pytest.mark.usefixtures("provisioner")
def test_a_night_in_which_one_tenant_fails_ends_with_one_and_backs_up_the_others(
    env: Env, database_addresses: Template
) -> None:
    acme, _ = create_tenant(env, "acme"), create_tenant(env, "globex")
    schema = f"t_{acme['id'].replace('-', '')}"
    _execute(database_addresses, f'CREATE SEQUENCE "{schema}".stray')
    result = run("backup", "create", "--all", env=env)
    assert result.exit_code == ExitCode.FAILED
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == ["shared", "globex"]
    assert "acme: SchemaNotPortableError: the sequence stray" in result.stderr
    _execute(database_addresses, f'DROP SEQUENCE "{schema}".stray')


def test_mistakes_of_usage_are_told_before_anything_is_done(env: Env) -> None:
    assert "--all alone" in refused(run("backup", "create", env=env), ExitCode.USAGE)
    assert "--all alone" in refused(run("backup", "create", "acme", "--all", env=env), ExitCode.USAGE)
    assert "no organization 'acme'" in refused(run("backup", "create", "acme", env=env), ExitCode.USAGE)
    assert "--latest, or --sample" in refused(run("backup", "verify", env=env), ExitCode.USAGE)
    assert "no backup" in refused(run("backup", "verify", "20260101T000000Z-00000000", env=env), ExitCode.NOT_FOUND)
    assert "slug, --shared, or --all" in refused(run("backup", "restore", env=env), ExitCode.USAGE)
    assert "contradict" in refused(run("backup", "restore", "acme", "--undo", "--as", "b", env=env), ExitCode.USAGE)
    assert "no backup of the shared" in refused(
        run("backup", "restore", "--shared", "--quiet", env=env), ExitCode.NOT_FOUND
    )
    assert run("backup", "verify", "--latest", env=env).exit_code == ExitCode.FAILED
    assert run("backup", "drill", "--quiet", env=env).exit_code == ExitCode.FAILED
    owner = env | {"TENANTRY_DATABASE_OWNER_URL": ""}
    assert run("backup", "create", "--all", env=owner).exit_code == ExitCode.USAGE
    assert "give --yes" not in run("backup", "prune", env=env).output


def test_the_place_takes_a_key_that_is_named(env: Env, tmp_path: Path) -> None:
    there = env | {"TENANTRY_BACKUP_URL": (tmp_path / "there").as_uri()}
    result = run("backup", "list", env=there)
    assert result.exit_code == ExitCode.USAGE
    assert "TENANTRY_BACKUP_KEY_FILE" in result.stderr
    named = there | {"TENANTRY_BACKUP_KEY_FILE": str(tmp_path / "key.json")}
    assert "no keys of backups at" in refused(run("backup", "list", env=named), ExitCode.FAILED)
    first = answer(run("backup", "keys", "create", "--json", env=named))
    assert (first["use"], (tmp_path / "key.json").stat().st_mode & 0o777) == ("encrypts", 0o600)
    refused(run("backup", "keys", "create", env=named), ExitCode.CONFLICT)
    second = answer(run("backup", "keys", "rotate", "--yes", "--json", env=named))
    listed = answer(run("backup", "keys", "list", "--json", env=named))
    assert [(row["keyId"], row["use"]) for row in listed] == [
        (second["keyId"], "encrypts"),
        (first["keyId"], "decrypts"),
    ]
    assert first["keyId"] in run("backup", "keys", "list", env=named).stdout
    assert answer(run("backup", "list", "--json", env=named)) == []


@pytest.mark.usefixtures("provisioner")
def test_pruning_asks_and_shows_what_it_would_remove(env: Env) -> None:
    create_tenant(env, "acme")
    brief = env | {"TENANTRY_BACKUP_KEEP_WEEKLY": "0", "TENANTRY_BACKUP_KEEP_MONTHLY": "0"}
    for _ in range(2):
        answer(run("backup", "create", "acme", "--json", env=brief))
    one = brief | {"TENANTRY_BACKUP_KEEP_DAILY": "1"}
    planned = answer(run("backup", "prune", "--plan", "--json", env=one))
    assert (planned["done"], len(planned["backups"])) == (False, 1)
    assert "give --yes" in refused(run("backup", "prune", env=one), ExitCode.USAGE)
    assert len(answer(run("backup", "list", "--json", env=one))) == 2
    done = answer(run("backup", "prune", "--yes", "--json", env=one))
    assert (done["done"], done["backups"]) == (True, planned["backups"])
    [left] = answer(run("backup", "list", "--json", env=one))
    assert left["id"] not in planned["backups"][0]
    assert run("backup", "prune", "--yes", env=one).stdout.startswith("To be removed: 0 backups")
