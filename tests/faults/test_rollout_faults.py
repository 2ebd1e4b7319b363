"""A rollout whose processes are killed, over and over: every tenant is migrated as a whole or not at all."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tenantry.dev.process import wait_until
from tenantry.tenancy.models import schema_name
from tests.cli.support import ROOT, bare_environment, environment
from tests.databases import Template
from tests.platform.rollouts.support import as_owner, make_tenants, rows_of
from tests.tree import COLUMN_AND_INDEX, TenantTree, program_of, tenant_tree

__all__ = ("tenant_tree",)

pytestmark = pytest.mark.slow

TENANTS = 50
KILLS = 6
# Long enough that a kill finds tenants at every point of it.
SLOW = f"{COLUMN_AND_INDEX}\nop.execute('SELECT pg_sleep(0.1)')\nop.create_index('ix_tag_color', 'tag', ['name'])"


@contextmanager
def running(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        env=bare_environment(**env),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def shapes(addresses: Template, tree: TenantTree) -> Counter[str]:
    """How many tenants are whole: before, or after; anything else fails."""
    found: Counter[str] = Counter()
    async with as_owner(addresses) as owner:
        tenants = await owner.fetch("SELECT id, slug, revision FROM platform.tenant")
        for tenant in tenants:
            schema = schema_name(tenant["id"])
            # One statement, thus one snapshot of all of it.
            row = await owner.fetchrow(
                f"""
                SELECT (SELECT revision FROM platform.tenant WHERE id = $2) AS ledger,
                       (SELECT version_num FROM "{schema}".alembic_version) AS truth,
                       EXISTS (SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                                WHERE c.relnamespace = $1::text::regnamespace AND a.attname = 'color') AS has_column,
                       (SELECT count(*) FROM pg_class WHERE relnamespace = $1::text::regnamespace
                           AND relname IN ('ix_team_color', 'ix_tag_color')) AS indexes
                """,
                schema,
                tenant["id"],
            )
            assert row is not None
            migrated = row["ledger"] == tree.head
            assert tuple(row) == ((tree.head, tree.head, True, 2) if migrated else (tree.base, tree.base, False, 0)), (
                tenant["slug"]
            )
            found["after" if migrated else "before"] += 1
    return found


async def still_at_work(addresses: Template) -> bool:
    async with as_owner(addresses) as owner:
        return bool(
            await owner.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity"
                " WHERE application_name = 'tenantry-rollout' AND datname = current_database())"
            )
        )


@contextmanager
def held_up(addresses: Template) -> Iterator[None]:
    """Somebody reads the newest tenant's table, so that no rollout ends before it is killed, however late that is."""
    loop = asyncio.new_event_loop()
    reading = as_owner(addresses)
    reader = loop.run_until_complete(reading.__aenter__())
    try:
        newest = loop.run_until_complete(reader.fetchval("SELECT id FROM platform.tenant ORDER BY id DESC LIMIT 1"))
        table = f'"{schema_name(newest)}".team'
        loop.run_until_complete(reader.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS SHARE MODE"))
        yield
    finally:
        loop.run_until_complete(reading.__aexit__(None, None, None))
        loop.close()


def killed_again_and_again(command: list[str], env: dict[str, str], addresses: Template, tree: TenantTree) -> int:
    """Kill the command whenever it has migrated some more; how many tenants have been in the end."""
    done = 0
    for kill in range(1, KILLS + 1):
        least = kill * TENANTS // (KILLS + 3)
        with running(command, env) as process:

            def is_far_enough(least: int = least) -> bool:
                asyncio.run(shapes(addresses, tree))
                return asyncio.run(migrated(addresses, tree)) >= least

            assert wait_until(is_far_enough, 60), process.poll()
            process.kill()
            process.wait()
        # What the server had received it may still carry out.
        assert wait_until(lambda: not asyncio.run(still_at_work(addresses)), 30)
        found = asyncio.run(shapes(addresses, tree))
        assert found["after"] >= max(least, done)
        assert found["before"] > 0, "nothing was left to be interrupted"
        done = found["after"]
    return done


def test_killed_anywhere_a_rollout_goes_on_where_it_was(
    database_addresses: Template, tenant_tree: TenantTree, tmp_path: Path
) -> None:
    env = environment(database_addresses, tmp_path / "home")
    env["TENANTRY_DATABASE_OWNER_URL"] = database_addresses.owner_url
    # The one that is held up is tried again by each of them.
    env["TENANTRY_ROLLOUT_ATTEMPTS"] = "20"
    asyncio.run(make_tenants(database_addresses, *(f"org-{number}" for number in range(TENANTS))))
    tenant_tree.add(SLOW)
    command = program_of(tenant_tree, "migrate", "tenants", "--canary", "2", "--concurrency", "3", "--json")
    with held_up(database_addresses):
        done = killed_again_and_again(command, env, database_addresses, tenant_tree)
        # Nobody comes back to it: a provisioner does, and is killed as well; then another command.
        least = min(done + 1, TENANTS - 1)
        with running(program_of(tenant_tree, "provisioner"), env) as provisioner:
            assert wait_until(lambda: asyncio.run(migrated(database_addresses, tenant_tree)) >= least, 60), (
                provisioner.poll()
            )
            provisioner.kill()
            provisioner.wait()
    with running(command, env) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert (report["status"], report["tenants"], report["done"], report["failed"]) == ("done", TENANTS, TENANTS, 0)
    assert asyncio.run(shapes(database_addresses, tenant_tree)) == {"after": TENANTS}
    rows = asyncio.run(rows_of(database_addresses, report["rollout"]))
    assert {row["status"] for row in rows.values()} == {"done"}
    assert {row["from_revision"] for row in rows.values()} == {tenant_tree.base}


async def migrated(addresses: Template, tree: TenantTree) -> int:
    async with as_owner(addresses) as owner:
        return int(await owner.fetchval("SELECT count(*) FROM platform.tenant WHERE revision = $1", tree.head))
