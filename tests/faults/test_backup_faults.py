"""Backups and restores that are killed after every step: there is all of it or nothing, and nobody else has noticed."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.databases import Template
from tests.faults.backup_crashing import run_killed
from tests.platform.backups.support import Backups, Settled, open_backups, row_of, settle
from tests.platform.lifecycle.support import described, digests, open_deployment, tenant_row
from tests.platform.support import as_admin, eventually
from tests.servers import make_database_name
from tests.world import World

pytestmark = pytest.mark.slow

ENDED = {"user_session"}
"""Whose rows a restore changes by itself: sessions are ended."""


async def _all_of(api: World, tenant: Settled) -> list[Any]:
    return [
        await digests(api, tenant.id),
        await described(api, tenant.id),
        await tenant_row(api, tenant.id),
    ]


async def _nobody_works(addresses: Template) -> None:
    """Wait until the server has noticed that the process is gone."""

    async def gone() -> bool:
        async with as_admin(addresses) as admin:
            number = await admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenantry-owner'"
                " AND datname = current_database() AND xact_start IS NOT NULL"
            )
            return bool(number == 0)

    await eventually(gone, 10)


def _left_behind(home: Path) -> list[Path]:
    return list((home / "backups" / ".scratch").iterdir())


async def _sweep(backups: Backups) -> None:
    """Whoever comes next removes what the killed one has left."""
    async with backups.store.scratch():
        pass


async def test_a_backup_that_is_killed_after_any_step_is_whole_or_none(
    database_addresses: Template, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    async with open_deployment(database_addresses, home) as api, open_backups(database_addresses, home) as backups:
        acme, globex = await settle(api, "acme", "globex")
        before = await _all_of(api, acme), await _all_of(api, globex)
        for number in itertools.count(1):
            good = set((await backups.store.list()).good)
            killed, steps = await run_killed("create", database_addresses, home, die_after=number, slug="acme")
            await _nobody_works(database_addresses)
            new = set((await backups.store.list()).good) - good
            assert len(new) == (1 if "manifest stored" in steps else 0), steps
            for name in new:
                assert (await backups.checker.verify(name)).problem is None
            await _sweep(backups)
            assert _left_behind(home) == []
            assert (await _all_of(api, acme), await _all_of(api, globex)) == before
            if not killed:
                break
        assert steps == ("snapshot taken", "rows written", "rows stored", "manifest stored")


async def test_a_restore_that_is_killed_after_any_step_has_happened_or_not(
    database_addresses: Template, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    async with open_deployment(database_addresses, home) as api, open_backups(database_addresses, home) as backups:
        acme, globex = await settle(api, "acme", "globex")
        manifest = await backups.writer().tenant(await row_of(backups, "acme"))
        old = await digests(api, acme.id)
        await acme.add_team("Since")
        since, neighbour = await digests(api, acme.id), await _all_of(api, globex)
        for number in itertools.count(1):
            killed, steps = await run_killed("restore", database_addresses, home, die_after=number, slug="acme")
            await _nobody_works(database_addresses)
            now = await digests(api, acme.id)
            happened = "recorded" in steps
            async with as_admin(database_addresses) as admin:
                schemas = [
                    row["name"]
                    for row in await admin.fetch(
                        "SELECT nspname AS name FROM pg_namespace WHERE nspname ~ '^(t|kept)_' ORDER BY 1 DESC"
                    )
                ]
                directory = await admin.fetchval("SELECT count(*) FROM platform.account_directory")
                roles = await admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname ~ '^t_'")
                assert directory == 2
            assert len(schemas) == (3 if happened else 2), (steps, schemas)
            if happened:
                assert {name: now[name] for name in now.keys() - ENDED} == {
                    name: old[name] for name in now.keys() - ENDED
                }
            else:
                assert now == since
            assert await _all_of(api, globex) == neighbour
            await _sweep(backups)
            assert _left_behind(home) == []
            assert roles >= 2
            if not killed or happened:
                break
        assert steps == (
            "backup checked",
            "schema made",
            "rows loaded",
            "rows compared",
            "schema migrated",
            "swapped",
            "recorded",
        )
        assert (await backups.store.manifest(manifest.name)).id == manifest.id
        await api.app.state.registry.refresh()
        await api.log_in("acme", "owner@acme.example")


async def test_a_shared_schema_whose_restore_is_killed_can_be_restored_again(
    database_addresses: Template, template: Template, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    async with open_deployment(database_addresses, home) as api, open_backups(database_addresses, home) as backups:
        await settle(api, "acme")
        await backups.writer().shared()
    name = make_database_name("empty")
    empty = Template(
        name=name,
        admin_url=template.admin_url.replace(template.name, name),
        owner_url=template.owner_url.replace(template.name, name),
        app_url=template.app_url.replace(template.name, name),
        redis_url=template.redis_url,
    )
    admin = await asyncpg.connect(template.admin_url.replace(template.name, "postgres"))
    try:
        await admin.execute(f'CREATE DATABASE "{name}" OWNER tenantry_owner')
        for number in itertools.count(1):
            killed, steps = await run_killed("shared", empty, home, die_after=number)
            await _nobody_works(empty)
            async with as_admin(empty) as inside:
                there = await inside.fetchval("SELECT to_regnamespace('platform') IS NOT NULL")
                assert there == ("recorded" in steps), steps
                if there:
                    assert await inside.fetchval("SELECT array_agg(slug) FROM platform.tenant") == ["acme"]
            if not killed or there:
                break
        assert steps[-1] == "recorded"
    finally:
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await admin.close()
