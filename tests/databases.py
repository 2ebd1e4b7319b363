"""Databases for tests: migrated once per run into a template, cloned in milliseconds."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.features import SHARED_METADATA
from tenantry.kernel.security import PasswordHasher
from tenantry.platform.operators.models import Operator
from tenantry.platform.plans.models import Plan
from tenantry.tenancy.bootstrap import APP_ROLE, OWNER_ROLE, bootstrap, harden
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import upgrade
from tests.servers import ADMIN_URL, REDIS_URL, RUN, make_database_name

__all__ = (
    "OPERATOR_EMAIL",
    "OPERATOR_PASSWORD",
    "Template",
    "clone_database",
    "drop_database",
    "ensure_template",
    "fast_hasher",
)

OPERATOR_EMAIL = "root@platform.example"
OPERATOR_PASSWORD = "an operator's password"
_ROLE_PASSWORD = "roles-of-a-test-run"
PLANS = ("free", "team", "enterprise")


@dataclass(frozen=True)
class Template:
    """The addresses of one database."""

    name: str
    admin_url: str
    """A superuser's address of this database, or that of whoever the external server gave us."""
    owner_url: str
    app_url: str
    redis_url: str


def fast_hasher() -> PasswordHasher:
    """argon2id at its cheapest: the tests hash thousands of passwords."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, concurrency=2)


def _with_database(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"/{name}", parts.query, ""))


def ensure_template() -> Template:
    """The template, made by the first process that asks; the others wait for it."""
    admin_url = os.environ[ADMIN_URL]
    name = f"tenantry_template_{os.environ[RUN]}"
    template = Template(
        name=name,
        admin_url=_with_database(admin_url, name),
        owner_url="",
        app_url="",
        redis_url=os.environ[REDIS_URL],
    )
    lock_path = Path(tempfile.gettempdir()) / f"{name}.lock"
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A loop of its own: the fixture's is running.
        owner_url, app_url = asyncio.run(_make(admin_url, name))
    return replace(template, owner_url=owner_url, app_url=app_url)


async def _make(admin_url: str, name: str) -> tuple[str, str]:
    admin = await asyncpg.connect(admin_url)
    try:
        exists = await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate", name)
    finally:
        await admin.close()
    addresses = await bootstrap(admin_url, database=name, owner_password=_ROLE_PASSWORD, app_password=_ROLE_PASSWORD)
    if exists:
        return addresses.owner_url, addresses.app_url
    await _let_administrator_end_backends(admin_url)
    await harden(_with_database(admin_url, name))
    hasher = fast_hasher()
    engine = owner_engine(addresses.owner_url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, "shared")
            assert "platform.tenant" in SHARED_METADATA.tables
            session = AsyncSession(connection)
            await session.execute(insert(Plan), [{"slug": slug, "name": slug.title()} for slug in PLANS])
            session.add(
                Operator(email=OPERATOR_EMAIL, hashed_password=await hasher.hash(OPERATOR_PASSWORD), role="owner")
            )
            await session.flush()
    finally:
        hasher.close()
        await engine.dispose()
    admin = await asyncpg.connect(admin_url)
    try:
        await admin.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE true ALLOW_CONNECTIONS true')
    finally:
        await admin.close()
    return addresses.owner_url, addresses.app_url


async def _let_administrator_end_backends(admin_url: str) -> None:
    """As a superuser may: tests terminate the application's connections, and look into tables that the owner owns.

    Who has CREATEROLE may grant itself the roles that it has made.
    """
    admin = await asyncpg.connect(admin_url)
    try:
        if not await admin.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            await admin.execute(f"GRANT {OWNER_ROLE}, {APP_ROLE} TO current_user WITH INHERIT TRUE, SET TRUE")
    finally:
        await admin.close()


async def clone_database(template: Template) -> Template:
    """A new database like the template, owned like it."""
    name = make_database_name()
    admin = await asyncpg.connect(template.admin_url.replace(template.name, "postgres"))
    try:
        # FILE_COPY: with a template this small it is several times faster than through the WAL.
        await admin.execute(
            f'CREATE DATABASE "{name}" TEMPLATE "{template.name}" STRATEGY file_copy OWNER tenantry_owner'
        )
        await admin.execute(
            f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC; GRANT CONNECT ON DATABASE "{name}" TO tenantry_app'
        )
    finally:
        await admin.close()
    return Template(
        name=name,
        admin_url=template.admin_url.replace(template.name, name),
        owner_url=template.owner_url.replace(template.name, name),
        app_url=template.app_url.replace(template.name, name),
        redis_url=template.redis_url,
    )


async def drop_database(addresses: Template) -> None:
    """Drop a clone, whoever is still connected; its tenants' roles own nothing else and go as well."""
    admin = await asyncpg.connect(addresses.admin_url)
    try:
        roles = [
            record["nspname"]
            for record in await admin.fetch("SELECT nspname FROM pg_namespace WHERE nspname ~ '^t_[0-9a-f]{32}$'")
        ]
    finally:
        await admin.close()
    admin = await asyncpg.connect(addresses.admin_url.replace(addresses.name, "postgres"))
    try:
        await admin.execute(f'DROP DATABASE "{addresses.name}" WITH (FORCE)')
        if roles:
            names = ", ".join(f'"{role}"' for role in roles)
            await admin.execute(f"DROP ROLE IF EXISTS {names}")
    finally:
        await admin.close()
