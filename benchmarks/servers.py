"""The measured servers: granian with one worker, each a child process, all alike but for the application."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil

from tenantry.dev.process import find_free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ("GRANIAN_OPTIONS", "Server", "ServerFailed", "cpu_seconds", "launch", "serve")

GRANIAN_OPTIONS = (
    *("--interface", "asgi", "--factory", "--host", "127.0.0.1", "--workers", "1", "--loop", "uvloop"),
    *("--http", "1", "--no-ws", "--no-access-log", "--log-level", "warning"),
)
_START = 60.0
_STOP = 15.0


class ServerFailed(RuntimeError):  # noqa: N818
    """A server did not come up, or has ended."""


class Server:
    """A running server."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self._process = process
        self._log = log
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """CPU time of the server and its worker since they were started."""
        if self._process.poll() is not None:
            raise ServerFailed(f"{self.name} has ended: {self._tail()}")
        return cpu_seconds(self._process.pid)

    def get(self, path: str, token: str | None = None, host: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return self._http.get(path, headers=headers | ({"Host": host} if host is not None else {}))

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-1500:]

    def _wait(self, path: str, token: str | None, host: str | None = None) -> None:
        deadline = time.monotonic() + _START
        while True:
            if self._process.poll() is not None:
                raise ServerFailed(f"{self.name} did not start: {self._tail()}")
            try:
                answer = self.get(path, token, host)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 200:
                return
            if time.monotonic() > deadline:
                said = "nothing" if answer is None else f"{answer.status_code} {answer.text[:500]}"
                raise ServerFailed(f"{self.name} answered {said} to {path}: {self._tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        self._http.close()
        children = psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in psutil.wait_procs(children, timeout=1)[1]:
            child.kill()


def cpu_seconds(pid: int) -> float:
    """CPU time, user and system, of a process and its descendants.

    Those that have ended count too where the system tells (on Linux): a pool that opens and closes connections makes
    PostgreSQL fork, and that is part of what a request costs.
    """
    root = psutil.Process(pid)
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


@contextmanager
def serve(
    name: str, environment: Mapping[str, str], *, folder: Path, ready: tuple[str, str | None]
) -> Iterator[Server]:
    """Run `benchmarks.apps:<name>` under granian until the block ends; `ready`: what must answer 200.

    Raises:
        ServerFailed: it does not come up.
    """
    root = str(Path(__file__).parents[1])
    port = find_free_port()
    command = [sys.executable, "-m", "granian", *GRANIAN_OPTIONS, "--port", str(port), f"benchmarks.apps:{name}"]
    path = {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    with launch(name, command, {**environment, **path}, port=port, folder=folder, ready=(*ready, None)) as server:
        yield server


@contextmanager
def launch(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    port: int,
    folder: Path,
    ready: tuple[str, str | None, str | None],
    cwd: Path | None = None,
) -> Iterator[Server]:
    """Run a server until the block ends; `ready`: path, access token and host name of what must answer 200.

    Raises:
        ServerFailed: it does not come up.
    """
    log = folder / f"{name}.log"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TENANTRY_")}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            list(command),
            env={**clean, **environment},
            # The access log is written, formatted and all, as in a deployment; nobody keeps it.
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=cwd or Path(__file__).parents[1],
        )
    server = Server(name, process, port, log)
    try:
        server._wait(*ready)
        yield server
    finally:
        server.stop()
