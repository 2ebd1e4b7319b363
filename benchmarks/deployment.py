"""The deployment that is measured: its own servers, a thousand organizations, and one schema without tenancy."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid5

import asyncpg
import msgspec
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from tenantry.dev.postgres import EmbeddedPostgres
from tenantry.dev.valkey import EmbeddedValkey
from tenantry.features import PROVISION_HOOKS, SEED_HOOKS
from tenantry.kernel.feature import Owner
from tenantry.kernel.security import AUDIENCE_TENANT, Keyring, Tokens
from tenantry.kernel.settings import Settings, load_settings
from tenantry.platform.provisioning.schema import create_schema
from tenantry.tenancy.bootstrap import bootstrap, harden, with_credentials
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import compile_script, head, upgrade
from tenantry.tenancy.models import schema_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

    from tenantry.tenancy.connection import DriverConnection

__all__ = ("POSTGRES_SETTINGS", "SOLO", "Caller", "Deployment", "Manifest", "open_deployment")

DATABASE = "tenantry"
TEAMS, TAGS = 20, 5
"""Rows of each organization."""

_BATCH = 20
"""Organizations made in one transaction. Each takes about a hundred locks, which the server's table must hold."""

_RENEWED = 40
"""Organizations made on one connection."""

_SOLO_ROLE = "bench_solo"
_NAMESPACE = UUID("5d2b4c86-6a53-4f0a-9a58-0f5a2c1f7a11")

SOLO = uuid5(_NAMESPACE, "solo")
"""The schema of the peer without tenancy. It is in no registry: to the product it does not exist."""

POSTGRES_SETTINGS = {
    # As a deployment of this size has it, so that both sides read from memory. fsync stays on.
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "effective_cache_size": "2GB",
    # Nothing writes while it is measured: what vacuum would do is done once, before.
    "autovacuum": "off",
}

_ROWS = f"""
INSERT INTO tag (id, slug, name, created_at, updated_at)
     SELECT uuidv7(), 'tag-' || n, 'Tag ' || n, now(), now() FROM generate_series(1, {TAGS}) n;
INSERT INTO team (id, slug, name, description, is_active, created_at, updated_at)
     SELECT uuidv7(), 'team-' || n, 'Team ' || n, 'The people who look after part ' || n || ' of the product.', true,
            now(), now()
       FROM generate_series(1, {TEAMS}) n;
INSERT INTO team_tag (team_id, tag_id)
     SELECT t.id, g.id
       FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM team) t
       JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM tag) g ON g.n IN (t.n % {TAGS} + 1, t.n / 7 + 1);
INSERT INTO team_member (id, team_id, user_id, role, created_at, updated_at)
     SELECT uuidv7(), t.id, u.id, 'owner', now(), now() FROM team t, user_account u WHERE u.email LIKE 'owner@%';
INSERT INTO user_session (id, user_id, refresh_digest, expires_at, last_used_at, created_at, updated_at)
     SELECT uuidv7(), id, sha256(id::text::bytea), now() + interval '30 days', now(), now(), now() FROM user_account;
"""

# As many people as the product's tenants have together: what differs must not be whether a token was seen before.
_PEOPLE = """
INSERT INTO user_account (id, email, is_active, is_superuser, is_verified, joined_at, created_at, updated_at)
     SELECT uuidv7(), 'person-' || n || '@solo.example', true, false, true, now(), now(), now()
       FROM generate_series(1, {count}) n;
INSERT INTO user_role (id, user_id, role_id, created_at, updated_at)
     SELECT uuidv7(), u.id, r.id, now(), now() FROM user_account u, role r
      WHERE r.slug = 'owner' AND u.email LIKE 'person-%';
"""


class Caller(msgspec.Struct, frozen=True):
    """Somebody with a session, and teams that they may read."""

    tenant_id: UUID
    user_id: UUID
    session_id: UUID
    teams: tuple[UUID, ...]


class Manifest(msgspec.Struct, frozen=True):
    """What a prepared deployment holds; kept beside it, so that `--home` need not be filled twice."""

    tenants: int
    schemas: str
    """A digest of the migrations: a folder that was filled before they changed is of no use."""
    owner_password: str
    app_password: str
    solo_password: str
    callers: tuple[Caller, ...]
    solo: tuple[Caller, ...]


