"""Tenants made by command, and what is there of them, behind the commands' backs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import asyncpg

from tenantry.kernel.settings import load_settings
from tenantry.kernel.storage import Storage
from tests.cli.support import OWNER_PASSWORD, answer, run
from tests.databases import Template

__all__ = ("create_tenant", "files_of", "people_of")


def create_tenant(env: Mapping[str, str], slug: str, *options: str) -> Any:
    """What `tenants create --json` has printed; with `--wait 0`, no provisioner is needed."""
    arguments = ["tenants", "create", slug, "--name", slug.title(), "--plan", "free", "--json", *options]
    arguments += ["--owner-email", f"ann@{slug}.example", "--owner-password-stdin"]
    return answer(run(*arguments, env=env, stdin=f"{OWNER_PASSWORD}\n"), 5 if options else 0)


def people_of(addresses: Template, tenant_id: str) -> list[tuple[str, str | None]]:
    """Addresses and password hashes of a tenant's users; empty where there is no schema."""

    async def look() -> list[tuple[str, str | None]]:
        schema = f"t_{tenant_id.replace('-', '')}"
        connection = await asyncpg.connect(addresses.admin_url)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema):
                return []
            rows = await connection.fetch(f'SELECT email, hashed_password FROM "{schema}".user_account ORDER BY email')
            return [tuple(row) for row in rows]
        finally:
            await connection.close()

    return asyncio.run(look())


def files_of(env: Mapping[str, str], prefix: str = "") -> list[str]:
    """The keys in the storage, below a folder."""

    async def look() -> list[str]:
        return [info.key async for info in Storage.open(load_settings(env)).list(prefix)]

    return asyncio.run(look())
