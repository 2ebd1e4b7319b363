"""What the embedded servers share: locks, ports, accounts, and processes that die with their parent."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = (
    "Account",
    "AlreadyRunning",
    "DataLock",
    "GuardedProcess",
    "ServerError",
    "child_pids",
    "choose_account",
    "find_free_port",
    "port_is_free",
    "process_alive",
    "secret_file",
    "server_environment",
    "wait_until",
    "write_file",
)

HOST = "127.0.0.1"
# Below the ephemeral range (32768 on Linux): an outgoing connection may hold any port above it at any moment.
PORTS = range(15000, 32768)
NOBODY = 65534
POLL = 0.02


class ServerError(RuntimeError):
    """An embedded server could not be made, started or stopped; the message names the fix or ends with its log."""


class AlreadyRunning(ServerError):  # noqa: N818  (reads as a state, like FileExistsError's siblings)
    """A server runs from this data directory already. `pid` is its process, or that of the program starting it."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        super().__init__(f"a server is already running from {data_dir}" + (f" (process {pid})" if pid else ""))
        self.data_dir = data_dir
        self.pid = pid


def wait_until(condition: Callable[[], bool], timeout: float, *, interval: float = POLL) -> bool:
    """Poll `condition` until it holds or `timeout` seconds are over; returns whether it held."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def process_alive(pid: int) -> bool:
    """Whether a process `pid` exists, zombies included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def child_pids(pid: int) -> list[int]:
    """The processes that `pid` forked and that still are its children."""
    if sys.platform == "linux":
        try:
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            return []
    else:
        command = ["/usr/bin/pgrep", "-P", str(pid)]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603
    return [int(word) for word in text.split()]


def port_is_free(port: int) -> bool:
    """Whether a server could listen on `port` of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections of the last run in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def find_free_port(preferred: int | None = None) -> int:
    """`preferred` if nothing listens there, else a free port of 127.0.0.1 below the ephemeral range.

    Raises `ServerError` when a thousand tries found none.
    """
    if preferred is not None and port_is_free(preferred):
        return preferred
    for _ in range(1000):
        # Not `random`: hypothesis and others seed it, and then parallel runs would all try the same ports in turn.
        port = PORTS.start + secrets.randbelow(len(PORTS))
        if port_is_free(port):
            return port
    raise ServerError(f"no free port on {HOST} between {PORTS.start} and {PORTS.stop - 1}")


def write_file(path: Path, text: str, account: Account | None = None) -> None:
    """Replace `path` by a file with mode 0600, all of it or not at all, owned by `account` (default: by us)."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            if account is not None and account.user is not None:
                os.fchown(file.fileno(), account.user, account.group if account.group is not None else -1)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def secret_file(path: Path) -> str:
    """The secret in `path`, made (256 random bits, hexadecimal) and kept with mode 0600 if there is none."""
    with contextlib.suppress(FileNotFoundError):
        if secret := path.read_text().strip():
            return secret
    secret = secrets.token_hex(32)
    write_file(path, secret + "\n")
    return secret


@dataclass(frozen=True, slots=True)
class Account:
    """As whom a server runs: directly, as another user, or under an unprivileged id in a user namespace of its own."""

    name: str
    user: int | None = None
    group: int | None = None
    prefix: tuple[str, ...] = ()

    def own(self, path: Path) -> None:
        """Give `path` and everything below it to this account, if root owns the process and it is not so yet."""
        if os.geteuid() != 0:
            return
        user = self.user if self.user is not None else 0
        group = self.group if self.group is not None else 0
        if path.stat(follow_symlinks=False).st_uid == user:
            return
        for folder, folders, files in os.walk(path):
            for entry in (*folders, *files):
                os.chown(Path(folder) / entry, user, group, follow_symlinks=False)
        # Last, so that a chown that was cut short is done again.
        os.chown(path, user, group, follow_symlinks=False)


DIRECT = Account("direct")


def choose_account(binary: Path, folder: Path) -> Account:
    """An account that can run `binary` and reach `folder`; any but root's where we are root.

    First `nobody` proper; where it may not pass a parent directory (a project under /root, say), root's own files are
    reached from a user namespace in which the server has no privilege and sees itself as an ordinary user.

    Raises `ServerError` naming the fix when neither works.
    """
    if os.geteuid() != 0:
        return DIRECT
    candidates = []
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam("nobody")
        candidates.append(Account("nobody", entry.pw_uid, entry.pw_gid))
    if unshare := shutil.which("unshare"):
        prefix = (unshare, "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--")
        candidates.append(Account("unshare", prefix=prefix))
    failures = []
    for account in candidates:
        try:
            # The shell, since `cwd=` would be entered before the change of user.
            probe = subprocess.run(  # noqa: S603
                [*account.prefix, "/bin/sh", "-c", 'cd "$1" && exec "$0" --version', str(binary), str(folder)],
                user=account.user,
                group=account.group,
                extra_groups=None if account.user is None else [],
                env=server_environment(),
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
                timeout=30,
            )
        except (OSError, subprocess.SubprocessError) as error:
            failures.append(f"{account.name}: {error}")
            continue
        if probe.returncode == 0:
            return account
        failures.append(f"{account.name}: {probe.stderr.strip() or f'exit code {probe.returncode}'}")
    tried = "; ".join(failures) or "there is neither a user `nobody` nor the program `unshare`"
    raise ServerError(
        f"as root, the server needs an unprivileged account that can run {binary} and enter {folder} ({tried}). "
        "Run as an ordinary user, or put the project and TENANTRY_HOME where the user `nobody` may pass every parent "
        "folder (chmod o+x), or allow user namespaces."
    )