class Deployment:
    """Running servers, and who may ask what of them."""

    def __init__(self, home: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, manifest: Manifest) -> None:
        self.home = home
        self.postgres = postgres
        self.valkey = valkey
        self.manifest = manifest
        admin = postgres.url(DATABASE)
        self.app_url = with_credentials(admin, user="tenantry_app", password=manifest.app_password)
        self.solo_url = with_credentials(admin, user=_SOLO_ROLE, password=manifest.solo_password)

    def environment(self, *, log_level: str) -> dict[str, str]:
        """What the measured servers find in their environment, the peers' addresses included."""
        someone = self.manifest.solo[0]
        return {
            "TENANTRY_HOME": str(self.home),
            "TENANTRY_DATABASE_URL": self.app_url,
            "TENANTRY_REDIS_URL": self.valkey.url(),
            "TENANTRY_LOG_LEVEL": log_level,
            "BENCH_SOLO_URL": self.solo_url,
            "BENCH_SOLO_USER": str(someone.user_id),
            "BENCH_SOLO_SESSION": str(someone.session_id),
        }

    def settings(self) -> Settings:
        return load_settings(self.environment(log_level="WARNING"))

    def tokens(self, callers: tuple[Caller, ...], *, ttl: int = 3600) -> list[str]:
        """An access token for each, signed with the keys by which the servers verify."""
        settings = self.settings()
        tokens = Tokens(Keyring.open(settings.keyring_path, retain=settings.keyring_retain), settings.token_issuer)
        return [
            tokens.issue(
                audience=AUDIENCE_TENANT,
                sub=caller.user_id,
                tid=caller.tenant_id,
                sid=caller.session_id,
                ttl=min(ttl, settings.keyring_retain),
            )[0]
            for caller in callers
        ]


