"""What a route promises by being declared: that a POST may be sent twice, and that a change may have a condition.

Nothing of it is code of the route's own. A POST that creates (201) takes an `Idempotency-Key`; a GET that answers with
one struct has an `ETag`, and whatever changes or deletes at the same path can be told to do so only if the tag still
holds. `opt` says otherwise: `{"idempotent": True}` for a POST that should take a key and does not create, False for one
that should not; `{"etag": False}` for a GET whose answer is no resource, and for a change that looks at conditions
itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from sqlalchemy import inspect

from tenantry.kernel.schema import Page
from tenantry.tenancy.conditional import Conditions, Lock, answer_with_tag, header_lines
from tenantry.tenancy.held import answer_after_commit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
    from sqlalchemy import Table

    from tenantry.tenancy.request import TenantRequest

    Claim = Callable[[Request[Any, Any, Any], TenantRequest, list[bytes]], Awaitable[Callable[[], Awaitable[None]]]]
    """Of the lines of an Idempotency-Key, what is to be done at the beginning of every transaction."""

__all__ = ("DECLARED", "Declared", "begin_declared", "declare_routes", "describe_declared", "surround")

DECLARED: Final = "declared"
"""The key of a handler's `opt` under which `Declared` is."""

KEY_HEADER: Final = b"idempotency-key"
_CONDITIONS: Final = frozenset({b"if-match", b"if-none-match"})
_HEADERS: Final = {
    (False, False): frozenset[bytes](),
    (False, True): _CONDITIONS,
    (True, False): frozenset({KEY_HEADER}),
    (True, True): _CONDITIONS | {KEY_HEADER},
}
"""For which an answer waits, by what a route promises."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What holds for one method of one route."""

    has_tag: bool = False
    """It reads a resource, whose tag is in the answer."""
    takes_key: bool = False
    looks_at_conditions: bool = False
    """It is no read: a condition on it must not be passed over."""
    resource: HTTPRoute | None = None
    """At whose path a resource with a tag is read, which this changes or deletes."""
    lock: Lock | None = None
    """What keeps two changes of that resource one after the other."""

    def waits(self, scope: HTTPScope) -> bool:
        """Whether the answer must wait for the commit, since the request says so."""
        wanted = _HEADERS[self.takes_key, self.looks_at_conditions]
        for name, _ in scope["headers"]:  # noqa: SIM110 - asked by every change; `any` takes longer
            if name in wanted:
                return True
        return False


def declare_routes(routes: Iterable[Any], identifiers: Mapping[str, type[Any]], *, below: str) -> dict[str, Declared]:
    """Find out what the routes below a path promise, write it to their handlers, and return it by operation id.

    Args:
        routes: an application's.
        identifiers: the models that the ids in paths name.
        below: the beginning of the paths: those of organizations.
    """
    found: dict[str, Declared] = {}
    for route in routes:
        if not isinstance(route, HTTPRoute) or not route.path.startswith(below):
            continue
        by_method = {method: handler for method, (handler, _) in route.route_handler_map.items()}
        reader = by_method.get("GET")
        is_resource = reader is not None and _reads_resource(reader)
        for method, handler in by_method.items():
            if handler.opt.get("public") or method == "OPTIONS":
                continue
            if method in {"GET", "HEAD"}:
                declared = Declared(has_tag=handler is reader and is_resource)
            else:
                looks = bool(handler.opt.get("etag", True))
                declared = Declared(
                    takes_key=method == "POST" and bool(handler.opt.get("idempotent", handler.status_code == 201)),
                    looks_at_conditions=looks,
                    resource=route if is_resource and looks else None,
                    lock=_lock(route, handler, identifiers) if is_resource and looks else None,
                )
            handler.opt[DECLARED] = declared
            found[str(handler.operation_id)] = declared
    return found


def _reads_resource(handler: HTTPRouteHandler) -> bool:
    """Whether the answer is one struct: no page, no list, no stream."""
    annotation = handler.parsed_fn_signature.return_type.annotation
    return (
        handler.opt.get("etag", True)
        and not handler.opt.get("public")
        and isinstance(annotation, type)
        and issubclass(annotation, msgspec.Struct)
        and not issubclass(annotation, Page)
    )