def server_environment() -> dict[str, str]:
    """The little of our environment that a server needs: never PG*, nor the secrets in TENANTRY_*."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"TZ": "UTC", "LC_ALL": "C"}


class DataLock:
    """The exclusive right to a data directory: a lock on the file `path`, passed on to the server itself.

    It is an flock(2), which belongs to the open file and so to every process that inherited it: as long as one process
    of the server lives, an orphaned backend included, no second server starts on its files. It needs no pid to be
    believed, which after a restart of a container would often be some other program's.
    """

    def __init__(self, path: Path, data_dir: Path) -> None:
        self.path = path
        self.data_dir = data_dir
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except BaseException:
                os.close(descriptor)
                raise
            # A reset may have deleted the file between our open and our lock.
            with contextlib.suppress(FileNotFoundError):
                if self.path.stat().st_ino == os.fstat(descriptor).st_ino:
                    self._descriptor = descriptor
                    return True
            os.close(descriptor)

    def acquire(self, timeout: float) -> None:
        """Take the lock; waits up to `timeout` seconds for a server whose program is gone, or that was killed.

        Raises `AlreadyRunning` at once when a live program holds it.
        """
        started = time.monotonic()
        while not self.try_acquire():
            owner, server = self.holder()
            held_by_living = owner is not None and process_alive(owner) and (server is None or process_alive(server))
            # Not at the first look: `held` of another program takes the lock for an instant, with an old note in it.
            if time.monotonic() - started > (0.25 if held_by_living else timeout):
                raise AlreadyRunning(self.data_dir, server or owner)
            time.sleep(POLL)
        self.note(server=None)

    def note(self, server: int | None) -> None:
        """Write down who holds the lock, for the message of whoever wants it next."""
        text = json.dumps({"owner": os.getpid(), "server": server})
        os.pwrite(self.descriptor, text.ljust(128).encode(), 0)

    def holder(self) -> tuple[int | None, int | None]:
        """The pids of the program and of the server that held the lock last."""
        try:
            noted = json.loads(self.path.read_text())
            return noted["owner"], noted["server"]
        except (OSError, ValueError, KeyError):
            return None, None

    @property
    def descriptor(self) -> int:
        if self._descriptor is None:
            raise ServerError(f"{self.path} is not locked by this process")
        return self._descriptor

    def release(self) -> None:
        """Give up our own hold; a server that inherited the lock keeps it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def held(self) -> bool:
        """Whether any process holds the lock now."""
        if self._descriptor is not None:
            return True
        if not self.path.exists():
            return False
        if self.try_acquire():
            self.release()
            return False
        return True


class GuardedProcess:
    """A process under `guard.py`, which ends it when this program ends, also by SIGKILL.

    It has a session of its own, so that Ctrl-C at the terminal reaches this program alone, which then stops it in
    order. `lock` is inherited by it; `delete_with_parent` are paths to delete if this program dies without stopping it
    (test data), with the directory they are in if they were all.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        account: Account,
        stop_signal: signal.Signals,
        lock: DataLock | None = None,
        environment: Mapping[str, str] | None = None,
        delete_with_parent: Sequence[Path] = (),
    ) -> None:
        self.log = log
        pass_fds = [] if lock is None else [lock.descriptor]
        spec = {
            "parent": os.getpid(),
            "command": [*account.prefix, *command],
            "cwd": "/",
            "user": account.user,
            "group": account.group,
            "stop_signal": stop_signal,
            "pass_fds": pass_fds,
            "delete_with_parent": [str(path) for path in delete_with_parent],
        }
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if account.user is not None:
                os.fchown(output, account.user, account.group if account.group is not None else -1)
            self._log_start = os.fstat(output).st_size
            self._guard = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                pass_fds=pass_fds,
                cwd="/",
                env=dict(server_environment() if environment is None else environment),
                start_new_session=True,
                bufsize=0,
            )
        finally:
            os.close(output)
        assert self._guard.stdin is not None  # noqa: S101
        assert self._guard.stdout is not None  # noqa: S101
        self._commands = self._guard.stdin
        line = b""
        try:
            with self._guard.stdout as report:
                line = report.readline()
        finally:
            if not line:
                self.close()
        if not line:
            raise ServerError(f"{command[0]} could not be started\n{self.log_tail()}")
        self.pid = int(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def poll(self) -> int | None:
        """The exit code (128 + signal's number when one ended it), or None while it runs."""
        return self._guard.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises `subprocess.TimeoutExpired` after `timeout` seconds."""
        code = self._guard.wait(timeout)
        self.close()
        return code

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process; nothing happens when it has ended."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._commands.write(bytes([number]))

    def close(self) -> None:
        """End the process if it runs still (its stop signal, and SIGKILL after thirty seconds), and wait for it."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._commands.write(b"\0")
        self._commands.close()
        self._guard.wait()

    def log_tail(self, lines: int = 30) -> str:
        """The last lines that were logged since this process started."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, size - 16384))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
