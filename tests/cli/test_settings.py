from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from tenantry.cli.settings import settings
from tenantry.kernel.settings import PREFIX, Settings

SECRET = "hunter2-s3cret"


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


def test_every_setting_is_listed_with_its_value() -> None:
    result = CliRunner().invoke(settings, env={"TENANTRY_PORT": "9123"})
    assert result.exit_code == 0
    for name in Settings.model_fields:
        # Whole, not broken over two lines.
        assert f" {PREFIX}{name.upper()} " in result.stdout
    assert "9123" in result.stdout
    assert "8000" in result.stdout
    assert "TCP port to listen on." in result.stdout


def test_the_list_as_json_is_for_programs() -> None:
    result = CliRunner().invoke(settings, ["--json"], env={"TENANTRY_PORT": "9123"})
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows] == list(Settings.model_fields)
    assert next(row for row in rows if row["name"] == "port") == {
        "name": "port",
        "variable": "TENANTRY_PORT",
        "type": "a whole number from 1 to 65535",
        "default": "8000",
        "value": "9123",
        "isSet": True,
        "description": "TCP port to listen on.",
    }


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_passwords_are_not_shown(arguments: list[str]) -> None:
    env = {
        "TENANTRY_DATABASE_URL": f"postgres://app:{SECRET}@db/tenantry",
        "TENANTRY_DATABASE_OWNER_URL": f"postgres://owner:{SECRET}@db/tenantry",
        "TENANTRY_REDIS_URL": f"redis://:{SECRET}@cache/0",
    }
    result = CliRunner().invoke(settings, arguments, env=env)
    assert result.exit_code == 0
    assert SECRET not in result.output
    assert "***" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_wrong_environment_is_explained_on_stderr_and_exits_with_2(arguments: list[str]) -> None:
    env = {"TENANTRY_PORT": "eighty", "TENANTRY_WORKRES": "2", "TENANTRY_DATABASE_URL": f"mysql://u:{SECRET}@h/d"}
    result = CliRunner().invoke(settings, arguments, env=env)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "3 settings are wrong:" in result.stderr
    assert "TENANTRY_PORT: got 'eighty', expected a whole number from 1 to 65535" in result.stderr
    assert "TENANTRY_WORKERS was meant?" in result.stderr
    assert SECRET not in result.stderr


def test_a_value_with_brackets_is_shown_as_it_is() -> None:
    result = CliRunner().invoke(settings, env={"TENANTRY_HOME": "/srv/[bold]x"})
    assert "/srv/[bold]x" in result.stdout


def test_the_help_has_an_example() -> None:
    result = CliRunner().invoke(settings, ["--help"])
    assert result.exit_code == 0
    assert "Example: TENANTRY_PORT=8080 tenantry settings --json" in result.stdout