def _lock(route: HTTPRoute, handler: HTTPRouteHandler, identifiers: Mapping[str, type[Any]]) -> Lock:
    """The row that the path's last id names; the caller's own account, where the path has none and it is about them;
    otherwise the path itself."""
    parameters = list(route.path_parameters)
    if parameters and (model := identifiers.get(parameters[-1])) is not None:
        return Lock(table=_table(model), parameter=parameters[-1])
    if not parameters and handler.opt.get("any_user") and (model := identifiers.get("user_id")) is not None:
        return Lock(table=_table(model), parameter=None)
    return Lock(table=None, parameter=None)


def _table(model: type[Any]) -> Table:
    table: Table = inspect(model).local_table
    return table


def surround(app: ASGIApp, scope: HTTPScope, request: TenantRequest) -> ASGIApp:
    """The application, with what the route's promises and the request's headers together ask for around it."""
    declared: Declared | None = scope["route_handler"].opt.get(DECLARED)
    if declared is None:
        return app
    if declared.has_tag:

        async def tagged(scope: Scope, receive: Receive, send: Send) -> None:
            await answer_with_tag(app, scope, receive, send)  # type: ignore[arg-type]

        return tagged
    if declared.waits(scope):
        request.is_held = True

        async def held(scope: Scope, receive: Receive, send: Send) -> None:
            await answer_after_commit(request, app, scope, receive, send)  # type: ignore[arg-type]

        return held
    return app


async def begin_declared(connection: Request[Any, Any, Any], request: TenantRequest, claim: Claim) -> None:
    """What comes between the guards and the handler: the key is looked up, the resource locked, the condition checked.

    Raises:
        ClientException: the key or the condition is malformed, or does not hold.
    """
    declared: Declared | None = connection.scope["route_handler"].opt.get(DECLARED)
    if declared is None or (declared.lock is None and not request.is_held):
        return
    steps: list[Callable[[], Awaitable[None]]] = []
    if declared.takes_key and (lines := header_lines(connection.scope, KEY_HEADER)):
        steps.append(await claim(connection, request, lines))
    if declared.looks_at_conditions:
        conditions = Conditions(connection, request, declared.resource, declared.lock)
        steps.append(conditions.check)
        if conditions.are_made:
            request.finishing.append(conditions.tell_tag)

    async def begin() -> None:
        for step in steps:
            await step()

    await begin()
    request.on_begin = begin


_ETAG = {"description": "What the resource looks like, as one word (RFC 9110).", "schema": {"type": "string"}}
_REPLAYED = {
    "description": "There, and `true`, where the answer was given before.",
    "schema": {"type": "string", "enum": ["true"]},
}
_TAGS = r'^[ \t]*(\*|(W/)?"[\x21\x23-\x7e]*"([ \t]*,[ \t]*(W/)?"[\x21\x23-\x7e]*")*)[ \t]*$'


def _header(name: str, description: str, pattern: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "description": description,
        "required": False,
        "schema": {"type": "string", "pattern": pattern},
    }


_KEY_PARAMETER = _header(
    "Idempotency-Key",
    "A key of your choice for this one request, such as a new UUID. Sent again with the same key it is not done again: "
    "the answer is that of the first time.",
    r'^("([\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255}"|[A-Za-z0-9_.:+/=~-]{1,255})$',
)
_IF_MATCH = _header("If-Match", "Do it only if the resource's `ETag` is still one of these.", _TAGS)
_IF_NONE_MATCH = _header("If-None-Match", "Tags that you have: if one of them still holds, the answer is 304.", _TAGS)


def describe_declared(declared: Mapping[str, Declared], operation: dict[str, Any]) -> None:
    """Document on an operation of the OpenAPI document what its route promises."""
    promised = declared.get(operation.get("operationId", ""))
    if promised is None:
        return
    parameters = operation.setdefault("parameters", [])
    responses = operation["responses"]
    if promised.takes_key:
        parameters.append(_KEY_PARAMETER)
        _add_header(responses, _REPLAYED, "Idempotent-Replayed")
        responses |= {"400": {}, "409": {}, "422": {}}
    if promised.has_tag:
        parameters.append(_IF_NONE_MATCH)
        _add_header(responses, _ETAG, "ETag")
        responses |= {"304": {"description": "What you have is still so.", "headers": {"ETag": _ETAG}}, "400": {}}
    if promised.resource is not None:
        parameters.append(_IF_MATCH)
        _add_header(responses, _ETAG, "ETag")
        responses |= {"400": {}, "412": {}}


def _add_header(responses: dict[str, Any], header: dict[str, Any], name: str) -> None:
    for status, response in responses.items():
        if status.startswith("2") and status != "204":
            response.setdefault("headers", {})[name] = header
