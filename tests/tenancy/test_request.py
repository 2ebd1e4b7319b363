"""What every handler may rely on, shown with handlers and a table that exist for these tests alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from litestar import Litestar, Router, get, post
from litestar.di import Provide
from litestar.params import FromPath
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.principal import load_user_principal
from tenantry.kernel.http import edge
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.security import Tokens
from tenantry.kernel.service import Injected
from tenantry.tenancy.connection import ScopedConnection
from tenantry.tenancy.guards import requires_active_user
from tenantry.tenancy.request import HostNames, TenantMiddleware, provide_connection, provide_session
from tests.databases import Template
from tests.platform.support import as_admin, eventually, open_api
from tests.world import Caller, TenantHandle, World

INSERT = text("INSERT INTO probe (id, follows) VALUES (:id, :follows)")


@post("/rows/{number:int}")
async def insert(db_session: Injected[AsyncSession], number: FromPath[int]) -> dict[str, int]:
    await db_session.execute(INSERT, {"id": number, "follows": None})
    return {"id": number}


@post("/orphans/{number:int}")
async def insert_orphan(db_session: Injected[AsyncSession], number: FromPath[int]) -> dict[str, int]:
    # Follows a row that never comes: found out at COMMIT, when the handler has long succeeded.
    await db_session.execute(INSERT, {"id": number, "follows": -1})
    return {"id": number}


@post("/swallowed/{number:int}")
async def swallow(db_session: Injected[AsyncSession], number: FromPath[int]) -> dict[str, int]:
    await db_session.execute(INSERT, {"id": number, "follows": None})
    try:
        await db_session.execute(text("SELECT 1 / 0"))
    except SQLAlchemyError:
        return {"id": number}
    raise AssertionError("it divides by zero now")


@post("/raised/{number:int}")
async def insert_and_raise(db_session: Injected[AsyncSession], number: FromPath[int]) -> dict[str, int]:
    await db_session.execute(INSERT, {"id": number, "follows": None})
    raise RuntimeError("after the write")


@post("/stalled/{number:int}")
async def insert_and_stall(db_session: Injected[AsyncSession], number: FromPath[int]) -> dict[str, int]:
    await db_session.execute(INSERT, {"id": number, "follows": None})
    await db_session.execute(text("SELECT pg_sleep(60)"))
    return {"id": number}


@get("/rows/written/{number:int}")
async def insert_under_get(db_session: Injected[AsyncSession], number: FromPath[int]) -> dict[str, int]:
    await db_session.execute(INSERT, {"id": number, "follows": None})
    return {"id": number}


@get("/rows/hot/{number:int}", dependencies={"connection": Provide(provide_connection)})
async def insert_under_get_on_the_driver(
    connection: Injected[ScopedConnection], number: FromPath[int]
) -> dict[str, int]:
    await connection.fetch("INSERT INTO probe (id) VALUES ($1)", number)
    return {"id": number}


@get("/scope")
async def tell_scope(db_session: Injected[AsyncSession]) -> dict[str, str]:
    row = (
        await db_session.execute(
            text(
                "SELECT current_user::text AS role, current_setting('search_path') AS path,"
                " current_setting('transaction_read_only') AS read_only"
            )
        )
    ).one()
    return dict(row._mapping)


@pytest.fixture
async def probe(world: World, acme: TenantHandle) -> Litestar:
    """The handlers above, behind the deployment's own middleware; the table is acme's alone."""
    async with as_admin(world.addresses) as admin:
        await admin.execute(
            "SET ROLE tenantry_owner;"
            f'CREATE TABLE "{acme.context.schema}".probe (id integer PRIMARY KEY,'
            f' follows integer REFERENCES "{acme.context.schema}".probe DEFERRABLE INITIALLY DEFERRED)'
        )
    state = world.app.state
    tokens = Tokens(state.keyring, world.settings.token_issuer)
    hosts = HostNames(state.registry, None)

    def middleware(app: ASGIApp) -> ASGIApp:
        return TenantMiddleware(app, database=world.database, registry=state.registry, tokens=tokens, hosts=hosts)

    app = Litestar(
        [
            Router(
                "/api",
                route_handlers=[
                    insert,
                    insert_orphan,
                    swallow,
                    insert_and_raise,
                    insert_and_stall,
                    insert_under_get,
                    insert_under_get_on_the_driver,
                    tell_scope,
                ],
                middleware=[middleware],
                guards=[requires_active_user],
                opt={"load_principal": load_user_principal},
            )
        ],
        dependencies={"db_session": Provide(provide_session)},
        plugins=[HttpPlugin(title="Probe", version="0")],
        logging_config=None,
        openapi_config=None,
    )
    app.state.permissions = state.permissions
    return app


def _caller(app: ASGIApp, acme: TenantHandle) -> Caller:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    return Caller(httpx.AsyncClient(transport=transport, base_url="http://localhost"), acme.access_token)


async def _rows(world: World, acme: TenantHandle) -> list[int]:
    async with as_admin(world.addresses) as admin:
        return [row["id"] for row in await admin.fetch(f'SELECT id FROM "{acme.context.schema}".probe ORDER BY id')]


async def test_a_row_is_there_for_everybody_when_the_response_begins(
    world: World, acme: TenantHandle, probe: Litestar
) -> None:
    seen: list[list[int]] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def watching(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.append(await _rows(world, acme))
            await send(message)

        await edge(probe)(scope, receive, watching)

    answer = await _caller(watched, acme).post("/api/rows/1")
    assert (answer.status_code, seen) == (201, [[1]])


async def test_a_constraint_that_is_violated_at_commit_is_an_error_answer_and_nothing_stored(
    world: World, acme: TenantHandle, probe: Litestar
) -> None:
    caller = _caller(edge(probe), acme)
    answer = await caller.post("/api/orphans/1")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/conflict")
    assert answer.headers["content-type"] == "application/problem+json"
    assert await _rows(world, acme) == []
    assert (await caller.post("/api/rows/1")).status_code == 201


async def test_a_statement_whose_failure_was_swallowed_is_an_error_answer_and_nothing_stored(
    world: World, acme: TenantHandle, probe: Litestar
) -> None:
    answer = await _caller(edge(probe), acme).post("/api/swallowed/1")
    assert answer.status_code == 500
    assert await _rows(world, acme) == []


async def test_a_handler_that_raises_has_written_nothing(world: World, acme: TenantHandle, probe: Litestar) -> None:
    assert (await _caller(edge(probe), acme).post("/api/raised/1")).status_code == 500
    assert await _rows(world, acme) == []


@pytest.mark.parametrize("path", ["/api/rows/written/1", "/api/rows/hot/1"])
async def test_a_get_cannot_write(world: World, acme: TenantHandle, probe: Litestar, path: str) -> None:
    assert (await _caller(edge(probe), acme).get(path)).status_code == 500
    assert await _rows(world, acme) == []


async def test_a_request_runs_as_its_tenant_and_reads_only_where_it_only_reads(
    acme: TenantHandle, probe: Litestar
) -> None:
    answer = await _caller(edge(probe), acme).get("/api/scope")
    assert answer.json() == {"role": acme.context.schema, "path": acme.context.schema, "read_only": "on"}


async def test_every_reading_route_of_the_product_opens_a_read_only_transaction(
    world: World, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    real = ScopedConnection.execute

    async def execute(self: ScopedConnection, query: str, *args: Any, **more: Any) -> str:
        scope = self._armed
        if scope is not None:
            begun.append(scope.begin())
        return await real(self, query, *args, **more)

    team = await acme.add_team("Red")
    monkeypatch.setattr(ScopedConnection, "execute", execute)
    for caller, path in (
        (acme, "/api/users/me"),
        (acme, "/api/users"),
        (acme, "/api/teams"),
        (acme, f"/api/teams/{team['id']}"),
        (acme, f"/api/teams/{team['id']}/members"),
        (acme, "/api/tags"),
        (acme, "/api/roles"),
        (acme, "/api/permissions"),
        (world.operator, "/platform/tenants"),
        (world.operator, f"/platform/tenants/{acme.slug}"),
        (world.operator, "/platform/plans"),
    ):
        begun.clear()
        assert (await caller.get(path)).status_code == 200
        ours = [statement for statement in begun if "tenantry_control" not in statement or caller is world.operator]
        assert ours, path
        assert all(statement.startswith("BEGIN READ ONLY;") for statement in ours), path


async def test_a_request_that_is_cancelled_in_mid_query_leaves_nothing_and_the_pool_clean(
    world: World, acme: TenantHandle, globex: TenantHandle, probe: Litestar
) -> None:
    request = asyncio.create_task(_caller(edge(probe), acme).post("/api/stalled/1"))
    async with as_admin(world.addresses) as admin:
        pid = await eventually(lambda: _stalled(admin), 10)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        # Its connection is closed, not kept: the server ends the statement and rolls back.
        await eventually(lambda: admin.fetchval("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1", pid), 10)
    assert await _rows(world, acme) == []
    for _ in range(3):
        assert (await globex.get("/api/users/me")).json()["email"] == globex.owner_email
        assert (await acme.get("/api/users/me")).json()["email"] == acme.owner_email


async def _stalled(admin: asyncpg.Connection[asyncpg.Record]) -> int | None:
    found: int | None = await admin.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
        " AND datname = current_database() AND state = 'active'"
    )
    return found


async def test_a_tenant_whose_role_is_gone_is_an_error_for_itself_alone(world: World, globex: TenantHandle) -> None:
    doomed = await world.create_tenant("doomed")
    async with as_admin(world.addresses) as admin:
        name = doomed.context.schema
        await admin.execute(f'DROP SCHEMA "{name}" CASCADE; DROP ROLE "{name}"')
    assert (await doomed.get("/api/teams")).status_code in {500, 503}
    for _ in range(3):
        assert (await globex.get("/api/teams")).status_code == 200


async def test_a_server_that_takes_no_more_connections_is_a_503_and_service_returns_by_itself(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with open_api(database_addresses, tmp_path) as api:
        async with as_admin(database_addresses) as admin:
            try:
                await admin.execute(f'ALTER DATABASE "{database_addresses.name}" CONNECTION LIMIT 0')
                await api.database.engine.dispose()
                for path in ("/platform/tenants", "/platform/auth/me"):
                    answer = await api.operator.get(path)
                    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
                    assert "Retry-After" in answer.headers
            finally:
                await admin.execute(f'ALTER DATABASE "{database_addresses.name}" CONNECTION LIMIT -1')
        assert (await api.operator.get("/platform/tenants")).status_code == 200
