"""The outermost layer: request ids, security headers, metrics, the access log, and the last resort for errors.

They are one middleware, not five, since each wrapper of `send` costs every request.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import structlog
from litestar.enums import ScopeType
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from tenantry.kernel.errors import FieldError, ValidationFailedException
from tenantry.kernel.http.body import BodyBuffer
from tenantry.kernel.http.fields import NUL_MESSAGE
from tenantry.kernel.http.headers import secure_headers
from tenantry.kernel.http.problem import send_problem
from tenantry.kernel.http.request_id import request_id_for
from tenantry.kernel.http.shutdown import Shutdown
from tenantry.kernel.logging import log_access
from tenantry.kernel.metrics import IN_FLIGHT, UNMATCHED, observe_request, observe_tenant
from tenantry.kernel.tracing import begin_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

__all__ = ("Edge", "edge")

REFUSED = 429
_HELD_BACK = 256
"""How many refusals a process holds back at a time; more of them go out at once."""
CLIENT_GONE = 499
"""What logs and metrics call a request that ended without an answer, since its client had left (as nginx does)."""


class _TooSlowError(Exception):
    """The client has not taken a piece of its answer in time."""


class Edge:
    """Plain ASGI middleware around the whole application.

    Puts `request_id` and `trace_id` into `scope["state"]`, and answers with the first and with the `headers` that
    somebody has put there, be it an error's answer. Logs one line per request, at INFO: method, route template, status,
    duration, and from the state `tenant` (its `slug`) and `user_id` or `api_key_id` where somebody put them there;
    never paths, queries or headers, which may hold secrets. Paths that begin with one of `quiet` are not logged.

    An answer 429 is held back for `refusal_delay` seconds, when all that the request held is given back: who asks again
    as soon as there is an answer asks less often, and refusing takes time from everybody. That is in no duration.
    Once `shutdown` drains, each answer ends its connection.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        quiet: Iterable[str] = ("/health", "/metrics"),
        write_timeout: float = 30.0,
        refusal_delay: float = 0.0,
        shutdown: Shutdown | None = None,
    ) -> None:
        self.app = app
        self._shutdown = shutdown or Shutdown()
        self._write_timeout = write_timeout
        self._refusal_delay = refusal_delay
        self._held_back = 0
        self._quiet = tuple(quiet)
        self._info: Callable[..., Any] | None = None
        self._enabled: Callable[[int], bool]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        sent_id: bytes | None = None
        sent_trace: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                sent_id = sent_id or value
            elif name == b"traceparent":
                sent_trace = sent_trace or value
        request_id = request_id_for(sent_id)
        trace_id, span = begin_request(sent_trace, request_id)
        # A state of its own for each request, whatever the server does: a shared one would mix tenants up.
        state = scope["state"] = {**(scope.get("state") or {}), "request_id": request_id, "trace_id": trace_id}
        clear_contextvars()
        bind_contextvars(request_id=request_id, trace_id=trace_id)
        status = 0
        is_cut = False
        held_back = 0.0
        refusal: list[Message] = []

        async def send_wrapped(message: Message) -> None:
            nonlocal status, is_cut
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message["headers"])
                headers += secure_headers(headers)
                if (more := state.get("headers")) is not None:
                    headers += more
                headers.append((b"x-request-id", request_id.encode()))
                # HTTP/2 forbids the header (RFC 9113, section 8.2.2), and has GOAWAY, which the server sends.
                if self._shutdown.is_draining and scope["http_version"].startswith("1"):
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
                if status == REFUSED:
                    refusal.append(message)
                    return
            elif refusal:
                refusal.append(message)
                return
            elif message.get("more_body", False):
                try:
                    await self._send_piece(message, send)
                except _TooSlowError:
                    is_cut = True
                    raise
                return
            await send(message)

        IN_FLIGHT.inc()
        try:
            try:
                query = scope["query_string"]
                if query and (b"%00" in query or b"\x00" in query):
                    _refuse_nul(query)
                await self.app(scope, receive, send_wrapped)
            except Exception as error:
                if is_cut:
                    # Without its last piece: the server closes the connection, and the client sees that.
                    return
                if status:
                    raise
                await send_problem(scope, send_wrapped, error)
            if refusal:
                held_back = await self._hold_back()
                for message in refusal:
                    await send(message)
        finally:
            IN_FLIGHT.dec()
            seconds = perf_counter() - started - held_back
            route = scope.get("path_template", UNMATCHED)
            observe_request(scope["method"], route, status or CLIENT_GONE, seconds)
            tenant = scope["state"].get("tenant")
            if tenant is not None:
                observe_tenant(tenant.slug, tenant.plan.slug, status or CLIENT_GONE, seconds)
            if span is not None:
                span.end(scope["method"], route, status or CLIENT_GONE, tenant)
            self._log(scope, route, status or CLIENT_GONE, seconds)

    async def _hold_back(self) -> float:
        """Wait, if that helps; how long it was, in seconds."""
        if not self._refusal_delay or self._held_back >= _HELD_BACK:
            return 0.0
        begun = perf_counter()
        self._held_back += 1
        try:
            await asyncio.sleep(self._refusal_delay)
        finally:
            self._held_back -= 1
        return perf_counter() - begun

    async def _send_piece(self, message: Message, send: Send) -> None:
        """Send a piece of an answer, within a time: a client that takes nothing must not keep what is behind it.

        Of an answer in one piece the server takes charge at once (tried with granian: 64 MiB in 0.2 s, unread), of
        pieces it takes some (seven, of a megabyte each), and then waits for the client.

        Raises:
            _TooSlowError: the client took nothing for so long.
        """
        try:
            async with asyncio.timeout(self._write_timeout):
                await send(message)
        except TimeoutError:
            raise _TooSlowError(f"the client took nothing for {self._write_timeout:g} seconds") from None

    def _log(self, scope: HTTPScope, route: str, status: int, seconds: float) -> None:
        if self._info is None:
            # Not in __init__: the application is built before logging is configured. Kept from then on, since
            # structlog's lazy logger assembles a new one on each use.
            logger = structlog.get_logger("tenantry.access").bind()
            self._enabled = getattr(logger, "is_enabled_for", None) or logger.isEnabledFor
            self._info = logger.info
        if not self._enabled(logging.INFO) or scope["path"].startswith(self._quiet):
            return
        values: dict[str, Any] = {
            "method": scope["method"],
            "route": route,
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
        }
        state = scope["state"]
        if (tenant := state.get("tenant")) is not None:
            values["tenant"] = tenant.slug
        if (user_id := state.get("user_id")) is not None:
            values["user_id"] = str(user_id)
        if (api_key_id := state.get("api_key_id")) is not None:
            values["api_key_id"] = str(api_key_id)
        context = get_contextvars()
        for name in ("operator", "operator_id"):
            if (operator := context.get(name)) is not None:
                values[name] = operator
        if not log_access({"request_id": state["request_id"], "trace_id": state["trace_id"], **values}):
            self._info("request", **values)


def _refuse_nul(query: bytes) -> None:
    errors = [
        FieldError(field=name.replace("\x00", "\N{SYMBOL FOR NULL}"), source="query", message=NUL_MESSAGE)
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        if "\x00" in name or "\x00" in value
    ]
    if errors:
        raise ValidationFailedException(errors=errors)


def edge(
    app: ASGIApp,
    *,
    body_limit: int = 1 << 20,
    body_timeout: float = 10.0,
    any_type: Iterable[str] = (),
    quiet: Iterable[str] = ("/health", "/metrics"),
    write_timeout: float = 30.0,
    refusal_delay: float = 0.0,
    shutdown: Shutdown | None = None,
) -> Edge:
    """The application with all that surrounds it: what the server is given.

    `body_limit` in bytes, `body_timeout`, `write_timeout` and `refusal_delay` in seconds; `any_type` are path prefixes
    whose bodies need not be JSON; `shutdown` says when to end connections.
    """
    return Edge(
        BodyBuffer(app, limit=body_limit, timeout=body_timeout, any_type=any_type),
        quiet=quiet,
        write_timeout=write_timeout,
        refusal_delay=refusal_delay,
        shutdown=shutdown,
    )
