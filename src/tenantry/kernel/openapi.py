"""The API's description: OpenAPI 3.1 at /schema, with a page to try it.

Litestar describes handlers; what holds for all of them is added to the finished document: problem answers, closed
objects, the security schemes. The page is Swagger UI, served from here, so that it works without the internet and
under a policy that allows no foreign script: people paste tokens into it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec
import yaml
from litestar import MediaType, Request, Response, Router, get
from litestar._openapi.schema_generation.plugins.struct import StructSchemaPlugin
from litestar.datastructures import ResponseHeader
from litestar.enums import OpenAPIMediaType
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, OpenAPI, Operation, SecurityScheme
from litestar.params import FromPath
from litestar.plugins import OpenAPISchemaPlugin, ReceiveRoutePlugin
from litestar.routes import HTTPRoute

from tenantry.kernel.errors import ResourceNotFoundException, problem_types
from tenantry.kernel.http.headers import PAGE_POLICY
from tenantry.kernel.http.problem import PROBLEM_JSON, ErrorForm, error_form_of
from tenantry.kernel.schema import END

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from litestar._openapi.schema_generation import SchemaCreator
    from litestar.openapi.spec import Schema
    from litestar.routes import BaseRoute
    from litestar.typing import FieldDefinition

    Amend = Callable[[dict[str, Any]], None]

__all__ = ("OPERATOR_TOKEN", "TENANT_TOKEN", "ClosedStructs", "PublicOperations", "finish", "openapi_config")

TENANT_TOKEN = "tenantToken"  # noqa: S105  (the name of a security scheme)
OPERATOR_TOKEN = "operatorToken"  # noqa: S105

_METHODS = frozenset({"get", "put", "post", "delete", "patch"})
_UNSAFE = _METHODS - {"get"}
_ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript", "start.js": "text/javascript"}
_SWAGGER_VERSION = "5.31.0"
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_PAGE_NAME = re.compile(r"^Page_(?:.*\.)?(\w+?)_$")


class ClosedStructs(OpenAPISchemaPlugin):
    """Says `additionalProperties: false` of structs that refuse unknown fields; Litestar leaves that out."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        return isinstance(value, type) and issubclass(value, msgspec.Struct)

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        return StructSchemaPlugin().is_plugin_supported_field(field_definition)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        schema = StructSchemaPlugin().to_openapi_schema(field_definition, schema_creator)
        if field_definition.type_.__struct_config__.forbid_unknown_fields:
            schema.additional_properties = False
        return schema


@dataclass
class _PublicOperation(Operation):
    """One that needs no token, whatever the routers above say: to that, handlers can only add."""

    def __post_init__(self) -> None:
        # An empty list is "none"; without the field, the document's own would hold.
        self.security = []


class PublicOperations(ReceiveRoutePlugin):
    """Says so of every route with `opt={"public": True}`, by which the middlewares let everybody in."""

    def receive_route(self, route: BaseRoute) -> None:
        if isinstance(route, HTTPRoute):
            for handler, _ in route.route_handler_map.values():
                if handler.opt.get("public"):
                    handler.operation_class = _PublicOperation


@dataclass
class _Document(OpenAPI):
    """Litestar's document, finished when it is written out."""

    amend: Amend | None = None

    @property
    def _exclude_fields(self) -> set[str]:
        return {*super()._exclude_fields, "amend"}

    def to_schema(self) -> dict[str, Any]:
        return finish(super().to_schema(), self.amend)


@dataclass
class _Config(OpenAPIConfig):
    amend: Amend | None = None

    def to_openapi_schema(self) -> OpenAPI:
        document = super().to_openapi_schema()
        values = {name: getattr(document, name) for name in document.__dataclass_fields__}
        return _Document(**values, amend=self.amend)


