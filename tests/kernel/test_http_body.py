"""Bodies are read whole, bounded in size and time, before the application runs."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from tenantry.kernel.http import BodyBuffer

JSON = (b"content-type", b"application/json")


def http_scope(
    method: str = "POST", headers: Iterable[tuple[bytes, bytes]] = (JSON,), path: str = "/things", version: str = "1.1"
) -> Any:
    return {
        "type": "http",
        "http_version": version,
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": list(headers),
        "state": {},
    }


class Server:
    """The server's side of one request: gives the chunks, then waits for ever, and notes what is sent."""

    def __init__(self, *chunks: bytes, end: bool = True, disconnect: bool = False) -> None:
        last = len(chunks) - 1
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": not (end and index == last)}
            for index, chunk in enumerate(chunks)
        ]
        if disconnect:
            self.messages.append({"type": "http.disconnect"})
        self.received = 0
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> Any:
        if self.received == len(self.messages):
            await asyncio.Event().wait()
        self.received += 1
        return self.messages[self.received - 1]

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def problem(self) -> str:
        return str(msgspec.json.decode(self.sent[1]["body"])["type"])


class Application:
    """Reads its body to the end, and remembers it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.receives: list[Any] = []
        self.messages = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.receives.append(receive)
        body = b""
        while True:
            message = await receive()
            self.messages += 1
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def run(server: Server, scope: Any, *, limit: int = 100, timeout: float = 5.0, **options: Any) -> Application:
    application = Application()
    buffer = BodyBuffer(application, limit=limit, timeout=timeout, **options)
    asyncio.run(asyncio.wait_for(buffer(scope, server.receive, server.send), 20))
    return application


def length(size: int) -> tuple[bytes, bytes]:
    return (b"content-length", str(size).encode())


def test_the_application_gets_the_whole_body_in_one_message() -> None:
    server = Server(b'{"a"', b":", b"1}")
    application = run(server, http_scope(headers=[JSON, length(7)]))
    assert (application.bodies, application.messages) == ([b'{"a":1}'], 1)
    assert server.received == 3
    assert server.status == 200


def test_the_application_does_not_run_before_the_body_is_there() -> None:
    async def scenario() -> None:
        application = Application()
        server = Server(b"{", end=False)
        scope = http_scope(headers=[JSON, length(2)])
        serving = asyncio.ensure_future(BodyBuffer(application)(scope, server.receive, server.send))
        for _ in range(20):
            await asyncio.sleep(0)
        assert server.received == 1
        assert application.receives == []
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert server.sent == []

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_requests_without_a_body_pass_with_the_servers_own_receive(method: str) -> None:
    server = Server(b"")
    application = run(server, http_scope(method, headers=[]))
    assert application.receives == [server.receive]


@pytest.mark.parametrize("headers", [[], [length(0)], [length(0), (b"content-type", b"text/plain")]])
def test_a_post_without_a_body_passes_untouched(headers: list[tuple[bytes, bytes]]) -> None:
    server = Server(b"")
    application = run(server, http_scope("POST", headers=headers))
    assert application.receives == [server.receive]
    assert application.bodies == [b""]


def test_other_scopes_pass_untouched() -> None:
    seen = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    server = Server()
    scope: Any = {"type": "websocket"}
    asyncio.run(BodyBuffer(application)(scope, server.receive, server.send))
    assert seen == [(scope, server.receive, server.send)]


def test_a_body_that_says_it_is_too_large_is_refused_unread() -> None:
    server = Server(b"x" * 101)
    application = run(server, http_scope(headers=[JSON, length(101)]))
    assert (server.status, server.problem, server.received) == (413, "/problems/payload-too-large", 0)
    assert server.headers[b"connection"] == b"close"
    assert application.bodies == []


def test_a_body_that_turns_out_too_large_is_refused_at_the_limit() -> None:
    server = Server(*[b"x" * 40] * 50)
    application = run(server, http_scope(headers=[JSON, (b"transfer-encoding", b"chunked")]))
    assert (server.status, server.received) == (413, 3)
    assert application.bodies == []


def test_a_body_of_exactly_the_limit_is_accepted() -> None:
    server = Server(b"x" * 60, b"x" * 40)
    assert run(server, http_scope(headers=[JSON, length(100)])).bodies == [b"x" * 100]


@pytest.mark.parametrize("chunks", [(), (b"{",)])
def test_a_body_that_does_not_arrive_in_time_is_given_up(chunks: tuple[bytes, ...]) -> None:
    server = Server(*chunks, end=False)
    application = run(server, http_scope(headers=[JSON, length(10)]), timeout=0.02)
    assert (server.status, server.problem) == (408, "/problems/request-timeout")
    assert server.headers[b"connection"] == b"close"
    assert application.bodies == []


def test_the_time_is_that_of_the_whole_body_not_of_each_chunk() -> None:
    """A client that sends a byte now and then must not hold the request for ever."""

    class Dripping(Server):
        async def receive(self) -> Any:
            await asyncio.sleep(0.005)
            self.received += 1
            return {"type": "http.request", "body": b"x", "more_body": True}

    server = Dripping()
    run(server, http_scope(headers=[JSON, length(90_000)]), limit=100_000, timeout=0.05)
    assert server.status == 408
    assert server.received > 1


@pytest.mark.parametrize("chunks", [(), (b"{",)])
def test_a_client_that_leaves_ends_the_request_quietly(chunks: tuple[bytes, ...]) -> None:
    server = Server(*chunks, end=False, disconnect=True)
    application = run(server, http_scope(headers=[JSON, length(10)]))
    assert (server.sent, application.bodies) == ([], [])


def test_a_disconnect_after_the_body_reaches_the_application() -> None:
    server = Server(b"{}", disconnect=True)
    got: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        got.extend([(await receive())["type"], (await receive())["type"]])

    asyncio.run(BodyBuffer(application)(http_scope(headers=[JSON, length(2)]), server.receive, server.send))
    assert got == ["http.request", "http.disconnect"]


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b'application/json;charset="UTF-8"',
        b"application/merge-patch+json",
        b"application/json; profile=x; charset=utf8",
    ],
)
def test_json_by_any_spelling_is_accepted(content_type: bytes) -> None:
    server = Server(b"{}")
    assert run(server, http_scope(headers=[(b"content-type", content_type), length(2)])).bodies == [b"{}"]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"")],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [(b"content-type", b"multipart/form-data; boundary=x")],
        [(b"content-type", b"application/jsonp")],
        [(b"content-type", b"text/x+json")],
        [(b"content-type", b"application/json; charset=latin-1")],
        [(b"content-type", b"application/json; charset=utf-16")],
        [JSON, (b"content-encoding", b"gzip")],
    ],
)
@pytest.mark.parametrize("framing", [length(2), (b"transfer-encoding", b"chunked")])
def test_any_other_body_is_refused_unread(headers: list[tuple[bytes, bytes]], framing: tuple[bytes, bytes]) -> None:
    server = Server(b"{}")
    application = run(server, http_scope(headers=[*headers, framing]))
    assert (server.status, server.problem, server.received) == (415, "/problems/unsupported-media-type", 0)
    assert {b"accept", b"accept-encoding"} & server.headers.keys()
    assert application.bodies == []


def test_the_identity_coding_is_none_at_all() -> None:
    server = Server(b"{}")
    assert run(server, http_scope(headers=[JSON, (b"content-encoding", b"identity"), length(2)])).bodies == [b"{}"]


def test_paths_can_be_exempt_from_the_type_but_not_from_the_limit() -> None:
    png = (b"content-type", b"image/png")
    server = Server(b"\x89PNG")
    scope = http_scope(headers=[png, length(4)], path="/upload/logo")
    assert run(server, scope, any_type=("/upload/",)).bodies == [b"\x89PNG"]
    large = Server(b"x" * 101)
    run(large, http_scope(headers=[png, length(101)], path="/upload/logo"), any_type=("/upload/",))
    assert large.status == 413


def test_http_2_needs_no_framing_header_to_have_a_body() -> None:
    server = Server(b"x" * 60, b"x" * 60)
    run(server, http_scope(version="2"))
    assert server.status == 413
    assert b"connection" not in server.headers, "forbidden in HTTP/2 (RFC 9113 §8.2.2)"
    plain = Server(b"hello")
    run(plain, http_scope(headers=[(b"content-type", b"text/plain")], version="2"))
    assert plain.status == 415
    empty = Server(b"")
    assert run(empty, http_scope(headers=[], version="2")).bodies == [b""]


def test_a_content_length_that_is_no_number_is_refused() -> None:
    server = Server(b"{}")
    run(server, http_scope(headers=[JSON, (b"content-length", b"-1")]))
    assert (server.status, server.received) == (400, 0)


def test_a_body_is_not_kept_once_it_was_given() -> None:
    """A megabyte for each open request adds up: the replay hands it over and forgets it."""
    freed: list[bool] = []
    freed_early: list[bool] = []

    class Chunk(bytes):
        def __del__(self) -> None:
            freed.append(True)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        server.messages.clear()
        server.received = 0
        gc.collect()
        assert not freed, "nobody has read it yet"
        await receive()
        gc.collect()
        freed_early.extend(freed)

    server = Server(Chunk(b'"' + b"x" * 50 + b'"'))
    scope = http_scope(headers=[JSON, length(52)])
    asyncio.run(BodyBuffer(application)(scope, server.receive, server.send))
    assert freed_early == [True]
