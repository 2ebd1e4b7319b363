"""What a rollout does to tenants: to those that go well, to those that do not, and to nobody else."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from tenantry.platform.rollouts.migration import Job, MigrationError, migrate, prepare
from tenantry.tenancy.models import schema_name
from tests.databases import Template
from tests.platform.rollouts.support import (
    add_team,
    as_owner,
    cancel,
    ends,
    make_tenants,
    quick_runner,
    resume,
    roll_out,
    rows_of,
    start,
    states,
)
from tests.platform.support import eventually
from tests.tenancy.catalog import describe_schema
from tests.tree import COLUMN_AND_INDEX, TenantTree

NO_HYPHENS = """op.create_check_constraint("slug_plain", "team", "slug !~ '-'")"""


async def test_every_tenant_is_migrated_and_the_ledger_follows(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    made = await make_tenants(database_addresses, "acme", "globex", "initech")
    await make_tenants(database_addresses, "umbrella", status="suspended")
    new = tenant_tree.add()
    rollout = await start(database_addresses, canary=1)
    ended = await ends(database_addresses, rollout)
    assert (ended.status, ended.total, ended.done, ended.failed) == ("done", 4, 4, 0)
    assert set((await states(database_addresses)).values()) == {new}
    rows = await rows_of(database_addresses, rollout)
    assert [slug for slug, row in rows.items() if row["wave"] == 0] == ["acme"]
    for row in rows.values():
        assert (row["status"], row["from_revision"], row["attempts"]) == ("done", tenant_tree.base, 1)
        assert row["duration"] >= 0
        assert row["finished_at"] is not None
    async with as_owner(database_addresses) as owner:
        # The same as one that is made at this head.
        fresh = await make_tenants(database_addresses, "fresh")
        expected = await describe_schema(owner, schema_name(fresh["fresh"]))
        assert await describe_schema(owner, schema_name(made["acme"])) == expected


async def test_a_second_rollout_finds_nothing_to_do(database_addresses: Template, tenant_tree: TenantTree) -> None:
    await make_tenants(database_addresses, "acme")
    tenant_tree.add()
    assert (await roll_out(database_addresses)).total == 1
    again = await roll_out(database_addresses)
    assert (again.status, again.total) == ("done", 0)


async def test_nobody_but_the_chosen_is_touched(database_addresses: Template, tenant_tree: TenantTree) -> None:
    made = await make_tenants(database_addresses, "acme", "globex")
    new = tenant_tree.add()
    async with as_owner(database_addresses) as owner:
        before = await describe_schema(owner, schema_name(made["globex"]))
        ended = await roll_out(database_addresses, only=["acme"])
        assert ended.total == 1
        assert await describe_schema(owner, schema_name(made["globex"])) == before
    assert await states(database_addresses) == {"acme": new, "globex": tenant_tree.base}


async def test_tenants_of_several_revisions_each_take_their_own_path(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    await make_tenants(database_addresses, "old")
    tenant_tree.add()
    await make_tenants(database_addresses, "newer", "newest")
    head = tenant_tree.add("op.add_column('tag', sa.Column('color', sa.Text(), nullable=True))")
    rollout = await start(database_addresses, canary=2)
    assert (await ends(database_addresses, rollout)).done == 3
    assert set((await states(database_addresses)).values()) == {head}
    # Of each starting revision one: the paths differ.
    rows = await rows_of(database_addresses, rollout)
    assert {slug for slug, row in rows.items() if row["wave"] == 0} == {"old", "newer"}


async def test_data_that_break_a_new_constraint_fail_their_tenant_alone(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    made = await make_tenants(database_addresses, "acme", "globex", "initech")
    await add_team(database_addresses, made["globex"], "red-team")
    new = tenant_tree.add(f"{COLUMN_AND_INDEX}\n{NO_HYPHENS}")
    rollout = await start(database_addresses)
    async with as_owner(database_addresses) as owner:
        before = await describe_schema(owner, schema_name(made["globex"]))
        ended = await ends(database_addresses, rollout)
        assert await describe_schema(owner, schema_name(made["globex"])) == before
    assert (ended.status, ended.done, ended.failed) == ("done", 2, 1)
    assert await states(database_addresses) == {"acme": new, "globex": tenant_tree.base, "initech": new}
    failed = (await rows_of(database_addresses, rollout))["globex"]
    assert (failed["status"], failed["attempts"]) == ("failed", 1)
    assert failed["statement"] == "ALTER TABLE team ADD CONSTRAINT ck_team_slug_plain CHECK (slug !~ '-');"
    assert failed["error"].startswith("23514: check constraint")
    assert "red-team" not in failed["error"]


async def test_a_statement_that_the_server_cannot_understand_is_named_at_once(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    await make_tenants(database_addresses, "acme")
    tenant_tree.add(f"{COLUMN_AND_INDEX}\nop.execute('UPDATE team SET colour = 1')")
    rollout = await start(database_addresses)
    assert (await ends(database_addresses, rollout)).failed == 1
    failed = (await rows_of(database_addresses, rollout))["acme"]
    assert failed["statement"] == "UPDATE team SET colour = 1;"
    assert failed["error"].startswith("42703: column")
    assert await states(database_addresses) == {"acme": tenant_tree.base}


async def test_a_locked_table_is_waited_for_in_pauses(database_addresses: Template, tenant_tree: TenantTree) -> None:
    made = await make_tenants(database_addresses, "acme", "globex")
    new = tenant_tree.add()
    rollout = await start(database_addresses, lock_timeout=50, max_attempts=20)
    async with as_owner(database_addresses) as busy:
        async with busy.transaction():
            await busy.execute(f'LOCK TABLE "{schema_name(made["acme"])}".team IN ACCESS SHARE MODE')
            running = asyncio.create_task(ends(database_addresses, rollout))

            async def was_kept_out() -> bool:
                row = (await rows_of(database_addresses, rollout)).get("acme")
                return row is not None and row["attempts"] >= 2

            await eventually(was_kept_out, 10)
            # The statement is named from the second attempt on, and the other tenant did not wait.
            row = (await rows_of(database_addresses, rollout))["acme"]
            assert row["statement"] == "ALTER TABLE team ADD COLUMN color TEXT;"
            assert row["error"] == "55P03: canceling statement due to lock timeout"
            assert await states(database_addresses) == {"acme": tenant_tree.base, "globex": new}
        ended = await running
    assert (ended.status, ended.done, ended.failed) == ("done", 2, 0)
    row = (await rows_of(database_addresses, rollout))["acme"]
    assert (row["status"], row["error"], row["statement"]) == ("done", None, None)
    assert await states(database_addresses) == {"acme": new, "globex": new}


async def test_a_table_that_stays_locked_fails_its_tenant_after_the_last_attempt(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    made = await make_tenants(database_addresses, "acme", "globex")
    tenant_tree.add()
    rollout = await start(database_addresses, lock_timeout=20, max_attempts=2)
    async with as_owner(database_addresses) as busy, busy.transaction():
        await busy.execute(f'LOCK TABLE "{schema_name(made["acme"])}".team IN ACCESS SHARE MODE')
        ended = await ends(database_addresses, rollout)
    assert (ended.status, ended.done, ended.failed) == ("done", 1, 1)
    row = (await rows_of(database_addresses, rollout))["acme"]
    assert (row["status"], row["attempts"]) == ("failed", 2)


async def test_a_tenant_whose_operation_is_under_way_is_migrated_when_it_has_ended(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    made = await make_tenants(database_addresses, "acme", "globex")
    new = tenant_tree.add()
    rollout = await start(database_addresses, lock_timeout=5000)
    async with as_owner(database_addresses) as exporting:
        async with exporting.transaction():
            await exporting.execute("SELECT FROM platform.tenant WHERE id = $1 FOR UPDATE", made["acme"])
            running = asyncio.create_task(ends(database_addresses, rollout))

            async def others_are_done() -> bool:
                return (await states(database_addresses))["globex"] == new

            await eventually(others_are_done, 4)
        assert (await running).done == 2
    assert set((await states(database_addresses)).values()) == {new}


async def test_an_operation_that_begins_is_not_waited_for_with_locks_held(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    made = await make_tenants(database_addresses, "acme")
    target = tenant_tree.add()
    job = Job(uuid4(), made["acme"], "acme", tenant_tree.base, target, lock_timeout=20_000)
    async with as_owner(database_addresses) as exporting, as_owner(database_addresses) as owner:
        await prepare(owner, 20_000)
        await owner.execute(
            "INSERT INTO platform.operation (id, kind, status, tenant_id, payload, attempts, not_before, requested_by,"
            " created_at, updated_at) VALUES ($1, 'export', 'pending', $2, '{}', 0, now(), 'cli:test', now(), now())",
            uuid4(),
            made["acme"],
        )
        async with exporting.transaction():
            await exporting.execute("SELECT FROM platform.tenant WHERE id = $1 FOR UPDATE", made["acme"])
            with pytest.raises(MigrationError, match="could not obtain lock on row") as caught:
                await migrate(owner, job, stepwise=True)
        assert caught.value.transient
        assert caught.value.statement is not None
        assert "rollout_begin" in caught.value.statement
        assert not owner.is_in_transaction()


async def test_a_canary_that_fails_halts_it_before_the_others_begin(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    made = await make_tenants(database_addresses, "acme", "globex", "initech")
    await add_team(database_addresses, made["acme"], "red-team")
    new = tenant_tree.add(NO_HYPHENS)
    rollout = await start(database_addresses, canary=1)
    ended = await ends(database_addresses, rollout)
    assert (ended.status, ended.halted_reason) == ("halted", "the canary acme failed")
    assert (ended.total, ended.done, ended.failed, ended.pending) == (3, 0, 1, 2)
    assert set((await states(database_addresses)).values()) == {tenant_tree.base}
    async with as_owner(database_addresses) as owner:
        await owner.execute(f"""UPDATE "{schema_name(made["acme"])}".team SET slug = 'red'""")
    await resume(database_addresses, rollout)
    again = await ends(database_addresses, rollout)
    assert (again.status, again.done, again.failed, again.halted_reason) == ("done", 3, 0, None)
    assert set((await states(database_addresses)).values()) == {new}


async def test_it_halts_when_as_many_have_failed_as_were_allowed(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    slugs = [f"org-{number}" for number in range(6)]
    made = await make_tenants(database_addresses, *slugs)
    for slug in slugs[1:]:
        await add_team(database_addresses, made[slug], "red-team")
    tenant_tree.add(NO_HYPHENS)
    ended = await roll_out(database_addresses, concurrency=1, halt_after=2)
    assert (ended.status, ended.halted_reason) == ("halted", "2 tenants failed")
    assert (ended.done, ended.failed, ended.pending) == (1, 2, 3)


async def test_a_cancelled_rollout_finishes_what_is_under_way_and_can_be_resumed(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    made = await make_tenants(database_addresses, "acme", "globex", "initech")
    new = tenant_tree.add()
    rollout = await start(database_addresses, concurrency=1, lock_timeout=20_000)
    async with as_owner(database_addresses) as busy, as_owner(database_addresses) as other:
        async with busy.transaction():
            await busy.execute(f'LOCK TABLE "{schema_name(made["acme"])}".team IN ACCESS SHARE MODE')
            running = asyncio.create_task(ends(database_addresses, rollout))

            async def waits() -> bool:
                return bool(
                    await other.fetchval(
                        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'tenantry-rollout'"
                        " AND datname = current_database() AND wait_event_type = 'Lock')"
                    )
                )

            await eventually(waits, 10)
            await cancel(database_addresses, rollout)
            await asyncio.wait({running}, timeout=0.2)
            assert not running.done()
        ended = await running
    assert (ended.status, ended.done, ended.pending) == ("cancelled", 1, 2)
    assert await states(database_addresses) == {"acme": new, "globex": tenant_tree.base, "initech": tenant_tree.base}
    await resume(database_addresses, rollout)
    assert (await ends(database_addresses, rollout)).done == 3


async def test_an_archived_tenant_is_no_part_of_it(database_addresses: Template, tenant_tree: TenantTree) -> None:
    made = await make_tenants(database_addresses, "acme", "globex")
    tenant_tree.add()
    async with as_owner(database_addresses) as owner:
        await owner.execute(
            "UPDATE platform.tenant SET status = 'archived', archive_key = 'k', revision = NULL WHERE id = $1",
            made["globex"],
        )
        await owner.execute(f'DROP SCHEMA "{schema_name(made["globex"])}" CASCADE')
    ended = await roll_out(database_addresses)
    assert (ended.total, ended.done) == (1, 1)


@pytest.mark.parametrize("schema_is", ["ahead", "behind"])
async def test_where_ledger_and_schema_differ_the_schema_is_right(
    database_addresses: Template, tenant_tree: TenantTree, schema_is: str
) -> None:
    made = await make_tenants(database_addresses, "acme")
    first = tenant_tree.add()
    if schema_is == "ahead":
        await roll_out(database_addresses)
    second = tenant_tree.add("op.add_column('tag', sa.Column('color', sa.Text(), nullable=True))")
    if schema_is == "ahead":
        await roll_out(database_addresses)
    ledger = tenant_tree.base if schema_is == "ahead" else first
    async with as_owner(database_addresses) as owner:
        await owner.execute("UPDATE platform.tenant SET revision = $2 WHERE id = $1", made["acme"], ledger)
    ended = await roll_out(database_addresses)
    assert (ended.total, ended.done) == (1, 1)
    assert await states(database_addresses) == {"acme": second}


async def test_a_schema_of_an_unknown_revision_is_not_touched(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    made = await make_tenants(database_addresses, "acme", "globex")
    new = tenant_tree.add()
    async with as_owner(database_addresses) as owner:
        # The ledger knows it: a newer release's. The ledger does not: somebody's own doing.
        await owner.execute("UPDATE platform.tenant SET revision = '9999' WHERE id = $1", made["acme"])
        await owner.execute(f"""UPDATE "{schema_name(made["acme"])}".alembic_version SET version_num = '9999'""")
        await owner.execute(f"""UPDATE "{schema_name(made["globex"])}".alembic_version SET version_num = '9999'""")
    rollout = await start(database_addresses)
    ended = await ends(database_addresses, rollout)
    assert (ended.total, ended.failed) == (1, 1)
    row = (await rows_of(database_addresses, rollout))["globex"]
    assert row["error"].startswith("its schema is at '9999'")
    assert new not in row["error"].split("revision '9999'")[0]


async def test_a_revision_that_has_no_sql_and_does_not_say_so_halts_it(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    await make_tenants(database_addresses, "acme")
    tenant_tree.add("for row in op.get_bind().execute(sa.text('SELECT id FROM team')):\n    print(row)")
    ended = await roll_out(database_addresses)
    assert ended.status == "halted"
    assert ended.halted_reason is not None
    assert "says `online = True`" in ended.halted_reason


async def test_the_connections_that_migrate_may_be_killed(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    slugs = [f"org-{number}" for number in range(8)]
    await make_tenants(database_addresses, *slugs)
    new = tenant_tree.add("op.execute('SELECT pg_sleep(0.1)')\n" + COLUMN_AND_INDEX)
    rollout = await start(database_addresses, concurrency=2)
    seen: list[int] = []
    running = asyncio.create_task(quick_runner(database_addresses).run(rollout, lambda now: seen.append(now.done)))
    async with as_owner(database_addresses) as owner:
        for least in (1, 3, 5):

            async def reached(least: int = least) -> bool:
                return bool(seen) and seen[-1] >= least

            await eventually(reached, 20)
            # All of them: the workers', the ledger's, and the one that holds the lock.
            await owner.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'tenantry-rollout' AND datname = current_database()"
            )
    ended = await running
    assert ended is not None
    assert (ended.status, ended.done, ended.failed) == ("done", 8, 0)
    assert set((await states(database_addresses)).values()) == {new}
