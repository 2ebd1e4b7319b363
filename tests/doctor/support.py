"""A deployment of its own, which these tests make ill and well again: roles and settings are the whole server's."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from uuid_utils.compat import uuid7

from tenantry.dev.postgres import EmbeddedPostgres
from tenantry.dev.valkey import EmbeddedValkey
from tenantry.kernel.security import Keyring, Vault
from tenantry.platform.provisioning.schema import create_schemas
from tenantry.tenancy.bootstrap import Addresses, bootstrap, harden
from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import head, upgrade
from tenantry.tenancy.models import schema_name
from tests.cli.support import answer, run
from tests.servers import temporary_folder

__all__ = ("Patient", "codes", "examine", "open_patient", "sql")

DATABASE = "tenantry"


@dataclass(frozen=True)
class Patient:
    """One deployment with two organizations, acme and globex, and its settings."""

    env: dict[str, str]
    home: Path
    admin_url: str
    owner_url: str
    app_url: str
    redis_url: str
    schemas: tuple[str, str]
    hba: Path
    """PostgreSQL's rules of who may log in."""

    def sql(self, *statements: str) -> None:
        """As the superuser, each in a transaction of its own."""
        sql(self.admin_url, *statements)

    @contextmanager
    def ailing(self, breaking: Sequence[str], mending: Sequence[str]) -> Iterator[None]:
        """Ill inside, and well again afterwards; `{acme}` and `{globex}` stand for schemas."""
        names = {"acme": self.schemas[0], "globex": self.schemas[1], "head": head("shared")}
        self.sql(*(_filled(statement, names) for statement in breaking))
        try:
            yield
        finally:
            self.sql(*(_filled(statement, names) for statement in mending))


def _filled(statement: str, names: dict[str, str]) -> str:
    for name, schema in names.items():
        statement = statement.replace(f"{{{name}}}", schema)
    return statement


def sql(url: str, *statements: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(work())


def examine(patient: Patient, *arguments: str, code: int | None = None, **env: str) -> dict[str, Any]:
    """What `doctor --json` says; with `code`, also that it ended with that."""
    result = run("doctor", "--json", *arguments, env=patient.env | env)
    found: dict[str, Any] = answer(result, result.exit_code if code is None else code)
    return found


def codes(found: dict[str, Any], *severities: str) -> dict[str, dict[str, Any]]:
    """The findings by their code; those of the severities, if any are named."""
    return {
        finding["code"]: finding
        for check in found["checks"]
        for finding in check["findings"]
        if not severities or finding["severity"] in severities
    }


@contextmanager
def open_patient() -> Iterator[Patient]:
    """Healthy, with its own PostgreSQL and Valkey."""
    folder = temporary_folder("tenantry-doctor-")
    # As it is for customers: nothing unsafe but fast. Only initdb need not survive a power cut.
    postgres = EmbeddedPostgres(folder / "postgres", sync=False, delete_with_parent=True)
    valkey = EmbeddedValkey(folder / "valkey", delete_with_parent=True)
    try:
        postgres.start()
        valkey.start()
        addresses, schemas = asyncio.run(_make(postgres))
        home = folder / "home"
        Keyring.open(home / "keyring.json", retain=60)
        Vault.make(home / "vault.json")
        yield Patient(
            env={
                "TENANTRY_HOME": str(home),
                "TENANTRY_DATABASE_URL": addresses.app_url,
                "TENANTRY_DATABASE_OWNER_URL": addresses.owner_url,
                "TENANTRY_REDIS_URL": valkey.url(),
                "TENANTRY_WARM_POOL_SIZE": "0",
                "TENANTRY_APP_URL": "https://{tenant}.app.example.com",
                "TENANTRY_MAIL_URL": "smtp://127.0.0.1:2525?tls=none",
                "TENANTRY_MAIL_FROM": "no-reply@example.com",
                "TENANTRY_LOG_FORMAT": "console",
            },
            home=home,
            admin_url=postgres.url(DATABASE),
            owner_url=addresses.owner_url,
            app_url=addresses.app_url,
            redis_url=valkey.url(),
            schemas=schemas,
            hba=postgres.data_dir / "pg_hba.conf",
        )
    finally:
        postgres.stop("immediate")
        valkey.stop()
        shutil.rmtree(folder)


async def _make(postgres: EmbeddedPostgres) -> tuple[Addresses, tuple[str, str]]:
    made = await bootstrap(
        postgres.url("postgres"), database=DATABASE, owner_password="the-owners-password", app_password="x" * 16
    )
    await harden(postgres.url(DATABASE))
    engine = owner_engine(made.owner_url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, "shared")
    finally:
        await engine.dispose()
    owner = await asyncpg.connect(made.owner_url, connection_class=DriverConnection)
    try:
        async with owner.transaction():
            await owner.execute(
                "INSERT INTO platform.plan (id, slug, name, job_weight, job_concurrency, created_at, updated_at)"
                " VALUES (gen_random_uuid(), 'free', 'Free', 1, 8, now(), now())"
            )
            ids = uuid7(), uuid7()
            for slug, tenant_id in zip(("acme", "globex"), ids, strict=True):
                await owner.execute(
                    "INSERT INTO platform.tenant (id, slug, name, status, status_changed_at, plan, owner_email,"
                    " revision, created_at, updated_at) VALUES ($1, $2, $2, 'active', now(), 'free',"
                    " 'ann@example.com', $3, now(), now())",
                    tenant_id,
                    slug,
                    head("tenant"),
                )
            await create_schemas(owner, ids)
    finally:
        await owner.close()
    return made, (schema_name(ids[0]), schema_name(ids[1]))
