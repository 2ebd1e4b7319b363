"""The pods' commands, run with the variables and files that the chart gives them, until their probes pass."""

from __future__ import annotations

import asyncio
import base64
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tenantry.dev.process import Account, GuardedProcess, server_environment
from tenantry.kernel.security import Keyring, Vault
from tests.chart.helm import ROOT, render
from tests.chart.rendering import Pod, Rendering
from tests.databases import Template
from tests.jobs.support import empty_redis
from tests.platform.support import eventually

TOKEN = "correct-horse-battery"
PLANS = '[plans.free]\nname = "Free"\n'
ACME = 'name = "Acme"\nplan = "free"\n\n[owner]\nemail = "ann@acme.example"\n'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def values(addresses: Template, redis_url: str, folder: Path) -> dict[str, Any]:
    """The least, with what is secret in it, and a volume for files."""
    Keyring.open(folder / "keyring.json", retain=3600)
    Vault.make(folder / "vault.json")
    secrets = {
        "databaseUrl": addresses.app_url,
        "databaseOwnerUrl": addresses.owner_url,
        "redisUrl": redis_url,
        "keyring": (folder / "keyring.json").read_text(),
        "vault": (folder / "vault.json").read_text(),
        "metricsToken": TOKEN,
    }
    return {
        "listenAddress": "127.0.0.1",
        "config": {"BASE_DOMAIN": "app.example.com", "WARM_POOL_SIZE": 1, "REGISTRY_STALE_AFTER": 2},
        "secrets": {name: {"value": value} for name, value in secrets.items()},
        "storage": {"volume": {"enabled": True}},
        "tenants": {"files": {"plans.toml": PLANS, "acme.toml": ACME}},
    }


class Cluster:
    """Runs the pods of a rendering as processes, with their volumes in folders of `root`."""

    def __init__(self, rendering: Rendering, root: Path) -> None:
        self.rendering = rendering
        self.root = root
        self.ports = {name: free_port() for name in ("api", "worker", "provisioner")}

    async def run(self, pod: Pod) -> str:
        """All containers of a pod that ends, one after the other; what they have printed."""
        return "".join([await self._run_to_end(pod, container) for container in pod.containers()])

    @asynccontextmanager
    async def serving(self, pod: Pod) -> AsyncIterator[None]:
        """A pod that goes on until the block ends; ready when the block begins."""
        *before, container = pod.containers()
        for first in before:
            await self._run_to_end(pod, first)
        process = GuardedProcess(
            self._command(pod, container),
            log=self.root / f"{pod.component}.log",
            account=Account("direct"),
            stop_signal=signal.SIGTERM,
            environment=self._environment(pod, container),
        )
        with process:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                await self._passes(pod, container[probe]["httpGet"])
            yield

    async def _passes(self, pod: Pod, probe: dict[str, str]) -> None:
        async with httpx.AsyncClient() as http:

            async def passes() -> bool:
                try:
                    return (await http.get(f"{self.address(pod.component)}{probe['path']}")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(passes, 60)

    def address(self, component: str) -> str:
        return f"http://127.0.0.1:{self.ports[component]}"

    async def _run_to_end(self, pod: Pod, container: dict[str, Any]) -> str:
        process = await asyncio.create_subprocess_exec(
            *self._command(pod, container),
            env=self._environment(pod, container),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0, f"{pod.name}, {container['name']}: {output.decode()}"
        return output.decode()

    def _command(self, pod: Pod, container: dict[str, Any]) -> list[str]:
        arguments = [self._inside(pod, container, argument) for argument in container["args"]]
        return [sys.executable, "-m", "tenantry.cli", *arguments]

    def _environment(self, pod: Pod, container: dict[str, Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom") or ():
            found |= self.rendering.data("configMapRef", source["configMapRef"]["name"])
        for variable in container["env"]:
            if "value" in variable:
                found[variable["name"]] = self._inside(pod, container, variable["value"])
            else:
                reference = variable["valueFrom"]["secretKeyRef"]
                found[variable["name"]] = self._secret(reference["name"], reference["key"])
        # Each pod has an address of its own, and these share one.
        if pod.component in self.ports:
            found["TENANTRY_PORT" if pod.component == "api" else "TENANTRY_METRICS_PORT"] = str(
                self.ports[pod.component]
            )
        return server_environment() | found | {"PYTHONPATH": str(ROOT / "src")}

    def _secret(self, name: str, key: str) -> str:
        return base64.b64decode(self.rendering.named("Secret", name)["data"][key]).decode()

    def _inside(self, pod: Pod, container: dict[str, Any], text: str) -> str:
        """A path in a volume, as it is on this machine; any other text as it is."""
        for mount in container["volumeMounts"]:
            for prefix in ("", "file://"):
                if text.startswith(prefix + mount["mountPath"]):
                    volume = next(one for one in pod.spec["volumes"] if one["name"] == mount["name"])
                    folder = self._folder(pod, volume)
                    return f"{prefix}{folder}{text.removeprefix(prefix + mount['mountPath'])}"
        return text

    def _folder(self, pod: Pod, volume: dict[str, Any]) -> Path:
        shared = "persistentVolumeClaim" in volume
        folder: Path = self.root / ("shared" if shared else pod.component) / volume["name"]
        if folder.exists():
            return folder
        folder.mkdir(parents=True)
        if "secret" in volume:
            for item in volume["secret"]["items"]:
                path = folder / item["path"]
                path.write_text(self._secret(volume["secret"]["secretName"], item["key"]))
                path.chmod(volume["secret"]["defaultMode"])
        elif "configMap" in volume:
            for name, text in self.rendering.data("configMapRef", volume["configMap"]["name"]).items():
                (folder / name).write_text(text)
        return folder


@pytest.mark.slow
async def test_a_release_is_installed_and_serves_and_makes_what_its_files_declare(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with empty_redis(database_addresses) as redis_url, AsyncExitStack() as stack:
        given = values(database_addresses, redis_url, tmp_path)
        cluster = Cluster(Rendering(render(given)), tmp_path / "cluster")
        pod = cluster.rendering.pod
        assert "The shared schema" in await cluster.run(pod("migrate"))
        for component in ("api", "worker", "provisioner"):
            await stack.enter_async_context(cluster.serving(pod(component)))
        await cluster.run(pod("rollout"))
        applied = await cluster.run(pod("apply"))
        assert "Invitation of acme's owner" in applied
        async with httpx.AsyncClient() as http:
            host = {"Host": "acme.app.example.com"}
            answer = await http.post(
                f"{cluster.address('api')}/api/auth/login",
                json={"email": "ann@acme.example", "password": "not-yet-one-of-hers"},
                headers=host,
            )
            # Of acme, which is there: its owner has not accepted yet.
            assert answer.status_code == 401, answer.text
            for component in cluster.ports:
                address = f"{cluster.address(component)}/metrics"
                assert (await http.get(address)).status_code == 401
                told = await http.get(address, headers={"Authorization": f"Bearer {TOKEN}"})
                assert told.status_code == 200
                assert "tenantry_" in told.text