@contextmanager
def open_deployment(
    home: Path | None,
    tenants: int,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    *,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Deployment]:
    """Start the servers and fill them; with a `home` of an earlier run of the same size, only start them.

    Without `home`, everything is in a new folder that is deleted at the end. `progress` is told of a step, and how
    much of how much of it is done. `settings` are PostgreSQL's, besides `POSTGRES_SETTINGS`.
    """
    folder = home.absolute() if home is not None else Path(tempfile.mkdtemp(prefix="tenantry-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    # PostgreSQL runs as `nobody` where this program is root, and has to pass through.
    folder.chmod(0o711)
    passing = home is None
    postgres = EmbeddedPostgres(
        folder / "postgres", settings=POSTGRES_SETTINGS | dict(settings or {}), delete_with_parent=passing
    )
    valkey = EmbeddedValkey(folder / "valkey", persistent=False, delete_with_parent=passing)
    try:
        progress("Starting PostgreSQL and Valkey", 0, 1)
        with postgres, valkey:
            progress("Starting PostgreSQL and Valkey", 1, 1)
            manifest = _known(folder, tenants)
            if manifest is None:
                manifest = asyncio.run(_fill(postgres, tenants, progress))
                _keep(folder, manifest)
            yield Deployment(folder, postgres, valkey, manifest)
    finally:
        if passing:
            shutil.rmtree(folder, ignore_errors=True)


def _known(folder: Path, tenants: int) -> Manifest | None:
    path = folder / "bench.json"
    if not path.exists():
        return None
    manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    if manifest.tenants != tenants:
        raise ValueError(f"{folder} was filled with {manifest.tenants} tenants, not {tenants}: choose another folder")
    if manifest.schemas != _schemas():
        raise ValueError(f"{folder} was filled before the migrations changed: choose another folder")
    return manifest


def _schemas() -> str:
    return sha256((compile_script("shared") + compile_script("tenant")).encode()).hexdigest()


def _keep(folder: Path, manifest: Manifest) -> None:
    descriptor = os.open(folder / "bench.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(manifest))


async def _fill(postgres: EmbeddedPostgres, count: int, progress: Callable[[str, int, int], None]) -> Manifest:
    owner_password, app_password, solo_password = (secrets.token_urlsafe(24) for _ in range(3))
    addresses = await bootstrap(
        postgres.url(), database=DATABASE, owner_password=owner_password, app_password=app_password
    )
    admin_url = postgres.url(DATABASE)
    await harden(admin_url)
    engine = owner_engine(addresses.owner_url)
    callers: list[Caller] = []
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, "shared")
            await connection.exec_driver_sql(
                "INSERT INTO platform.plan (id, slug, name, created_at, updated_at)"
                " VALUES (uuidv7(), 'team', 'Team', now(), now())"
            )
        step = f"Making {count:,} organizations"
        for start in range(0, count, _BATCH):
            progress(step, start, count)
            if start % _RENEWED == 0:
                # PostgreSQL keeps a plan for each foreign key that a connection has seen rows go through, and looks
                # through all of them whenever a table is made: with 700 organizations, four fifths of the time.
                await engine.dispose()
            async with engine.begin() as connection:
                await _begin(connection)
                callers += [
                    await _organization(connection, uuid7(), number)
                    for number in range(start, min(start + _BATCH, count))
                ]
        progress(step, count, count)
        progress("Making the schema without tenancy", 0, 1)
        async with engine.begin() as connection:
            await _begin(connection)
            solo = await _solo(connection, count)
        progress("Making the schema without tenancy", 1, 1)
    finally:
        await engine.dispose()
    progress("Vacuum and checkpoint", 0, 1)
    await _settle(admin_url, solo_password)
    progress("Vacuum and checkpoint", 1, 1)
    return Manifest(
        tenants=count,
        schemas=_schemas(),
        owner_password=owner_password,
        app_password=app_password,
        solo_password=solo_password,
        callers=tuple(callers),
        solo=tuple(solo),
    )


async def _begin(connection: AsyncConnection) -> None:
    # SQLAlchemy begins with its first statement, and the driver's own would come before it. Nothing is measured while
    # the schemas are made, so nothing waits for the disk either.
    await connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")


async def _driver(connection: AsyncConnection) -> DriverConnection:
    return cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)


async def _schema(connection: AsyncConnection, tenant_id: UUID, slug: str) -> DriverConnection:
    """The tables, as the provisioner makes them, and the rows that the features' hooks give."""
    driver = await _driver(connection)
    await create_schema(driver, tenant_id)
    session = AsyncSession(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
    owner = Owner(email=f"owner@{slug}.example", id=uuid7(), name="Olive Owner", password_hash="$argon2id$never")
    for seed in SEED_HOOKS:
        await seed(session)
    for hook in PROVISION_HOOKS:
        await hook(session, owner)
    await session.flush()
    return driver


async def _callers(driver: DriverConnection, tenant_id: UUID) -> list[Caller]:
    teams = tuple([record["id"] for record in await driver.fetch("SELECT id FROM team ORDER BY id")])
    sessions: list[Any] = await driver.fetch("SELECT id, user_id FROM user_session ORDER BY id")
    return [Caller(tenant_id, record["user_id"], record["id"], teams) for record in sessions]


async def _organization(connection: AsyncConnection, tenant_id: UUID, number: int) -> Caller:
    slug = f"org-{number}"
    driver = await _schema(connection, tenant_id, slug)
    await driver.execute(_ROWS)
    await driver.execute(
        "INSERT INTO platform.tenant (id, slug, name, status, status_changed_at, plan, owner_email, revision,"
        " created_at, updated_at) VALUES ($1, $2, $3, 'active', now(), 'team', $4, $5, now(), now())",
        tenant_id,
        slug,
        f"Organization {number}",
        f"owner@{slug}.example",
        head("tenant"),
    )
    return (await _callers(driver, tenant_id))[0]


async def _solo(connection: AsyncConnection, count: int) -> list[Caller]:
    driver = await _schema(connection, SOLO, "solo")
    await driver.execute(_PEOPLE.format(count=count - 1))
    await driver.execute(_ROWS)
    return await _callers(driver, SOLO)


async def _settle(admin_url: str, solo_password: str) -> None:
    schema = schema_name(SOLO)
    admin = await asyncpg.connect(admin_url)
    try:
        # What an application without tenancy does: one login with rights and a path of its own, limits set once.
        await admin.execute(
            f"CREATE ROLE {_SOLO_ROLE} LOGIN PASSWORD '{solo_password}';"
            f"GRANT CONNECT ON DATABASE {DATABASE} TO {_SOLO_ROLE};"
            f'GRANT USAGE ON SCHEMA "{schema}" TO {_SOLO_ROLE};'
            f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO {_SOLO_ROLE};'
            f'ALTER ROLE {_SOLO_ROLE} SET search_path TO "{schema}";'
            f"ALTER ROLE {_SOLO_ROLE} SET statement_timeout TO 5000;"
            f"ALTER ROLE {_SOLO_ROLE} SET lock_timeout TO 2000;"
            f"ALTER ROLE {_SOLO_ROLE} SET idle_in_transaction_session_timeout TO 10000"
        )
        for table in ("user_account", "user_session", "user_role", "role", "team", "tag", "team_tag", "team_member"):
            await admin.execute(f'VACUUM ANALYZE "{schema}".{table}')
        for catalog in ("pg_class", "pg_attribute", "pg_index", "pg_constraint", "pg_type", "pg_depend", "pg_authid"):
            await admin.execute(f"VACUUM ANALYZE pg_catalog.{catalog}")
        await admin.execute("CHECKPOINT")
    finally:
        await admin.close()
