"""The outermost layer: ids, headers, the access log, the last resort."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import pytest
import structlog
from litestar import Litestar, Request, Response, get, post
from litestar.params import FromPath, JSONBody
from litestar.testing import TestClient
from structlog.contextvars import bind_contextvars, get_contextvars

from tenantry.kernel.errors import ConflictException, TooManyRequestsException
from tenantry.kernel.http import ApiRequest, Edge, edge
from tenantry.kernel.http.headers import secure_headers
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.http.request_id import request_id_for
from tenantry.kernel.schema import BaseStruct

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""The example of W3C Trace Context §3.2.1."""


@dataclass
class Plan:
    slug: str = "free"


@dataclass
class Tenant:
    slug: str
    plan: Plan = field(default_factory=Plan)


class Thing(BaseStruct):
    name: str


@get("/things/{thing_id:int}")
async def thing(thing_id: FromPath[int], request: ApiRequest) -> dict[str, Any]:
    request.scope["state"]["tenant"] = Tenant("acme")
    request.scope["state"]["user_id" if thing_id < 10 else "api_key_id"] = thing_id
    return {"requestId": request.scope["state"]["request_id"], "logged": get_contextvars()}


@get("/cached")
async def cached() -> Response[str]:
    return Response("x", headers={"Cache-Control": "public, max-age=60"})


@post("/things")
async def make_thing(data: JSONBody[Thing]) -> Thing:
    return data


@get("/leak")
async def leak() -> dict[str, Any]:
    before = dict(get_contextvars())
    bind_contextvars(tenant="acme")
    return before


@get(["/health/live", "/healthy"])
async def live() -> str:
    return "ok"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Edge]]:
    plugin = HttpPlugin(title="Test", version="1")
    app = Litestar([thing, cached, leak, live, make_thing], plugins=[plugin], logging_config=None)
    with TestClient(edge(app)) as client:
        yield client


def access_lines(client: TestClient[Edge], call: Callable[[], Any]) -> list[dict[str, Any]]:
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logs:
        call()
    return [dict(entry) for entry in logs if entry["event"] == "request"]


@pytest.mark.parametrize("sent", ["abc", "A.b_c-9", "x" * 128])
def test_a_sane_request_id_is_taken_over(client: TestClient[Edge], sent: str) -> None:
    answer = client.get("/things/1", headers={"X-Request-ID": sent})
    assert answer.headers["x-request-id"] == sent
    logged = answer.json()["logged"]
    assert answer.json() == {"requestId": sent, "logged": {"request_id": sent, "trace_id": logged["trace_id"]}}
    assert len(logged["trace_id"]) == 32


@pytest.mark.parametrize("sent", [None, b"", b"x" * 129, b"a b", b"a\nb", b"a\n", b"\xc3\xa4", b"<script>", b"a=b"])
def test_anything_else_is_replaced_by_a_uuid_of_version_7(sent: bytes | None) -> None:
    made = request_id_for(sent)
    assert len(made) == 32
    assert int(made, 16)
    assert made[12] == "7"
    assert request_id_for(sent) != made


def test_every_answer_carries_the_security_headers(client: TestClient[Edge]) -> None:
    for path in ("/things/1", "/nowhere", "/problems"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_what_a_handler_says_of_caching_stands(client: TestClient[Edge]) -> None:
    headers = client.get("/cached").headers
    assert headers.get_list("cache-control") == ["public, max-age=60"]
    assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("own", [(), (b"cache-control",), (b"content-security-policy",)])
def test_no_header_is_set_twice(own: tuple[bytes, ...]) -> None:
    headers = [(name, b"own") for name in own]
    names = [name for name, _ in (*headers, *secure_headers(headers))]
    assert len(names) == len(set(names)) == 5


def test_a_request_is_logged_in_one_line_without_paths_and_queries(client: TestClient[Edge]) -> None:
    headers = {"X-Request-ID": "abc", "Authorization": "Bearer hunter2", "traceparent": TRACEPARENT}
    [line] = access_lines(client, lambda: client.get("/things/7?token=hunter2", headers=headers))
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "route": "/things/{thing_id}",
        "status": 200,
        "tenant": "acme",
        "user_id": "7",
        "request_id": "abc",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }


def test_a_machines_request_is_logged_with_the_key_that_it_came_by(client: TestClient[Edge]) -> None:
    [line] = access_lines(client, lambda: client.get("/things/11"))
    assert line["api_key_id"] == "11"
    assert "user_id" not in line


def test_unknown_paths_are_logged_as_unmatched(client: TestClient[Edge]) -> None:
    [line] = access_lines(client, lambda: client.get("/hunter2"))
    assert (line["route"], line["status"]) == ("unmatched", 404)
    assert "hunter2" not in str(line)


def test_probes_and_scrapes_are_not_logged(client: TestClient[Edge]) -> None:
    assert access_lines(client, lambda: (client.get("/health/live"), client.get("/metrics"))) == []


class Unspeakable:
    """An id that cannot be put in words."""

    def __str__(self) -> str:
        raise AssertionError("the line was assembled")


