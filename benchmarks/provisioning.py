"""Making organizations: from the warm pool, without one beside the same SQL through plain psql, and many at once.

All of it through the API, over kept-alive connections, with the owner invited by mail, so that no password is hashed.
The provisioner is a process of its own as in a deployment, and refills its pool while organizations are taken from it.
What was made is removed at the end.
"""

from __future__ import annotations

import asyncio
import http.client
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table

from benchmarks.deployment import DATABASE, Deployment, open_deployment
from benchmarks.progress import show_progress
from benchmarks.servers import ServerFailed, serve
from tenantry.kernel.security import AUDIENCE_PLATFORM, Keyring, Tokens
from tenantry.platform.provisioning.schema import creation_script, drop_schemas
from tenantry.tenancy.bootstrap import OWNER_ROLE, with_credentials
from tenantry.tenancy.connection import DriverConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.run import Progress

__all__ = ("Provisioning", "measure_provisioning", "table")

WARM_P50_AIM, WARM_P99_AIM = 10.0, 50.0
"""Milliseconds."""
COLD_AIM = 1.3
"""Times what psql takes."""

_POOL = 32
_POOL_LIMIT = 120.0
_DROPPED_AT_ONCE = 20

_OPERATOR = """
INSERT INTO platform.operator (id, email, hashed_password, role, is_active, created_at, updated_at)
     VALUES (uuidv7(), $1, '$argon2id$never', 'owner', true, now(), now()) RETURNING id
"""


