from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import AsyncGenerator, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import pytest

from tenantry.cli.problems import ExitCode
from tenantry.kernel.settings import load_settings
from tenantry.kernel.storage import Storage
from tenantry.platform.archives.reader import verify_archive
from tenantry.provisioner import create_provisioner
from tests.cli.support import OWNER_PASSWORD, ROOT, answer, bare_environment, environment, refused, run
from tests.cli.tenants import create_tenant, files_of, people_of
from tests.databases import Template, clone_database, drop_database

Env = dict[str, str]


@pytest.fixture
def elsewhere(template: Template, tmp_path: Path) -> Iterator[tuple[Env, Template]]:
    """Another deployment, with a database and a storage of its own."""
    addresses = asyncio.run(clone_database(template))
    yield environment(addresses, tmp_path / "elsewhere"), addresses
    asyncio.run(drop_database(addresses))


def _work_off(env: Env, addresses: Template) -> None:
    """Have what is pending done, now."""

    async def work() -> None:
        provisioner = create_provisioner(load_settings(env), addresses.owner_url)
        try:
            assert await provisioner.work_off() == 1
        finally:
            await provisioner.close()

    asyncio.run(work())


def _put(env: Env, key: str, content: bytes) -> None:
    asyncio.run(Storage.open(load_settings(env)).put_bytes(key, content))


def _content(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def _export(env: Env, slug: str, path: Path, *options: str) -> Any:
    return answer(run("tenants", "export", slug, "--output", str(path), "--json", *options, env=env))


@pytest.mark.usefixtures("provisioner")
def test_an_export_holds_its_own_tenant_and_nobody_else(env: Env, tmp_path: Path) -> None:
    acme = create_tenant(env, "acme")
    create_tenant(env, "globex")
    folder = tmp_path / "exports"
    folder.mkdir()
    path = folder / "acme.zip"
    printed = _export(env, "acme", path)
    assert (printed["status"], printed["credentials"], printed["output"]) == ("done", False, str(path))
    assert printed["key"] == f"tenants/{acme['id']}/exports/{printed['id']}.zip"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == printed["sha256"]
    assert path.stat().st_mode & 0o777 == 0o600
    manifest = asyncio.run(verify_archive(path, size_limit=10**9))
    assert (manifest.tenant.slug, manifest.credentials) == ("acme", False)
    content = _content(path)
    assert b"ann@acme.example" in content
    assert b"globex" not in content
    assert b"$argon2" not in content

    _export(env, "acme", path, "--credentials", "--force")
    assert b"$argon2" in _content(path)
    assert [file.name for file in folder.iterdir()] == ["acme.zip"]

    told = run("tenants", "export", "globex", env=env)
    assert told.stdout.startswith("globex is exported: ")
    assert "tenantry tenants export globex --fetch " in told.stdout
    assert run("tenants", "export", "globex", "--quiet", env=env).output == ""


@pytest.mark.usefixtures("provisioner")
def test_stdout_is_the_archive_and_nothing_else(env: Env, tmp_path: Path) -> None:
    create_tenant(env, "acme")
    result = run("tenants", "export", "acme", "--output", "-", env=env)
    assert result.exit_code == 0, result.stderr
    path = tmp_path / "acme.zip"
    path.write_bytes(result.stdout_bytes)
    assert asyncio.run(verify_archive(path, size_limit=10**9)).tenant.slug == "acme"
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "tenantry.cli", "tenants", "export", "acme", "--output", "-", "--quiet"],
            env=bare_environment(**env),
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    said = "Error: stdout could not be written: No space left on device; what is there already is no whole archive\n"
    assert (ended.returncode, ended.stderr) == (ExitCode.FAILED, said)


def test_what_cannot_be_written_is_said_before_anything_is_done(env: Env, tmp_path: Path) -> None:
    there = tmp_path / "there.zip"
    there.write_bytes(b"mine")
    for output, message in (
        (there, "is there already: give --force"),
        (tmp_path, "expected the name of a file"),
        (tmp_path / "nowhere" / "x.zip", "there is no folder"),
    ):
        assert message in refused(run("tenants", "export", "acme", "--output", str(output), env=env), ExitCode.USAGE)
    assert there.read_bytes() == b"mine"
    for options, message in (
        (["--fetch", str(uuid4())], "give --output as well"),
        (["--fetch", str(uuid4()), "--output", "x.zip", "--credentials"], "as it was made"),
        (["--output", "x.zip", "--no-wait"], "contradict"),
        (["--output", "-", "--json"], "both print to stdout"),
    ):
        assert message in refused(run("tenants", "export", "acme", *options, env=env), ExitCode.USAGE)


