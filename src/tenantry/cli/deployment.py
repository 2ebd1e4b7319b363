"""The parts of `tenantry up`: servers, database, provisioner, worker, API; in this order, and stopped in the other."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from tenantry.cli.admin import (
    DATABASE,
    account_of,
    claims,
    connect,
    logs_in,
    make_database,
    read_hardening,
    role_url,
    target_database,
    with_database,
)
from tenantry.cli.attended import Attended
from tenantry.cli.mailbox import Mailbox
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.processes import granian_command, with_shared_metrics, without_owner, worker_command
from tenantry.dev.postgres import EmbeddedPostgres
from tenantry.dev.process import ServerError, secret_file
from tenantry.dev.supervisor import Program, client_host, is_loopback, wait_until_answered
from tenantry.dev.valkey import EmbeddedValkey
from tenantry.kernel.home import HomeAddresses, OwnerAddresses, write_addresses
from tenantry.kernel.security import Keyring, Vault
from tenantry.kernel.settings import redact_url
from tenantry.tenancy.bootstrap import APP_ROLE, OWNER_ROLE, Addresses, harden

if TYPE_CHECKING:
    from pathlib import Path

    from tenantry.cli.demo import DemoLogin
    from tenantry.cli.progress import Progress
    from tenantry.dev.embedded import EmbeddedServer
    from tenantry.dev.process import DataLock
    from tenantry.kernel.settings import Settings

__all__ = ("Deployment", "Started")

_READY_TIMEOUT = 60.0
# Of the environment, what could log in as somebody else than the address says.
_ACCOUNT_VARIABLES = ("PGPASSWORD", "PGPASSFILE", "PGUSER", "PGSERVICE", "PGSERVICEFILE")
# What the API takes a second or two to import is imported here meanwhile, in a thread of its own.
_HEAVY = "tenantry.cli.content"


@dataclass
class Started:
    """What there is to tell when the API serves."""

    logins: list[DemoLogin] | None = None
    """None where no demo was made."""
    invitations: dict[str, str] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class Deployment:
    """Everything that one `up` runs. Its processes end with this one, however it ends."""

    def __init__(self, settings: Settings, home: Path, *, lock: DataLock, progress: Progress) -> None:
        self.settings = settings
        self.home = home
        self._lock = lock
        self._progress = progress
        self._servers: list[EmbeddedServer] = []
        self._attended: list[Attended] = []
        self._api: Program | None = None

    def start(self, folder: Path | None, *, demo: bool) -> Started:
        """Start everything, and return when the API answers.

        Raises:
            CommandError: the settings do not go together, or a server of the user's is not there.
            ServerError: something of ours did not start.
        """
        begun = time.monotonic()
        importing = threading.Thread(target=_import_quietly, name="imports", daemon=True)
        importing.start()
        postgres = self._start_servers()
        with self._progress.step("Preparing the database"):
            addresses, owner = asyncio.run(self._addresses(postgres))
            write_addresses(self.home, addresses, owner)
            Keyring.open(self.settings.keyring_path.absolute(), retain=self.settings.keyring_retain)
            # Also where the settings name it, since the processes that need it would not make that one.
            Vault.make(self.settings.vault_path.absolute())
            known = asyncio.run(_has_shared_schema(owner.database_owner_url))
        completed = self.settings.model_copy(
            update={
                "home": self.home,
                "database_url": addresses.database_url,
                "database_owner_url": SecretStr(owner.database_owner_url),
                "redis_url": addresses.redis_url,
            }
        )
        (self.home / "logs").mkdir(mode=0o700, exist_ok=True)
        if known:
            # Nearly all of a start is the API's imports. It may as well begin while the rest is looked after.
            self._api = self._start_api(addresses)
        with self._progress.step("Bringing the shared schema up to date"):
            importing.join()
            content: Any = importlib.import_module(_HEAVY)
            asyncio.run(content.migrate_shared(owner.database_owner_url))
        self._start_provisioner(addresses, owner)
        self._start_worker(addresses)
        if self._api is None:
            self._api = self._start_api(addresses)
        started = Started()
        with self._progress.step("Applying plans and tenants" if folder is None else f"Applying {folder}"):
            applied, started.logins = asyncio.run(content.fill(completed, folder, demo=demo))
        started.invitations = {
            item.slug: item.owner_invitation for item in applied if item.owner_invitation is not None
        }
        if pending := [item.slug for item in applied if item.action == "pending"]:
            self._progress.say(f"Not ready yet: {', '.join(pending)}; see {self.home / 'logs' / 'provisioner.log'}")
        for item in applied:
            if item.reason is not None:
                self._progress.say(f"Not as its file says: {item.slug}: {item.reason}")
        if demo and started.logins is None:
            self._progress.say("This deployment has operators of its own, so no demo users were made.")
        if not demo:
            self._refuse_known_passwords(asyncio.run(content.live_demo_logins(completed)))
        with self._progress.step("Waiting for the API"):
            wait_until_answered(
                self._api, client_host(self.settings.host), self.settings.port, "/health/ready", _READY_TIMEOUT
            )
        started.processes = {server.label.lower(): server.pid for server in self._servers}
        started.processes |= {program.label.lower(): program.pid for program in self._programs()}
        started.seconds = time.monotonic() - begun
        return started

    def watch(self) -> None:
        """Watch over everything, until somebody asks to stop.

        Raises:
            ServerError: a server or the API ended by itself.
        """
        mailbox = Mailbox(self.home / "mail", self._progress)
        while True:
            for server in self._servers:
                if not server.running:
                    raise ServerError(
                        f"{server.label} has ended by itself; {server.log} ends with:\n{server.log_tail()}"
                    )
            if self._api is not None and (code := self._api.ended()) is not None:
                raise ServerError(
                    f"the API has ended by itself with exit code {code}; {self._api.log} ends with:\n"
                    f"{self._api.log_tail()}"
                )
            for attended in self._attended:
                attended.watch()
            mailbox.watch()
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop the API, worker, provisioner and servers, in this order; all of them, whatever happens to one."""
        with contextlib.ExitStack() as stack:
            for server in self._servers:
                stack.callback(self._stopped, server.label, server.stop)
            for program in self._programs():
                stack.callback(self._stopped, f"the {program.label}", program.stop)
        self._servers.clear()
        self._attended.clear()
        self._api = None

    def _stopped(self, label: str, stop: Any) -> None:
        with self._progress.step(f"Stopping {label}"):
            stop()

    def _programs(self) -> list[Program]:
        programs = [attended.program for attended in self._attended]
        return programs if self._api is None else [*programs, self._api]

    def _start_servers(self) -> EmbeddedPostgres | None:
        """The servers that the settings do not name."""
        settings = self.settings
        postgres: EmbeddedPostgres | None = None
        if settings.database_url is None:
            serving = settings.database_connections
            connections = serving + settings.worker_concurrency + 4
            postgres = EmbeddedPostgres(self.home / "postgres", max_connections=max(100, connections + 20))
            self._start_server(postgres)
        if settings.redis_url is None:
            self._start_server(EmbeddedValkey(self.home / "valkey"))
        else:
            with self._progress.step("Looking for Redis"):
                _ping(settings.redis_url, settings.database_connect_timeout)
        return postgres

    def _start_server(self, server: EmbeddedServer) -> None:
        made = "Starting" if server.data_dir.exists() else "Creating and starting"
        with self._progress.step(f"{made} {server.label}"):
            self._servers.append(server)
            server.start()

    async def _addresses(self, postgres: EmbeddedPostgres | None) -> tuple[HomeAddresses, OwnerAddresses]:
        """Where the two kinds of process log in; roles and database are there afterwards."""
        superuser_url = made_from = None
        if postgres is not None:
            passwords = self._passwords()
            made = await make_database(postgres.url(), DATABASE, owner_password=passwords[0], app_password=passwords[1])
            superuser_url = postgres.url(DATABASE)
            await harden(superuser_url)
        else:
            made, made_from = await self._given()
            if not (await read_hardening(made.owner_url)).complete:
                self._progress.say(
                    "The database is not hardened: injected SQL could cross tenants. A superuser can close that: "
                    "`tenantry harden`.",
                    "yellow",
                )
        redis_url = self.settings.redis_url
        if redis_url is None:
            redis_url = next(server.url() for server in self._servers if isinstance(server, EmbeddedValkey))
        return (
            HomeAddresses(database_url=made.app_url, redis_url=redis_url, made_from=made_from),
            OwnerAddresses(database_owner_url=made.owner_url, superuser_url=superuser_url),
        )

    async def _given(self) -> tuple[Addresses, str | None]:
        """The addresses of a server of the user's, and the administrator's that they were made from."""
        url = self.settings.database_url
        assert url is not None  # noqa: S101 - else it is embedded
        account = await account_of(url, timeout=self.settings.database_connect_timeout)
        owner = self.settings.database_owner_url
        if owner is not None:
            if account.is_superuser or account.may_create_roles:
                raise CommandError(
                    f"TENANTRY_DATABASE_URL logs in as {account.role}, which may create roles; beside "
                    f"TENANTRY_DATABASE_OWNER_URL it is the address of {APP_ROLE}",
                    ExitCode.USAGE,
                )
            await account_of(owner.get_secret_value(), timeout=self.settings.database_connect_timeout)
            return Addresses(owner_url=owner.get_secret_value(), app_url=url), None
        if not account.is_administrator:
            raise CommandError(
                f"TENANTRY_DATABASE_URL logs in as {account.role}, which is no administrator that may create roles, so "
                f"TENANTRY_DATABASE_OWNER_URL is needed as well: the address of {OWNER_ROLE}. `tenantry bootstrap` "
                "makes both roles and prints both addresses",
                ExitCode.USAGE,
            )
        database = target_database(url)
        owner_password, app_password = self._passwords()
        made = Addresses(
            owner_url=role_url(url, OWNER_ROLE, owner_password, database),
            app_url=role_url(url, APP_ROLE, app_password, database),
        )
        if not (await logs_in(made.owner_url) and await logs_in(made.app_url)):
            found = await claims(url, database)
            if found.databases or found.sessions:
                users = ", ".join(found.databases) or f"{found.sessions} sessions"
                raise CommandError(
                    f"the server has Tenantry's roles already, with passwords that are not in {self.home}, and they "
                    f"are in use ({users}). Set TENANTRY_DATABASE_URL and TENANTRY_DATABASE_OWNER_URL to their "
                    "addresses; `tenantry bootstrap` gives them new passwords",
                    ExitCode.CONFLICT,
                )
            made = await make_database(url, database, owner_password=owner_password, app_password=app_password)
        if account.is_superuser:
            await harden(with_database(url, database))
        return made, redact_url(url)

    def _passwords(self) -> tuple[str, str]:
        """The owner's and the application's, made once and kept for this user alone."""
        return secret_file(self.home / "owner.password"), secret_file(self.home / "app.password")

    def _environment(self, addresses: HomeAddresses) -> dict[str, str]:
        environment = {
            name: value for name, value in without_owner(os.environ).items() if name not in _ACCOUNT_VARIABLES
        }
        environment |= {
            "TENANTRY_HOME": str(self.home),
            "TENANTRY_DATABASE_URL": addresses.database_url,
            "TENANTRY_REDIS_URL": addresses.redis_url,
        }
        # They run in another folder.
        if self.settings.keyring is not None:
            environment["TENANTRY_KEYRING"] = str(self.settings.keyring.absolute())
        if self.settings.vault_file is not None:
            environment["TENANTRY_VAULT_FILE"] = str(self.settings.vault_file.absolute())
        if self.settings.mail_templates is not None:
            environment["TENANTRY_MAIL_TEMPLATES"] = str(self.settings.mail_templates.absolute())
        if self.settings.mail_url is None:
            # Kept, not sent; with links to where a front-end under development usually is.
            environment["TENANTRY_MAIL_URL"] = (self.home / "mail").as_uri()
            environment.setdefault("TENANTRY_APP_URL", "http://localhost:3000")
        if self.settings.api_url is None and is_loopback(self.settings.host):
            host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
            environment["TENANTRY_API_URL"] = f"http://{host}:{self.settings.port}"
        if not self.settings.outbound_networks and is_loopback(self.settings.host):
            # Whoever tries webhooks has their receiver here. Nobody else can make any.
            environment["TENANTRY_OUTBOUND_NETWORKS"] = "127.0.0.0/8,::1/128"
        return environment

    def _start_api(self, addresses: HomeAddresses) -> Program:
        api = Program(
            "API",
            granian_command(self.settings),
            # Nobody balances here, and whoever ends it waits for it.
            environment=with_shared_metrics(self._environment(addresses), self.settings)
            | {"TENANTRY_SERVE_DRAIN": "0"},
            log=self.home / "logs" / "api.log",
            lock=self._lock,
        )
        api.start()
        return api

    def _start_provisioner(self, addresses: HomeAddresses, owner: OwnerAddresses) -> None:
        # Requests are served without it, only new tenants wait.
        self._attend(
            "provisioner",
            [sys.executable, "-m", "tenantry.cli", "provisioner"],
            self._environment(addresses) | {"TENANTRY_DATABASE_OWNER_URL": owner.database_owner_url},
        )

    def _start_worker(self, addresses: HomeAddresses) -> None:
        # Likewise: only jobs wait.
        self._attend("worker", worker_command(), self._environment(addresses))

    def _attend(self, label: str, command: list[str], environment: dict[str, str]) -> None:
        with self._progress.step(f"Starting the {label}"):
            log = self.home / "logs" / f"{label}.log"
            attended = Attended(
                Program(label, command, environment=environment, log=log, lock=self._lock), self._progress
            )
            self._attended.append(attended)
            attended.start()

    def _refuse_known_passwords(self, logins: list[DemoLogin]) -> None:
        """An earlier start may have made the demo, and this one may listen to the world."""
        if logins and not is_loopback(self.settings.host):
            raise CommandError(
                f"TENANTRY_HOST={self.settings.host} lets others connect, and the demo's passwords, which are known to "
                f"everybody, are still good for {', '.join(login.email for login in logins)}",
                ExitCode.USAGE,
            )


def _import_quietly() -> None:
    # What goes wrong is raised where the module is used.
    with contextlib.suppress(Exception):
        importlib.import_module(_HEAVY)


def _ping(url: str, timeout: float) -> None:
    from redis import Redis, RedisError

    client = Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
    try:
        client.ping()
    except RedisError as error:
        raise CommandError(f"Redis at {redact_url(url)}: {error}", ExitCode.UNAVAILABLE) from None
    finally:
        client.close()


async def _has_shared_schema(owner_url: str) -> bool:
    async with connect(owner_url) as connection:
        return await connection.fetchval("SELECT to_regclass('platform.alembic_version')") is not None
