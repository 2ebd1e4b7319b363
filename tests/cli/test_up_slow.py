"""`tenantry up`, really."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psutil
import pytest

from tenantry.cli.problems import ExitCode
from tenantry.dev.process import find_free_port, wait_until
from tests.cli.support import CHEAP, OWNER_PASSWORD, answer, program, run
from tests.dev.support import make_postgres, make_valkey, query
from tests.servers import temporary_folder

pytestmark = pytest.mark.slow

DEADLINE = 90.0
Env = dict[str, str]


@pytest.fixture
def env() -> Iterator[Env]:
    home = temporary_folder()
    yield {"TENANTRY_HOME": str(home), "TENANTRY_PORT": str(find_free_port()), **CHEAP}
    shutil.rmtree(home)


class Up:
    """A running `up`, and every process that it has started."""

    def __init__(self, env: Env, *options: str) -> None:
        self.process = program("up", *options, env=env)
        self.told: Any = None
        self.processes: list[psutil.Process] = []

    def __enter__(self) -> Up:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.end()

    def ready(self) -> Up:
        """Wait for the line of JSON that says so."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.end()
        self.told = json.loads(line)
        return self.note()

    def note(self) -> Up:
        self.processes = psutil.Process(self.process.pid).children(recursive=True)
        # PostgreSQL, Valkey, the provisioner, a worker and the API, each with its guard.
        assert len(self.processes) >= 10
        return self

    def read_until(self, text: str) -> str:
        assert self.process.stdout is not None
        read = ""
        while text not in read:
            line = self.process.stdout.readline()
            assert line, read
            read += line
        return read

    def end(self) -> str:
        """Wait for its end; what it had said on stderr."""
        _, stderr = self.process.communicate(timeout=DEADLINE)
        return stderr

    def stop(self, number: signal.Signals) -> str:
        self.process.send_signal(number)
        stderr = self.end()
        assert self.process.returncode == 0, stderr
        assert "Traceback" not in stderr
        # A guard ends when it has seen its server end, which may be a moment after `up` has.
        psutil.wait_procs(self.processes, timeout=5)
        assert not self.left()
        return stderr

    def left(self) -> list[psutil.Process]:
        return [process for process in self.processes if lives(process)]


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        # It ended between the two questions.
        return False


def environ_of(process: psutil.Process) -> str:
    return Path(f"/proc/{process.pid}/environ").read_text()


