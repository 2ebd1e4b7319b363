"""The workflows of those who keep a fork: what `.ci/run` says, on everything that is supported, and releases."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import ROOT
from tests.docs.dockerfile import values

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def _workflow(name: str) -> dict[Any, Any]:
    return yaml.safe_load((ROOT / ".github/workflows" / name).read_text())  # type: ignore[no-any-return]


def _jobs(name: str) -> dict[str, dict[str, Any]]:
    """Those with steps; the others are another workflow."""
    return {job: found for job, found in _workflow(name)["jobs"].items() if "uses" not in found}


def _steps(name: str) -> list[dict[str, Any]]:
    return [step for job in _jobs(name).values() for step in job["steps"]]


def test_it_runs_whatever_has_to_pass() -> None:
    wanted = set(re.findall(r"^make .+$", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    assert wanted <= {step.get("run", "") for step in _steps("ci.yml")}


def test_every_python_that_is_supported_is_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = _workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert project["requires-python"] == f">={pythons[0]}"
    assert pythons == re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert pythons == [f"3.{11 + number}" for number in range(len(pythons))]


def test_no_job_waits_for_ever_or_may_do_more_than_it_must() -> None:
    for path in WORKFLOWS:
        assert _workflow(path.name)["permissions"] == {"contents": "read"}
        for name, job in _jobs(path.name).items():
            assert 0 < job["timeout-minutes"] <= 60, name
    # What publishes says so itself, and what only reads says nothing.
    assert {
        name: job["permissions"] for path in WORKFLOWS for name, job in _jobs(path.name).items() if "permissions" in job
    } == {
        "packages": {"contents": "read", "id-token": "write", "attestations": "write"},
        "image": {"contents": "read", "packages": "write", "id-token": "write"},
        "chart": {"contents": "read", "packages": "write", "id-token": "write"},
        "release": {"contents": "write"},
    }


def test_a_checkout_leaves_no_credentials_behind() -> None:
    for path in WORKFLOWS:
        for step in _steps(path.name):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"] == {"persist-credentials": False}


def test_the_targets_that_it_makes_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in WORKFLOWS:
        assert set(re.findall(r"\bmake ([a-z-]+)", path.read_text())) <= targets


def test_what_it_uses_of_others_has_a_version() -> None:
    for path in WORKFLOWS:
        for step in _steps(path.name):
            assert re.search(r"[@:]v?\d|@[0-9a-f]{40}", step.get("uses", "@v1")), step


def test_what_an_event_says_is_no_part_of_a_script() -> None:
    """A branch can be called `$(curl …)`: values come by the environment."""
    for path in WORKFLOWS:
        for step in _steps(path.name):
            assert "${{" not in step.get("run", ""), step


def _triggers(name: str) -> Any:
    # A YAML 1.1 parser reads `on` as a truth.
    document: dict[Any, Any] = _workflow(name)
    return document[True]


def test_nothing_is_released_that_has_not_passed() -> None:
    jobs = _workflow("release.yml")["jobs"]
    assert _triggers("release.yml") == {"push": {"tags": ["v*"]}}
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in _triggers("ci.yml")

    def before(name: str) -> set[str]:
        needs = jobs[name].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*(before(each) for each in direct))

    for name in ("packages", "image", "chart", "release"):
        assert {"version", "ci"} <= before(name), name
    assert before("release") == jobs.keys() - {"release"}
    checks = [step.get("run", "") for step in jobs["version"]["steps"]]
    assert 'python scripts/changelog.py --check "$GITHUB_REF_NAME"' in checks


def test_the_image_is_built_for_what_it_says_with_what_it_is_made_of_and_signed() -> None:
    steps = _workflow("release.yml")["jobs"]["image"]["steps"]
    [build] = (step["with"] for step in steps if step.get("uses", "").startswith("docker/build-push-action@"))
    assert build["push"] is build["sbom"] is True
    assert build["provenance"] == "mode=max"
    arguments = {line.partition("=")[0] for line in build["build-args"].splitlines()}
    assert arguments == {value.partition("=")[0] for value in values("ARG")} - {"BASE"}
    # By its digest, after it was looked over.
    runs = [step.get("run", step.get("uses", "")) for step in steps]
    assert 'cosign sign --yes "$IMAGE@$DIGEST"' in runs[-1]
    assert any("trivy" in run for run in runs[:-1])


def test_whatever_is_pinned_is_kept_up_to_date() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "docker", "github-actions"}
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS)],
        ["check-jsonschema", "--builtin-schema", "vendor.dependabot", str(ROOT / ".github/dependabot.yml")],
        ["zizmor", "--offline", "--quiet", str(ROOT / ".github")],
    ],
    ids=["workflows", "dependabot", "dangers"],
)
def test_who_knows_such_files_finds_nothing(arguments: list[str]) -> None:
    program = Path(sys.executable).parent / arguments[0]
    done = subprocess.run([str(program), *arguments[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