def test_nothing_is_assembled_for_a_log_that_is_off() -> None:
    """capture_logs sees what passes the level, so the line itself is watched."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["user_id"] = Unspeakable()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    configured = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        sent = call(app)
    finally:
        structlog.configure(**configured)
    assert sent[0]["status"] == 204


def test_one_requests_log_context_is_not_the_nexts(client: TestClient[Edge]) -> None:
    for _ in range(2):
        assert client.get("/leak").json().keys() == {"request_id", "trace_id"}


def call(app: Any, scope: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Edge(app)(scope or http_scope(), receive, send))  # type: ignore[arg-type]
    return sent


def http_scope(**changes: Any) -> Any:
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [],
    }
    return {**scope, **changes}


def test_requests_never_share_a_state_even_if_the_server_gives_them_one() -> None:
    shared = {"from": "lifespan"}
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["state"]))
        scope["state"]["tenant"] = Tenant("acme")

    for _ in range(2):
        call(app, http_scope(state=shared))
    assert [entry.keys() for entry in seen] == [{"from", "request_id", "trace_id"}] * 2
    assert shared == {"from": "lifespan"}


def test_what_escapes_the_application_is_still_a_problem() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ConflictException("Taken.")

    start, body = call(app)
    assert start["status"] == 409
    assert dict(start["headers"])[b"content-type"] == b"application/problem+json"
    assert b"x-request-id" in dict(start["headers"])
    assert b'"detail":"Taken."' in body["body"]


def test_an_error_in_the_middle_of_an_answer_is_left_to_the_server() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    with pytest.raises(RuntimeError, match="too late"):
        call(app)


def test_a_request_whose_client_left_is_logged_as_499() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    with structlog.testing.capture_logs() as logs:
        assert call(app) == []
    assert [entry["status"] for entry in logs] == [499]


def test_a_cancelled_request_is_counted_and_stays_cancelled() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with structlog.testing.capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        call(app)
    assert [entry["status"] for entry in logs] == [499]


def test_other_scopes_pass_untouched() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    lifespan = {"type": "lifespan", "state": {}}
    call(app, lifespan)
    assert seen[0] is lifespan
    assert lifespan == {"type": "lifespan", "state": {}}


@pytest.mark.parametrize("query", ["search=a%00b", "a%00b=1", "page=1&search=%00"])
def test_a_nul_in_the_query_is_refused_by_name(client: TestClient[Edge], query: str) -> None:
    answer = client.get(f"/things/1?{query}")
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["source"] == "query"
    assert error["field"] in ("search", "a\N{SYMBOL FOR NULL}b")


def test_an_escaped_percent_sign_is_no_nul(client: TestClient[Edge]) -> None:
    assert client.get("/things/1?search=a%2500b").status_code == 200


def test_the_body_limit_of_the_edge_holds(client: TestClient[Edge]) -> None:
    assert client.post("/things", json={"name": "x" * 2000}).status_code == 201
    answer = client.post("/things", json={"name": "x" * (1 << 20)})
    assert answer.status_code == 413
    assert answer.json()["limit"] == 1 << 20
    assert answer.headers["x-request-id"]


def test_the_request_class_is_strict_in_handlers_that_ask_for_it(client: TestClient[Edge]) -> None:
    assert issubclass(ApiRequest, Request)
    assert client.post("/things", json={"name": 5}).status_code == 422


async def test_a_refusal_is_held_back_once_everything_is_given_back_and_only_so_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The package has a function of the module's name.
    monkeypatch.setattr(sys.modules["tenantry.kernel.http.edge"], "_HELD_BACK", 1)
    over = asyncio.Semaphore(0)

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 429, "headers": []})
            await send({"type": "http.response.body", "body": b"busy"})
        finally:
            over.release()

    layer = Edge(refuses, refusal_delay=3600)

    async def ask(sent: list[Any]) -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        scope: Any = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        await layer(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]

    first: list[Any] = []
    second: list[Any] = []
    held = asyncio.create_task(ask(first))
    await over.acquire()
    await ask(second)
    assert [message["type"] for message in second] == ["http.response.start", "http.response.body"]
    assert first == []
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
    # The client that left has given its place back.
    assert layer._held_back == 0


@pytest.mark.parametrize("status", [200, 401, 404, 503])
async def test_nothing_but_a_refusal_is_held_back(status: int) -> None:
    async def answers(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    async with asyncio.timeout(60):
        await Edge(answers, refusal_delay=3600)(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert len(sent) == 2


async def test_the_time_for_which_it_is_held_back_is_in_no_duration() -> None:
    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        raise TooManyRequestsException(retry_after=1)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    with structlog.testing.capture_logs() as logs:
        begun = perf_counter()
        await Edge(refuses, refusal_delay=0.2)(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
        took = perf_counter() - begun
    [line] = [entry for entry in logs if entry["event"] == "request"]
    assert took >= 0.2
    assert line["status"] == sent[0]["status"] == 429
    assert line["duration_ms"] <= (took - 0.2) * 1000 + 0.01
