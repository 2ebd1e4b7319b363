"""Our side: the product as it is deployed, two serving processes and a provisioner, and its command line."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import httpx

from benchmarks.deployment import DATABASE, Deployment, open_deployment
from benchmarks.load import write_requests
from benchmarks.peers.shape import (
    PEER_SHAPE,
    Shape,
    add_revision,
    column_revision,
    copy_migrations,
    filler_revision,
    read_shape,
    shape_of,
    use_migrations,
)
from benchmarks.servers import GRANIAN_OPTIONS, Server, ServerFailed, launch
from tenantry.dev.process import find_free_port
from tenantry.features import TENANT_METADATA
from tenantry.kernel.security import AUDIENCE_PLATFORM, Keyring, Tokens
from tenantry.tenancy.bootstrap import with_credentials
from tenantry.tenancy.migrations import head
from tenantry.tenancy.models import schema_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ("GRANIAN", "Ours", "open_ours")

_WORKERS = GRANIAN_OPTIONS.index("--workers") + 1
GRANIAN = (*GRANIAN_OPTIONS[:_WORKERS], "2", *GRANIAN_OPTIONS[_WORKERS + 1 :])

_ROOT = Path(__file__).parents[2]
_MIGRATE_LIMIT = 900.0
_POOL_LIMIT = 120.0

_OPERATOR = """
INSERT INTO platform.operator (id, email, hashed_password, role, is_active, created_at, updated_at)
     VALUES (uuidv7(), 'operator@bench.example', '$argon2id$never', 'owner', true, now(), now()) RETURNING id
