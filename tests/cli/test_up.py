from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tenantry.cli.deployment import Deployment
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.progress import Progress
from tenantry.cli.up import _curl
from tenantry.dev.process import DataLock, find_free_port
from tenantry.kernel.home import HomeAddresses
from tenantry.kernel.settings import load_settings
from tests.cli.support import environment, refused, run
from tests.databases import Template


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "tenantry.example"])
def test_known_passwords_are_never_served_to_others(home: Path, host: str) -> None:
    said = refused(run("up", env={"TENANTRY_HOME": str(home), "TENANTRY_HOST": host}), ExitCode.USAGE)
    assert "give --no-demo" in said
    assert not home.exists()


def test_a_port_that_is_taken_is_noticed_before_anything_is_started(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", find_free_port()))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = refused(run("up", env={"TENANTRY_HOME": str(home), "TENANTRY_PORT": port}), ExitCode.CONFLICT)
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in said
    assert [path.name for path in home.iterdir()] == ["up.lock"]


def test_one_home_has_one_up_and_no_reset_meanwhile(home: Path) -> None:
    home.mkdir()
    (home / "addresses.json").write_text("{}")
    running = DataLock(home / "up.lock", home)
    running.acquire(0)
    env = {"TENANTRY_HOME": str(home), "TENANTRY_PORT": str(find_free_port())}
    try:
        assert "runs from" in refused(run("up", env=env), ExitCode.CONFLICT)
        assert "stop it first" in refused(run("reset", "--yes", env=env), ExitCode.CONFLICT)
        assert (home / "addresses.json").exists()
    finally:
        running.release()


def test_a_reset_asks_and_deletes_what_is_ours(home: Path) -> None:
    env = {"TENANTRY_HOME": str(home)}
    assert run("reset", env=env).stdout == f"There is nothing in {home}.\n"
    (home / "logs").mkdir(parents=True)
    for name in (
        "addresses.json",
        "owner.json",
        "owner.password",
        "app.password",
        "keyring.json",
        "vault.json",
        "logs/api.log",
    ):
        (home / name).write_text("")
    for answer in ("n\n", ""):
        assert run("reset", env=env, stdin=answer).exit_code == ExitCode.FAILED
        assert (home / "owner.json").exists()
    (home / "notes.txt").write_text("mine")
    assert run("reset", env=env, stdin="y\n").exit_code == 0
    assert [path.name for path in home.iterdir()] == ["notes.txt"]
    (home / "notes.txt").unlink()
    assert run("reset", "--yes", "--quiet", env=env).output == ""
    assert not home.exists()


def test_key_files_are_named_to_processes_that_run_in_another_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    addresses = HomeAddresses(database_url="postgresql://app@db/tenantry", redis_url="redis://cache")

    def handed(**env: str) -> dict[str, str]:
        settings = load_settings({"TENANTRY_HOME": str(home), **env})
        lock = DataLock(home / "up.lock", home)
        return Deployment(settings, home, lock=lock, progress=Progress(quiet=True))._environment(addresses)

    named = handed(TENANTRY_KEYRING="keys/ring.json", TENANTRY_VAULT_FILE="keys/vault.json")
    assert named["TENANTRY_KEYRING"] == str(tmp_path / "keys" / "ring.json")
    assert named["TENANTRY_VAULT_FILE"] == str(tmp_path / "keys" / "vault.json")
    assert not {"TENANTRY_KEYRING", "TENANTRY_VAULT_FILE"} & set(handed())


def test_mail_is_kept_unless_a_server_is_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = HomeAddresses(database_url="postgresql://app@db/tenantry", redis_url="redis://cache")

    def handed(**env: str) -> dict[str, str]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        settings = load_settings({"TENANTRY_HOME": str(home), **env})
        lock = DataLock(home / "up.lock", home)
        return Deployment(settings, home, lock=lock, progress=Progress(quiet=True))._environment(addresses)

    kept = handed()
    assert kept["TENANTRY_MAIL_URL"] == (home / "mail").as_uri()
    assert kept["TENANTRY_APP_URL"] == "http://localhost:3000"
    assert kept["TENANTRY_API_URL"] == "http://127.0.0.1:8000"
    # What the processes are given is what they take.
    loaded = load_settings({name: value for name, value in kept.items() if not name.startswith("TENANTRY_TEST_")})
    assert loaded.mail_url == kept["TENANTRY_MAIL_URL"]
    assert handed(TENANTRY_APP_URL="https://app.example")["TENANTRY_APP_URL"] == "https://app.example"
    url = "smtp://mail.example"
    named = handed(TENANTRY_MAIL_URL=url, TENANTRY_MAIL_FROM="a@b.example", TENANTRY_APP_URL="https://app.example")
    assert named["TENANTRY_MAIL_URL"] == url


def given(env: dict[str, str]) -> CommandError:
    """What `up` says of the database that the settings name."""
    settings = load_settings(env)
    home = settings.home
    home.mkdir(parents=True)
    deployment = Deployment(settings, home, lock=DataLock(home / "up.lock", home), progress=Progress(quiet=True))
    with pytest.raises(CommandError) as caught:
        asyncio.run(deployment._given())
    return caught.value


def test_the_application_s_address_alone_is_not_enough(template: Template, home: Path) -> None:
    error = given(environment(template, home))
    assert error.code == ExitCode.USAGE
    assert "logs in as tenantry_app, which is no administrator" in str(error)
    assert "TENANTRY_DATABASE_OWNER_URL is needed as well" in str(error)


def test_an_administrator_is_not_what_serves(template: Template, home: Path) -> None:
    env = environment(template, home, TENANTRY_DATABASE_OWNER_URL=template.owner_url)
    error = given(env | {"TENANTRY_DATABASE_URL": template.admin_url})
    assert error.code == ExitCode.USAGE
    assert "it is the address of tenantry_app" in str(error)


def test_roles_that_others_use_keep_their_passwords(template: Template, home: Path) -> None:
    url = template.admin_url.replace(template.name, "another_product")
    error = given(environment(template, home, TENANTRY_DATABASE_URL=url))
    assert error.code == ExitCode.CONFLICT
    assert "they are in use (" in str(error)
    assert template.name in str(error)


def test_a_server_that_is_away_exits_with_5_and_shows_no_password(home: Path) -> None:
    url = f"postgresql://postgres:s3cret-s3cret@127.0.0.1:{find_free_port()}/tenantry"
    error = given({"TENANTRY_HOME": str(home), "TENANTRY_DATABASE_URL": url})
    assert error.code == ExitCode.UNAVAILABLE
    assert "postgres:***@127.0.0.1" in str(error)
    assert "s3cret" not in str(error)


def test_without_a_demo_there_is_nothing_to_paste() -> None:
    assert _curl("http://127.0.0.1:8000", []) == []
