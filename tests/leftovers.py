"""What runs of the tests leave on a server that was given: `TENANTRY_DATABASE_URL=… python -m tests.leftovers`.

A run that ends drops its template and whatever its tests have not dropped. One that is killed cannot: the next run on
that server says so, and this program lists what is there, and drops it with `--drop`. Only if no run is under way: it
cannot know.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tenantry.tenancy.bootstrap import OWNER_ROLE

__all__ = ("deployments_of", "drop_databases", "leftovers_of")

_OURS = re.compile(r"tenantry_[a-z0-9_]+?_([0-9a-f]{8})(_.*)?")
"""As `tests.servers.make_database_name` and `tests.databases.ensure_template` name them; with the run."""


async def leftovers_of(admin_url: str, *, run: str | None = None) -> list[str]:
    """The databases of a run; of all runs, where none is named."""
    names = [str(row["datname"]) for row in await _fetch(admin_url, "SELECT datname FROM pg_database ORDER BY datname")]
    found = [(name, match[1]) for name in names if (match := _OURS.fullmatch(name))]
    return [name for name, number in found if run in {None, number}]


async def deployments_of(admin_url: str) -> list[str]:
    """Databases on that server that belong to Tenantry, and to no run: tests would give its roles other passwords."""
    owned = await _fetch(
        admin_url,
        "SELECT datname FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE r.rolname = $1",
        OWNER_ROLE,
    )
    return [str(row["datname"]) for row in owned if not _OURS.fullmatch(row["datname"])]


async def drop_databases(admin_url: str, names: list[str]) -> None:
    """Drop databases with the tenants' roles in them, whoever is still connected."""
    for name in names:
        schemas = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^t_[0-9a-f]{32}$'"
        roles = ", ".join(f'"{row["nspname"]}"' for row in await _fetch(_with_database(admin_url, name), schemas))
        admin = await asyncpg.connect(_with_database(admin_url, "postgres"))
        try:
            await admin.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE false')
            await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            if roles:
                await admin.execute(f"DROP ROLE IF EXISTS {roles}")
        finally:
            await admin.close()


async def _fetch(url: str, query: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


def _with_database(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"/{name}", parts.query, ""))


def main() -> int:
    """List them; with `--drop`, drop them."""
    admin_url = os.environ.get("TENANTRY_DATABASE_URL")
    if admin_url is None or sys.argv[1:] not in ([], ["--drop"]):
        sys.stderr.write("usage: TENANTRY_DATABASE_URL=postgresql://… python -m tests.leftovers [--drop]\n")
        return 2
    names = asyncio.run(leftovers_of(admin_url))
    sys.stdout.writelines(f"{name}\n" for name in names)
    if sys.argv[1:]:
        asyncio.run(drop_databases(admin_url, names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
