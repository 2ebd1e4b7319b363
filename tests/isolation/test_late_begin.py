"""Answers that come late, or never: the client gives up while the server is already inside the transaction.

This leaked in a trial. BEGIN's answer was held back, a deadline fired in tenant A's request, the connection went back
to the pool with the server inside A's transaction, and tenant B's BEGIN became a savepoint in it: B read A's rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tenantry.kernel.http.failures import explain_failure
from tenantry.tenancy.connection import ScopedConnection
from tenantry.tenancy.database import Database
from tests.databases import Template, clone_database, drop_database
from tests.isolation.estate import Estate, Neighbour
from tests.isolation.proxy import Proxy, open_proxy
from tests.world import open_world

_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


def _begins(data: bytes) -> bool:
    return b"BEGIN" in data


def _commits(data: bytes) -> bool:
    return b"COMMIT" in data


def _sleeps(data: bytes) -> bool:
    return b"pg_sleep" in data


@pytest.fixture
async def wire(estate: Estate) -> AsyncIterator[tuple[Proxy, str]]:
    async with open_proxy(estate.addresses.app_url) as opened:
        yield opened


@pytest.fixture
def proxy(wire: tuple[Proxy, str]) -> Proxy:
    return wire[0]


@pytest.fixture
async def database(wire: tuple[Proxy, str], estate: Estate) -> AsyncIterator[Database]:
    """A pool of one connection, through the proxy, opened and warm."""
    made = Database(wire[1], pool_size=1, max_overflow=0)
    await _name(made, estate.tenants[0])
    yield made
    await made.close()


async def _name(database: Database, tenant: Neighbour) -> list[str]:
    async with database.transaction(tenant.context.read_scope) as transaction:
        return [record["name"] for record in await transaction.connection.fetch("SELECT name FROM tag")]


async def _write(database: Database, tenant: Neighbour, value: str) -> None:
    async with database.transaction(tenant.context.write_scope) as transaction:
        await transaction.connection.execute("UPDATE tag SET description = $1", value)


class _Deadline:
    """A deadline that fires when it is told to."""

    def __init__(self) -> None:
        self._timeout = asyncio.timeout(None)

    async def run(self, work: Any) -> None:
        async with self._timeout:
            await work

    def fire(self) -> None:
        self._timeout.reschedule(asyncio.get_running_loop().time())


@pytest.mark.parametrize("how", ["deadline", "cancelled"])
@pytest.mark.parametrize("answer", ["late", "later"])
async def test_after_a_late_begin_the_next_tenant_reads_its_own_row(
    proxy: Proxy, database: Database, estate: Estate, how: str, answer: str
) -> None:
    acme, globex = estate.tenants
    before = proxy.connections
    proxy.hold(_begins)
    deadline = _Deadline()
    request = asyncio.create_task(deadline.run(_name(database, acme)))
    await proxy.held.wait()
    if how == "deadline":
        deadline.fire()
    else:
        request.cancel()
    if answer == "late":
        # The answer is on its way while the deadline's exception is.
        proxy.release()
    with pytest.raises(TimeoutError if how == "deadline" else asyncio.CancelledError):
        await request
    proxy.release()
    assert await _name(database, globex) == [globex.marker]
    assert await _name(database, acme) == [acme.marker]
    # A new one for the one that was closed; asyncpg's own message that cancels a statement may have come on a third.
    assert proxy.connections > before


async def test_the_driver_alone_closes_a_connection_whose_begin_was_late(
    proxy: Proxy, wire: tuple[Proxy, str], estate: Estate
) -> None:
    """Without the pool's own care, that is: each layer holds by itself."""
    acme = estate.tenants[0]
    connection = await asyncpg.connect(wire[1], connection_class=ScopedConnection)
    connection.arm(acme.context.write_scope)
    proxy.hold(_begins)
    deadline = _Deadline()
    request = asyncio.create_task(deadline.run(connection.transaction().start()))
    await proxy.held.wait()
    deadline.fire()
    with pytest.raises(TimeoutError):
        await request
    assert connection.is_closed()
    proxy.release()
    with pytest.raises(asyncpg.InterfaceError, match="connection is closed"):
        await connection.fetch("SELECT name FROM tag")


