"""The peer's side: a database of its own on the same server, its processes in its own virtual environment."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import UUID, uuid4

import asyncpg
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.deployment import TAGS, TEAMS
from benchmarks.load import write_requests
from benchmarks.peers.shape import Shape, read_shape
from benchmarks.servers import Server, ServerFailed, launch
from tenantry.dev.process import find_free_port
from tenantry.tenancy.bootstrap import with_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tenantry.dev.postgres import EmbeddedPostgres

__all__ = ("GUNICORN", "Executor", "Peer", "open_peer")

PROJECT = Path(__file__).parent / "django_tenants"
GUNICORN = {
    # What was the quickest of the stock configurations on two cores, and the usual one with threads.
    "sync": ("--worker-class", "sync", "--workers", "2"),
    "gthread": ("--worker-class", "gthread", "--workers", "2", "--threads", "4"),
}
Executor = Literal["standard", "multiprocessing"]

_NAME = "bench_peer"
_TOKEN_LIFE = 7200
_MANAGE_LIMIT = 900.0

_ROWS = f"""
INSERT INTO role (id, slug, name, is_builtin, permissions, created_at, updated_at)
     SELECT gen_random_uuid(), slug, initcap(slug), true, '{{teams:read,teams:write,users:read}}', now(), now()
       FROM unnest('{{owner,admin,member}}'::text[]) slug;
INSERT INTO user_account (id, email, is_active, is_superuser, is_verified, joined_at, created_at, updated_at)
     VALUES (gen_random_uuid(), 'owner@peer.test', true, false, true, now(), now(), now());
INSERT INTO user_role (id, user_id, role_id, created_at, updated_at)
     SELECT gen_random_uuid(), u.id, r.id, now(), now() FROM user_account u, role r WHERE r.slug = 'owner';
INSERT INTO refresh_token (id, user_id, digest, expires_at, last_used_at, created_at, updated_at)
     SELECT gen_random_uuid(), id, sha256(id::text::bytea), now() + interval '30 days', now(), now(), now()
       FROM user_account;
INSERT INTO tag (id, slug, name, created_at, updated_at)
     SELECT gen_random_uuid(), 'tag-' || n, 'Tag ' || n, now(), now() FROM generate_series(1, {TAGS}) n;
INSERT INTO team (id, slug, name, description, is_active, created_at, updated_at)
     SELECT gen_random_uuid(), 'team-' || n, 'Team ' || n,
            'The people who look after part ' || n || ' of the product.', true, now(), now()
       FROM generate_series(1, {TEAMS}) n;
INSERT INTO team_tag (id, team_id, tag_id, created_at, updated_at)
     SELECT gen_random_uuid(), t.id, g.id, now(), now()
       FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM team) t
       JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM tag) g ON g.n IN (t.n % {TAGS} + 1, t.n / 7 + 1);
INSERT INTO team_member (id, team_id, user_id, role, created_at, updated_at)
     SELECT gen_random_uuid(), t.id, u.id, 'owner', now(), now() FROM team t, user_account u;
"""

_REVISION = '''"""A column and its index."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workspace", "{after}")]
    operations = [
        migrations.AddField("team", "bench_{number}", models.TextField(null=True)),
        migrations.AddIndex("team", models.Index(fields=["bench_{number}"], name="ix_team_bench_{number}")),
    ]
