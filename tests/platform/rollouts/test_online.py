"""Revisions with logic of their own: through Alembic, in the tenant's scope, and never in two tenants at a time."""

from __future__ import annotations

from tenantry.tenancy.models import schema_name
from tests.databases import Template
from tests.platform.rollouts.support import add_team, as_owner, ends, make_tenants, plan_of, rows_of, start, states
from tests.tree import COLUMN_AND_INDEX, TenantTree

BACKFILL = """
connection = op.get_bind()
for team in connection.execute(sa.text("SELECT id, name FROM team")).all():
    # A pause in which another tenant's migration could take the module `op` away.
    connection.execute(sa.text("SELECT pg_sleep(0.02)"))
    connection.execute(
        sa.text("UPDATE team SET color = :color WHERE id = :id"), {"color": team.name.upper(), "id": team.id}
    )
    op.execute(f"COMMENT ON TABLE team IS '{team.name}'")
""".strip()


async def colors(addresses: Template, schema: str) -> list[tuple[str, str, str]]:
    async with as_owner(addresses) as owner:
        rows = await owner.fetch(
            f"""SELECT name, color, obj_description('"{schema}".team'::regclass) FROM "{schema}".team ORDER BY name"""
        )
    return [tuple(row) for row in rows]


async def test_online_steps_see_each_tenants_own_data_and_nobody_elses(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    slugs = [f"org-{number}" for number in range(6)]
    made = await make_tenants(database_addresses, *slugs)
    for slug in slugs:
        await add_team(database_addresses, made[slug], f"team of {slug}")
    tenant_tree.add()
    online = tenant_tree.add(BACKFILL, online=True)
    last = tenant_tree.add("op.alter_column('team', 'color', nullable=False)")
    planned = await plan_of(database_addresses)
    assert [(step.id, step.online) for step in planned.groups[0].steps][1] == (online, True)
    ended = await ends(database_addresses, await start(database_addresses, concurrency=4))
    assert (ended.status, ended.done, ended.failed) == ("done", 6, 0)
    assert set((await states(database_addresses)).values()) == {last}
    for slug in slugs:
        name = f"team of {slug}"
        assert await colors(database_addresses, schema_name(made[slug])) == [(name, name.upper(), name)]


async def test_compiled_and_online_steps_of_a_tenant_are_one_transaction(
    database_addresses: Template, tenant_tree: TenantTree
) -> None:
    made = await make_tenants(database_addresses, "acme", "globex", "initech")
    await add_team(database_addresses, made["acme"], "red")
    await add_team(database_addresses, made["globex"], "blue")
    tenant_tree.add(COLUMN_AND_INDEX)
    online = tenant_tree.add(
        "names = op.get_bind().scalars(sa.text('SELECT name FROM team')).all()\n"
        "if 'red' in names:\n"
        "    raise ValueError('red is taken')\n"
        "if 'blue' in names:\n"
        "    op.execute('UPDATE team SET name = NULL')",
        online=True,
    )
    rollout = await start(database_addresses)
    ended = await ends(database_addresses, rollout)
    assert (ended.done, ended.failed) == (1, 2)
    found = await states(database_addresses)
    assert (found["acme"], found["globex"]) == (tenant_tree.base, tenant_tree.base)
    rows = await rows_of(database_addresses, rollout)
    assert rows["acme"]["error"] == "ValueError: red is taken"
    assert rows["acme"]["statement"] == f"-- revision {online}, through Alembic"
    assert rows["globex"]["error"].startswith("23502: null value in column")
    assert rows["globex"]["statement"] == "UPDATE team SET name = NULL"
    async with as_owner(database_addresses) as owner:
        columns = await owner.fetch(
            "SELECT table_schema FROM information_schema.columns WHERE column_name = 'color' AND table_schema ~ '^t_'"
        )
    assert [row["table_schema"] for row in columns] == [schema_name(made["initech"])]
