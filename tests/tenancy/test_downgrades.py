"""Every step of both trees, forth and back: where it says that there is a way back, it leads to where it began."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from alembic import command
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import Tree, alone, config, upgrade
from tenantry.tenancy.revisions import Revision, revisions
from tests.databases import Template
from tests.tenancy.catalog import describe_schema, without_order
from tests.tenancy.trees import Trees, revision_text

STEPS: list[tuple[Tree, Revision]] = [(tree, revision) for tree in get_args(Tree) for revision in revisions(tree)]


@pytest.fixture
async def owner(database_addresses: Template) -> AsyncIterator[AsyncConnection]:
    """The owner's transaction; rolled back."""
    engine = owner_engine(database_addresses.owner_url)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


async def _catalog(connection: AsyncConnection, schema: str) -> set[tuple[object, ...]]:
    driver = cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
    found = await describe_schema(cast("Any", driver), schema)
    return without_order(found)


def _downgrade(connection: Connection, tree: Tree, revision: str) -> None:
    with alone():
        command.downgrade(config(tree, connection=connection), revision)


async def _try_step(connection: AsyncConnection, tree: Tree, step: Revision) -> None:
    """Up to the step, over it, back, and over it once more.

    Raises:
        AssertionError: it does not lead back, or does not say why.
    """
    schema = "platform" if tree == "shared" else "probe"
    if tree == "shared":
        # It steps aside. For a tenant's tree it stays, whose triggers call functions of it.
        await connection.exec_driver_sql("ALTER SCHEMA platform RENAME TO aside")
    await connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    await connection.exec_driver_sql(f"SET LOCAL search_path TO {schema if tree == 'tenant' else 'pg_catalog'}")
    if step.down_revision is not None:
        await connection.run_sync(upgrade, tree, step.down_revision)
    before = await _catalog(connection, schema)
    await connection.run_sync(upgrade, tree, step.id)
    after = await _catalog(connection, schema)
    if step.irreversible is not None:
        with pytest.raises(NotImplementedError) as caught:
            await connection.run_sync(_downgrade, tree, step.down_revision or "base")
        assert step.irreversible in str(caught.value)
        assert await _catalog(connection, schema) == after
        return
    await connection.run_sync(_downgrade, tree, step.down_revision or "base")
    assert await _catalog(connection, schema) == before
    await connection.run_sync(upgrade, tree, step.id)
    assert await _catalog(connection, schema) == after


@pytest.mark.parametrize(("tree", "step"), STEPS, ids=lambda value: getattr(value, "id", value))
async def test_each_step_leads_back_to_where_it_began_or_says_why_not(
    owner: AsyncConnection, tree: Tree, step: Revision
) -> None:
    await _try_step(owner, tree, step)


def _box(trees: Trees, upgrade: str, downgrade: str, attributes: str = "") -> Revision:
    """A second step, after one that makes a table."""
    trees.add("tenant", "0001_a", revision_text("0001", None, upgrade="op.execute('CREATE TABLE box (id int, n int)')"))
    trees.add(
        "tenant",
        "0002_b",
        revision_text("0002", "0001", upgrade=upgrade, downgrade=downgrade, attributes=attributes),
    )
    return revisions("tenant")[-1]


@pytest.mark.parametrize(
    ("upgrade", "downgrade"),
    [
        ("op.execute('ALTER TABLE box ADD m int, ADD k int')", "op.drop_column('box', 'm')"),
        ("op.execute('CREATE INDEX i ON box (n)')", "op.execute('SELECT 1')"),
        ("op.drop_column('box', 'n')", "op.add_column('box', sa.Column('n', sa.Text()))"),
        ("op.execute('ALTER TABLE box ALTER n SET DEFAULT 1')", "op.execute('ALTER TABLE box ALTER n SET DEFAULT 0')"),
    ],
)
async def test_a_downgrade_that_leaves_something_is_caught(
    owner: AsyncConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upgrade: str, downgrade: str
) -> None:
    step = _box(Trees(tmp_path, monkeypatch), upgrade, downgrade)
    with pytest.raises(AssertionError):
        await _try_step(owner, "tenant", step)


@pytest.mark.parametrize(
    ("upgrade", "downgrade"),
    [
        ("op.execute('CREATE INDEX i ON box (n)')", "op.execute('DROP INDEX i')"),
        ("op.drop_column('box', 'id')", "op.add_column('box', sa.Column('id', sa.Integer()))"),
    ],
)
async def test_a_downgrade_that_leads_back_passes(
    owner: AsyncConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upgrade: str, downgrade: str
) -> None:
    await _try_step(owner, "tenant", _box(Trees(tmp_path, monkeypatch), upgrade, downgrade))


@pytest.mark.parametrize(
    ("reason", "passes"), [("irreversible", True), ("'no'", False)], ids=["its-reason", "another-text"]
)
async def test_what_cannot_be_undone_raises_its_reason(
    owner: AsyncConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, passes: bool
) -> None:
    step = _box(
        Trees(tmp_path, monkeypatch),
        "op.execute('UPDATE box SET n = NULL')",
        f"raise NotImplementedError({reason})",
        'irreversible = "the numbers are gone"',
    )
    if passes:
        await _try_step(owner, "tenant", step)
        return
    with pytest.raises(AssertionError):
        await _try_step(owner, "tenant", step)