'''


class Peer:
    """The application, and who may ask what of it."""

    def __init__(self, python: Path, folder: Path, postgres: EmbeddedPostgres) -> None:
        self._python = python
        self._folder = folder
        self._admin_url = postgres.url(_NAME)
        self._password = secrets.token_urlsafe(24)
        self._key = Ed25519PrivateKey.generate()
        self._maker: subprocess.Popen[str] | None = None
        self._targets: list[tuple[str, str, list[UUID]]] = []
        """Domain, token and teams of each tenant."""
        self._revision = "0001_initial"

    @property
    def _environment(self) -> dict[str, str]:
        public = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TENANTRY_", "PYTHON"))},
            "BENCH_PEER_DATABASE_URL": with_credentials(self._admin_url, user=_NAME, password=self._password),
            "BENCH_PEER_SECRET": self._password,
            "BENCH_PEER_TOKEN_KEY": public,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def prepare(self) -> None:
        """A login, a database, the shared schema.

        Raises:
            ServerFailed: the peer's virtual environment is missing, or its command failed.
        """
        if not self._python.exists():
            raise ServerFailed(f"there is no {self._python}: `make bench-peers` makes it")
        asyncio.run(self._make_database())
        package = self._folder / "bench_migrations"
        shutil.copytree(PROJECT / "workspace" / "migrations", package, ignore=shutil.ignore_patterns("__pycache__"))
        self._manage("migrate_schemas", "--shared", "-v", "0")

    async def _make_database(self) -> None:
        server = await asyncpg.connect(self._admin_url.rpartition("/")[0] + "/postgres")
        try:
            await server.execute(f"CREATE ROLE {_NAME} LOGIN PASSWORD '{self._password}'")
            await server.execute(f"CREATE DATABASE {_NAME} OWNER {_NAME}")
        finally:
            await server.close()

    def _manage(self, *arguments: str, own_revisions: bool = False) -> float:
        environment = self._environment
        if own_revisions:
            environment |= {"BENCH_PEER_MIGRATIONS": "bench_migrations", "PYTHONPATH": str(self._folder)}
        started = time.perf_counter()
        ran = subprocess.run(
            [str(self._python), "manage.py", *arguments],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_MANAGE_LIMIT,
        )
        seconds = time.perf_counter() - started
        if ran.returncode != 0:
            raise ServerFailed(f"manage.py {' '.join(arguments)} ended with {ran.returncode}: {ran.stderr[-2000:]}")
        return seconds

    @contextmanager
    def making(self) -> Iterator[None]:
        """While the block lasts, a process waits to make tenants."""
        with (self._folder / "make_tenants.log").open("w") as log:
            self._maker = subprocess.Popen(
                [str(self._python), "manage.py", "make_tenants"],
                cwd=PROJECT,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            yield
        finally:
            maker, self._maker = self._maker, None
            # The end of its input is the end of its work.
            maker.communicate(timeout=60)

    def make_tenant(self, slug: str) -> float:
        """Seconds that `Client.save()` took.

        Raises:
            ServerFailed: the process has ended.
        """
        assert self._maker is not None
        assert self._maker.stdin is not None
        assert self._maker.stdout is not None
        self._maker.stdin.write(f"{slug}\n")
        self._maker.stdin.flush()
        answer = self._maker.stdout.readline()
        if not answer:
            raise ServerFailed(f"make_tenants: {(self._folder / 'make_tenants.log').read_text()[-2000:]}")
        return float(answer)

    def fill(self, count: int, progress: Callable[[str, int, int], None]) -> None:
        """Make the tenants that are asked, and give each its rows."""
        step = f"Peer: making {count:,} tenants"
        slugs = [f"org-{number}" for number in range(count)]
        with self.making():
            for number, slug in enumerate(slugs):
                progress(step, number, count)
                self.make_tenant(slug)
        progress(step, count, count)
        self._targets = asyncio.run(self._fill(slugs))

    async def _fill(self, slugs: list[str]) -> list[tuple[str, str, list[UUID]]]:
        connection = await asyncpg.connect(self._admin_url)
        found = []
        try:
            for slug in slugs:
                schema = slug.replace("-", "_")
                async with connection.transaction():
                    await connection.execute(f"SET LOCAL search_path TO {schema}; SET LOCAL synchronous_commit TO off")
                    await connection.execute(_ROWS)
                    session = await connection.fetchrow("SELECT id, user_id FROM refresh_token")
                    teams = [row["id"] for row in await connection.fetch("SELECT id FROM team ORDER BY id")]
                assert session is not None
                token = self._token(schema, session["user_id"], session["id"])
                found.append((f"{slug}.peer.test", token, teams))
            for schema in (slug.replace("-", "_") for slug in slugs):
                for table in ("user_account", "refresh_token", "user_role", "role", "team", "tag", "team_tag"):
                    await connection.execute(f"VACUUM ANALYZE {schema}.{table}")
            for catalog in ("pg_class", "pg_attribute", "pg_index", "pg_constraint", "pg_type", "pg_depend"):
                await connection.execute(f"VACUUM ANALYZE pg_catalog.{catalog}")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()
        return found

    def _token(self, schema: str, user: UUID, session: UUID) -> str:
        now = int(time.time())
        claims = {"iss": "peer", "aud": "peer:tenant", "sub": str(user), "jti": str(uuid4())}
        claims |= {"tid": schema, "sid": str(session)}
        return jwt.encode({**claims, "iat": now, "exp": now + _TOKEN_LIFE}, self._key, algorithm="EdDSA")

    def requests(self, route: str, teams: int) -> Path:
        """A file of requests: of each tenant, `teams` different ones."""
        path = self._folder / f"{route.strip('/').replace('/', '.')}.requests"
        part = self._folder / "part.requests"
        with path.open("wb") as file:
            path.chmod(0o600)
            for number, (domain, token, known) in enumerate(self._targets):
                asked = [known[(number + step * len(known) // teams) % len(known)] for step in range(teams)]
                write_requests(part, [(f"{route}/{team}", token) for team in asked], host=domain)
                file.write(part.read_bytes())
        part.unlink()
        return path

    @contextmanager
    def serve(self, variant: str) -> Iterator[Server]:
        """Serve by gunicorn, in one of `GUNICORN`'s ways."""
        port = find_free_port()
        domain, token, teams = self._targets[0]
        command = [str(self._python), "-m", "gunicorn", "project.wsgi:application", "--bind", f"127.0.0.1:{port}"]
        command += [*GUNICORN[variant], "--log-level", "warning"]
        ready = f"/api/checked/teams/{teams[0]}", token, domain
        with launch(
            f"peer-{variant}", command, self._environment, port=port, folder=self._folder, ready=ready, cwd=PROJECT
        ) as server:
            yield server

    def check(self, server: Server, route: str) -> None:
        """See once that it answers what it should, and refuses another tenant's token.

        Raises:
            ServerFailed: it does not.
        """
        (domain, token, teams), (other, _, _) = self._targets[0], self._targets[-1]
        answer = server.get(f"{route}/{teams[0]}", token, domain)
        if answer.status_code != 200 or answer.json()["id"] != str(teams[0]) or not answer.json()["tags"]:
            raise ServerFailed(f"{server.name} answered {answer.status_code} {answer.text[:500]}")
        if other != domain and (answer := server.get(f"{route}/{teams[0]}", token, other)).status_code != 401:
            raise ServerFailed(f"{server.name} answered {answer.status_code} to another tenant's token")

    def add_revision(self, number: int) -> None:
        """Add a migration: one column, one index."""
        name = f"{number + 1:04}_bench"
        source = _REVISION.format(after=self._revision, number=number)
        (self._folder / "bench_migrations" / f"{name}.py").write_text(source)
        self._revision = name

    def migrate(self, executor: Executor) -> float:
        """Migrate all tenants; the command's seconds, start included."""
        return self._manage("migrate_schemas", "--tenant", f"--executor={executor}", "-v", "0", own_revisions=True)

    async def count_tenants(self) -> int:
        """Tenants that are there to be migrated."""
        connection = await asyncpg.connect(self._admin_url)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM customers_client"))
        finally:
            await connection.close()

    async def count_columns(self, number: int) -> int:
        """Tenants that have the column of a revision."""
        connection = await asyncpg.connect(self._admin_url)
        try:
            return int(
                await connection.fetchval(
                    "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
                    " WHERE c.relname = 'team' AND c.relkind = 'r' AND a.attname = $1",
                    f"bench_{number}",
                )
            )
        finally:
            await connection.close()

    async def shape(self) -> Shape:
        """What a tenant's schema holds."""
        connection = await asyncpg.connect(self._admin_url)
        try:
            return await read_shape(connection, "org_0")
        finally:
            await connection.close()


@contextmanager
def open_peer(
    python: Path, postgres: EmbeddedPostgres, folder: Path, tenants: int, progress: Callable[[str, int, int], None]
) -> Iterator[Peer]:
    """Make the peer's database on a running server, with its tenants; `python` is that of its virtual environment.

    Raises:
        ServerFailed: something of it failed.
    """
    made = folder / "peer"
    made.mkdir(mode=0o700)
    peer = Peer(python.absolute(), made, postgres)
    peer.prepare()
    peer.fill(tenants, progress)
    yield peer