class Provisioning(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; times in milliseconds, in the order in which they were taken."""

    tenants: int
    """That were there before."""
    warm: list[float]
    cold: list[float]
    script: list[float]
    """The same SQL through psql, in turn with `cold`; by the server's clock, from before BEGIN to after COMMIT."""
    script_process: list[float]
    """The same with psql's start and log-in."""
    at_once: list[float]
    at_once_seconds: float

    @property
    def cold_ratio(self) -> float:
        """How long a cold creation takes, as a multiple of the script's time; the median of the pairs."""
        return statistics.median(ours / theirs for ours, theirs in zip(self.cold, self.script, strict=True))

    @property
    def cold_process_ratio(self) -> float:
        """The same as a multiple of psql's whole run, its start and log-in included."""
        return statistics.median(ours / theirs for ours, theirs in zip(self.cold, self.script_process, strict=True))


def measure_provisioning(
    deployment: Deployment,
    *,
    creations: int = 200,
    pairs: int = 15,
    at_once: int = 100,
    progress: Progress = lambda *_: None,
) -> Provisioning:
    """Measure on a deployment, and leave it as it was.

    Raises:
        ServerFailed: a creation was not answered with 201, or a process did not come up.
        subprocess.CalledProcessError: psql failed.
    """
    site = _Site(deployment)
    try:
        step = "Creating organizations"
        with site.serve() as port:
            with site.provisioner(_POOL):
                warm = site.warm(port, creations, lambda done: progress(f"{step} (warm)", done, creations))
            with site.provisioner(0):
                cold, script, process = site.cold(port, pairs, lambda done: progress(f"{step} (cold)", done, pairs))
            with site.provisioner(8):
                progress(f"{step} (at once)", 0, 1)
                times, seconds = site.burst(port, at_once)
                progress(f"{step} (at once)", 1, 1)
    finally:
        asyncio.run(site.put_back())
    return Provisioning(
        tenants=deployment.manifest.tenants,
        warm=warm,
        cold=cold,
        script=script,
        script_process=process,
        at_once=times,
        at_once_seconds=seconds,
    )


class _Site:
    """A server, a provisioner and an operator."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._admin_url = deployment.postgres.url(DATABASE)
        self._owner_url = with_credentials(
            self._admin_url, user=OWNER_ROLE, password=deployment.manifest.owner_password
        )
        self._run = uuid4().hex[:8]
        self._operator, operator_id = self._sign_in()
        self._operator_id = operator_id
        self._number = 0
        self._scripts: list[UUID] = []

    def _sign_in(self) -> tuple[str, UUID]:
        operator_id: UUID = self._ask(_OPERATOR, f"{self._run}@bench.example")
        settings = self._deployment.settings()
        tokens = Tokens(Keyring.open(settings.keyring_path, retain=settings.keyring_retain), settings.token_issuer)
        token, _ = tokens.issue(audience=AUDIENCE_PLATFORM, sub=operator_id, ttl=settings.keyring_retain)
        return token, operator_id

    def _ask(self, question: str, *values: object) -> Any:
        async def work() -> Any:
            connection = await asyncpg.connect(self._admin_url)
            try:
                return await connection.fetchval(question, *values)
            finally:
                await connection.close()

        return asyncio.run(work())

    @contextmanager
    def serve(self) -> Iterator[int]:
        environment = self._deployment.environment(log_level="INFO")
        with serve(
            "product", environment, folder=self._deployment.home, ready=("/platform/tenants", self._operator)
        ) as server:
            yield server.port

    @contextmanager
    def provisioner(self, pool: int) -> Iterator[None]:
        """Run one until the block ends; the pool is as large as it is to be when the block begins."""
        log = self._deployment.home / "provisioner.log"
        environment = self._deployment.environment(log_level="INFO") | {
            "TENANTRY_DATABASE_OWNER_URL": self._owner_url,
            "TENANTRY_WARM_POOL_SIZE": str(pool),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tenantry.cli", "provisioner"],
                env=environment | {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            self.wait_for_pool(pool, process, log)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_for_pool(self, size: int, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + _POOL_LIMIT
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%tenantry_operation%'"
        while self._ask("SELECT count(*) FROM platform.warm_schema") != size or not self._ask(listening):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"the provisioner does not fill its pool: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def create(self, connection: http.client.HTTPConnection, slug: str) -> float:
        """Milliseconds that one creation took.

        Raises:
            ServerFailed: it was not answered with 201.
        """
        body = {"slug": slug, "name": slug, "plan": "team", "ownerEmail": f"owner@{slug}.example"}
        headers = {"Authorization": f"Bearer {self._operator}", "Content-Type": "application/json"}
        encoded = msgspec.json.encode(body)
        begun = time.perf_counter()
        connection.request("POST", "/platform/tenants", encoded, headers)
        answer = connection.getresponse()
        text = answer.read()
        took = (time.perf_counter() - begun) * 1000
        if answer.status != 201:
            raise ServerFailed(f"creating an organization was answered {answer.status}: {text[:1000]!r}")
        return took

    def _slug(self) -> str:
        self._number += 1
        return f"bench-{self._run}-{self._number}"

    def warm(self, port: int, count: int, tell: Callable[[int], None]) -> list[float]:
        """One after the other, in bursts of half the pool, each when the pool is full again."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        taken: list[float] = []
        while len(taken) < count:
            tell(len(taken))
            self._fill(_POOL)
            taken += [self.create(connection, self._slug()) for _ in range(min(_POOL // 2, count - len(taken)))]
        tell(count)
        connection.close()
        return taken

    def _fill(self, size: int) -> None:
        deadline = time.monotonic() + _POOL_LIMIT
        while self._ask("SELECT count(*) FROM platform.warm_schema") != size:
            if time.monotonic() > deadline:
                raise ServerFailed("the provisioner does not fill its pool")
            time.sleep(0.1)

    def cold(self, port: int, pairs: int, tell: Callable[[int], None]) -> tuple[list[float], list[float], list[float]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        cold, script, process = [], [], []
        self.create(connection, self._slug())  # the provisioner's first, for which it makes the reference
        self._run_script()
        for number in range(pairs):
            tell(number)
            if number % 2:
                cold.append(self.create(connection, self._slug()))
            inside, outside = self._run_script()
            script.append(inside)
            process.append(outside)
            if not number % 2:
                cold.append(self.create(connection, self._slug()))
        tell(pairs)
        connection.close()
        return cold, script, process

    def _run_script(self) -> tuple[float, float]:
        tenant_id = uuid4()
        clock = "SELECT extract(epoch FROM clock_timestamp()) * 1000;\n"
        self._scripts.append(tenant_id)
        with tempfile.NamedTemporaryFile("w", suffix=".sql", dir=self._deployment.home) as file:
            file.write(f"{clock}BEGIN;\n{creation_script([tenant_id])}\nCOMMIT;\n{clock}")
            file.flush()
            begun = time.perf_counter()
            ran = subprocess.run(
                [
                    str(self._deployment.postgres.binary("psql")),
                    "-X",
                    "-q",
                    "-A",
                    "-t",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-d",
                    self._owner_url,
                    "-f",
                    file.name,
                ],
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
            )
            took = (time.perf_counter() - begun) * 1000
        said = ran.stdout.split()  # Alembic's script answers something in between
        return float(said[-1]) - float(said[0]), took

    def burst(self, port: int, count: int) -> tuple[list[float], float]:
        """All at once, each on a connection of its own; and the seconds until the last one was answered."""

        def one(slug: str) -> float:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                return self.create(connection, slug)
            finally:
                connection.close()

        slugs = [self._slug() for _ in range(count)]
        with ThreadPoolExecutor(count) as threads:
            begun = time.perf_counter()
            times = list(threads.map(one, slugs))
            return times, time.perf_counter() - begun

    async def put_back(self) -> None:
        """Remove what was made."""
        connection: DriverConnection = await asyncpg.connect(self._admin_url, connection_class=DriverConnection)
        try:
            ours = "slug LIKE 'bench-' || $1 || '-%'"
            gone = [
                record["id"]
                for record in await connection.fetch(
                    f"SELECT id FROM platform.tenant WHERE {ours} UNION ALL SELECT id FROM platform.warm_schema",
                    self._run,
                )
            ]
            schemas = [one for one in (*gone, *self._scripts) if await _exists(connection, one)]
            for start in range(0, len(schemas), _DROPPED_AT_ONCE):
                async with connection.transaction():
                    await drop_schemas(connection, schemas[start : start + _DROPPED_AT_ONCE])
            async with connection.transaction():
                await connection.execute("DELETE FROM platform.warm_schema WHERE id = ANY($1)", gone)
                await connection.execute("DELETE FROM platform.operation WHERE tenant_id = ANY($1)", gone)
                await connection.execute("DELETE FROM platform.audit_entry WHERE tenant_id = ANY($1)", gone)
                await connection.execute("DELETE FROM platform.tenant WHERE id = ANY($1)", gone)
                await connection.execute("DELETE FROM platform.operator WHERE id = $1", self._operator_id)
        finally:
            await connection.close()


async def _exists(connection: DriverConnection, tenant_id: UUID) -> bool:
    return bool(await connection.fetchval("SELECT to_regnamespace('t_' || $1) IS NOT NULL", tenant_id.hex))


def table(found: Provisioning) -> Table:
    """The result for people."""
    shown = Table(title="Creating organizations", title_justify="left", header_style="bold")
    shown.add_column(f"Beside {found.tenants:,} others, the owner invited by mail")
    for name in ("count", "p50 ms", "p99 ms", "ratio", "aim"):
        shown.add_column(name, justify="right")

    def row(title: str, times: list[float], ratio: str, *aims: tuple[str, bool]) -> None:
        verdict = ", ".join(
            f"[{'green' if done else 'yellow'}]{aim} {'reached' if done else 'missed'}[/]" for aim, done in aims
        )
        middle, high = (f"{_percentile(times, share):.1f}" for share in (0.5, 0.99))
        shown.add_row(title, str(len(times)), middle, high, ratio, verdict)

    p50, p99 = _percentile(found.warm, 0.5), _percentile(found.warm, 0.99)
    row(
        "POST /platform/tenants, warm",
        found.warm,
        "",
        (f"p50 {WARM_P50_AIM:g}", p50 <= WARM_P50_AIM),
        (f"p99 {WARM_P99_AIM:g}", p99 <= WARM_P99_AIM),
    )
    ratio = found.cold_ratio
    row("… without a pool", found.cold, f"{ratio:.2f}", (f"{COLD_AIM:g} times psql", ratio <= COLD_AIM))
    row("plain psql, the same SQL, by the server's clock", found.script, "1")
    row(f"… with psql's start and log-in; ours is {found.cold_process_ratio:.2f} times that", found.script_process, "")
    row(f"all at once, in {found.at_once_seconds:.1f} s; a pool of 8", found.at_once, "", ("all 201", True))
    return shown


def _percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(int(len(times) * share), len(times) - 1)]


@click.command(epilog="Example: python -m benchmarks.provisioning --tenants 100 --creations 50")
@click.option("--tenants", type=click.IntRange(min=1), default=1000, show_default=True, help="How many are there.")
@click.option("--creations", type=click.IntRange(min=1), default=200, show_default=True, help="From the warm pool.")
@click.option("--pairs", type=click.IntRange(min=1), default=15, show_default=True, help="Without it, beside psql.")
@click.option("--at-once", type=click.IntRange(min=1), default=100, show_default=True, help="At the same moment.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="As for `python -m benchmarks`.")
@click.option("--quiet", is_flag=True, help="No progress.")
def main(tenants: int, creations: int, pairs: int, at_once: int, home: Path | None, quiet: bool) -> None:
    """Measure the making of organizations alone."""
    with show_progress(quiet=quiet) as tell, open_deployment(home, tenants, tell) as deployment:
        found = measure_provisioning(deployment, creations=creations, pairs=pairs, at_once=at_once, progress=tell)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table(found))
    console.print_json(msgspec.json.encode(found).decode(), indent=None)


if __name__ == "__main__":
    main()
