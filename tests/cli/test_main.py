from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from tenantry import __version__
from tenantry.cli import _COMMANDS, tenantry
from tenantry.cli.problems import ExitCode
from tenantry.cli.processes import with_shared_metrics
from tenantry.dev.process import find_free_port
from tenantry.kernel.settings import load_settings
from tests.cli.support import environment, refused, run
from tests.databases import Template
from tests.servers import make_database_name


def every_command() -> Iterator[tuple[str, ...]]:
    def walk(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, ...]]:
        yield path
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                yield from walk((*path, name), inner)

    for name, (module, _) in _COMMANDS.items():
        yield from walk((name,), getattr(import_module(module), name.replace("-", "_")))


@pytest.mark.parametrize("path", tuple(every_command()), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert "Example: " in result.stdout
    assert f"tenantry {' '.join(path)}" in " ".join(result.stdout.split())


def test_the_overview_says_of_each_command_what_the_command_says() -> None:
    for name, (module, text) in _COMMANDS.items():
        command: click.Command = getattr(import_module(module), name.replace("-", "_"))
        assert command.help is not None
        first = " ".join(command.help.partition("\n\n")[0].split())
        assert text == first or text.removesuffix(".").split()[0] == first.split()[0], name
        assert command.name == name


def test_the_overview_lists_the_commands_and_documents_the_exit_codes() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in tenantry.list_commands(click.Context(tenantry)):
        assert f" {name} " in result.stdout
    text = " ".join(result.stdout.split())
    assert (
        "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not found, 4 conflict, "
        "5 unavailable or out of time." in text
    )
    assert [code.value for code in ExitCode] == [0, 1, 2, 3, 4, 5]


def test_the_overview_is_fast_since_it_imports_nothing_that_takes_time() -> None:
    code = (
        "import sys; from tenantry.cli import tenantry; tenantry.main(['--help'], standalone_mode=False); "
        "print([name for name in ('sqlalchemy', 'litestar', 'asyncpg', 'pydantic', 'msgspec') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_the_version_is_the_package_s() -> None:
    assert run("--version").stdout == f"tenantry {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tennants"], "No such command 'tennants'."),
        (["tenants", "creat"], "No such command 'creat'."),
        (["tenants", "show"], "Missing argument 'SLUG'."),
        (["tenants", "show", "acme", "--jason"], "No such option '--jason'"),
        (["tenants", "create", "acme", "--plan", "free"], "Missing option '--name'."),
        (["tenants", "list", "--status", "asleep"], "Invalid value for '--status'"),
        (["apply", "/nonexistent"], "Invalid value for '[FOLDER]'"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(arguments: list[str], message: str) -> None:
    said = refused(run(*arguments), ExitCode.USAGE)
    assert message in said
    assert said.endswith("--help`.")


def test_wrong_settings_are_listed_and_exit_with_2() -> None:
    result = run("tenants", "list", env={"TENANTRY_PORT": "eighty", "TENANTRY_WORKRES": "2"})
    assert result.exit_code == ExitCode.USAGE
    assert "2 settings are wrong:" in result.stderr
    assert "TENANTRY_PORT: got 'eighty'" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_any_address_the_missing_setting_is_named(tmp_path: Path) -> None:
    result = run("tenants", "list", env={"TENANTRY_HOME": str(tmp_path)})
    assert result.exit_code == ExitCode.USAGE
    assert "TENANTRY_DATABASE_URL: expected an address, since no `tenantry up` has left one in" in result.stderr


def test_a_database_that_is_away_exits_with_5(tmp_path: Path) -> None:
    url = f"postgresql://tenantry_app:s3cret-s3cret@127.0.0.1:{find_free_port()}/tenantry"
    said = refused(run("tenants", "list", env={"TENANTRY_HOME": str(tmp_path), "TENANTRY_DATABASE_URL": url}), 5)
    assert "PostgreSQL does not answer" in said
    assert "s3cret" not in said


def test_a_wrong_password_and_a_wrong_database_are_configuration(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = template.app_url.partition("://")[2].partition(":")[2].partition("@")[0]
    wrong = template.app_url.replace(password, "another-password-" + "0" * 8)
    said = refused(run("tenants", "list", env={"TENANTRY_HOME": str(tmp_path), "TENANTRY_DATABASE_URL": wrong}), 2)
    assert "PostgreSQL refuses the log-in: " in said
    assert "another-password" not in said
    nowhere = template.app_url.replace(template.name, make_database_name())
    said = refused(run("tenants", "list", env={"TENANTRY_HOME": str(tmp_path), "TENANTRY_DATABASE_URL": nowhere}), 2)
    assert "PostgreSQL has no such database" in said


def test_a_database_that_is_not_migrated_says_what_to_do(empty_database: Template, tmp_path: Path) -> None:
    said = refused(run("tenants", "list", env=environment(empty_database, tmp_path)), ExitCode.FAILED)
    assert "tenantry migrate shared" in said


def test_several_workers_share_their_metrics_and_one_needs_no_folder() -> None:
    one, two = (load_settings({"TENANTRY_WORKERS": number}) for number in ("1", "2"))
    variable = "PROMETHEUS_MULTIPROC_DIR"
    assert variable not in with_shared_metrics({}, one)
    folder = Path(with_shared_metrics({}, two)[variable])
    assert folder.is_dir()
    folder.rmdir()
    assert with_shared_metrics({variable: "/given"}, two)[variable] == "/given"
