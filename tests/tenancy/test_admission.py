"""What one organization may have of a process, from outside: behind the product's own middleware, on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import thread_time
from typing import Any

import httpx
import pytest
from litestar import Litestar, Request, Router, get
from litestar.di import Provide
from litestar.params import FromQuery
from litestar.response import Stream
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.principal import load_user_principal
from tenantry.kernel.http import edge
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.security import Tokens
from tenantry.kernel.service import Injected
from tenantry.tenancy.admission import Admission
from tenantry.tenancy.bulkheads import ProcessBusyException, TenantBusyException
from tenantry.tenancy.context import ScopeTimes, TenantContext, control_scope
from tenantry.tenancy.database import Database, Shares
from tenantry.tenancy.guards import requires_active_user
from tenantry.tenancy.plan import PlanLimits
from tenantry.tenancy.request import HostNames, TenantMiddleware, provide_session, request_transaction
from tenantry.tenancy.scope import HEALTH_ACCOUNT
from tests.platform.support import as_admin, eventually
from tests.world import Caller, TenantHandle, World

_LIMIT = 65_536
_gate = asyncio.Event()


@get("/held")
async def hold(db_session: Injected[AsyncSession]) -> dict[str, int]:
    one = await db_session.scalar(text("SELECT 1"))
    await _gate.wait()
    return {"one": int(one or 0)}


@get("/burnt")
async def burn() -> dict[str, int]:
    until = thread_time() + 0.3
    rounds = 0
    while thread_time() < until:
        rounds += 1
    return {"rounds": rounds}


@get("/idle")
async def idle(db_session: Injected[AsyncSession]) -> dict[str, int]:
    await db_session.scalar(text("SELECT 1"))
    await _gate.wait()
    return {"one": int(await db_session.scalar(text("SELECT 1")) or 0)}


@get("/slept")
async def sleep(db_session: Injected[AsyncSession]) -> dict[str, int]:
    await db_session.execute(text("SELECT pg_sleep(60)"))
    return {}


@get("/locked")
async def lock(db_session: Injected[AsyncSession]) -> dict[str, int]:
    await db_session.execute(text("SELECT count(*) FROM team"))
    return {}


@get("/large")
async def answer_large(size: FromQuery[int]) -> dict[str, str]:
    return {"text": "x" * size}


@get("/file", opt={"transfer": True})
async def fetch(request: Request[Any, Any, Any]) -> Stream:
    await request_transaction(request).pause()
    return Stream(_pieces())


async def _pieces() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"piece"


@dataclass
class Site:
    """A process of its own, beside the deployment's."""

    app: ASGIApp
    database: Database
    admission: Admission

    def caller(self, tenant: TenantHandle) -> Caller:
        transport = httpx.ASGITransport(app=self.app)  # type: ignore[arg-type]
        return Caller(httpx.AsyncClient(transport=transport, base_url="http://localhost"), tenant.access_token)


