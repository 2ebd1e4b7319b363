"""What checkov may not complain of; `make check-chart` runs it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.chart import policies
from tests.chart.cases import CASES


def test_every_exception_says_of_whom_and_why() -> None:
    for one in policies.exceptions():
        assert one.rule.startswith("CKV"), one
        assert len(one.why) > 40 or one.why.startswith("As above"), one
    # A pattern is for one rule once.
    assert len({(one.rule, one.where) for one in policies.exceptions()}) == len(policies.exceptions())


def _checkov(folder: Path, complaints: list[dict[str, Any]], read: int = 1) -> str:
    """A program that complains of this, whatever it is shown."""
    report = {
        "results": {"failed_checks": complaints},
        "summary": {"resource_count": read, "parsing_errors": 0},
    }
    program = folder / "checkov"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(report)}\nEND\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def _complaint(rule: str, resource: str) -> dict[str, Any]:
    return {"check_id": rule, "check_name": "It is so", "file_path": "/minimal.yaml", "resource": resource}


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    exception = policies.Allowed(rule="CKV_K8S_8", where="*: Pod.tenantry.*-test*", why="They end by themselves.")
    monkeypatch.setattr(policies, "exceptions", lambda: [exception])
    monkeypatch.setattr(policies, "CASES", {"minimal": CASES["minimal"]})


@pytest.mark.usefixtures("allowed")
def test_a_complaint_that_is_not_allowed_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test, api = (_complaint("CKV_K8S_8", f"{kind}.tenantry.tenantry-{kind}") for kind in ("Pod", "Deployment"))
    test["resource"] = "Pod.tenantry.tenantry-test"
    assert policies.main(_checkov(tmp_path, [test])) == 0
    assert policies.main(_checkov(tmp_path, [test, api])) == 1
    assert "CKV_K8S_8 It is so: minimal: Deployment.tenantry.tenantry-Deployment" in capsys.readouterr().out


@pytest.mark.usefixtures("allowed")
def test_an_exception_for_nothing_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert policies.main(_checkov(tmp_path, [])) == 1
    assert "nothing breaks it any more" in capsys.readouterr().out


@pytest.mark.usefixtures("allowed")
def test_a_look_at_nothing_is_no_look(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="0 objects"):
        policies.main(_checkov(tmp_path, [], read=0))
