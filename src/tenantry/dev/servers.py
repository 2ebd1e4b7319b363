"""The embedded PostgreSQL and Valkey together, as `tenantry up` runs them under TENANTRY_HOME.

    with EmbeddedServers(home, progress=print) as servers:
        servers.postgres.url("postgres")   # as superuser
        servers.valkey.url()

Another program (the command line beside a running `up`) takes the addresses from `EmbeddedServers(home)` as well,
without starting anything: `running_elsewhere()` says whether there is a server behind them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from tenantry.dev.embedded import EmbeddedServer
from tenantry.dev.postgres import EmbeddedPostgres
from tenantry.dev.process import AlreadyRunning, ServerError
from tenantry.dev.valkey import EmbeddedValkey

__all__ = ("AlreadyRunning", "EmbeddedServers", "ServerError", "delete_home")

# What `tenantry up` writes beside the servers' own: see `tenantry.kernel.home` and `tenantry.cli.deployment`.
_FILES = (
    "keyring.json",
    "keyring.json.lock",
    "vault.json",
    "vault.json.lock",
    "addresses.json",
    "owner.json",
    "owner.password",
    "app.password",
    "up.lock",
)


class EmbeddedServers:
    """PostgreSQL in `<home>/postgres` and Valkey in `<home>/valkey`, started and stopped as one.

    `settings` are PostgreSQL's; `progress` is told what is being done, in a few words, before it is done.
    """

    def __init__(
        self,
        home: Path,
        *,
        settings: Mapping[str, str] | None = None,
        max_connections: int = 100,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.home = Path(home).absolute()
        self.postgres = EmbeddedPostgres(self.home / "postgres", settings=settings, max_connections=max_connections)
        self.valkey = EmbeddedValkey(self.home / "valkey")
        self._progress = progress

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def servers(self) -> tuple[EmbeddedServer, ...]:
        return (self.postgres, self.valkey)

    def start(self) -> None:
        """Start both, or neither. Raises `AlreadyRunning` or `ServerError`; see `EmbeddedServer.start`."""
        try:
            for server in self.servers:
                made = "Starting" if server.data_dir.exists() else "Creating and starting"
                self._progress(f"{made} {server.label}")
                server.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both in order, PostgreSQL first; nothing happens where nothing runs."""
        try:
            self.postgres.stop()
        finally:
            self.valkey.stop()

    def ended(self) -> EmbeddedServer | None:
        """One that this object started and that has ended by itself since, or None: to be asked now and then."""
        return next((server for server in self.servers if server.started and not server.running), None)

    def running_elsewhere(self) -> int | None:
        """The pid of PostgreSQL when another program runs these servers now, or None."""
        return self.postgres.running_elsewhere()


def delete_home(home: Path) -> None:
    """Delete the embedded servers with all data, passwords and keys in `home`, and `home` if that empties it.

    Only what Tenantry made there is touched. Raises `AlreadyRunning` while a server runs from it.
    """
    home = Path(home).absolute()
    servers = EmbeddedServers(home).servers
    # Both are asked before anything is gone.
    for server in servers:
        if (pid := server.running_elsewhere()) is not None:
            raise AlreadyRunning(server.data_dir, pid)
    for server in servers:
        server.delete()
    for name in _FILES:
        (home / name).unlink(missing_ok=True)
    # What was stored is the deployment's data like any other; where the storage is a bucket, there is nothing here.
    shutil.rmtree(home / "storage", ignore_errors=True)
    shutil.rmtree(home / "mail", ignore_errors=True)
    for log in (home / "logs").glob("*.log*"):
        log.unlink()
    if (home / "logs").is_dir() and not any((home / "logs").iterdir()):
        (home / "logs").rmdir()
    if home.is_dir() and not any(home.iterdir()):
        home.rmdir()


def main(arguments: list[str]) -> int:
    """`python -m tenantry.dev.servers reset HOME`: a reset that needs no installed package (see the Makefile)."""
    match arguments:
        case ["reset", home]:
            try:
                delete_home(Path(home))
            except ServerError as error:
                sys.stderr.write(f"{error}\n")
                return 1
            return 0
        case _:
            sys.stderr.write("usage: python -m tenantry.dev.servers reset HOME\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