def paste(command: str) -> Any:
    """What a command prints that somebody pastes into a shell."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def log_in(told: Any, login: Any) -> httpx.Response:
    body = {"email": login["email"], "password": login["password"]}
    if login["organization"] is None:
        return httpx.post(f"{told['api']}/platform/auth/login", json=body)
    return httpx.post(f"{told['api']}/api/auth/login", json=body | {"tenant": login["organization"]})


def test_one_command_serves_two_organizations_and_leaves_nothing_behind(env: Env) -> None:
    home = Path(env["TENANTRY_HOME"])
    only_home = {"TENANTRY_HOME": str(home), **CHEAP}
    with Up(env, "--json") as up:
        told = up.ready().told
        assert {login["organization"] for login in told["logins"]} == {"acme", "globex", None}
        for login in told["logins"]:
            assert log_in(told, login).status_code == 200, login
        assert httpx.get(told["documentation"], follow_redirects=True).status_code == 200
        assert "accessToken" in paste(told["commands"][0])
        assert paste(told["commands"][1])["total"] == 3

        owner_password = (home / "owner.password").read_text().strip()
        api = psutil.Process(told["processes"]["api"])
        serving = [api, *api.children(recursive=True), *filter(None, [api.parent()])]
        assert len(serving) >= 3
        for process in serving:
            assert "tenantry_app" in environ_of(process)
            assert owner_password not in environ_of(process)
            assert "tenantry_owner" not in environ_of(process)
        assert owner_password in environ_of(psutil.Process(told["processes"]["provisioner"]))
        assert owner_password not in " ".join(argument for process in up.processes for argument in process.cmdline())

        # The other commands find it by its home.
        tenants = answer(run("tenants", "list", "--json", env=only_home))
        assert [(tenant["slug"], tenant["status"]) for tenant in tenants] == [("acme", "active"), ("globex", "active")]
        assert answer(run("harden", "--check", "--json", env=only_home))["complete"] is True
        assert run("up", env=env | {"TENANTRY_PORT": str(find_free_port())}).exit_code == ExitCode.CONFLICT
        assert run("reset", "--yes", env=only_home).exit_code == ExitCode.CONFLICT
        assert run("keys", "rotate", "--yes", env=only_home).exit_code == 0
        # Made before anything was sealed, so that API and worker have the same one.
        assert answer(run("keys", "rotate", "--sealing", "--yes", "--json", env=only_home))["use"] == "seals"

        # A provisioner that dies is started again.
        psutil.Process(told["processes"]["provisioner"]).kill()
        arguments = ["--name", "New", "--plan", "free", "--owner-email", "n@new.example", "--owner-password-stdin"]
        made = run("tenants", "create", "new", *arguments, "--wait", "60", env=only_home, stdin=OWNER_PASSWORD)
        assert made.exit_code == 0
        up.note()
        stderr = up.stop(signal.SIGINT)
        assert "Creating and starting PostgreSQL" in stderr
        assert "the provisioner has ended" in stderr.lower()
        order = re.findall(r"Stopping (?:the )?(\w+)", stderr)
        assert order == ["API", "worker", "provisioner", "Valkey", "PostgreSQL"]

    # Again, as a person reads it: the same data, and lines that can be pasted as they stand.
    with Up(env) as up:
        read = up.read_until("Ctrl-C stops everything")
        up.note()
        pasted = [line for line in read.splitlines() if line.startswith(("curl ", "TOKEN="))]
        assert "accessToken" in paste(pasted[0])
        assert paste(pasted[1])["total"] == 3
        after = answer(run("tenants", "list", "--json", env=only_home))
        assert [row["id"] for row in after if row["slug"] != "new"] == [row["id"] for row in tenants]
        up.process.kill()
        assert wait_until(lambda: not up.left(), DEADLINE)
        up.end()

    # At once, while the rest of a killed one may still be ending.
    with Up(env, "--json") as up:
        up.ready()
        up.process.kill()
        up.process.wait()
        with Up(env, "--json") as next_up:
            assert log_in(next_up.ready().told, next_up.told["logins"][0]).status_code == 200
            assert not up.left()
            # An API that dies stops it all, with a reason.
            psutil.Process(next_up.told["processes"]["api"]).kill()
            stderr = next_up.end()
            assert next_up.process.returncode == ExitCode.FAILED
            assert "the API has ended by itself with exit code 137" in stderr
            assert not next_up.left()
        up.end()

    assert run("reset", "--yes", env=only_home).exit_code == 0
    assert not home.exists()
    home.mkdir()


def test_servers_of_ones_own_are_used_instead(env: Env) -> None:
    folder, home = temporary_folder(), Path(env["TENANTRY_HOME"])
    with make_postgres(folder) as postgres, make_valkey(folder) as valkey:
        admin_url = postgres.url("product")
        env |= {"TENANTRY_DATABASE_URL": admin_url, "TENANTRY_REDIS_URL": valkey.url()}
        with Up(env, "--json", "--no-demo") as up:
            assert up.process.stdout is not None
            told = json.loads(up.process.stdout.readline())
            assert (told["logins"], set(told["invitations"])) == ([], {"acme", "globex"})
            assert set(told["processes"]) == {"provisioner", "worker", "api"}
            assert not (home / "postgres").exists()
            api = psutil.Process(told["processes"]["api"])
            for process in (api, *api.children(recursive=True)):
                assert postgres.password not in environ_of(process)
            # The shell in which it was started names the administrator; the other commands know better.
            assert len(answer(run("tenants", "list", "--json", env=env))) == 2
            assert postgres.password not in (home / "addresses.json").read_text()
            up.stop(signal.SIGTERM)
        assert query(admin_url, "SELECT count(*) FROM pg_database WHERE datname = 'product'") == 1
        owner = query(admin_url, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'product'")
        assert owner == "tenantry_owner"

        # Without operators of its own, it may have the demo; the invited owners get its passwords.
        with Up(env, "--json") as up:
            assert up.process.stdout is not None
            told = json.loads(up.process.stdout.readline())
            assert log_in(told, told["logins"][0]).status_code == 200
            # Which are then good for this machine alone.
            up.stop(signal.SIGTERM)
        with Up(env | {"TENANTRY_HOST": "0.0.0.0"}, "--no-demo") as up:
            stderr = up.end()
            assert up.process.returncode == ExitCode.USAGE
            assert "ann@acme.example" in stderr

        # With new passwords for the roles, from another home: both addresses are needed, and enough.
        made = run("bootstrap", "--admin-url-stdin", "--yes", "--json", stdin=admin_url)
        addresses = answer(made)
        assert addresses["databaseUrl"].endswith("/product")
        assert quote(postgres.password) not in made.output
        both = env | {
            "TENANTRY_HOME": str(home / "other"),
            "TENANTRY_DATABASE_URL": addresses["databaseUrl"],
            "TENANTRY_DATABASE_OWNER_URL": addresses["databaseOwnerUrl"],
        }
        with Up(both, "--json") as up:
            assert up.process.stdout is not None
            told = json.loads(up.process.stdout.readline())
            assert log_in(told, told["logins"][0]).status_code == 200
            stderr = up.stop(signal.SIGTERM)
            assert urlsplit(addresses["databaseOwnerUrl"]).password not in stderr + json.dumps(told)
    shutil.rmtree(folder)
