"""A tenant that was made a moment ago is let in on every connection, however busy they were while it was made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tenantry.tenancy.bootstrap import APP_ROLE
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.database import Database, Transaction
from tenantry.tenancy.scope import Scope
from tests.databases import Template
from tests.platform.support import as_admin

OTHERS = 300
"""Roles that are there already. PostgreSQL reads one after the other, and the longer it reads the more it misses."""
ROUNDS = 40
CONNECTIONS = 3

_CONTROL = control_scope(ScopeTimes(), read_only=False)
_MADE = "CREATE ROLE {0}; GRANT {0} TO " + APP_ROLE + " WITH INHERIT FALSE, SET TRUE"


async def _begin(database: Database, scope: Scope) -> Transaction:
    return await database.begin(scope)


async def _descend(database: Database, scope: Scope) -> Transaction:
    transaction = await database.begin(_CONTROL)
    await transaction.descend(scope)
    return transaction


@pytest.fixture
async def database(database_addresses: Template) -> AsyncIterator[Database]:
    """A pool beside which hundreds of roles were granted to the application."""
    made = Database(database_addresses.app_url, pool_size=CONNECTIONS, max_overflow=0)
    mark = uuid4().hex[:8]
    # Of the whole cluster: they are made in one go, and are gone with the test.
    others = f"FOR k IN 1..{OTHERS} LOOP EXECUTE format('%s', replace($t${{}}$t$, '#', k::text)); END LOOP"
    async with as_admin(database_addresses) as admin:
        await admin.execute(f"DO $$ BEGIN {others.format(_MADE.format(f'other_{mark}_#'))}; END $$")
    yield made
    await made.close()
    async with as_admin(database_addresses) as admin:
        await admin.execute(f"DO $$ BEGIN {others.format(f'DROP ROLE other_{mark}_#')}; END $$")


@asynccontextmanager
async def _under_load(database: Database) -> AsyncIterator[None]:
    """Every connection takes one scope after the other until the block ends."""
    ended = False

    async def take() -> None:
        while not ended:
            async with database.transaction(_CONTROL):
                pass

    tasks = [asyncio.create_task(take()) for _ in range(CONNECTIONS)]
    try:
        yield
    finally:
        ended = True
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("enter", [_begin, _descend])
async def test_a_role_that_was_just_granted_is_taken_on_every_connection(
    database: Database, database_addresses: Template, enter: Callable[[Database, Scope], Any]
) -> None:
    owner = await asyncpg.connect(database_addresses.owner_url)
    try:
        for _ in range(ROUNDS):
            made = [f"t_{uuid4().hex}", f"t_{uuid4().hex}"]
            async with _under_load(database):
                for role in made:
                    await owner.execute(_MADE.format(role))
            # Held all at once, so that each is another connection.
            entered = await asyncio.gather(
                *(enter(database, Scope(role=made[1], search_path=made[1])) for _ in range(CONNECTIONS))
            )
            for transaction in entered:
                assert await transaction.connection.fetchval("SELECT current_user") == made[1]
                await transaction.close()
            await owner.execute("; ".join(f"DROP ROLE {role}" for role in made))
    finally:
        await owner.close()


async def test_a_role_that_was_never_granted_is_denied_and_the_connection_closed(
    database: Database, database_addresses: Template
) -> None:
    role = f"t_{uuid4().hex}"
    owner = await asyncpg.connect(database_addresses.owner_url)
    try:
        await owner.execute(f"CREATE ROLE {role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.begin(Scope(role=role, search_path=role))
        transaction = await database.begin(_CONTROL)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await transaction.descend(Scope(role=role, search_path=role))
        assert transaction.connection.is_closed()
        await transaction.close(failed=True)
        await owner.execute(f"DROP ROLE {role}")
    finally:
        await owner.close()
