from __future__ import annotations

import http.client
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis

from tenantry.dev.process import child_pids, find_free_port, wait_until
from tests.cli.support import OWNER_PASSWORD, answer, program, run
from tests.databases import Template
from tests.jobs.support import job_redis_url

DEADLINE = 60.0
Env = dict[str, str]


@contextmanager
def running(*arguments: str, env: Env) -> Iterator[subprocess.Popen[str]]:
    with program(*arguments, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def environ_of(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text()


def test_the_provisioner_makes_tenants_until_it_is_told_to_stop(env: Env, database_addresses: Template) -> None:
    with running("provisioner", env=env | {"TENANTRY_DATABASE_OWNER_URL": database_addresses.owner_url}) as process:
        arguments = ["--name", "Acme", "--plan", "free", "--owner-email", "ann@acme.example", "--owner-password-stdin"]
        made = run("tenants", "create", "acme", *arguments, "--wait", "60", "--json", env=env, stdin=OWNER_PASSWORD)
        assert answer(made)["done"] is True
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert stdout == ""
    assert "operation done" in stderr
    assert str(urlsplit(database_addresses.owner_url).password) not in stderr


def test_the_provisioner_needs_the_owner(env: Env) -> None:
    result = run("provisioner", env=env)
    assert result.exit_code == 2
    assert "TENANTRY_DATABASE_OWNER_URL: expected an address" in result.stderr


def test_serving_answers_and_does_not_know_the_owner(env: Env, database_addresses: Template) -> None:
    port = find_free_port()
    owner_url = database_addresses.owner_url.replace("tenantry_owner:", "tenantry_owner:owners-own-")
    with running("serve", env=env | {"TENANTRY_PORT": str(port), "TENANTRY_DATABASE_OWNER_URL": owner_url}) as process:
        assert wait_until(lambda: ready(port) or process.poll() is not None, DEADLINE)
        assert process.poll() is None
        assert "tenantry_app" in environ_of(process.pid)
        assert "tenantry_owner" not in environ_of(process.pid)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, stderr


def test_a_worker_works_until_it_is_told_to_stop_and_does_not_know_the_owner(
    env: Env, database_addresses: Template
) -> None:
    url = job_redis_url()
    with Redis.from_url(url) as redis:
        redis.flushdb()
    env |= {"TENANTRY_REDIS_URL": url}
    owner_url = database_addresses.owner_url.replace("tenantry_owner:", "tenantry_owner:owners-own-")

    def workers() -> int:
        return len(answer(run("jobs", "stats", "--json", env=env))["workers"])

    with running("worker", env=env | {"TENANTRY_DATABASE_OWNER_URL": owner_url}) as process:
        assert wait_until(lambda: workers() == 1 or process.poll() is not None, DEADLINE)
        assert process.poll() is None
        pids = [process.pid, *child_pids(process.pid)]
        assert len(pids) == 2
        for pid in pids:
            assert "tenantry_app" in environ_of(pid)
            assert "tenantry_owner" not in environ_of(pid)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, stderr
    assert stdout == ""
    assert "worker ended" in stderr
    assert "Traceback" not in stderr
    assert "owners-own-" not in stderr


@pytest.mark.parametrize("moment", ["before it knows how", "as it begins"])
def test_a_worker_that_is_stopped_while_it_starts_ends_in_order(
    env: Env, database_addresses: Template, moment: str
) -> None:
    env |= {"TENANTRY_REDIS_URL": job_redis_url()}
    with running("worker", env=env) as process:

        def listens() -> bool:
            """Whether it handles SIGTERM (proc(5), SigCgt)."""
            caught = Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:")[2].split()[0]
            return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))

        assert wait_until(listens, DEADLINE)
        if moment == "as it begins":
            assert process.stderr is not None
            while "worker started" not in process.stderr.readline():
                assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
