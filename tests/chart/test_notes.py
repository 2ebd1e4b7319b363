"""What helm prints in the end: what to do next, by commands and names that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.cases import CASES, MINIMAL, merged
from tests.chart.command_line import parse
from tests.chart.helm import CHART, helm
from tests.chart.rendering import Rendering


def _notes(values: dict[str, Any], folder: Path) -> str:
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    said = helm("install", "tenantry", str(CHART), "--namespace", "tenantry", "--dry-run=client", "-f", str(path))
    return said.partition("\nNOTES:\n")[2]


@pytest.fixture
def notes(case: str, tmp_path: Path) -> str:
    return _notes(CASES[case], tmp_path)


def test_the_notes_name_what_there_is(notes: str, rendering: Rendering) -> None:
    named = set(re.findall(r"\b(deployment|service|job)[/ ]([a-z][-a-z0-9]+)\b", notes))
    assert ("deployment", "tenantry-provisioner") in named
    assert named <= {(found["kind"].lower(), found["metadata"]["name"]) for found in rendering.objects}
    assert "<no value>" not in notes
    assert "%!" not in notes


def test_the_commands_in_the_notes_are_commands(notes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = notes.replace("\\\n", " ").splitlines()
    commands = [
        line.partition(" -- ")[2].split("tenantry ", 1)[1] for line in lines if re.search(r" --\s+tenantry ", line)
    ]
    assert len(commands) >= 2
    for command in commands:
        parse(shlex.split(command), monkeypatch)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (MINIMAL, "config.BASE_DOMAIN is not set"),
        (MINIMAL, "config.TRUSTED_PROXIES is not set"),
        (MINIMAL, "Nothing leads to it from outside"),
        (CASES["values"], "Secrets are given as values"),
        (CASES["values"], "Network policies are off"),
        (CASES["by-hand"], "Migrations are off"),
        (CASES["all-options"], "Plans and organizations were applied"),
    ],
)
def test_the_notes_warn_of_what_is_open(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in _notes(values, tmp_path)


def test_the_notes_do_not_warn_of_what_is_closed(tmp_path: Path) -> None:
    values = merged(CASES["all-options"], {"config": {"TRUSTED_PROXIES": "10.20.0.0/16"}})
    assert "\n!" not in _notes(values, tmp_path)


def test_no_secret_is_in_the_notes(tmp_path: Path) -> None:
    notes = _notes(CASES["values"], tmp_path)
    assert not any(
        secret["value"] in notes for secret in CASES["values"]["secrets"].values() if len(secret["value"]) > 4
    )
