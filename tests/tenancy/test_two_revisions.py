"""Two tenants at different revisions of their schemas, on one pooled connection and its prepared statements."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import NotSupportedError
from uuid_utils.compat import uuid7

from tenantry.domain.teams.models import Team
from tenantry.domain.teams.queries import read_team
from tenantry.tenancy.database import Database
from tests.databases import Template
from tests.isolation.estate import Estate, Neighbour, open_estate, run_as

ADD = 'ALTER TABLE "{schema}".team ADD COLUMN color text; CREATE INDEX ON "{schema}".team (color)'
DROP = 'ALTER TABLE "{schema}".team DROP COLUMN color'


@pytest.fixture
async def estate(template: Template) -> AsyncIterator[Estate]:
    async with open_estate(template) as opened:
        yield opened


@pytest.fixture
async def database(estate: Estate) -> AsyncIterator[Database]:
    """A pool of one connection."""
    opened = Database(estate.addresses.app_url, pool_size=1, max_overflow=0)
    yield opened
    await opened.close()


class Visits:
    """What requests do, over and over, in turn for each tenant: rows written and read by the ORM, and read hot."""

    def __init__(self, database: Database, estate: Estate) -> None:
        self._database = database
        self._teams: dict[UUID, set[str]] = {tenant.context.id: set() for tenant in estate.tenants}
        self.backends: set[int] = set()

    async def visit(self, tenant: Neighbour) -> None:
        mine = self._teams[tenant.context.id]
        name = f"{tenant.marker} {len(mine)}"
        async with self._database.transaction(tenant.context.write_scope) as transaction:
            team = Team(id=uuid7(), name=name, slug=f"team-{len(mine)}")
            transaction.session.add(team)
            await transaction.session.flush()
            renamed = await transaction.session.scalar(
                update(Team).where(Team.id == team.id).values(description=tenant.marker).returning(Team.description)
            )
            assert renamed == tenant.marker
            self.backends.add(transaction.connection.get_server_pid())
        mine.add(name)
        async with self._database.transaction(tenant.context.read_scope) as transaction:
            read = await read_team(transaction.connection, team.id)
            assert (read.name, read.description) == (name, tenant.marker)
            found = await transaction.session.scalars(select(Team))
            assert {each.name for each in found} == mine

    async def prepared(self, tenant: Neighbour) -> list[asyncpg.Record]:
        """The statements on teams that the connection has prepared, and how often each was planned."""
        async with self._database.transaction(tenant.context.read_scope) as transaction:
            found: list[asyncpg.Record] = await transaction.connection.fetch(
                "SELECT statement, generic_plans + custom_plans AS plans FROM pg_prepared_statements"
                " WHERE statement LIKE '%team%'"
            )
            return found


async def _ddl(estate: Estate, tenant: Neighbour, statements: str) -> None:
    await run_as(estate.addresses.owner_url, statements.format(schema=tenant.schema))


async def test_tenants_at_two_revisions_alternate_on_one_connection(database: Database, estate: Estate) -> None:
    acme, globex = estate.tenants
    await _ddl(estate, globex, ADD)
    visits = Visits(database, estate)
    for _ in range(10):
        for tenant in (acme, globex):
            await visits.visit(tenant)
    assert len(visits.backends) == 1
    # It is the prepared statements that were shared: each of them exists once, and served both tenants each time.
    prepared = await visits.prepared(acme)
    assert len({row["statement"] for row in prepared}) == len(prepared)
    assert sum(row["plans"] >= 20 for row in prepared) == 4, "INSERT, UPDATE, the hot read and the ORM's"


async def test_columns_that_come_and_go_in_the_middle_of_traffic_are_not_noticed(
    database: Database, estate: Estate
) -> None:
    acme, globex = estate.tenants
    visits = Visits(database, estate)
    for change in (None, (acme, ADD), (globex, ADD), (acme, DROP), (globex, DROP), (acme, ADD)):
        if change is not None:
            await _ddl(estate, *change)
        for _ in range(3):
            for tenant in (acme, globex):
                await visits.visit(tenant)
    assert len(visits.backends) == 1


async def _read_with_a_star(database: Database, tenant: Neighbour, how: str) -> Any:
    async with database.transaction(tenant.context.read_scope) as transaction:
        if how == "hot":
            return await transaction.connection.fetch("SELECT * FROM team")
        connection = await transaction.session.connection()
        return (await connection.exec_driver_sql("SELECT * FROM team")).all()


@pytest.mark.parametrize(
    ("how", "error"), [("hot", asyncpg.InvalidCachedStatementError), ("ORM", NotSupportedError)], ids=["hot", "ORM"]
)
async def test_a_statement_that_does_not_name_its_columns_would_not_survive(
    database: Database, estate: Estate, how: str, error: type[Exception]
) -> None:
    """Why none of ours has a star; and that even then the connection is good for whoever comes next."""
    acme, globex = estate.tenants
    await _ddl(estate, globex, ADD)
    await _read_with_a_star(database, acme, how)
    with pytest.raises(error, match="cached statement plan is invalid"):
        await _read_with_a_star(database, globex, how)
    visits = Visits(database, estate)
    for tenant in (globex, acme):
        await visits.visit(tenant)