@asynccontextmanager
async def open_site(
    world: World, *, patience: float = 30.0, write_timeout: float = 30.0, share: int = 1, processor_share: float = 1.0
) -> AsyncIterator[Site]:
    """One request at work, one that waits, one connection and one transfer for each organization."""
    _gate.clear()
    state = world.app.state
    shares = Shares(percent=34, reserved=1, queue=1)
    database = Database(world.addresses.app_url, pool_size=4, max_overflow=0, pool_timeout=patience, shares=shares)
    admission = Admission(
        requests=10,
        share=share,
        processor_share=processor_share,
        queue=1,
        patience=patience,
        transfers=1,
        response_limit=_LIMIT,
    )
    tokens = Tokens(state.keyring, world.settings.token_issuer)
    hosts = HostNames(state.registry, None)

    def middleware(app: ASGIApp) -> ASGIApp:
        return TenantMiddleware(
            app, database=database, registry=state.registry, tokens=tokens, hosts=hosts, admission=admission
        )

    app = Litestar(
        [
            Router(
                "/api",
                route_handlers=[hold, burn, idle, sleep, lock, answer_large, fetch],
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
    try:
        yield Site(edge(app, write_timeout=write_timeout), database, admission)
    finally:
        _gate.set()
        await database.close()


def with_plan(world: World, tenant: TenantHandle, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
    """Give a tenant a plan with these limits, in this process' registry."""
    context = tenant.context
    built = TenantContext.build(
        tenant_id=context.id,
        slug=context.slug,
        name=context.name,
        status=context.status,
        plan=PlanLimits(slug="test", **limits),
        times=ScopeTimes(),
        revision=context.revision,
    )
    registry = world.app.state.registry
    by_id = registry.by_id
    monkeypatch.setattr(registry, "by_id", lambda found: built if found == context.id else by_id(found))


async def test_a_tenant_at_its_share_waits_then_is_refused_and_another_is_served(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    async with open_site(world) as site:
        first = asyncio.create_task(site.caller(acme).get("/api/held"))
        await eventually(lambda: _is(site.database.engine.pool.checkedout() == 1), 30)  # type: ignore[attr-defined]
        second = asyncio.create_task(site.caller(acme).get("/api/held"))
        await eventually(lambda: _is(site.admission.waiting(acme.context) == 1), 30)
        refused = await site.caller(acme).get("/api/held")
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/tenant-busy")
        assert (refused.json()["resource"], refused.json()["limit"]) == ("requests", 1)
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await site.caller(globex).get("/api/large?size=1")).status_code == 200
        _gate.set()
        assert [(await task).status_code for task in (first, second)] == [200, 200]
        assert site.admission.at_work(acme.context) == 0


async def test_a_plan_says_how_many_requests_and_connections(
    world: World, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_plan(world, acme, monkeypatch, concurrent_requests=3, connections=2)
    async with open_site(world) as site:
        tasks = [asyncio.create_task(site.caller(acme).get("/api/held")) for _ in range(3)]
        await eventually(lambda: _is(site.admission.at_work(acme.context) == 3), 30)
        await eventually(lambda: _is(site.database.engine.pool.checkedout() == 2), 30)  # type: ignore[attr-defined]
        _gate.set()
        assert [(await task).status_code for task in tasks] == [200, 200, 200]


async def test_a_request_that_is_cancelled_while_it_waits_leaves_its_place(world: World, acme: TenantHandle) -> None:
    async with open_site(world) as site:
        first = asyncio.create_task(site.caller(acme).get("/api/held"))
        await eventually(lambda: _is(site.admission.at_work(acme.context) == 1), 30)
        waits = asyncio.create_task(site.caller(acme).get("/api/held"))
        await eventually(lambda: _is(site.admission.waiting(acme.context) == 1), 30)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert site.admission.waiting(acme.context) == 0
        _gate.set()
        assert (await first).status_code == 200
        assert (await site.caller(acme).get("/api/held")).status_code == 200


async def test_connections_are_shared_and_some_are_kept_for_operators_and_the_health_check(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    control = control_scope(ScopeTimes(), read_only=True)
    async with open_site(world, patience=0.05) as site:
        begin = site.database.begin
        held = [await begin(acme.context.read_scope)]
        with pytest.raises(TenantBusyException):
            await begin(acme.context.read_scope)
        held.append(await begin(globex.context.read_scope))
        stranger = replace(acme.context.read_scope, account="somebody-else")
        held.append(await begin(stranger))
        with pytest.raises(ProcessBusyException):
            await begin(replace(stranger, account="yet-another"))
        held.append(await begin(replace(control, account=HEALTH_ACCOUNT)))
        for transaction in held:
            await transaction.close()
        # Nothing is lost: all of it can be had again.
        again = [await begin(scope) for scope in (acme.context.read_scope, globex.context.read_scope, control)]
        for transaction in again:
            await transaction.close()


async def test_a_connection_that_cannot_be_had_gives_its_share_back(world: World, acme: TenantHandle) -> None:
    gone = replace(acme.context.read_scope, role="t_" + "0" * 32, account=acme.context.schema)
    async with open_site(world, patience=0.05) as site:
        for _ in range(3):
            with pytest.raises(Exception, match="cannot be taken"):
                await site.database.begin(gone)
        transaction = await site.database.begin(acme.context.read_scope)
        await transaction.close()
        await transaction.close()
        await (await site.database.begin(acme.context.read_scope)).close()


async def test_a_plans_statement_timeout_ends_a_request_with_503_timeout(
    world: World, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_plan(world, acme, monkeypatch, statement_timeout=200)
    async with open_site(world) as site:
        answer = await site.caller(acme).get("/api/slept")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/timeout")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_a_plans_lock_timeout_ends_a_request_with_503(
    world: World, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_plan(world, acme, monkeypatch, lock_timeout=200)
    async with open_site(world) as site, as_admin(world.addresses) as admin, admin.transaction():
        await admin.execute(f'LOCK TABLE "{acme.context.schema}".team IN ACCESS EXCLUSIVE MODE')
        answer = await site.caller(acme).get("/api/locked")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")


async def test_a_plans_idle_timeout_takes_the_connection_from_whoever_does_nothing_with_it(
    world: World, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_plan(world, acme, monkeypatch, idle_in_transaction_timeout=200)
    async with open_site(world) as site, as_admin(world.addresses) as admin:
        request = asyncio.create_task(site.caller(acme).get("/api/idle"))
        pid = await eventually(lambda: admin.fetchval(_IDLE, f"%{acme.context.schema}%"), 30)
        await eventually(lambda: admin.fetchval("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1", pid), 30)
        _gate.set()
        answer = await request
        assert answer.status_code == 503, answer.text
        # The pool has another for whoever is next.
        assert (await site.caller(acme).get("/api/idle")).status_code == 200


_IDLE = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND state = 'idle in transaction' AND application_name LIKE 'tenantry:%'
   AND backend_type = 'client backend' AND $1::text IS NOT NULL
 LIMIT 1
"""


async def test_an_answer_that_is_too_large_asks_for_less(world: World, acme: TenantHandle) -> None:
    async with open_site(world) as site:
        refused = await site.caller(acme).get(f"/api/large?size={_LIMIT}")
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/response-too-large")
        assert refused.json()["limit"] == _LIMIT
        assert (await site.caller(acme).get(f"/api/large?size={_LIMIT - 100}")).status_code == 200


def _unread(site: Site, until: asyncio.Event, begun: asyncio.Event) -> ASGIApp:
    """The same for a client that reads the first message of its answer, and then nothing; `begun` says when."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def stuck(message: Message) -> None:
            if message["type"] == "http.response.body":
                begun.set()
                await until.wait()
            await send(message)

        await site.app(scope, receive, stuck)

    return app


async def test_a_client_that_reads_nothing_holds_neither_a_connection_nor_a_place(
    world: World, acme: TenantHandle
) -> None:
    reads, begun = asyncio.Event(), asyncio.Event()
    async with open_site(world) as site:
        slow = Site(_unread(site, reads, begun), site.database, site.admission)
        _gate.set()
        stuck = asyncio.create_task(slow.caller(acme).get("/api/held"))
        await begun.wait()
        # The organization has one place and one connection: that these are answered shows that both are free.
        for _ in range(3):
            assert (await site.caller(acme).get("/api/held")).status_code == 200
        assert not stuck.done()
        reads.set()
        assert (await stuck).status_code == 200


async def test_files_have_places_of_their_own_beside_requests(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    reads, begun = asyncio.Event(), asyncio.Event()
    async with open_site(world) as site:
        slow = Site(_unread(site, reads, begun), site.database, site.admission)
        _gate.set()
        stuck = asyncio.create_task(slow.caller(acme).get("/api/file"))
        await begun.wait()
        refused = await site.caller(acme).get("/api/file")
        assert refused.status_code == 429
        assert (refused.json()["type"], refused.json()["resource"]) == ("/problems/tenant-busy", "transfers")
        assert (await site.caller(acme).get("/api/held")).status_code == 200, "requests go on"
        assert (await site.caller(globex).get("/api/file")).content == b"piece" * 3
        reads.set()
        assert (await stuck).content == b"piece" * 3
        assert (await site.caller(acme).get("/api/file")).content == b"piece" * 3


async def test_a_client_that_takes_nothing_of_a_file_is_cut_off(world: World, acme: TenantHandle) -> None:
    never, begun = asyncio.Event(), asyncio.Event()
    async with open_site(world, write_timeout=0.05) as site:
        slow = Site(_unread(site, never, begun), site.database, site.admission)
        # The client sees the connection end in the middle; httpx' transport asserts that answers are whole.
        stuck = asyncio.create_task(slow.caller(acme).get("/api/file"))
        await begun.wait()
        with pytest.raises(AssertionError):
            await stuck
        # The one place for files that the organization has is free again.
        assert (await site.caller(acme).get("/api/file")).content == b"piece" * 3


async def test_one_that_takes_the_event_loop_is_worked_for_one_at_a_time_while_another_is_there(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    async with open_site(world, share=3, processor_share=0.01) as site:
        assert (await site.caller(acme).get("/api/burnt")).status_code == 200
        # Alone, it may still have three at work.
        alone = [asyncio.create_task(site.caller(acme).get("/api/held")) for _ in range(2)]
        await eventually(lambda: _is(site.admission.at_work(acme.context) == 2), 30)
        assert (await site.caller(globex).get("/api/large?size=1")).status_code == 200
        waits = asyncio.create_task(site.caller(acme).get("/api/held"))
        await eventually(lambda: _is(site.admission.waiting(acme.context) == 1), 30)
        held = [asyncio.create_task(site.caller(globex).get("/api/held")) for _ in range(2)]
        await eventually(lambda: _is(site.admission.at_work(globex.context) == 2), 30)
        assert site.admission.at_work(acme.context) == 2
        _gate.set()
        assert {(await task).status_code for task in (*alone, waits, *held)} == {200}


async def _is(value: bool) -> bool:
    return value