async def test_without_the_kernel_a_late_begin_leaks(proxy: Proxy, wire: tuple[Proxy, str], estate: Estate) -> None:
    """The trap itself, on asyncpg's own connection: should this ever fail, the tests above have lost their subject."""
    acme, globex = estate.tenants

    class Naive(asyncpg.Connection):
        async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109
            if query == "BEGIN;":
                query = tenant.context.write_scope.begin()
            return await super().execute(query, *args, timeout=timeout)

    connection = await asyncpg.connect(wire[1], connection_class=Naive)
    tenant = acme
    proxy.hold(_begins)
    deadline = _Deadline()
    request = asyncio.create_task(deadline.run(connection.transaction().start()))
    await proxy.held.wait()
    deadline.fire()
    proxy.release()
    with pytest.raises(TimeoutError):
        await request
    tenant = globex
    async with connection.transaction():
        assert await connection.fetchval("SELECT name FROM tag") == acme.marker
    connection.terminate()


async def test_a_late_commit_is_an_error_and_closes_the_connection(
    proxy: Proxy, database: Database, estate: Estate, admin: asyncpg.Connection[Any]
) -> None:
    """Nobody can know on which side of the end the server is; here it has committed."""
    acme, globex = estate.tenants
    proxy.hold(_commits)
    deadline = _Deadline()
    request = asyncio.create_task(deadline.run(_write(database, acme, "committed")))
    await proxy.held.wait()
    deadline.fire()
    with pytest.raises(TimeoutError):
        await request
    proxy.release()
    assert await _name(database, globex) == [globex.marker]
    assert await admin.fetchval(f'SELECT description FROM "{acme.schema}".tag') == "committed"


@pytest.mark.parametrize("verb", ["commit", "rollback"])
async def test_the_driver_alone_closes_a_connection_whose_end_was_late(
    proxy: Proxy, wire: tuple[Proxy, str], estate: Estate, verb: str
) -> None:
    connection = await asyncpg.connect(wire[1], connection_class=ScopedConnection)
    connection.arm(estate.tenants[0].context.write_scope)
    transaction = connection.transaction()
    await transaction.start()
    proxy.hold(lambda data: verb.upper().encode() in data)
    deadline = _Deadline()
    request = asyncio.create_task(deadline.run(getattr(transaction, verb)()))
    await proxy.held.wait()
    deadline.fire()
    with pytest.raises(TimeoutError):
        await request
    assert connection.is_closed()


async def test_a_commit_whose_answer_is_lost_is_an_error_that_says_so(
    proxy: Proxy, database: Database, estate: Estate
) -> None:
    acme, globex = estate.tenants
    proxy.hold(_commits)
    request = asyncio.create_task(_write(database, acme, "perhaps"))
    await proxy.held.wait()
    proxy.cut()
    with pytest.raises(_LOST) as raised:
        await request
    problem = explain_failure(raised.value)
    assert problem is not None
    assert problem.status_code == 503
    assert await _name(database, globex) == [globex.marker]


async def test_a_connection_that_is_lost_in_mid_query_is_replaced(
    proxy: Proxy, database: Database, estate: Estate
) -> None:
    acme, globex = estate.tenants

    async def sleep() -> None:
        async with database.transaction(acme.context.write_scope) as transaction:
            await transaction.connection.execute("UPDATE tag SET description = $1", "lost")
            await transaction.connection.fetch("SELECT pg_sleep(60)")

    proxy.hold(_sleeps)
    request = asyncio.create_task(sleep())
    await proxy.held.wait()
    proxy.cut()
    with pytest.raises(_LOST):
        await request
    assert await _name(database, globex) == [globex.marker]
    async with database.transaction(acme.context.read_scope) as transaction:
        assert await transaction.connection.fetchval("SELECT description FROM tag") != "lost"


async def test_a_late_begin_in_a_request_never_reaches_another_tenants_request(
    template: Template, tmp_path: Path
) -> None:
    """Through everything: the application, its guards and its pool, which keeps one connection."""
    addresses = await clone_database(template)
    try:
        async with (
            open_proxy(addresses.app_url) as (proxy, url),
            open_world(
                addresses,
                tmp_path,
                database_url=url,
                database_listen_url=addresses.app_url,
                # One for requests; the registry has the other.
                database_connections=2,
            ) as world,
        ):
            acme, globex = await world.create_tenant("acme"), await world.create_tenant("globex")
            await acme.add_team("Acme's own")
            await globex.add_team("Globex's own")
            for method in (acme.get, acme.post):
                arguments = {"json": {"name": "Unseen"}} if method == acme.post else {}
                proxy.hold(_begins)
                request = asyncio.create_task(method("/api/teams", **arguments))
                await proxy.held.wait()
                request.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await request
                proxy.release()
                answer = await globex.get("/api/teams")
                assert [team["name"] for team in answer.json()["items"]] == ["Globex's own"]
            answer = await acme.get("/api/teams")
            assert [team["name"] for team in answer.json()["items"]] == ["Acme's own"]
    finally:
        await drop_database(addresses)
