from __future__ import annotations

import json
import os
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from tenantry.cli.keys import keys
from tenantry.kernel.security import AUDIENCE_PLATFORM, Keyring, Tokens
from tenantry.kernel.settings import PREFIX, Settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TENANTRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def ring(home: Path) -> Keyring:
    return Keyring.open(home / "keyring.json", retain=Settings().keyring_retain)


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(keys, arguments, input=answer)


def test_rotating_makes_a_new_key_and_old_tokens_stay_valid(ring: Keyring) -> None:
    old = ring.signing_key().kid
    token = Tokens(ring, "tenantry").issue(audience=AUDIENCE_PLATFORM, sub=uuid4(), ttl=3600)[0]
    result = run("rotate", "--yes")
    assert result.exit_code == 0
    after = Keyring.open(ring.path, retain=ring.retain)
    assert after.signing_key().kid != old
    assert f"New signing key: {after.signing_key().kid}" in result.stdout
    assert f"Still verifies:  {old} until " in result.stdout
    Tokens(after, "tenantry").verify(token, AUDIENCE_PLATFORM)


def test_rotating_as_json_prints_nothing_else_on_stdout(ring: Keyring) -> None:
    old = ring.signing_key().kid
    result = run("rotate", "--json", answer="y\n")
    assert result.exit_code == 0
    assert f"Replace the signing key {old}" in result.stderr
    answer = json.loads(result.stdout)
    assert (answer["use"], answer["retiresAt"]) == ("signs", None)
    (retired,) = answer["retired"]
    assert (retired["kid"], retired["use"]) == (old, "verifies")
    assert retired["retiresAt"] > retired["createdAt"]


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_nothing_is_rotated_without_a_yes(ring: Keyring, answer: str) -> None:
    before = ring.path.read_bytes()
    result = run("rotate", answer=answer)
    assert result.exit_code == 1
    assert ring.path.read_bytes() == before


def test_the_list_names_keys_and_shows_none(ring: Keyring) -> None:
    ring.rotate()
    secret = json.loads(ring.path.read_text())["keys"][0]["jwk"]["d"]
    result = run("list")
    assert result.exit_code == 0
    for info in ring.keys():  # noqa: SIM118 - a method of the ring, not of a dict
        assert info.kid in result.stdout
    rows = json.loads(run("list", "--json").stdout)
    assert [row["use"] for row in rows] == ["signs", "verifies"]
    assert secret not in result.output + run("list", "--json").output


@pytest.mark.parametrize("arguments", [["list"], ["rotate", "--yes"]])
def test_a_ring_that_is_not_there_is_an_error_and_is_not_made(home: Path, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert f"Error: there is no keyring at {home / 'keyring.json'}" in result.stderr
    assert result.stdout == ""
    assert not home.exists()


@pytest.mark.parametrize("arguments", [["list"], ["rotate", "--yes"]])
def test_a_wrong_environment_exits_with_2(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("TENANTRY_PORT", "eighty")
    result = run(*arguments)
    assert result.exit_code == 2
    assert "TENANTRY_PORT: got 'eighty'" in result.stderr


@pytest.mark.parametrize(("command", "example"), [("rotate", "keys rotate --yes --json"), ("list", "keys list --json")])
def test_the_help_has_an_example(command: str, example: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: tenantry {example}" in result.stdout