"""


class Ours:
    """A running deployment of the product."""

    def __init__(self, deployment: Deployment, migrations: Path, revision: str, log_level: str) -> None:
        self.deployment = deployment
        self._migrations = migrations
        self._revision = revision
        self._admin_url = deployment.postgres.url(DATABASE)
        self._log_level = log_level
        self._operator = asyncio.run(self._add_operator())

    async def _add_operator(self) -> str:
        connection = await asyncpg.connect(self._admin_url)
        try:
            operator = await connection.fetchval(_OPERATOR)
        finally:
            await connection.close()
        settings = self.deployment.settings()
        tokens = Tokens(Keyring.open(settings.keyring_path, retain=settings.keyring_retain), settings.token_issuer)
        return tokens.issue(audience=AUDIENCE_PLATFORM, sub=operator, ttl=settings.keyring_retain)[0]

    def _environment(self, settings: Mapping[str, object], *, owner: bool = False) -> dict[str, str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TENANTRY_")},
            **self.deployment.environment(log_level=self._log_level),
            "BENCH_MIGRATIONS": str(self._migrations),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH")))),
        }
        if owner:
            environment["TENANTRY_DATABASE_OWNER_URL"] = with_credentials(
                self._admin_url, user="tenantry_owner", password=self.deployment.manifest.owner_password
            )
        return environment | {f"TENANTRY_{name.upper()}": str(value) for name, value in settings.items()}

    def requests(self, teams: int) -> Path:
        """A file of requests: of each tenant, `teams` different ones."""
        callers = self.deployment.manifest.callers
        targets = []
        for number, (caller, token) in enumerate(zip(callers, self.deployment.tokens(callers), strict=True)):
            for step in range(teams):
                team = caller.teams[(number + step * len(caller.teams) // teams) % len(caller.teams)]
                targets.append((f"/api/teams/{team}", token))
        path = write_requests(self.deployment.home / "ours.requests", targets, host="localhost")
        path.chmod(0o600)
        return path

    @contextmanager
    def serve(self, **settings: object) -> Iterator[Server]:
        """Serve by two processes."""
        port = find_free_port()
        command = [sys.executable, "-m", "granian", *GRANIAN, "--port", str(port)]
        command.append("benchmarks.peers.tenantry_app:create")
        caller = self.deployment.manifest.callers[0]
        ready = f"/api/teams/{caller.teams[0]}", self.deployment.tokens((caller,))[0], None
        environment = self._environment(settings)
        with launch("ours", command, environment, port=port, folder=self.deployment.home, ready=ready) as server:
            yield server

    def check(self, server: Server) -> None:
        """See once that it answers what it should.

        Raises:
            ServerFailed: it does not.
        """
        caller = self.deployment.manifest.callers[0]
        answer = server.get(f"/api/teams/{caller.teams[0]}", self.deployment.tokens((caller,))[0])
        if answer.status_code != 200 or answer.json()["id"] != str(caller.teams[0]) or not answer.json()["tags"]:
            raise ServerFailed(f"{server.name} answered {answer.status_code} {answer.text[:500]}")

    @contextmanager
    def provision(self, *, pool: int) -> Iterator[None]:
        """Run a provisioner with a warm pool of that size."""
        log = self.deployment.home / f"provisioner-{pool}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.peers.tenantry_cli", "provisioner"],
                env=self._environment({"warm_pool_size": pool}, owner=True),
                stdout=errors,
                stderr=errors,
                cwd=_ROOT,
            )
        try:
            yield
            if process.poll() is not None:
                raise ServerFailed(f"the provisioner has ended: {log.read_text(errors='replace')[-2000:]}")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_for_pool(self, size: int) -> None:
        """Wait until the warm pool is full.

        Raises:
            ServerFailed: it does not fill.
        """
        asyncio.run(self._wait_for_pool(size))

    async def _wait_for_pool(self, size: int) -> None:
        connection = await asyncpg.connect(self._admin_url)
        deadline = time.monotonic() + _POOL_LIMIT
        try:
            while (ready := await connection.fetchval("SELECT count(*) FROM platform.warm_schema")) < size:
                if time.monotonic() > deadline:
                    raise ServerFailed(f"the warm pool has {ready} of {size} schemas after {_POOL_LIMIT:.0f} s")
                await asyncio.sleep(0.1)
        finally:
            await connection.close()

    def make_tenant(self, http: httpx.Client, slug: str) -> float:
        """Seconds that the API took; the owner is invited by mail.

        Raises:
            ServerFailed: it answered something else than 201.
        """
        body = {"slug": slug, "name": slug, "plan": "team", "ownerEmail": f"owner@{slug}.example"}
        headers = {"Authorization": f"Bearer {self._operator}"}
        started = time.perf_counter()
        answer = http.post("/platform/tenants", json=body, headers=headers)
        seconds = time.perf_counter() - started
        if answer.status_code != 201:
            raise ServerFailed(f"creating a tenant was answered with {answer.status_code}: {answer.text[:1000]}")
        return seconds

    def add_revision(self, number: int) -> None:
        """Add a revision to the tenants' tree: one column, one index."""
        revision, source = column_revision(number, after=self._revision)
        add_revision(self._migrations, revision, source)
        self._revision = revision

    def migrate(self) -> float:
        """Migrate all tenants; the command's seconds, start included.

        Raises:
            ServerFailed: it did not end with 0.
        """
        started = time.perf_counter()
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.peers.tenantry_cli", "migrate", "tenants", "--yes", "--json"],
            env=self._environment({}, owner=True),
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=_MIGRATE_LIMIT,
        )
        seconds = time.perf_counter() - started
        if ran.returncode != 0:
            raise ServerFailed(f"migrate tenants ended with {ran.returncode}: {ran.stderr[-2000:]}{ran.stdout[-2000:]}")
        return seconds

    async def count_tenants(self) -> int:
        """Tenants that are there to be migrated."""
        connection = await asyncpg.connect(self._admin_url)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM platform.tenant WHERE status = 'active'"))
        finally:
            await connection.close()

    async def count_columns(self, number: int) -> int:
        """Tenants that have the column of a revision, by the catalog and by their own version."""
        connection = await asyncpg.connect(self._admin_url)
        try:
            return int(
                await connection.fetchval(
                    "SELECT count(*) FROM platform.tenant t"
                    " JOIN pg_namespace n ON n.nspname = 't_' || replace(t.id::text, '-', '')"
                    " JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'team'"
                    " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $1 WHERE t.revision = $2",
                    f"bench_{number}",
                    self._revision,
                )
            )
        finally:
            await connection.close()

    async def shape(self) -> Shape:
        """What a tenant's schema holds."""
        connection = await asyncpg.connect(self._admin_url)
        try:
            return await read_shape(connection, schema_name(self.deployment.manifest.callers[0].tenant_id))
        finally:
            await connection.close()


@contextmanager
def open_ours(folder: Path, tenants: int, log_level: str, progress: Callable[[str, int, int], None]) -> Iterator[Ours]:
    """Start PostgreSQL, Valkey and nothing else; make the tenants, in the peer's shape.

    Raises:
        ServerError: a server did not come up.
    """
    revision, source = filler_revision(shape_of(TENANT_METADATA), PEER_SHAPE, after=head("tenant"))
    migrations = copy_migrations(folder / "migrations", [(revision, source)])
    with use_migrations(migrations), open_deployment(folder, tenants, progress) as deployment:
        yield Ours(deployment, migrations, revision, log_level)
