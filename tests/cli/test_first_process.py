"""Processes as a container runs them: the first of a PID namespace, without an init before them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tenantry.dev.process import child_pids, find_free_port, port_is_free, wait_until
from tests.cli.support import ROOT, bare_environment
from tests.cli.test_processes import Env, ready
from tests.databases import Template
from tests.jobs.support import job_redis_url

# Five processes start here; on a busy machine each takes its time.
pytestmark = pytest.mark.slow
DEADLINE = 240.0

_NAMESPACE = (
    "unshare",
    *(() if os.getuid() == 0 else ("--user", "--map-current-user")),
    *("--pid", "--fork", "--kill-child", "--mount", "--mount-proc"),
)


@cache
def _is_allowed() -> bool:
    try:
        return subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    if not _is_allowed():
        pytest.skip("this machine does not let us make PID namespaces")


class First:
    """A command that is PID 1 of its namespace."""

    def __init__(self, outside: subprocess.Popen[str]) -> None:
        self._outside = outside

    @property
    def pid(self) -> int:
        """As we see it; 0 as long as it is not there."""
        return next(iter(child_pids(self._outside.pid)), 0)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @property
    def has_ended(self) -> bool:
        return self._outside.poll() is not None

    def end(self) -> tuple[int, str]:
        """Its exit code, which `unshare` passes on, and what it said on stderr."""
        _, stderr = self._outside.communicate(timeout=DEADLINE)
        return self._outside.returncode, stderr


@contextmanager
def _first(*arguments: str, env: Env) -> Iterator[First]:
    process = subprocess.Popen(
        [*_NAMESPACE, sys.executable, "-m", "tenantry.cli", *arguments],
        env=bare_environment(**env),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield First(process)
    finally:
        # With it go all processes of the namespace.
        process.kill()
        process.communicate()


def _zombies(pid: int) -> list[str]:
    return [status for child in child_pids(pid) if "\nState:\tZ" in (status := _status(child))]


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def test_a_command_that_waits_ends_when_it_is_told_to(env: Env) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {"TENANTRY_HOST": "127.0.0.1", "TENANTRY_PORT": str(silent.getsockname()[1])}
        with _first("health", "--timeout", "60", env=env | settings) as process:
            # It asks, and waits for an answer that never comes.
            silent.settimeout(DEADLINE)
            connection, _ = silent.accept()
            with connection:
                process.signal(signal.SIGTERM)
                code, stderr = process.end()
    assert code == 128 + signal.SIGTERM, stderr


def test_an_api_of_several_processes_heals_itself_reaps_and_ends_in_order(env: Env) -> None:
    port = find_free_port()
    settings = {"TENANTRY_PORT": str(port), "TENANTRY_WORKERS": "2"}
    with _first("serve", env=env | settings) as process:

        def workers() -> list[int]:
            # Where they are not forked, there is multiprocessing's tracker of resources besides.
            return [pid for pid in child_pids(process.pid) if "resource_tracker" not in _command(pid)]

        assert wait_until(lambda: process.has_ended or (ready(port) and len(workers()) == 2), DEADLINE)
        assert not process.has_ended
        killed = workers()[0]
        os.kill(killed, signal.SIGKILL)
        assert wait_until(lambda: len(workers()) == 2 and killed not in workers(), DEADLINE)
        assert _zombies(process.pid) == []
        assert wait_until(lambda: ready(port), DEADLINE)
        process.signal(signal.SIGTERM)
        code, stderr = process.end()
    assert code == 0, stderr
    assert "Traceback" not in stderr


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["worker", "provisioner"])
def test_a_worker_or_a_provisioner_ends_in_order(
    env: Env, database_addresses: Template, command: str, number: signal.Signals
) -> None:
    port = find_free_port()
    # It serves its metrics once it knows what to do with signals.
    given = {"TENANTRY_REDIS_URL": job_redis_url(), "TENANTRY_METRICS_PORT": str(port), "TENANTRY_WORKER_STALL": "200"}
    if command == "provisioner":
        given["TENANTRY_DATABASE_OWNER_URL"] = database_addresses.owner_url
    with _first(command, env=env | given) as process:
        assert wait_until(lambda: process.has_ended or not port_is_free(port), DEADLINE)
        assert not process.has_ended
        process.signal(number)
        code, stderr = process.end()
    assert code == 0, stderr
    assert "Traceback" not in stderr
