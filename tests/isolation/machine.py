"""Two tenants taking turns on the same connections, in every way in which a turn can end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import pytest
from hypothesis import strategies as st
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from tenantry.domain.tags.models import Tag
from tenantry.tenancy.connection import CommitFailedError
from tenantry.tenancy.database import Database, Transaction, driver_of
from tenantry.tenancy.scope import ScopeError
from tests.isolation.estate import Estate

__all__ = ("ENDINGS", "Machine", "Turn", "turns")

_READ = "SELECT name, description FROM tag"
_WRITE = "UPDATE tag SET description = $1"
# What a connection between two transactions is: nobody in particular, in no schema, with nothing left over.
_IDLE = """
SELECT current_user::text, current_setting('role'), current_setting('search_path'),
       current_setting('transaction_read_only'), current_setting('statement_timeout'),
       (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
       (SELECT count(*) FROM pg_cursors WHERE is_holdable)
"""
_CONNECTION_LOST = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # What asyncpg says between the server's farewell and the end of the stream.
    asyncpg.InternalClientError,
    DBAPIError,
)
_NOBODY = ("tenantry_app", "none", '""', "off", "0", 0, 0)

STEPS = ("read", "write", "nested", "nested_error")
ENDINGS = (
    "commit",
    "rollback",
    "statement_error",
    "swallowed_error",
    "cancelled",
    "deadline",
    "statement_timeout",
    "lock_timeout",
    "backend_killed",
    "session_after_commit",
    "connection_after_close",
    "driver_transaction",
    "armed_and_returned",
)


class InterruptionError(Exception):
    """Something that went wrong in a request, and has nothing to do with the database."""


@dataclass(frozen=True)
class Turn:
    """One transaction of one tenant. `after` is where a cancellation strikes, in turns of the event loop."""

    tenant: int
    orm: bool
    steps: tuple[str, ...]
    ending: str
    after: int


def turns(endings: tuple[str, ...] = ENDINGS) -> st.SearchStrategy[Turn]:
    return st.builds(
        Turn,
        tenant=st.integers(0, 1),
        orm=st.booleans(),
        steps=st.lists(st.sampled_from(STEPS), max_size=4).map(tuple),
        ending=st.sampled_from(endings),
        after=st.integers(0, 80),
    )


class Machine:
    """Plays turns on a database and compares what is read with what it knows to be stored."""

    def __init__(self, database: Database, estate: Estate, admin: asyncpg.Connection[Any]) -> None:
        self.database = database
        self.operations = 0
        self.endings: Counter[str] = Counter()
        self._estate = estate
        self._admin = admin
        self._written = 0
        # More than one where a COMMIT was sent and its answer was not waited for.
        self._stored = [{f"{tenant.marker}:0"} for tenant in estate.tenants]

    async def play(self, turn: Turn) -> None:
        self.endings[turn.ending] += 1
        play: Callable[[Turn], Awaitable[None]] = getattr(self, f"_{turn.ending}")
        await play(turn)
        await self.check_idle()

    async def check_idle(self) -> None:
        """The next one to take a connection finds it clean, on this side and on the server's."""
        pool: Any = self.database.engine.sync_engine.pool
        assert pool.checkedout() == 0
        proxied = await self.database.engine.raw_connection()
        try:
            driver = driver_of(proxied)
            assert driver.is_clean
            assert tuple(await driver.fetchrow(_IDLE) or ()) == _NOBODY
            assert driver.is_clean
        finally:
            proxied.close()

    async def read_loosely(self, tenant: int) -> None:
        """As a reader that runs beside others: the row is the tenant's own, whatever it says now."""
        scope = self._estate.tenants[tenant].context.read_scope
        marker = self._estate.tenants[tenant].marker
        async with self.database.transaction(scope) as transaction:
            [(name, description)] = await transaction.connection.fetch(_READ)
        assert name == marker
        assert description.startswith(f"{marker}:")

    # The steps of a transaction.

    async def _begin(self, turn: Turn, **times: Any) -> Transaction:
        self.operations += 1
        scope = self._estate.tenants[turn.tenant].context.write_scope
        return await self.database.begin(replace(scope, **times) if times else scope)

    async def _read(self, turn: Turn, transaction: Transaction, expected: set[str]) -> None:
        self.operations += 1
        rows: Iterable[Any]
        if turn.orm:
            rows = await transaction.session.execute(select(Tag.name, Tag.description))
        else:
            rows = await transaction.connection.fetch(_READ)
        [(name, description)] = rows
        assert name == self._estate.tenants[turn.tenant].marker
        assert description in expected

    async def _write(self, turn: Turn, transaction: Transaction, *, orm: bool | None = None) -> str:
        self.operations += 1
        self._written += 1
        value = f"{self._estate.tenants[turn.tenant].marker}:{self._written}"
        if turn.orm if orm is None else orm:
            await transaction.session.execute(update(Tag).values(description=value))
        else:
            await transaction.connection.execute(_WRITE, value)
        return value

    async def _steps(self, turn: Turn, transaction: Transaction) -> set[str]:
        """Returns what the row may say at the end."""
        current = self._stored[turn.tenant]
        for step in turn.steps:
            if step == "read":
                await self._read(turn, transaction, current)
            elif step == "write":
                current = {await self._write(turn, transaction)}
            elif step == "nested":
                # By the ORM, which sends SAVEPOINT with the first statement of its own.
                async with transaction.session.begin_nested():
                    current = {await self._write(turn, transaction, orm=True)}
            else:
                with pytest.raises(DBAPIError, match="division by zero"):
                    await self._write_and_fail(turn, transaction)
            await self._read(turn, transaction, current)
        return current

    async def _write_and_fail(self, turn: Turn, transaction: Transaction) -> None:
        async with transaction.session.begin_nested():
            await self._write(turn, transaction, orm=True)
            await transaction.session.execute(text("SELECT 1 / 0"))

    async def _fail(self, turn: Turn, transaction: Transaction) -> None:
        if turn.orm:
            with pytest.raises(DBAPIError, match="no_such_column"):
                await transaction.session.execute(text("SELECT no_such_column FROM tag"))
        else:
            with pytest.raises(asyncpg.UndefinedColumnError):
                await transaction.connection.fetch("SELECT no_such_column FROM tag")

    # The endings.

    async def _commit(self, turn: Turn) -> None:
        transaction = await self._begin(turn)
        try:
            current = await self._steps(turn, transaction)
            await transaction.commit()
            self._stored[turn.tenant] = current
        finally:
            await transaction.close()

    async def _rollback(self, turn: Turn) -> None:
        scope = self._estate.tenants[turn.tenant].context.write_scope

        async def interrupted() -> None:
            async with self.database.transaction(scope) as transaction:
                await self._steps(turn, transaction)
                raise InterruptionError

        with pytest.raises(InterruptionError):
            await interrupted()

    async def _statement_error(self, turn: Turn) -> None:
        transaction = await self._begin(turn)
        try:
            await self._steps(turn, transaction)
            await self._fail(turn, transaction)
        finally:
            await transaction.close()

    async def _swallowed_error(self, turn: Turn) -> None:
        transaction = await self._begin(turn)
        try:
            await self._steps(turn, transaction)
            await self._fail(turn, transaction)
            with pytest.raises(CommitFailedError):
                await transaction.commit()
        finally:
            await transaction.close()

    async def _cancelled(self, turn: Turn) -> None:
        """Cancelled wherever it happens to be: before BEGIN is sent, while its answer is out, at COMMIT, after it."""
        before, values = self._written, set(self._stored[turn.tenant])
        task = asyncio.create_task(self._commit(turn))
        for _ in range(turn.after):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            marker = self._estate.tenants[turn.tenant].marker
            values |= {f"{marker}:{number}" for number in range(before + 1, self._written + 1)}
            self._stored[turn.tenant] = values

    async def _deadline(self, turn: Turn) -> None:
        """A deadline within the request, whose connection is closed as if nothing had been under way."""
        transaction = await self._begin(turn)
        try:
            await self._steps(turn, transaction)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.002):
                    await transaction.connection.fetch("SELECT pg_sleep(60)")
        finally:
            await transaction.close()

    async def _statement_timeout(self, turn: Turn) -> None:
        transaction = await self._begin(turn, statement_timeout=5)
        try:
            with pytest.raises(asyncpg.QueryCanceledError):
                await transaction.connection.fetch("SELECT pg_sleep(60)")
        finally:
            await transaction.close()

    async def _lock_timeout(self, turn: Turn) -> None:
        schema = self._estate.tenants[turn.tenant].schema
        async with self._admin.transaction():
            await self._admin.execute(f'SELECT FROM "{schema}".tag FOR UPDATE')
            transaction = await self._begin(turn, lock_timeout=5)
            try:
                with pytest.raises((asyncpg.LockNotAvailableError, DBAPIError)):
                    await self._write(turn, transaction)
            finally:
                await transaction.close()

    async def _backend_killed(self, turn: Turn) -> None:
        transaction = await self._begin(turn)
        try:
            current = await self._steps(turn, transaction)
            pid = await transaction.connection.fetchval("SELECT pg_backend_pid()")
            assert await self._admin.fetchval("SELECT pg_terminate_backend($1)", pid)
            # The signal takes its time: statements may still be answered, rightly.
            with pytest.raises(_CONNECTION_LOST):
                await self._read_for_ever(turn, transaction, current)
        finally:
            await transaction.close()

    async def _read_for_ever(self, turn: Turn, transaction: Transaction, expected: set[str]) -> None:
        while True:
            await self._read(turn, transaction, expected)

    async def _session_after_commit(self, turn: Turn) -> None:
        transaction = await self._begin(turn)
        try:
            current = await self._steps(turn, transaction)
            session = transaction.session
            await transaction.commit()
            self._stored[turn.tenant] = current
            with pytest.raises(ScopeError):
                await session.execute(select(Tag.name))
        finally:
            await transaction.close()

    async def _connection_after_close(self, turn: Turn) -> None:
        """Whoever kept what they were given does not read in another tenant's transaction."""
        transaction = await self._begin(turn)
        try:
            await self._read(turn, transaction, self._stored[turn.tenant])
            connection, session = transaction.connection, transaction.session
        finally:
            await transaction.close()
        scope = self._estate.tenants[1 - turn.tenant].context.write_scope
        async with self.database.transaction(scope):
            with pytest.raises(ScopeError):
                await connection.fetch(_READ)
            with pytest.raises(Exception, match="AssertionError"):
                await session.execute(select(Tag.name))

    async def _driver_transaction(self, turn: Turn) -> None:
        """asyncpg's own transaction inside the scoped one would be a savepoint: it is refused."""
        transaction = await self._begin(turn)
        try:
            await self._steps(turn, transaction)
            with pytest.raises(ScopeError):
                await transaction.connection.transaction().start()
            assert transaction.connection.is_closed()
        finally:
            await transaction.close()

    async def _armed_and_returned(self, turn: Turn) -> None:
        """A scope that no BEGIN has taken goes when the connection is returned."""
        proxied = await self.database.engine.raw_connection()
        driver_of(proxied).arm(self._estate.tenants[turn.tenant].context.write_scope)
        proxied.close()