@pytest.mark.usefixtures("provisioner")
def test_a_disk_that_is_full_leaves_nothing_half_written(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_tenant(env, "acme")
    folder = tmp_path / "exports"
    folder.mkdir()
    path = folder / "acme.zip"
    path.write_bytes(b"of yesterday")

    def full(file: FileIO, chunk: bytes) -> NoReturn:
        file.write(chunk[:100])
        assert len(list(folder.iterdir())) == 2, "it is written beside"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("tenantry.cli.transfer._write", full)
        result = run("tenants", "export", "acme", "--output", str(path), "--force", env=env)
    assert result.exit_code == ExitCode.FAILED
    said = f"Error: {path} could not be written: No space left on device; nothing half-written was left"
    assert said in result.stderr.splitlines()
    assert result.stdout == ""
    assert [file.name for file in folder.iterdir()] == ["acme.zip"]
    assert path.read_bytes() == b"of yesterday"


@pytest.mark.usefixtures("provisioner")
def test_a_file_that_the_storage_gives_back_otherwise_is_not_kept(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_tenant(env, "acme")
    path = tmp_path / "acme.zip"

    async def another(self: Storage, key: str) -> AsyncGenerator[bytes, None]:
        yield b"another tenant's"

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "stream", another)
        result = run("tenants", "export", "acme", "--output", str(path), "--quiet", env=env)
    assert "expected a file with the SHA-256" in refused(result, ExitCode.FAILED)
    assert list(tmp_path.glob("*.zip")) == []
    assert list(tmp_path.glob(".tenantry-*")) == []


def test_an_export_that_was_not_done_in_time_is_fetched_later(
    env: Env, database_addresses: Template, tmp_path: Path
) -> None:
    for slug in ("acme", "globex"):
        create_tenant(env, slug, "--wait", "0")
        _work_off(env, database_addresses)
    path = tmp_path / "acme.zip"
    late = run("tenants", "export", "acme", "--output", str(path), "--wait", "0", env=env)
    assert late.exit_code == ExitCode.UNAVAILABLE
    assert "The provisioner has not finished yet" in late.stderr
    operation = late.stdout.rsplit(maxsplit=1)[-1].removesuffix(".")
    fetch = ["--fetch", operation, "--output", str(path), "--wait", "0"]
    assert f"tenantry tenants export acme --fetch {operation}" in late.stderr
    assert run("tenants", "export", "acme", *fetch, env=env).exit_code == ExitCode.UNAVAILABLE
    assert not path.exists()

    _work_off(env, database_addresses)
    assert "no such export" in refused(run("tenants", "export", "globex", *fetch, "--quiet", env=env), 3)
    nowhere = env | {"TENANTRY_STORAGE_URL": (tmp_path / "another").as_uri()}
    said = refused(run("tenants", "export", "acme", *fetch, "--quiet", env=nowhere), ExitCode.FAILED)
    assert "TENANTRY_STORAGE_URL" in said
    fetched = answer(run("tenants", "export", "acme", *fetch, "--json", env=env))
    assert (fetched["id"], fetched["sha256"]) == (operation, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.usefixtures("provisioner")
def test_an_export_becomes_a_tenant_of_another_deployment(
    env: Env, database_addresses: Template, elsewhere: tuple[Env, Template], tmp_path: Path
) -> None:
    there, addresses = elsewhere
    acme, _ = create_tenant(env, "acme"), create_tenant(env, "globex")
    path = tmp_path / "acme.zip"
    _export(env, "acme", path, "--credentials")
    arguments = ["tenants", "import", str(path), "acme-two", "--owner-email", "ann@acme.example"]
    recorded = answer(run(*arguments, "--plan", "team", "--no-wait", "--json", env=there))
    assert (recorded["name"], recorded["plan"], recorded["done"]) == ("Acme", "team", False)
    assert len(files_of(there, "imports")) == 1, "the provisioner needs it"
    _work_off(there, addresses)
    assert answer(run("tenants", "show", "acme-two", "--json", env=there))["status"] == "active"
    assert people_of(addresses, recorded["id"]) == people_of(database_addresses, acme["id"])
    assert [tenant["slug"] for tenant in answer(run("tenants", "list", "--json", env=there))] == ["acme-two"]

    # Taken, and found out before anything is uploaded.
    again = run(*arguments, "--quiet", "--owner-password-stdin", env=there, stdin=f"{OWNER_PASSWORD}\n")
    assert "'acme-two' is taken" in refused(again, ExitCode.CONFLICT)
    # Here, beside the original; the upload goes when the request is refused.
    arguments[3] = "acme-three"
    weak = run(*arguments, "--quiet", "--owner-password-stdin", env=env, stdin="short\n")
    assert "owner-password" in refused(weak, ExitCode.USAGE)
    assert files_of(env, "imports") == []
    made = run(*arguments, "--name", "Acme, once more", env=env)
    assert made.exit_code == 0, made.output
    assert made.stdout.startswith("acme-three is active, with ")
    assert "The owner's invitation, shown once: inv_" in made.stdout
    assert people_of(database_addresses, acme["id"])[0][0] == "ann@acme.example"


@pytest.mark.usefixtures("provisioner")
def test_a_damaged_or_foreign_archive_is_refused_before_anything_is_written(env: Env, tmp_path: Path) -> None:
    create_tenant(env, "acme")
    good = tmp_path / "acme.zip"
    _export(env, "acme", good)
    before = files_of(env)

    def rebuilt(name: str, **changed: Any) -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w") as target:
            for member in source.namelist():
                content = source.read(member)
                if member == "manifest.json":
                    content = json.dumps(json.loads(content) | changed).encode()
                elif member == "tables/user_account.csv" and not changed:
                    content = content.replace(b"ann@acme.example", b"eve@acme.example")
                target.writestr(member, content)
        return path

    cut = tmp_path / "cut.zip"
    cut.write_bytes(good.read_bytes()[:-40])
    for path, message in (
        (rebuilt("changed.zip"), "tables/user_account.csv: expected the SHA-256"),
        (rebuilt("newer.zip", revision="9999"), "manifest.json: a revision that this release does not know"),
        (rebuilt("foreign.zip", format="somebody-else's"), "manifest.json: expected the format"),
        (cut, "The archive: expected a ZIP file"),
    ):
        result = run("tenants", "import", str(path), "acme-two", "--owner-email", "ann@acme.example", env=env)
        assert result.exit_code == ExitCode.USAGE, result.output
        assert message in result.stderr
        assert "Uploading" not in result.stderr
    assert files_of(env) == before
    assert [tenant["slug"] for tenant in answer(run("tenants", "list", "--json", env=env))] == ["acme"]

    # Somebody has put one there, as they do who have too large a file for this machine.
    for key, content in (("imports/good.zip", good.read_bytes()), ("imports/cut.zip", cut.read_bytes())):
        _put(env, key, content)
    owner = ["--owner-email", "ann@acme.example", "--json"]
    damaged = run("tenants", "import", "--key", "imports/cut.zip", "acme-two", *owner, env=env)
    assert (damaged.exit_code, "expected a ZIP file" in damaged.stderr) == (ExitCode.USAGE, True)
    assert "imports/cut.zip" in files_of(env), "it is not ours to remove"
    assert answer(run("tenants", "import", "--key", "imports/good.zip", "acme-two", *owner, env=env))["done"]


def test_it_is_said_what_is_missing(env: Env, tmp_path: Path) -> None:
    owner = ["--owner-email", "ann@acme.example"]
    for arguments, message in (
        (["x.zip"], "give FILE and NEW_SLUG"),
        (["x.zip", "acme", "--key", "imports/x.zip"], "or --key and NEW_SLUG"),
        ([str(tmp_path / "x.zip"), "acme"], "there is no such file"),
        (["acme", "--key", "tenants/x.zip"], "Expected the key of a file below imports/"),
        (["acme", "--key", "imports/x.zip", "--quiet"], "--quiet would not show"),
        (["acme", "--key", "imports/x.zip", "--wait", "1", "--no-wait"], "contradict"),
    ):
        assert message in refused(run("tenants", "import", *arguments, *owner, env=env), ExitCode.USAGE)
    absent = run("tenants", "import", "acme", "--key", "imports/x.zip", *owner, env=env)
    assert (absent.exit_code, "no such file in the storage" in absent.stderr) == (ExitCode.USAGE, True)
