"""The servers of a test run, from outside: pytest runs in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tenantry.dev.process import wait_until
from tests.dev.support import DEADLINE, refuses
from tests.leftovers import drop_databases, leftovers_of

# Each starts a pytest and two servers of its own.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

CONFTEST = """
from tests.servers import start_servers as pytest_configure
from tests.servers import stop_servers as pytest_unconfigure
"""

MODULE = """
import asyncio, os, pathlib, urllib.parse

import asyncpg, pytest, redis

from tests.servers import make_database_name

RECORD = pathlib.Path(os.environ["RECORD"])


@pytest.mark.parametrize("n", range(4))
def test_uses_them(n):
    address, cache = os.environ["TENANTRY_TEST_ADMIN_URL"], os.environ["TENANTRY_TEST_REDIS_URL"]
    names = {make_database_name(), make_database_name()}
    assert len(names) == 2

    async def use():
        connection = await asyncpg.connect(address)
        for name in names:
            await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(use())
    with redis.Redis.from_url(cache) as client:
        client.ping()
    ports = [urllib.parse.urlsplit(url).port for url in (address, cache)]
    with RECORD.open("a") as file:
        print(*ports, os.environ.get("PYTEST_XDIST_WORKER"), *names, file=file)


def test_hangs():
    if os.environ.get("HANG"):
        import signal
        with RECORD.open("a") as file:
            print("hangs", file=file)
        signal.pause()
"""


class Run:
    """A folder with one test module, and the environment to run it in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "record"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(mode=0o711)
        tests = folder / "suite"
        tests.mkdir()
        (tests / "conftest.py").write_text(CONFTEST)
        (tests / "test_them.py").write_text(MODULE)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TENANTRY_", "PYTEST_"))}
        self.environment = kept | {
            "PYTHONPATH": str(ROOT),
            "RECORD": str(self.record),
            "TMPDIR": str(self.temporary),
            # The others take seconds to load.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "suite"],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def leftovers(self) -> list[Path]:
        return list(self.temporary.glob("tenantry-*"))

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.record.read_text().splitlines()] if self.record.exists() else []


@pytest.fixture
def run(home: Path) -> Run:
    return Run(home)


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        pytest.param(["-p", "xdist", "-n0"], {"None"}, id="n0"),
        pytest.param(["-p", "xdist", "-n2"], {"gw0", "gw1"}, id="n2"),
        pytest.param([], {"None"}, id="no-xdist"),
    ],
)
def test_all_workers_share_servers_that_are_gone_afterwards(run: Run, options: list[str], workers: set[str]) -> None:
    process = run.start(*options)
    output, _ = process.communicate(timeout=DEADLINE * 2)
    assert process.returncode == 0, output
    lines = run.lines()
    assert len(lines) == 4
    assert {line[2] for line in lines} <= workers
    assert len({(line[0], line[1]) for line in lines}) == 1
    assert refuses(int(lines[0][0]))
    assert refuses(int(lines[0][1]))
    assert run.leftovers() == []


def test_a_killed_run_leaves_neither_servers_nor_files(run: Run) -> None:
    process = run.start(HANG="1")
    with process:
        try:
            assert wait_until(lambda: ["hangs"] in run.lines(), DEADLINE)
            ports = [int(port) for port in run.lines()[0][:2]]
            assert not any(refuses(port) for port in ports)
        finally:
            process.send_signal(signal.SIGKILL)
    assert wait_until(lambda: all(refuses(port) for port in ports) and not run.leftovers(), DEADLINE)


def test_external_servers_are_used_when_both_are_named(run: Run) -> None:
    database, cache = os.environ.get("TENANTRY_TEST_ADMIN_URL"), os.environ.get("TENANTRY_TEST_REDIS_URL")
    assert database
    assert cache
    process = run.start(TENANTRY_DATABASE_URL=database, TENANTRY_REDIS_URL=cache)
    output, _ = process.communicate(timeout=DEADLINE * 2)
    assert process.returncode == 0, output
    assert f":{run.lines()[0][0]}/" in database
    assert f":{run.lines()[0][1]}/" in cache
    made = {name for line in run.lines() for name in line[3:]}
    assert len(made) == 8
    assert made.isdisjoint(asyncio.run(leftovers_of(database))), "a run drops what it has made"


def test_what_a_killed_run_leaves_on_an_external_server_can_be_found_and_dropped(run: Run) -> None:
    database, cache = os.environ["TENANTRY_TEST_ADMIN_URL"], os.environ["TENANTRY_TEST_REDIS_URL"]
    process = run.start(TENANTRY_DATABASE_URL=database, TENANTRY_REDIS_URL=cache, HANG="1")
    with process:
        try:
            assert wait_until(lambda: ["hangs"] in run.lines(), DEADLINE)
        finally:
            process.send_signal(signal.SIGKILL)
    made = {name for line in run.lines() for name in line[3:]}
    (number,) = {name.split("_")[2] for name in made}
    assert set(asyncio.run(leftovers_of(database, run=number))) == made
    asyncio.run(drop_databases(database, sorted(made)))
    assert asyncio.run(leftovers_of(database, run=number)) == []


def test_half_an_external_configuration_is_refused(run: Run) -> None:
    process = run.start(TENANTRY_REDIS_URL="redis://127.0.0.1:1/0")
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == pytest.ExitCode.USAGE_ERROR
    assert "set both TENANTRY_DATABASE_URL and TENANTRY_REDIS_URL" in output