def openapi_config(
    title: str, version: str, *, description: str | None = None, amend: Amend | None = None
) -> OpenAPIConfig:
    """Configuration of the description: /schema (the page), /schema/openapi.json and /schema/openapi.yaml.

    Routers say who may call them: `security=[{TENANT_TOKEN: []}]` or `[{OPERATOR_TOKEN: []}]`; none means anybody.
    A route with `opt={"public": True}` may be called by anybody, whatever its router says. Pass `ClosedStructs()` and
    `PublicOperations()` to the application's plugins as well. `amend` adds to operations what handlers do not say.
    """
    bearer = {
        TENANT_TOKEN: (
            "JWT or API key",
            "An access token of a user of an organization, from POST /api/auth/login; or, for machines, an API key "
            "(`key_…`), from POST /api/api-keys or POST /api/service-accounts/{service_account_id}/api-keys. A key may "
            "do what its scopes and its owner's roles both permit, and nothing that needs a person "
            "(/problems/person-required).",
        ),
        OPERATOR_TOKEN: ("JWT", "An access token of a platform operator, from POST /platform/auth/login."),
    }
    return _Config(
        title=title,
        version=version,
        description=description,
        amend=amend,
        use_handler_docstrings=True,
        components=Components(
            security_schemes={
                name: SecurityScheme(type="http", scheme="bearer", bearer_format=form, description=text)
                for name, (form, text) in bearer.items()
            }
        ),
        openapi_router=Router(
            "/schema",
            route_handlers=[],
            include_in_schema=False,
            opt={"public": True},
            response_headers=[ResponseHeader(name="Content-Security-Policy", value=PAGE_POLICY)],
        ),
        render_plugins=[_SwaggerPage(), _Json(), _Yaml()],
    )


class _Json(JsonRenderPlugin):
    """Litestar encodes the document on every request; anybody may ask for it, so it is encoded once."""

    def __init__(self) -> None:
        super().__init__(media_type=MediaType.JSON)
        self._rendered: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        if self._rendered is None:
            self._rendered = super().render(request, openapi_schema)
        return self._rendered


class _Yaml(YamlRenderPlugin):
    def __init__(self) -> None:
        super().__init__(path="/openapi.yaml", media_type=OpenAPIMediaType.OPENAPI_YAML)
        self._rendered: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        if self._rendered is None:
            # The C dumper: PyYAML's own took 20 times as long, and holds up the event loop while it does.
            dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
            plain = msgspec.json.decode(self.render_json(request, openapi_schema))
            self._rendered = yaml.dump(plain, Dumper=dumper, sort_keys=False, allow_unicode=True).encode()
        return self._rendered


class _SwaggerPage(OpenAPIRenderPlugin):
    """Swagger UI from the files of the package `swagger-ui-bundle-v2`, with no inline script."""

    def __init__(self) -> None:
        super().__init__(path="/", media_type=MediaType.HTML)

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        root = request.scope.get("root_path", "").rstrip("/")
        title = escape(openapi_schema["info"]["title"])
        base = f"{escape(root)}/schema"
        return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{base}/assets/swagger-ui.css?v={_SWAGGER_VERSION}">
