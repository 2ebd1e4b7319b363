"""The application's routes, as the manifests make them, and what it takes to call each: rows, ids and bodies."""

from __future__ import annotations

import datetime
import itertools
import secrets
import tempfile
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin
from uuid import UUID, uuid4

import httpx
import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from sqlalchemy import (
    Table,
    inspect,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.asgi import create_app
from tenantry.domain.identity.people.schemas import TypedAddress
from tenantry.domain.scim.schemas import ScimGroup, ScimPatch, ScimSearch, ScimUser
from tenantry.domain.webhooks.schemas import EventFilter
from tenantry.features import DOMAIN_FEATURES, TENANT_METADATA
from tenantry.kernel.schema import UNSET, Amount, Email, HttpsUrl, Locale, Password, Slug, TimeZone
from tenantry.kernel.settings import load_settings
from tenantry.tenancy.connection import ScopedConnection
from tests.isolation.planting import address_of, plant_row
from tests.platform.rollouts.listening import listen_at
from tests.world import PASSWORD, Caller

__all__ = (
    "ENDPOINTS",
    "IDENTIFIERS",
    "Endpoint",
    "body_of",
    "digests",
    "identifiers_in",
    "plant_link",
    "snapshot",
)

IDENTIFIERS: Mapping[str, type[Any]] = {
    name: model for feature in DOMAIN_FEATURES for name, model in feature.identifiers.items()
}
"""The ids that a path or a body may name, of all features."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Endpoint:
    """One method of one route."""

    method: str
    path: str
    """With `{name}` for each parameter."""
    handler: HTTPRouteHandler
    parameters: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def is_public(self) -> bool:
        return bool(self.handler.opt.get("public"))

    @property
    def any_user(self) -> bool:
        return bool(self.handler.opt.get("any_user"))

    @property
    def is_endless(self) -> bool:
        """Whether its answer is a stream that the server does not end."""
        return bool(self.handler.opt.get("endless"))

    @property
    def writes(self) -> bool:
        return self.method not in {"GET", "HEAD", "OPTIONS"}

    @property
    def permissions(self) -> tuple[str, ...]:
        """The permissions that its guards ask for."""
        return tuple(guard.permission for guard in self.handler.resolve_guards() if hasattr(guard, "permission"))

    @property
    def body(self) -> type[msgspec.Struct] | None:
        """The struct of its body."""
        field = self.handler.parsed_data_field
        if field is None:
            return None
        [struct] = [each for each in _members(field.annotation) if issubclass(each, msgspec.Struct)]
        return struct

    def url(self, ids: Mapping[str, object] | None = None) -> str:
        """Its path; a parameter that is not in `ids` is an id of nothing, or a slug of nobody."""
        values = {name: f"nobody-{secrets.token_hex(4)}" if name == "slug" else uuid4() for name in self.parameters}
        return self.path.format(**{**values, **(ids or {})})


def _endpoints() -> tuple[Endpoint, ...]:
    with tempfile.TemporaryDirectory() as home:
        app = create_app(
            load_settings(
                {
                    "TENANTRY_HOME": home,
                    "TENANTRY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
                    "TENANTRY_REDIS_URL": "redis://127.0.0.1:1/0",
                }
            )
        )
    app.state.hasher.close()
    return tuple(
        sorted(
            (
                Endpoint(method, route.path_format, handler, tuple(route.path_parameters))
                for route in app.routes
                if isinstance(route, HTTPRoute)
                for method, (handler, *_) in route.route_handler_map.items()
            ),
            key=str,
        )
    )


ENDPOINTS = _endpoints()
"""All of them: of both planes, and those of neither."""


# Bodies.


def _members(annotation: Any) -> list[type]:
    """The types of a union; Annotated is looked through."""
    origin = get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return [found for member in get_args(annotation) for found in _members(member)]
    if origin is typing.Annotated:
        return _members(get_args(annotation)[0])
    return [annotation] if isinstance(annotation, type) else []


def body_of(struct: type[msgspec.Struct] | None, ids: Mapping[str, object] | None = None) -> dict[str, Any] | None:
    """The least that is a valid body: required fields, and the fields of an `Update`, which are what it is for.

    A field that is named like an identifier gets its id from `ids`.
    """
    if struct is None:
        return None
    if struct in _OPEN_BODIES:
        return _OPEN_BODIES[struct]()
    made: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        if field.name in IDENTIFIERS:
            made[field.encode_name] = str((ids or {}).get(field.name) or uuid4())
        elif field.type == TypedAddress:
            made[field.encode_name] = address_of((ids or {}).get("user_id"))
        elif field.required or field.default is UNSET:
            made[field.encode_name] = _value(field.type)
    return made


_OPEN_BODIES: dict[type, Callable[[], dict[str, Any]]] = {
    ScimUser: lambda: {"userName": f"planted-{next(_numbers)}@example.com"},
    ScimGroup: lambda: {"displayName": f"Planted {next(_numbers)}"},
    ScimPatch: lambda: {"Operations": [{"op": "replace", "path": "displayName", "value": f"Planted {next(_numbers)}"}]},
    ScimSearch: dict,
}
"""Bodies whose structs ask for nothing, since another protocol says what has to be in them."""


def identifiers_in(struct: type[msgspec.Struct] | None) -> tuple[str, ...]:
    """The identifiers that a body names."""
    if struct is None:
        return ()
    return tuple(field.name for field in msgspec.structs.fields(struct) if field.name in IDENTIFIERS)


def _value(annotation: Any) -> Any:
    number = next(_numbers)
    if annotation in _WORDS:
        return _WORDS[annotation].format(number)
    origin = get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return _value(get_args(annotation)[0])
    if origin is typing.Annotated:
        kind, *meta = get_args(annotation)
        if get_origin(kind) is list and any(getattr(each, "min_length", None) for each in meta):
            return [_value(item) for item in get_args(kind)]
        if kind is int:
            return next((each.le for each in meta if getattr(each, "le", None) is not None), number)
        return _value(kind)
    if origin is Literal:
        return get_args(annotation)[-1]
    if origin is list:
        return []
    if origin is dict:
        return {}
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return body_of(annotation)
    if annotation is bool:
        return False
    if annotation is int:
        return number
    if annotation is UUID:
        return str(uuid4())
    if annotation is str:
        # A URL is text that has to look like one; so is a name, for which any text will do.
        return f"https://example.com/{number}"
    if annotation is datetime.date:
        return datetime.datetime.now(datetime.UTC).date().isoformat()
    if annotation is datetime.datetime:
        return datetime.datetime.now(datetime.UTC).isoformat()
    raise NotImplementedError(f"teach tests/isolation/routes.py to fill in {annotation}")


_WORDS: dict[Any, str] = {
    Amount: "{}.50",
    Email: "planted-{}@example.com",
    EventFilter: "*",
    HttpsUrl: "https://example.com/{}",
    Locale: "de-CH",
    Password: PASSWORD,
    Slug: "planted-{}",
    TimeZone: "Europe/Zurich",
}


async def begin_endless(caller: Caller, endpoint: Endpoint) -> httpx.Response:
    """The beginning of an answer that does not end: httpx's transport would wait for the rest."""
    transport: Any = caller.http._transport
    async with listen_at(transport.app, endpoint.url(), token=caller.access_token) as listener:
        if listener.status == 200:
            told = await listener.event()
            return httpx.Response(200, json=told.data)
        await listener.ended()
        return httpx.Response(listener.status, headers=listener.headers, content=listener.body)


# Rows.


async def plant_link(session: AsyncSession, ids: Mapping[str, UUID]) -> None:
    """Insert a row of every table that ties all of these together: a member that is in the team, say."""
    wanted = {inspect(IDENTIFIERS[name]).local_table.name: value for name, value in ids.items()}
    for table in TENANT_METADATA.sorted_tables:
        columns = {key.column.table.name: column.name for column in table.columns for key in column.foreign_keys}
        if wanted.keys() <= columns.keys():
            await plant_row(session, table, {columns[name]: value for name, value in wanted.items()})


async def snapshot(session: AsyncSession) -> dict[str, list[dict[str, Any]]]:
    """Every row of a tenant, by table."""
    found = {}
    for table in TENANT_METADATA.sorted_tables:
        rows = [dict(row) for row in (await session.execute(select(table))).mappings()]
        found[table.name] = sorted(rows, key=repr)
    return found


def _digest_of(table: Table) -> str:
    row = "to_jsonb(r)" + "".join(f" - '{name}'" for name in _NOTED.get(table.name, ()))
    digest = f"coalesce(md5(string_agg(md5(({row})::text), '' ORDER BY md5(({row})::text))), '')"
    return f"SELECT '{table.name}' AS name, {digest} AS digest FROM \"{table.name}\" AS r"


_NOTED = {"user_session": ("last_used_at",)}
"""Columns that change by themselves: noted once a minute, whatever the answer is."""

_DIGESTS = " UNION ALL ".join(_digest_of(table) for table in TENANT_METADATA.sorted_tables)


async def digests(connection: ScopedConnection) -> dict[str, str]:
    """A digest of all rows of a tenant's, by table: to see that nothing has changed, in one round trip.

    With the rows themselves, the cases spent most of their time on reading and sorting what other cases had planted.
    """
    return {row["name"]: row["digest"] for row in await connection.fetch(_DIGESTS)}
