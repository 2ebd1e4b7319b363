"""The Dockerfile's rules. What its stages make is tried in test_image.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.docs.dockerfile import stages, values


def test_the_base_is_pinned_and_the_same_for_all_stages() -> None:
    (base,) = values("ARG", "ARG")
    assert re.fullmatch(r"BASE=python:3\.\d+(\.\d+)?-slim-\w+(@sha256:[0-9a-f]{64})?", base)
    froms = [value for stage in stages() for value in values("FROM", stage)]
    assert len(froms) == 3
    assert all(value.split()[0] == "${BASE}" for value in froms)


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    (user,) = values("USER")
    uid, gid = user.split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    after = [instruction.word for instruction in stages()[""]]
    assert "RUN" not in after[after.index("USER") :]


def test_the_final_stage_has_no_build_tools_and_takes_nothing_from_the_repository() -> None:
    runs = " ".join(values("RUN"))
    assert "uninstall --yes --quiet pip" in runs
    assert "ensurepip" in runs
    # Nothing that makes somebody else of who runs it.
    assert "find / -xdev -type f -perm /6000 -exec chmod a-s {} +" in runs
    assert not re.search(r"apt|curl|wget|gcc|pip3? install", runs)
    assert values("COPY") == ["--from=environment /opt/tenantry /opt/tenantry"]
    assert not values("ADD")


def test_everything_that_is_installed_is_pinned_by_hash_or_our_own() -> None:
    installs = [run for stage in ("wheel", "environment") for run in values("RUN", stage) if "install" in run]
    installs = [command for run in installs for command in run.split("&&") if "install" in command]
    assert len(installs) == 3
    for run in installs:
        assert "--require-hashes" in run or ("--no-index" in run and "--no-deps" in run), run
    for stage in stages():
        for run in values("RUN", stage):
            assert "http://" not in run
            assert "https://" not in run


def test_no_secret_is_in_the_image() -> None:
    for stage in stages():
        for word in ("ENV", "ARG"):
            for value in values(word, stage):
                assert not re.search(r"PASSWORD|SECRET|KEY|TOKEN|_URL", value), value


def test_how_it_starts_stops_and_listens() -> None:
    assert json.loads(values("ENTRYPOINT")[0]) == ["tenantry"]
    assert json.loads(values("CMD")[0]) == ["serve"]
    assert values("STOPSIGNAL") == ["SIGTERM"]
    assert values("EXPOSE") == ["8000"]
    (check,) = values("HEALTHCHECK")
    assert json.loads(check.partition("CMD ")[2]) == ["tenantry", "health", "--quiet"]
    (env,) = values("ENV")
    settings = dict(pair.split("=", 1) for pair in env.split())
    assert settings["TENANTRY_HOST"] == "0.0.0.0"
    assert settings["TENANTRY_HOME"].startswith("/tmp/")
    # Where a worker and a provisioner tell how they are; the address stays the machine's own unless somebody says.
    assert int(settings["TENANTRY_METRICS_PORT"]) > 1024
    assert "TENANTRY_METRICS_HOST" not in settings


def test_everything_that_runs_was_compiled_when_it_was_built() -> None:
    """Nobody may write beside it then, and a start that compiles takes five times as long."""
    for stage in ("environment", ""):
        assert "-m compileall -q -j 0 --invalidation-mode unchecked-hash" in " ".join(values("RUN", stage))
    assert all("--no-compile" in run for run in values("RUN", "environment"))


def test_the_labels_say_what_it_is_and_come_last() -> None:
    (label,) = values("LABEL")
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', label))
    assert labels["licenses"] == "Apache-2.0"
    given = {name: value for name, value in labels.items() if value.startswith("$")}
    assert given == {
        **{name: f"${{{name.upper()}}}" for name in ("version", "revision", "created", "source")},
        "base.name": "${BASE}",
    }
    assert {value.partition("=")[0] for value in values("ARG")} == {value[2:-1] for value in given.values()}
    words = [instruction.word for instruction in stages()[""]]
    assert set(words[words.index("ARG") :]) == {"ARG", "LABEL"}


def test_it_is_linted() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed: it is not there for this system")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_context_is_what_the_image_is_built_from() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for stage in ("wheel", "environment")
        for value in values("COPY", stage)
        if "--from" not in value
        for source in value.split()[:-1]
    }
    assert allowed == copied