</head>
<body>
<div id="swagger-ui" data-url="{base}/openapi.json"></div>
<script src="{base}/assets/swagger-ui-bundle.js?v={_SWAGGER_VERSION}"></script>
<script src="{base}/assets/start.js?v={_SWAGGER_VERSION}"></script>
</body>
</html>
""".encode()

    def receive_router(self, router: Router) -> None:
        router.register(_asset)


_START = b"""const place = document.getElementById("swagger-ui");
window.ui = SwaggerUIBundle({
  url: place.dataset.url,
  domNode: place,
  deepLinking: true,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""


@lru_cache(maxsize=len(_ASSETS))
def _read_asset(name: str) -> bytes:
    if name == "start.js":
        return _START
    return (files("swagger_ui_bundle") / "vendor" / f"swagger-ui-{_SWAGGER_VERSION}" / name).read_bytes()


@get("/assets/{name:str}", sync_to_thread=True)
def _asset(name: FromPath[str]) -> Response[bytes]:
    media_type = _ASSETS.get(name)
    if media_type is None:
        raise ResourceNotFoundException("There is nothing at this address.")
    return Response(
        _read_asset(name), media_type=media_type, headers={"Cache-Control": "public, max-age=31536000, immutable"}
    )


_WITHOUT_BODY = frozenset({"204", "303"})


def finish(document: dict[str, Any], amend: Amend | None = None) -> dict[str, Any]:
    """Add to a document what holds for every operation, and to each what `amend` says. Changes and returns it."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _tidy(document, {name: f"{found.group(1)}Page" for name in schemas if (found := _PAGE_NAME.match(name))})
    schemas = components["schemas"]
    schemas.update(Problem=_PROBLEM, FieldError=_FIELD_ERROR)
    components["headers"] = dict(_RATE_LIMITS)
    used: set[tuple[str, int]] = set()
    forms: dict[str, ErrorForm | None] = {"Problem": None}
    for path, item in document.get("paths", {}).items():
        form = error_form_of(path)
        name = "Problem" if form is None else form.name
        forms[name] = form
        for method, operation in item.items():
            if method in _METHODS:
                responses = operation.get("responses", {})
                for status in _WITHOUT_BODY & responses.keys():
                    # Litestar documents JSON also where a handler answers with headers alone.
                    responses[status].pop("content", None)
                if any(TENANT_TOKEN in needed for needed in operation.get("security") or ()):
                    _add_rate_limits(responses)
                if amend is not None:
                    amend(operation)
                used |= {(name, status) for status in _add_problems(path, method, operation, form)}
    schemas.update((form.name, dict(form.schema)) for form in forms.values() if form is not None)
    components["responses"] = {
        _response_name(status, forms[name]): _response(status, forms[name]) for name, status in sorted(used)
    }
    return document


def _add_rate_limits(responses: dict[str, Any]) -> None:
    """Document the fields by which an organization's answers tell of its limits."""
    for status, response in responses.items():
        if status.startswith("2"):
            response.setdefault("headers", {}).update(
                {name: {"$ref": f"#/components/headers/{name}"} for name in _RATE_LIMITS}
            )


def _tidy(document: dict[str, Any], pages: dict[str, str]) -> None:
    """Readable names for generic pages (`TeamReadPage`, not `Page_tenantry.….TeamRead_`), plain bounds and patterns."""
    schemas = document["components"]["schemas"]
    new_names = list(pages.values())
    pages = {old: new for old, new in pages.items() if new not in schemas and new_names.count(new) == 1}
    document["components"]["schemas"] = {pages.get(name, name): schema for name, schema in schemas.items()}
    prefix = "#/components/schemas/"
    pending: list[Any] = [document]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and (new := pages.get(reference.removeprefix(prefix))) is not None:
                node["$ref"] = prefix + new
            if node.get("type") == "integer":
                node.update((key, int(node[key])) for key in _BOUNDS if isinstance(node.get(key), float))
            if isinstance(pattern := node.get("pattern"), str):
                node["pattern"] = pattern.replace(END, "$")
            pending += node.values()
        elif isinstance(node, list):
            pending += node


_NAMING = frozenset({"tenant"})
"""Query parameters that name something which may not be there."""


def _add_problems(path: str, method: str, operation: dict[str, Any], form: ErrorForm | None = None) -> set[int]:
    """Document the problems that an operation may answer with; returns their statuses."""
    statuses = {429, 503}
    if (body := operation.get("requestBody")) and all(map(_takes_null, body["content"].values())):
        # Litestar says of every body that it is required.
        body["required"] = False
    # What needs no token and takes a body is where credentials are handed in, or an organization is named.
    if operation.get("security") or (operation.get("security") == [] and operation.get("requestBody")):
        statuses |= {401, 403}
    if "{" in path or any(parameter.get("name") in _NAMING for parameter in operation.get("parameters") or ()):
        statuses.add(404)
    if operation.get("parameters"):
        statuses.add(422)
    if operation.get("requestBody"):
        statuses |= {400, 408, 413, 415, 422}
    if method in _UNSAFE:
        statuses.add(409)
    responses = operation.setdefault("responses", {})
    for status in [status for status in responses if status.isdigit() and int(status) >= 400]:
        if responses[status] == {}:
            # Somebody knows that it may be one of these, and leaves the description to us.
            del responses[status]
            statuses.add(int(status))
        elif (described := _litestars_own(responses[status])) is not None:
            del responses[status]
            # Of itself Litestar documents a 400 wherever there are parameters; that is our 422.
            if described != "Validation Exception":
                statuses.add(int(status))
    if form is not None:
        statuses = {form.status(status) for status in statuses}
    for status in statuses:
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{_response_name(status, form)}"})
    operation["responses"] = dict(sorted(responses.items()))
    return statuses


def _takes_null(content: dict[str, Any]) -> bool:
    """Whether a body may be null, and thereby be left out: handlers declare it as `data: X | None = None`."""
    return {"type": "null"} in content.get("schema", {}).get("oneOf", ())


def _litestars_own(response: dict[str, Any]) -> str | None:
    """What Litestar's own form of an error is described as; None for a response that somebody declared."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    kinds: Iterable[dict[str, Any]] = schema.get("oneOf", [schema])
    if all({"status_code", "detail"} <= kind.get("properties", {}).keys() for kind in kinds):
        return str(schema.get("description", ""))
    return None


def _response_name(status: int, form: ErrorForm | None = None) -> str:
    return f"{'Problem' if form is None else form.name}{status}"


def _response(status: int, form: ErrorForm | None = None) -> dict[str, Any]:
    """A reusable response, described by the registered problem types of that status."""
    kinds = [problem for problem in problem_types() if problem.status == status] if form is None else []
    headers: dict[str, Any] = {
        "X-Request-ID": {"description": "The request's id, as in the logs.", "schema": {"type": "string"}}
    }
    if status == 401:
        headers["WWW-Authenticate"] = {
            "description": "The challenge (RFC 6750).",
            "required": True,
            "schema": {"type": "string"},
        }
    if status in (429, 503):
        headers["Retry-After"] = {
            "description": "When to come back, in seconds.",
            "required": True,
            "schema": {"type": "integer", "minimum": 0},
        }
    if status == 429:
        headers |= {name: {"$ref": f"#/components/headers/{name}"} for name in _RATE_LIMITS}
    return {
        "description": "\n".join(f"- `{kind.uri}`: {kind.description}" for kind in kinds) or "A problem.",
        "headers": headers,
        "content": {
            PROBLEM_JSON if form is None else form.media_type: {
                "schema": {"$ref": f"#/components/schemas/{'Problem' if form is None else form.name}"}
            }
        },
    }


_RATE_LIMITS: dict[str, Any] = {
    "RateLimit-Policy": {
        "description": "The limits that hold for the caller (draft-ietf-httpapi-ratelimit-headers): of each its name "
        "(`tenant`, `user` or `key`), how many requests may come at once (`q`), and in how many seconds that many are "
        "there again (`w`). Not there where nothing is limited.",
        "schema": {"type": "string"},
        "example": '"tenant";q=100;w=10, "user";q=20;w=4',
    },
    "RateLimit": {
        "description": "Of each limit, how many requests are left (`r`), and in how many seconds all of them are there "
        "again (`t`).",
        "schema": {"type": "string"},
        "example": '"tenant";r=87;t=2, "user";r=19;t=1',
    },
}

_FIELD_ERROR: dict[str, Any] = {
    "type": "object",
    "title": "FieldError",
    "description": "One value that is not as expected.",
    "required": ["field", "source", "message"],
    "additionalProperties": False,
    "properties": {
        "field": {
            "type": "string",
            "description": "The path as it is spelled in the request, such as members.0.userId; empty: the whole body.",
        },
        "source": {"type": "string", "enum": ["body", "query", "path", "header", "cookie"]},
        "message": {"type": "string", "description": "What was expected."},
    },
}

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "Problem details (RFC 9457). Some types add members of their own.",
    "required": ["type", "title", "status", "detail", "instance", "requestId", "traceId", "errors"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "The kind of error; it can be opened."},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference", "description": "The path of the request."},
        "requestId": {"type": ["string", "null"]},
        "traceId": {
            "type": ["string", "null"],
            "description": "Of the trace that the request belongs to (W3C Trace Context), 32 hexadecimal digits.",
        },
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}},
    },
}
