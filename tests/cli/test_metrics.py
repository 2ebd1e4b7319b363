"""A worker and a provisioner, run as they are deployed: metrics for who knows the token, health for everybody."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from tenantry.dev.process import Account, GuardedProcess, server_environment
from tests.databases import Template
from tests.jobs.support import empty_redis
from tests.platform.support import eventually
from tests.world import environment_for

_ROOT = Path(__file__).parents[2]
_TOKEN = "correct-horse-battery"
_EXPECTED = {
    "worker": ("tenantry_jobs_running 0.0", "tenantry_registry_age_seconds 0.", 'pool="tenantry-worker"'),
    "provisioner": ("tenantry_outbox_lag_seconds 0.0", "tenantry_warm_schemas 0.0", 'pool="tenantry-owner"'),
}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("command", ["worker", "provisioner"])
async def test_a_process_tells_metrics_and_health(database_addresses: Template, tmp_path: Path, command: str) -> None:
    port = _free_port()
    async with empty_redis(database_addresses) as redis_url, httpx.AsyncClient() as http:
        environment = environment_for(
            database_addresses, tmp_path, redis_url=redis_url, metrics_port=port, metrics_token=_TOKEN
        )
        if command == "worker":
            del environment["TENANTRY_DATABASE_OWNER_URL"]
        process = GuardedProcess(
            [sys.executable, "-m", "tenantry.cli", command],
            log=tmp_path / "process.log",
            account=Account("direct"),
            stop_signal=signal.SIGTERM,
            environment=server_environment() | environment | {"PYTHONPATH": str(_ROOT / "src")},
        )

        async def scraped() -> str:
            try:
                answer = await http.get(
                    f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {_TOKEN}"}
                )
            except httpx.TransportError:
                return ""
            # Until it has looked once.
            return answer.text if all(expected in answer.text for expected in _EXPECTED[command]) else ""

        with process:
            assert "process_start_time_seconds" in await eventually(scraped, 60)
            assert (await http.get(f"http://127.0.0.1:{port}/metrics")).status_code == 401

            async def ready() -> bool:
                return (await http.get(f"http://127.0.0.1:{port}/health/ready")).status_code == 200

            assert await eventually(ready, 30)
            assert (await http.get(f"http://127.0.0.1:{port}/health/live")).text == "ok\n"
