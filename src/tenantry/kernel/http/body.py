"""Bodies are read whole before the application runs: a slow client must never hold a database connection."""

from __future__ import annotations

import asyncio
import re
from enum import Enum
from typing import TYPE_CHECKING

from litestar.enums import ScopeType

from tenantry.kernel.errors import (
    ClientException,
    PayloadTooLargeException,
    RequestTimeoutException,
    UnsupportedMediaTypeException,
)
from tenantry.kernel.http.problem import send_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from litestar.types import ASGIApp, HTTPReceiveMessage, HTTPRequestEvent, HTTPScope, Receive, Scope, Send

__all__ = ("BodyBuffer",)

_BODYLESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_JSON = b"application/json"
_JSON_SUFFIX = re.compile(rb"application/[a-z0-9!#$&^_.+-]+\+json")
_UTF8 = frozenset({b"utf-8", b"utf8", b"us-ascii"})


class _Nothing(Enum):
    ANNOUNCED = "no body was announced, so none was read"
    CLIENT_LEFT = "the client went away in the middle"


class BodyBuffer:
    """Plain ASGI middleware: reads the body, up to `limit` bytes and for `timeout` seconds in total, then replays it.

    Bodies are JSON in UTF-8 (RFC 8259 §8.1) without a content coding; on paths that begin with one of `any_type`
    they may be anything. Requests without a body pass untouched.
    """

    def __init__(
        self, app: ASGIApp, *, limit: int = 1 << 20, timeout: float = 10.0, any_type: Iterable[str] = ()
    ) -> None:
        self.app = app
        self._limit = limit
        self._timeout = timeout
        self._any_type = tuple(any_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] in _BODYLESS:
            await self.app(scope, receive, send)
            return
        try:
            body = await self._body(scope, receive)
        except ClientException as error:
            # What is left of the body is not worth reading, so the connection cannot be used again (RFC 9112 §9.3).
            if scope["http_version"].startswith("1"):
                error.headers = {**(error.headers or {}), "Connection": "close"}
            await send_problem(scope, send, error)
            return
        if body is _Nothing.CLIENT_LEFT:
            return
        if body is not _Nothing.ANNOUNCED:
            receive = _replay(body, receive)
            del body  # a megabyte for every request that is being served would add up
        await self.app(scope, receive, send)

    async def _body(self, scope: HTTPScope, receive: Receive) -> bytes | _Nothing:
        length = content_type = coding = None
        chunked = False
        for name, value in scope["headers"]:
            if name == b"content-length":
                length = value
            elif name == b"content-type":
                content_type = value
            elif name == b"content-encoding":
                coding = value
            elif name == b"transfer-encoding":
                chunked = True
        framed = chunked or length is not None
        # HTTP/2 and 3 need no framing header, so only in HTTP/1 does its absence mean that there is no body.
        if not framed and scope["http_version"].startswith("1"):
            return _Nothing.ANNOUNCED
        if length is not None:
            if not length.isdigit():
                raise ClientException("Content-Length is not a number.")
            if int(length) == 0:
                return _Nothing.ANNOUNCED
            if int(length) > self._limit:
                raise self._too_large()
        if framed:
            self._check_type(scope["path"], content_type, coding)
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._receive(receive)
        except TimeoutError:
            raise RequestTimeoutException(f"The body did not arrive within {self._timeout:g} seconds.") from None
        if body and not framed:
            self._check_type(scope["path"], content_type, coding)
        return body

    async def _receive(self, receive: Receive) -> bytes | _Nothing:
        chunks: list[bytes] = []
        size = 0
        while True:
            message: HTTPReceiveMessage = await receive()  # type: ignore[assignment]
            if message["type"] == "http.disconnect":
                return _Nothing.CLIENT_LEFT
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._limit:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join((*chunks, chunk)) if chunks else chunk
            chunks.append(chunk)

    def _too_large(self) -> PayloadTooLargeException:
        return PayloadTooLargeException(f"A body may have {self._limit} bytes.", limit=self._limit)

    def _check_type(self, path: str, content_type: bytes | None, coding: bytes | None) -> None:
        if content_type == _JSON and coding is None:
            return
        if self._any_type and path.startswith(self._any_type):
            return
        if coding is not None and coding.strip().lower() != b"identity":
            # RFC 9110 §15.5.16: say what would have been accepted.
            raise UnsupportedMediaTypeException(
                "Content codings are not accepted.", headers={"Accept-Encoding": "identity"}
            )
        media_type, *parameters = (content_type or b"").lower().split(b";")
        media_type = media_type.strip()
        if media_type != _JSON and not _JSON_SUFFIX.fullmatch(media_type):
            raise UnsupportedMediaTypeException(headers={"Accept": _JSON.decode()})
        for parameter in parameters:
            name, _, value = parameter.partition(b"=")
            if name.strip() == b"charset" and value.strip().strip(b'"') not in _UTF8:
                raise UnsupportedMediaTypeException(
                    "The charset of a body is UTF-8.", headers={"Accept": _JSON.decode()}
                )


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body in one message, and then what the server has to say: a disconnect."""
    unread: bytes | None = body
    del body

    async def replay() -> HTTPReceiveMessage:
        nonlocal unread
        if unread is None:
            return await receive()  # type: ignore[return-value]
        message: HTTPRequestEvent = {"type": "http.request", "body": unread, "more_body": False}
        unread = None
        return message

    return replay
