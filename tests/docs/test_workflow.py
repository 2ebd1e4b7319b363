"""The workflow of those who keep a fork: it says what `.ci/run` says, on everything that is supported."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import yaml

from tests.docs.blocks import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def _workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github/workflows" / name).read_text())  # type: ignore[no-any-return]


def _steps(name: str) -> list[dict[str, Any]]:
    return [step for job in _workflow(name)["jobs"].values() for step in job["steps"]]


def test_it_runs_whatever_has_to_pass() -> None:
    wanted = set(re.findall(r"^make .+$", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    assert wanted <= {step.get("run", "") for step in _steps("ci.yml")}


def test_every_python_that_is_supported_is_tried() -> None:
    oldest = re.fullmatch(
        r">=(3\.\d+)", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    )
    assert oldest is not None
    pythons = _workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert pythons[0] == oldest[1]
    assert pythons == [f"3.{number}" for number in range(int(oldest[1][2:]), int(pythons[-1][2:]) + 1)]


def test_no_job_waits_for_ever_or_may_do_more_than_read() -> None:
    for path in WORKFLOWS:
        workflow = _workflow(path.name)
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert 0 < job["timeout-minutes"] <= 60, name


def test_the_targets_that_it_makes_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in WORKFLOWS:
        assert set(re.findall(r"\bmake ([a-z-]+)", path.read_text())) <= targets


def test_what_it_uses_of_others_has_a_version() -> None:
    for path in WORKFLOWS:
        for step in _steps(path.name):
            assert re.search(r"@v?\d", step.get("uses", "@v1")), step
