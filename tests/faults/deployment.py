"""A deployment as operators run it: granian and a provisioner, each a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tenantry.cli.processes import granian_command
from tenantry.dev.process import Account, GuardedProcess, child_pids, find_free_port, server_environment, wait_until
from tests.databases import OPERATOR_EMAIL, OPERATOR_PASSWORD, Template
from tests.world import PASSWORD, settings_for

__all__ = ("Deployment", "Session", "open_deployment")

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Session:
    """A tenant whose owner is signed in."""

    slug: str
    email: str
    token: str
    id: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Deployment:
    """Processes that serve at `url`."""

    url: str
    api: GuardedProcess
    provisioner: GuardedProcess
    client: httpx.Client
    operator: dict[str, str]
    """The header that carries the operator's token."""

    def workers(self) -> list[int]:
        """The pids of granian's workers, which are forks of it."""
        return [pid for pid in child_pids(self.api.pid) if b"granian" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def is_ready(self) -> bool:
        try:
            return self.client.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def wait_ready(self, seconds: float) -> None:
        if not wait_until(self.is_ready, seconds):
            raise AssertionError(f"not ready within {seconds} s\n{self.api.log_tail(60)}")

    def create_tenant(self, slug: str) -> Session:
        body = {
            "slug": slug,
            "name": slug.title(),
            "plan": "free",
            "ownerEmail": f"owner@{slug}.example",
            "ownerPassword": PASSWORD,
        }
        made = self.client.post("/platform/tenants", json=body, headers=self.operator)
        assert made.status_code in {201, 202}, made.text
        if made.status_code == 202:
            # A machine that has other things to do: the answer says where to look.
            assert wait_until(lambda: self._is_active(slug), 60), self.provisioner.log_tail(60)
        return self.log_in(slug, made.json()["id"])

    def _is_active(self, slug: str) -> bool:
        found = self.client.get(f"/platform/tenants/{slug}", headers=self.operator)
        return bool(found.json()["status"] == "active")

    def log_in(self, slug: str, tenant_id: str = "") -> Session:
        email = f"owner@{slug}.example"
        answer = self.client.post("/api/auth/login", json={"tenant": slug, "email": email, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        return Session(slug, email, answer.json()["accessToken"], tenant_id)


def _environment(addresses: Template, home: Path, overrides: Mapping[str, object]) -> dict[str, str]:
    settings = settings_for(addresses, home)
    found = server_environment() | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "TENANTRY_HOME": str(home),
        "TENANTRY_DATABASE_URL": addresses.app_url,
        "TENANTRY_REDIS_URL": addresses.redis_url,
        "TENANTRY_PASSWORD_HASH_TIME_COST": str(settings.password_hash_time_cost),
        "TENANTRY_PASSWORD_HASH_MEMORY_COST": str(settings.password_hash_memory_cost),
        "TENANTRY_PASSWORD_HASH_PARALLELISM": str(settings.password_hash_parallelism),
        "TENANTRY_LOG_LEVEL": "WARNING",
        "TENANTRY_SERVE_DRAIN": str(settings.serve_drain),
        # Where there is no mail, what sends some is refused.
        "TENANTRY_APP_URL": str(settings.app_url),
        "TENANTRY_API_URL": str(settings.api_url),
        "TENANTRY_MAIL_URL": str(settings.mail_url),
    }
    return found | {f"TENANTRY_{name.upper()}": str(value) for name, value in overrides.items()}


@contextmanager
def open_deployment(addresses: Template, home: Path, **overrides: object) -> Iterator[Deployment]:
    """Start both processes and wait until they serve; whatever happens, both are gone afterwards."""
    port = find_free_port()
    environment = _environment(addresses, home, {"port": port, **overrides})
    settings = settings_for(addresses, home, port=port, **overrides)
    with ExitStack() as stack:

        def start(name: str, command: list[str], **more: str) -> GuardedProcess:
            return stack.enter_context(
                GuardedProcess(
                    command,
                    log=home / f"{name}.log",
                    account=Account("direct"),
                    stop_signal=signal.SIGTERM,
                    environment=environment | more,
                )
            )

        api = start("api", granian_command(settings))
        provisioner = start(
            "provisioner",
            [sys.executable, "-m", "tenantry.cli", "provisioner"],
            TENANTRY_DATABASE_OWNER_URL=addresses.owner_url,
        )
        url = f"http://127.0.0.1:{port}"
        client: Any = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        deployment = Deployment(url, api, provisioner, client, {})
        deployment.wait_ready(30)
        answer = client.post("/platform/auth/login", json={"email": OPERATOR_EMAIL, "password": OPERATOR_PASSWORD})
        assert answer.status_code == 200, answer.text
        deployment.operator = {"Authorization": f"Bearer {answer.json()['accessToken']}"}
        yield deployment
