"""Whether there is anything to migrate, asked before anything heavy is imported.

Nearly every deployment runs `tenantry migrate tenants`, and nearly every time there is nothing to do. The settings,
SQLAlchemy and Alembic take two seconds to import; this module knows none of them. It answers one question with one
query, and where anything at all is out of the ordinary, it answers nothing: the command then looks properly, and says
what is wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tenantry.tenancy.revision_files import HAS_SCHEMA, UnreadableTree, read_line

__all__ = ("Glance", "glance")

_TIMEOUT = 5.0

_QUESTION = f"""
SELECT (SELECT count(*) FROM platform.tenant t WHERE {HAS_SCHEMA} AND t.revision = ANY ($1)),
       (SELECT count(*) FROM platform.tenant t WHERE {HAS_SCHEMA}),
       EXISTS (SELECT FROM platform.rollout WHERE status = 'running')
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class Glance:
    """That nothing is to be done."""

    target: str
    tenants: int
    """Those with a schema."""


def glance() -> Glance | None:
    """Every tenant is at the tree's head, and no rollout is running; or None, where it takes a closer look to tell."""
    url = _owner_url()
    if url is None:
        return None
    try:
        line = read_line("tenant")
        stale, tenants, running = asyncio.run(_ask(url, line[:-1]))
    except (UnreadableTree, OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    return None if stale or running else Glance(line[-1], tenants)


def _owner_url() -> str | None:
    """The owner's address, by the rules of `tenantry.kernel.home.complete` where they are simple."""
    if not os.environ.get("TENANTRY_DATABASE_URL"):
        if "TENANTRY_DATABASE_OWNER_URL" in os.environ or "TENANTRY_DATABASE_URL" in os.environ:
            return None
        home = Path(os.environ.get("TENANTRY_HOME") or ".tenantry")
        try:
            found = json.loads((home / "owner.json").read_bytes())["database_owner_url"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return str(found)
    return os.environ.get("TENANTRY_DATABASE_OWNER_URL") or None


async def _ask(url: str, older: tuple[str, ...]) -> tuple[int, int, bool]:
    connection = await asyncpg.connect(url, timeout=_TIMEOUT, command_timeout=_TIMEOUT)
    try:
        row = await connection.fetchrow(_QUESTION, older)
    finally:
        # Nothing is left to be said to each other, and a good-bye takes a round trip.
        connection.terminate()
    if row is None:
        raise ValueError("no answer")
    return row[0], row[1], row[2]
