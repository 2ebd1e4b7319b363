"""Programs of ours that run beside the embedded servers for as long as one command does: the API, the provisioner."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from tenantry.dev.process import Account, DataLock, GuardedProcess, ServerError, wait_until

__all__ = (
    "Program",
    "StopRequested",
    "client_host",
    "is_loopback",
    "listening_error",
    "stop_signals",
    "wait_until_answered",
)

LOG_LIMIT = 16 * 1024 * 1024
_OURSELVES = Account("direct")


class StopRequested(KeyboardInterrupt):
    """Somebody pressed Ctrl-C, or sent SIGTERM or SIGHUP. A KeyboardInterrupt, so that asyncio lets it through."""


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], None]]:
    """Inside, the first request to stop raises `StopRequested`, and further ones do nothing.

    Yields a function after which the first does nothing either: stopping in order must not be interrupted. Nothing is
    lost by that: what was started ends with this process, should it have to be killed.
    """
    asked = False

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise StopRequested(signal.Signals(number).name)

    def deaf() -> None:
        nonlocal asked
        asked = True

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield deaf
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Program:
    """One program, started again as often as `start` is called; it ends with this process, also by SIGKILL.

    Its output goes to `log`. `lock` stays held for as long as anything of the program lives.
    """

    def __init__(
        self,
        label: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        lock: DataLock | None = None,
    ) -> None:
        self.label = label
        self.log = log
        self._command = list(command)
        self._environment = dict(environment)
        self._lock = lock
        self._process: GuardedProcess | None = None
        self._group = 0

    @property
    def pid(self) -> int:
        """Raises `ServerError` when it does not run."""
        if self._process is None:
            raise ServerError(f"the {self.label} is not running")
        return self._process.pid

    def start(self) -> None:
        """Raises `ServerError` when it cannot be started."""
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG_LIMIT:
                self.log.replace(self.log.with_suffix(".log.old"))
        self._process = GuardedProcess(
            self._command,
            log=self.log,
            account=_OURSELVES,
            stop_signal=signal.SIGTERM,
            lock=self._lock,
            environment=self._environment,
        )
        self._group = os.getpgid(self._process.pid)

    def ended(self) -> int | None:
        """The exit code if it was started and has ended by itself (128 + n when signal n ended it), else None."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after thirty seconds; returns when nothing of it is left."""
        process, self._process = self._process, None
        if process is None:
            return
        killed = process.poll() is not None
        process.close()
        if killed:
            # It did not stop in order, so its own children may be left (a server's workers, which hold the port). They
            # share its session, which is nobody else's.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that it wrote since its last start."""
        return "" if self._process is None else self._process.log_tail(lines)


def client_host(host: str) -> str:
    """Where a client on this machine reaches a server that listens on `host`, as it is written in a URL."""
    if host in {"0.0.0.0", ""}:  # noqa: S104 - the question, not the answer
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can connect to what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def listening_error(host: str, port: int) -> str | None:
    """Why no server could listen there now, or None."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return f"{host} is no address of this machine: {error.strerror}"
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: connections of the last run in TIME_WAIT are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
                probe.listen(1)
            except OSError as error:
                return error.strerror or str(error)
    return None


def wait_until_answered(program: Program, host: str, port: int, path: str, timeout: float) -> None:
    """Wait until an HTTP GET of `path` is answered 200.

    Raises:
        ServerError: the program ended meanwhile, or `timeout` seconds were not enough; with the end of its log.
    """
    deadline = time.monotonic() + timeout
    while not _answers(host, port, path):
        if (code := program.ended()) is not None:
            raise ServerError(
                f"the {program.label} ended with exit code {code} while starting. {program.log} ends with:\n"
                f"{program.log_tail()}"
            )
        if time.monotonic() > deadline:
            raise ServerError(
                f"the {program.label} did not answer {path} with 200 in {timeout:g} s. {program.log} ends with:\n"
                f"{program.log_tail()}"
            )
        wait_until(lambda: program.ended() is not None, 0.05)


def _answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host.strip("[]"), port, timeout=5.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
