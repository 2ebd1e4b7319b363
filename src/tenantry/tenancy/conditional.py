"""Reads with a tag, and changes on a condition (RFC 9110, section 13).

The condition of a change is looked at in the transaction of the change, behind a lock: what the client has seen is
compared with what it would see now, read by the route's own GET. Changes without a condition take the lock as well, so
that none of them slips in between a condition and what was done on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, literal_column, select

from tenantry.kernel.http.problem import send_problem
from tenantry.tenancy.held import HeldAnswer
from tenantry.tenancy.hot import HotStatement
from tenantry.tenancy.tags import Condition, PreconditionFailedException, entity_tag

if TYPE_CHECKING:
    from litestar import Request
    from litestar.routes import HTTPRoute
    from litestar.types import ASGIApp, HTTPScope, Message, Receive, Send
    from sqlalchemy import Select, Table

    from tenantry.tenancy.request import TenantRequest

__all__ = ("Conditions", "Lock", "answer_with_tag", "header_lines", "lock_number")


def header_lines(scope: HTTPScope | Any, name: bytes) -> list[bytes]:
    """The values of a header, one for each line of it."""
    return [value for found, value in scope["headers"] if found == name]


def _tag_of(headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    """The answer's own tag where its handler has given it one."""
    return next((value for name, value in headers if name == b"etag"), None) or entity_tag(body)


async def answer_with_tag(app: ASGIApp, scope: HTTPScope, receive: Receive, send: Send) -> None:
    """Run `app`, and send its answer with a tag, or without a body if the client has it (304)."""
    start: Any = None

    async def tag(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and message["status"] == 200:
            start = message
            return
        if start is None or message["type"] != "http.response.body":
            await send(message)
            return
        begun, start = start, None
        if message.get("more_body"):
            await send(begun)
            await send(message)
            return
        headers = list(begun["headers"])
        found = _tag_of(headers, message["body"])
        try:
            condition = Condition.parse("If-None-Match", header_lines(scope, b"if-none-match"))
        except Exception as error:
            await send_problem(scope, send, error)
            return
        if not any(name == b"etag" for name, _ in headers):
            headers.append((b"etag", found))
        if condition is not None and condition.matches_weakly(found):
            headers = [each for each in headers if each[0] not in {b"content-length", b"content-type"}]
            begun, message = {**begun, "status": 304}, {**message, "body": b""}
        begun["headers"] = headers
        await send(begun)
        await send(message)

    await app(scope, receive, tag)


@dataclass(frozen=True, slots=True)
class Lock:
    """What is locked while a resource is changed: a row, or where no one row is the resource, its path."""

    table: Table | None
    parameter: str | None
    """Of the path, with the row's id; None for the caller's own account."""
    _statement: HotStatement | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        statement = None
        if self.table is not None:
            row: Select[Any] = select(literal_column("1")).select_from(self.table)
            row = row.where(self.table.c.id == bindparam("id"))
            # Without its key: rows that refer to it can still be made.
            statement = HotStatement(row.with_for_update(key_share=True))
        object.__setattr__(self, "_statement", statement)

    async def take(self, connection: Request[Any, Any, Any], request: TenantRequest) -> None:
        """Wait for it, at most as long as the tenant's scope lets a statement wait. It ends with the transaction."""
        driver = await request.connection()
        if self._statement is None:
            tenant = request.tenant
            number = lock_number(tenant.id.bytes if tenant else b"", connection.scope["path"].encode())
            await driver.fetchval("SELECT pg_advisory_xact_lock($1)", number)
            return
        row_id = connection.path_params[self.parameter] if self.parameter else request.principal.user_id
        await self._statement.one(driver, id=row_id)


def lock_number(*parts: bytes) -> int:
    """The number of an advisory lock. They are the whole database's, so one of the parts is the tenant's id."""
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(4) + part)
    return int.from_bytes(digest.digest()[:8], signed=True)


class Conditions:
    """The conditions of one request that changes something."""

    __slots__ = ("_connection", "_if_match", "_if_none_match", "_lock", "_request", "_resource")

    def __init__(
        self,
        connection: Request[Any, Any, Any],
        request: TenantRequest,
        resource: HTTPRoute | None,
        lock: Lock | None,
    ) -> None:
        """Raises:
        ClientException: a condition is malformed.
        """
        self._connection = connection
        self._request = request
        self._resource = resource
        self._lock = lock
        self._if_match = Condition.parse("If-Match", header_lines(connection.scope, b"if-match"))
        self._if_none_match = Condition.parse("If-None-Match", header_lines(connection.scope, b"if-none-match"))

    @property
    def are_made(self) -> bool:
        return self._if_match is not None or self._if_none_match is not None

    async def check(self) -> None:
        """Lock the resource, and compare.

        Raises:
            PreconditionFailedException: a condition does not hold.
            ResourceNotFoundException: there is no such resource, which comes first (section 13.2.1).
        """
        if self._lock is not None:
            await self._lock.take(self._connection, self._request)
        if not self.are_made:
            return
        if self._resource is None:
            # What has no tag has none that the client could have seen. `*` is for the handler, which looks anyway.
            if self._if_match is not None and not self._if_match.any:
                raise PreconditionFailedException("This resource has no tags.")
            return
        tag = await self._read_again(self._resource)
        if self._if_match is not None and (tag is None or not self._if_match.matches(tag)):
            raise PreconditionFailedException
        if self._if_none_match is not None and tag is not None and self._if_none_match.matches_weakly(tag):
            raise PreconditionFailedException

    async def tell_tag(self, answer: HeldAnswer) -> None:
        """Give the answer the tag that the resource has now, so that the next change needs no read before it."""
        if self._resource is not None and answer.status == 200:
            tag = await self._read_again(self._resource)
            if tag is not None:
                answer.headers.append((b"etag", tag))

    async def _read_again(self, resource: HTTPRoute) -> bytes | None:
        """The tag that a GET would answer with now, in this transaction.

        By the route's own handler, guards included: who may not see the resource can have no tag of it.
        """
        scope: Any = self._connection.scope
        handler, _ = resource.route_handler_map["GET"]
        again = {
            **scope,
            "method": "GET",
            "query_string": b"",
            "headers": [each for each in scope["headers"] if each[0] in {b"authorization", b"host"}],
            "route_handler": handler,
            # Without what Litestar has noted of the other request: its headers, its body.
            "state": {name: value for name, value in scope["state"].items() if not name.startswith("_")},
        }
        request, answer = self._request, HeldAnswer()
        transaction = await request.transaction()
        transaction.forget()
        request.is_reading_again = True
        try:
            await resource.handle(again, self._connection.receive, answer.take)  # type: ignore[arg-type]
        finally:
            request.is_reading_again = False
        # What was read must not be what the handler takes for its own, with whatever it has changed there.
        transaction.forget()
        return _tag_of(answer.headers, answer.body) if answer.status == 200 else None
