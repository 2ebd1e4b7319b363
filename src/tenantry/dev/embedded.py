"""The life of an embedded server, whichever it is: lock, port, start, stop, kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from tenantry.dev.process import (
    HOST,
    POLL,
    Account,
    AlreadyRunning,
    DataLock,
    GuardedProcess,
    ServerError,
    child_pids,
    choose_account,
    find_free_port,
    port_is_free,
    wait_until,
    write_file,
)

__all__ = ("EmbeddedServer",)

# How long a start waits for the rest of a killed server, or of one whose program was killed, to be gone.
TAKEOVER = 40.0
STOP = 60.0
LOG_LIMIT = 16 * 1024 * 1024


class EmbeddedServer(ABC):
    """A server run from `data_dir` by this program, on a port of 127.0.0.1, ending with it.

    Beside the directory lie `<its name>.lock` and `<its name>.password`; the port is remembered in it.
    `start`, `stop` and `kill` block and are not for concurrent use on one object (`asyncio.to_thread` is fine).
    """

    label: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    host = HOST

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        start_timeout: float = 60.0,
        delete_with_parent: bool = False,
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.start_timeout = start_timeout
        self._wanted_port = port
        self._delete_with_parent = delete_with_parent
        self._port: int | None = None
        self._process: GuardedProcess | None = None
        self.lock = DataLock(self._beside("lock"), self.data_dir)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.data_dir)!r}, running={self.running})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def stop(self) -> None:
        """Stop in order; nothing happens when it is not running."""

    @abstractmethod
    def _binary(self) -> Path:
        """The server's program; its account is chosen so that it can run it."""

    @abstractmethod
    def _initialize(self, account: Account) -> None:
        """Make the data directory if it is not there, all of it or nothing. The lock is held.

        Unfinished work goes into directories named `_scratch_prefix` + anything, beside it.
        """

    @abstractmethod
    def _command(self, port: int, account: Account) -> list[str]:
        """The program and its arguments; nothing secret, anyone may read them."""

    @abstractmethod
    def _ready(self, port: int, pid: int) -> bool:
        """Whether the process answers clients on that port."""

    @abstractmethod
    def _check_stranger(self) -> None:
        """Raise `AlreadyRunning` if someone else's program serves from this directory."""

    def _beside(self, suffix: str) -> Path:
        return self.data_dir.with_name(f"{self.data_dir.name}.{suffix}")

    @property
    def log(self) -> Path:
        return self.data_dir / "server.log"

    @property
    def password_file(self) -> Path:
        return self._beside("password")

    @property
    def password(self) -> str:
        """The administrator's password; raises `ServerError` before the first start."""
        try:
            return self.password_file.read_text().strip()
        except FileNotFoundError:
            raise ServerError(f"{self.label} was never started here: there is no {self.password_file}") from None

    @property
    def _port_file(self) -> Path:
        return self.data_dir / "tenantry.port"

    def _remembered_port(self) -> int | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
            return int(self._port_file.read_text())
        return None

    @property
    def port(self) -> int:
        """The TCP port: of this run, or of the last one from this directory (also another program's).

        Raises `ServerError` before the first start.
        """
        if self._port is not None:
            return self._port
        if (port := self._remembered_port()) is None:
            raise ServerError(f"{self.label} was never started from {self.data_dir}: it has no port yet")
        return port

    @property
    def pid(self) -> int:
        """The server's process; raises `ServerError` when this object runs none."""
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"{self.label} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server that this object started is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def started(self) -> bool:
        """Whether this object started a server that it has not stopped or killed; the server may have ended."""
        return self._process is not None

    def running_elsewhere(self) -> int | None:
        """The pid of the server that another program runs from this directory, or None."""
        if self.running or not self.lock.held():
            return None
        owner, server = self.lock.holder()
        return server or owner

    def log_tail(self, lines: int = 30) -> str:
        """The last lines that this run logged; nothing before the first start."""
        return "" if self._process is None else self._process.log_tail(lines)

    def start(self) -> None:
        """Start and wait until clients are answered; data and port of an earlier run are kept.

        Raises `AlreadyRunning` when another program serves from this directory (or starts to), or this object does, and
        `ServerError` with the end of the log when the server does not come up within `start_timeout` seconds.
        """
        if self.running:
            raise AlreadyRunning(self.data_dir, self.pid)
        self._reap()
        self.data_dir.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.lock.acquire(TAKEOVER)
        try:
            self._check_stranger()
            account = choose_account(self._binary(), self.data_dir.parent)
            self._delete_scratch()
            self._initialize(account)
            account.own(self.data_dir)
            with contextlib.suppress(FileNotFoundError):
                if self.log.stat().st_size > LOG_LIMIT:
                    self.log.replace(self.log.with_suffix(".log.old"))
            self._launch(account)
        finally:
            # The guard and the server hold it from here on; a fork of this program must not.
            self.lock.release()

    def _launch(self, account: Account) -> None:
        files = (self.data_dir, self.password_file, self.lock.path)
        for attempt in range(5):
            port = self._wanted_port or find_free_port(self._remembered_port() if attempt == 0 else None)
            process = GuardedProcess(
                self._command(port, account),
                log=self.log,
                account=account,
                stop_signal=self.stop_signal,
                lock=self.lock,
                delete_with_parent=files if self._delete_with_parent else (),
            )
            try:
                self.lock.note(process.pid)
                if self._wait_ready(process, port):
                    write_file(self._port_file, f"{port}\n", account)
                    self._process, self._port = process, port
                    return
            except BaseException:
                process.close()
                raise
            process.close()
            if self._wanted_port is not None or port_is_free(port):
                break
            # Someone took the port between our look and the server's: try another.
        raise ServerError(f"{self.label} ended while starting; its log {self.log} says:\n{process.log_tail()}")

    def _wait_ready(self, process: GuardedProcess, port: int) -> bool:
        deadline = time.monotonic() + self.start_timeout
        while process.poll() is None:
            if self._ready(port, process.pid):
                return True
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.label} was not ready after {self.start_timeout:g} s; its log {self.log} says:\n"
                    f"{process.log_tail()}"
                )
            time.sleep(POLL)
        return False

    def _stop(self, number: signal.Signals, timeout: float = STOP) -> None:
        process = self._process
        if process is None:
            return
        process.send(number)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        finally:
            self._reap()

    def kill(self) -> None:
        """SIGKILL the server and its children; returns when all of them are gone. `start` then recovers.

        A test that kills the process itself calls `wait` before the next `start`.
        """
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            # Stopped first, so that it forks no more and does not answer the death of its children by a recovery.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGSTOP)
                for pid in (*child_pids(process.pid), process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        self._reap()
        if not wait_until(lambda: not self.lock.held(), TAKEOVER):
            raise ServerError(f"processes of the killed {self.label} still use {self.data_dir}")

    def _reap(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def wait(self) -> int:
        """Wait until the server ends by itself and return its exit code (128 + n when signal n ended it)."""
        if self._process is None:
            raise ServerError(f"{self.label} is not running")
        return self._process.wait()

    def delete(self) -> None:
        """Delete the data, the port and the password; raises `AlreadyRunning` while a server runs from them."""
        if self.running:
            raise AlreadyRunning(self.data_dir, self.pid)
        self._reap()
        if not self.data_dir.parent.exists():
            return
        self.lock.acquire(TAKEOVER)
        try:
            self._check_stranger()
            self._delete_scratch()
            if self.data_dir.exists():
                shutil.rmtree(self.data_dir)
            self.password_file.unlink(missing_ok=True)
            self.lock.path.unlink(missing_ok=True)
        finally:
            self.lock.release()
        self._port = None

    @property
    def _scratch_prefix(self) -> str:
        return f".{self.data_dir.name}.new-"

    def _delete_scratch(self) -> None:
        for leftover in self.data_dir.parent.glob(self._scratch_prefix + "*"):
            shutil.rmtree(leftover)
