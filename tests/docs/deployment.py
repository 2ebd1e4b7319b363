"""The deployment that the handbook is tried on: servers of its own, and a shell in which its commands are at home.

`tenantry` is the command line, `psql` and its like are the embedded PostgreSQL's, `redis-cli` speaks to the embedded
Valkey. `kubectl`, `helm` and `docker` have nothing to work on here: theirs are only checked (`tests.docs.outside`).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
from uuid_utils.compat import uuid7

from tenantry.dev.postgres import EmbeddedPostgres
from tenantry.dev.process import Account, GuardedProcess, find_free_port, server_environment, wait_until
from tenantry.dev.valkey import EmbeddedValkey
from tests.docs.blocks import ROOT
from tests.docs.command_server import shim
from tests.docs.handbook import RUN, Block, steps_of
from tests.docs.outside import write_checkers
from tests.docs.shown import missing_of
from tests.servers import temporary_folder

__all__ = ("Deployment",)

OPERATOR = "you@example.com"
PASSWORD = "correct horse battery staple"
# For one block, on a machine that does much else.
_DEADLINE = 400.0
# What the operator of the handbook has set already, in the words of its README, and hashes that are cheap.
_SETTINGS = {
    "TENANTRY_PASSWORD_HASH_TIME_COST": "1",
    "TENANTRY_PASSWORD_HASH_MEMORY_COST": "7168",
    "TENANTRY_WARM_POOL_SIZE": "1",
    "TENANTRY_WARM_POOL_INTERVAL": "0.2",
    # A provisioner that was started a moment ago needs some seconds.
    "TENANTRY_PROVISION_WAIT": "300",
    # There is no balancer that would have to hear of its end.
    "TENANTRY_SERVE_DRAIN": "0",
    "TENANTRY_LOG_LEVEL": "WARNING",
    "TENANTRY_APP_URL": "https://{tenant}.localhost",
}
_POSTGRES = ("psql", "pg_dump", "pg_restore", "pg_isready", "pg_basebackup", "pg_verifybackup", "vacuumdb")


class Deployment:
    """PostgreSQL, Valkey, the processes that commands have started, and the shell's environment."""

    def __init__(self) -> None:
        self._closing = ExitStack()
        self.folder = temporary_folder("tenantry-handbook-")
        self._closing.callback(shutil.rmtree, self.folder)
        self.work = self.folder / "work"
        self.programs = self.folder / "programs"
        for folder in (self.work, self.programs, self.folder / "home"):
            folder.mkdir(mode=0o755)
        self.environment = {
            "PATH": f"{self.programs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.work),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "200",
        }

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(self._closing)
            self._start()
            self._closing = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _start(self) -> None:
        self.postgres = postgres = self._database("postgres")
        valkey = EmbeddedValkey(self.folder / "valkey", persistent=False, delete_with_parent=True)
        valkey.start()
        self._closing.callback(valkey.stop)
        port = find_free_port()
        self.environment |= _SETTINGS | {
            "TENANTRY_HOME": str(self.folder / "home"),
            "TENANTRY_KEYRING": str(self.folder / "home" / "keyring.json"),
            "TENANTRY_VAULT_FILE": str(self.folder / "home" / "vault.json"),
            "TENANTRY_BACKUP_URL": (self.folder / "home" / "backups").as_uri(),
            "TENANTRY_BACKUP_KEY_FILE": str(self.folder / "home" / "backup-keys.json"),
            "TENANTRY_STORAGE_URL": (self.folder / "home" / "storage").as_uri(),
            "TENANTRY_MAIL_URL": (self.folder / "home" / "mail").as_uri(),
            "TENANTRY_PORT": str(port),
            "TENANTRY_API_URL": f"https://localhost:{port}",
            "API": f"http://127.0.0.1:{port}",
        }
        # What somebody who begins has in hand.
        (self.work / "redis.url").write_text(f"{valkey.url()}\n")
        (self.work / "password").write_text(f"{PASSWORD}\n")
        self._name_administrator()
        shutil.copytree(ROOT / "tenants", self.work / "tenants")
        for name in _POSTGRES:
            self._program(name, f'exec {shlex.quote(str(postgres.binary(name)))} "$@"')
        self._program("redis-cli", f'exec {shlex.quote(sys.executable)} {ROOT / "tests/docs/redis_cli.py"} "$@"')
        self._program("python3", f'exec {shlex.quote(sys.executable)} "$@"')
        write_checkers(self.programs)
        self.release("this")

    def _database(self, name: str) -> EmbeddedPostgres:
        server = EmbeddedPostgres(self.folder / name, sync=False, delete_with_parent=True)
        server.start()
        self._closing.callback(server.stop)
        return server

    def _name_administrator(self) -> None:
        self.environment["ADMIN_URL"] = self.postgres.url("tenantry")
        (self.work / "admin.url").write_text(f"{self.environment['ADMIN_URL']}\n")

    def lose_database(self) -> None:
        """The server is gone, and an empty one is there."""
        self.postgres.stop("immediate")
        self.postgres = self._database("another")
        self._name_administrator()

    def _program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def release(self, name: str, migrations: Path | None = None) -> None:
        """From now on `tenantry` is of this release: this one, or that of a folder of migrations."""
        address = self.folder / f"{name}.socket"
        server = GuardedProcess(
            [
                *(sys.executable, "-m", "tests.docs.command_server", str(address), str(self.folder)),
                *([] if migrations is None else [str(migrations)]),
            ],
            log=self.folder / f"{name}.log",
            account=Account("direct"),
            stop_signal=signal.SIGTERM,
            environment=server_environment() | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},
        )
        self._closing.enter_context(server)
        assert wait_until(lambda: address.exists() or server.poll() is not None, _DEADLINE)
        assert server.poll() is None, server.log_tail()
        shim(self.programs / "tenantry", address)

    def shell(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """What a shell makes of it: the first command that fails ends it."""
        after = self.folder / "environment"
        keep = f"trap 'code=$?; env -0 > {shlex.quote(str(after))}; exit $code' EXIT\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", keep + script],
            env=self.environment | environment,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )
        if done.returncode == 0:
            # What is exported holds for the blocks that follow, as it does for whoever reads.
            pairs = (pair.partition("=") for pair in after.read_text().split("\0") if pair)
            self.environment = {name: value for name, _, value in pairs if name not in {"SHLVL", "_", "PWD", "OLDPWD"}}
        return done

    def run(self, block: Block) -> str:
        """Run a block, or nothing where it says so; what went otherwise than the handbook says, or ``."""
        if block.not_run or block.language not in RUN:
            return ""
        for wanted in block.given:
            self.give(wanted)
        for step in steps_of(block):
            done = self.shell(step.script)
            if done.returncode != block.code:
                return f"{block.place} ended with {done.returncode}:\n{step.script}\n{done.stdout}{done.stderr}"
            if missing := missing_of(step.shown, done.stdout + done.stderr):
                return f"{block.place} does not show\n{missing}\nbut\n{done.stdout}{done.stderr}"
        return ""

    def give(self, wanted: str) -> None:
        """Make what a block needs, and set the variable after ` as ` to it."""
        what, _, variable = wanted.partition(" as ")
        name, _, rest = what.partition(" ")
        value = _GIVEN[name](self, *rest.split())
        if variable:
            self.environment[variable] = value

    def tenantry(self, *arguments: str, stdin: str = "") -> Any:
        """What a command answers with `--json`."""
        done = self.shell(f"{shlex.join(('tenantry', *arguments, '--json'))} <<< {shlex.quote(stdin)}")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def serving(self) -> bool:
        """Whether the API answers."""
        try:
            return httpx.get(f"{self.environment['API']}/health/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


def _serving(deployment: Deployment) -> str:
    log = deployment.folder / "serve.log"
    assert wait_until(deployment.serving, _DEADLINE, interval=0.1), log.read_text() if log.exists() else "not started"
    return ""


def _tenant(deployment: Deployment, slug: str, state: str = "active") -> str:
    listed = {tenant["slug"]: tenant["status"] for tenant in deployment.tenantry("tenants", "list")}
    if slug not in listed:
        deployment.tenantry(
            *("tenants", "create", slug, "--name", slug.title(), "--plan", "team", "--wait", "60"),
            *("--owner-email", f"owner@{slug}.example", "--owner-password-stdin"),
            stdin=PASSWORD,
        )
    verb = {"archived": ("archive", "--wait", "60", "--yes"), "deleted": ("delete", "--yes"), "suspended": ("suspend",)}
    if state != "active" and listed.get(slug) != state:
        word, *options = verb[state]
        deployment.tenantry("tenants", word, slug, "--reason", "As the page needs it", *options)
    return slug


def _dead_job(deployment: Deployment) -> str:
    job_id = str(uuid7())
    done = deployment.shell(
        'psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -c "INSERT INTO platform.outbox (id, tenant_id, name, arguments, status,'
        " due, retries, timeout, meta, error, created_at, updated_at)"
        f" SELECT '{job_id}', id, 'forget_old_invitations', '{{}}', 'dead', now(), 3, 60, '{{}}', 'OSError: no route',"
        " now(), now() FROM platform.tenant WHERE slug = 'acme'\""
    )
    assert done.returncode == 0, done.stderr
    return job_id


def _token(deployment: Deployment) -> str:
    answer = httpx.post(
        f"{deployment.environment['API']}/platform/auth/login", json={"email": OPERATOR, "password": PASSWORD}
    )
    answer.raise_for_status()
    token: str = answer.json()["accessToken"]
    return token


def _old_sealing_key(deployment: Deployment) -> str:
    made = deployment.tenantry("keys", "rotate", "--sealing", "--yes")
    deployment.tenantry("keys", "rotate", "--sealing", "--yes")
    key: str = made["kid"]
    return key


def _next_release(deployment: Deployment) -> str:
    from tests.tree import TenantTree

    tree = TenantTree(deployment.folder / f"migrations-{uuid4().hex[:8]}")
    revision = tree.add()
    deployment.release(f"next-{revision}", tree.folder)
    return revision


def _backup(deployment: Deployment) -> str:
    deployment.tenantry("backup", "create", "--all")
    return ""


def _lost_postgresql(deployment: Deployment) -> str:
    deployment.lose_database()
    return ""


_GIVEN: Mapping[str, Callable[..., str]] = {
    "serving": _serving,
    "tenant": _tenant,
    "dead-job": _dead_job,
    "operator-token": _token,
    "old-sealing-key": _old_sealing_key,
    "backup": _backup,
    "lost-postgresql": _lost_postgresql,
    "next-release": _next_release,
}
