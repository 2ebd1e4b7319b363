"""What routes promise by being declared, shown with routes that exist for these tests alone."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from litestar import Litestar, Request, Router, delete, get, patch, post, put
from litestar.di import Provide
from litestar.params import FromPath
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.principal import load_user_principal
from tenantry.domain.tags.models import Tag
from tenantry.features import TENANT_METADATA
from tenantry.kernel.http import edge
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.schema import BaseStruct, Page
from tenantry.kernel.security import Tokens
from tenantry.kernel.service import Injected
from tenantry.tenancy.conditional import Lock
from tenantry.tenancy.declared import DECLARED, begin_declared, declare_routes, describe_declared
from tenantry.tenancy.guards import requires_active_user
from tenantry.tenancy.request import (
    HostNames,
    TenantMiddleware,
    provide_session,
    request_transaction,
    tenant_request,
)
from tests.platform.support import as_admin
from tests.world import Caller, TenantHandle, World


class Policy(BaseStruct):
    value: int


@get("/policy", operation_id="GetPolicy")
async def get_policy(db_session: Injected[AsyncSession]) -> Policy:
    return Policy(value=await db_session.scalar(text("SELECT value FROM probe")) or 0)


@put("/policy/{value:int}", operation_id="NoResource")
async def no_resource(value: FromPath[int]) -> Policy:
    return Policy(value=value)


@put("/policy", operation_id="PutPolicy")
async def put_policy(db_session: Injected[AsyncSession], request: Request[Any, Any, Any]) -> Policy:
    value = int(request.query_params["value"])
    # What the path is about is no row that a path could name.
    await db_session.execute(text("DELETE FROM probe"))
    await db_session.execute(text("INSERT INTO probe (value) VALUES (:value)"), {"value": value})
    return Policy(value=value)


@get("/paused/{tag_id:uuid}", operation_id="GetPaused")
async def get_paused(request: Request[Any, Any, Any]) -> Policy:
    await request_transaction(request).pause()
    return Policy(value=1)


@patch("/paused/{tag_id:uuid}", operation_id="ChangePaused")
async def change_paused() -> Policy:
    return Policy(value=2)


@get("/own", operation_id="GetOwn", opt={"etag": False})
async def get_own() -> Policy:
    return Policy(value=1)


@delete("/own", operation_id="DeleteOwn", opt={"etag": False})
async def delete_own() -> None: ...


@get("/pages", operation_id="ListPages")
async def list_pages() -> Page[Policy]:
    return Page(items=[], total=0, page=1, page_size=1)


@post("/pages", operation_id="CreatePage")
async def create_page() -> Policy:
    return Policy(value=1)


@post("/without", operation_id="CreateWithout", opt={"idempotent": False})
async def create_without() -> Policy:
    return Policy(value=1)


@post("/once", operation_id="DoOnce", status_code=200, opt={"idempotent": True})
async def do_once() -> Policy:
    return Policy(value=1)


@post("/again", operation_id="DoAgain", status_code=200)
async def do_again() -> Policy:
    return Policy(value=1)


@post("/anybody", operation_id="Anybody", opt={"public": True})
async def anybody() -> Policy:
    return Policy(value=1)


HANDLERS = [
    *(get_policy, no_resource, put_policy, get_paused, change_paused, get_own, delete_own, list_pages, create_page),
    *(create_without, do_once, do_again, anybody),
]


def _app(world: World | None = None) -> Litestar:
    middleware: list[Any] = []
    if world is not None:
        state, database, issuer = world.app.state, world.database, world.settings.token_issuer

        def around(app: ASGIApp) -> ASGIApp:
            return TenantMiddleware(
                app,
                database=database,
                registry=state.registry,
                tokens=Tokens(state.keyring, issuer),
                hosts=HostNames(state.registry, None),
            )

        middleware = [around]

    async def no_keys(*_: Any) -> Any:
        raise AssertionError("no test here sends a key")

    async def before_request(request: Request[Any, Any, Any]) -> None:
        await begin_declared(request, tenant_request(request), no_keys)

    app = Litestar(
        [
            Router(
                "/api",
                route_handlers=HANDLERS,
                middleware=middleware,
                guards=[requires_active_user],
                opt={"load_principal": load_user_principal},
                before_request=before_request,
            )
        ],
        dependencies={"db_session": Provide(provide_session)},
        plugins=[HttpPlugin(title="Probe", version="0")],
        logging_config=None,
        openapi_config=None,
    )
    if world is not None:
        app.state.permissions = world.app.state.permissions
    return app


def test_what_a_route_is_says_what_it_promises() -> None:
    app = _app()
    declared = declare_routes(app.routes, {"tag_id": Tag}, below="/api/")
    assert {name for name, each in declared.items() if each.takes_key} == {"CreatePage", "DoOnce"}
    assert {name for name, each in declared.items() if each.has_tag} == {"GetPolicy", "GetPaused"}
    assert {name for name, each in declared.items() if each.resource is not None} == {"PutPolicy", "ChangePaused"}
    assert {name for name, each in declared.items() if each.looks_at_conditions} == {
        *("NoResource", "PutPolicy", "ChangePaused", "CreatePage", "CreateWithout", "DoOnce", "DoAgain")
    }
    assert "Anybody" not in declared
    assert declared["ChangePaused"].lock == Lock(table=TENANT_METADATA.tables["tag"], parameter="tag_id")
    assert declared["PutPolicy"].lock == Lock(table=None, parameter=None)
    assert declare_routes(_app().routes, {}, below="/elsewhere/") == {}
    [route] = [each for each in app.routes if each.path == "/api/own"]
    assert isinstance(route, HTTPRoute)
    assert all(DECLARED in handler.opt for handler in route.route_handlers if "OPTIONS" not in handler.http_methods)


def test_the_document_names_the_headers() -> None:
    declared = declare_routes(_app().routes, {"tag_id": Tag}, below="/api/")

    def described(name: str, status: str = "200") -> tuple[list[str], list[str], list[str]]:
        operation: dict[str, Any] = {"operationId": name, "responses": {status: {"description": ""}}}
        describe_declared(declared, operation)
        responses = operation["responses"]
        return (
            [each["name"] for each in operation.get("parameters", [])],
            sorted(responses[status].get("headers", {})),
            sorted(responses.keys() - {status}),
        )

    assert described("CreatePage", "201") == (["Idempotency-Key"], ["Idempotent-Replayed"], ["400", "409", "422"])
    assert described("GetPolicy") == (["If-None-Match"], ["ETag"], ["304", "400"])
    assert described("PutPolicy") == (["If-Match"], ["ETag"], ["400", "412"])
    for name in ("ListPages", "DoAgain", "GetOwn", "Anybody", "unknown"):
        assert described(name) == ([], [], [])


@pytest.fixture
async def probe(world: World, acme: TenantHandle) -> Caller:
    schema = acme.context.schema
    async with as_admin(world.addresses) as admin:
        await admin.execute(f'SET ROLE tenantry_owner; CREATE TABLE "{schema}".probe (value integer NOT NULL)')
    app = _app(world)
    declare_routes(app.routes, {"tag_id": Tag}, below="/api/")
    transport = httpx.ASGITransport(app=edge(app))  # type: ignore[arg-type]
    return Caller(httpx.AsyncClient(transport=transport, base_url="http://localhost"), acme.access_token)


async def test_what_is_no_row_is_changed_by_one_at_a_time(probe: Caller) -> None:
    tag = (await probe.get("/api/policy")).headers["ETag"]
    answers = await asyncio.gather(
        *(probe.request("PUT", f"/api/policy?value={number}", headers={"If-Match": tag}) for number in range(1, 7)),
        *(probe.request("PUT", f"/api/policy?value={number}") for number in range(7, 10)),
    )
    assert {each.status_code for each in answers} == {200, 412}
    # Those without a condition win whenever they come; of the others at most one, if it came before all of them.
    assert sum(each.status_code == 200 for each in answers[:6]) <= 1
    assert {each.status_code for each in answers[6:]} == {200}
    tag = (await probe.get("/api/policy")).headers["ETag"]
    answers = await asyncio.gather(
        *(probe.request("PUT", f"/api/policy?value={number}", headers={"If-Match": tag}) for number in range(20, 26))
    )
    assert sorted(each.status_code for each in answers) == [200, 412, 412, 412, 412, 412]


async def test_where_there_is_no_resource_no_tag_matches(probe: Caller) -> None:
    assert (await probe.request("PUT", "/api/policy/1", headers={"If-Match": '"any"'})).status_code == 412
    assert (await probe.request("PUT", "/api/policy/1", headers={"If-Match": "*"})).status_code == 200
    assert (await probe.post("/api/pages", headers={"If-Match": '"any"'})).status_code == 412
    assert (await probe.delete("/api/own", headers={"If-Match": '"its own affair"'})).status_code == 204


async def test_a_resource_that_is_read_with_a_pause_cannot_lose_its_lock_in_silence(
    acme: TenantHandle, probe: Caller
) -> None:
    made = (await acme.post("/api/tags", json={"name": "Red"})).json()
    path = f"/api/paused/{made['id']}"
    tag = (await probe.get(path)).headers["ETag"]
    assert (await probe.patch(path, headers={"If-Match": tag})).status_code == 500
    assert (await probe.patch(path)).status_code == 200
