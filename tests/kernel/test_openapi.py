"""The description of the API: what it says of every operation, and that the answers keep to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, settings
from litestar import Controller, Litestar, Request, Router, delete, get, patch, post
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body, FromPath, JSONBody, QueryParameter
from litestar.testing import TestClient
from msgspec import Meta, field
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.config import SchemathesisConfig

from tenantry.kernel.errors import (
    ConflictException,
    FieldError,
    NotAuthenticatedException,
    ResourceNotFoundException,
    ValidationFailedException,
)
from tenantry.kernel.http import Edge, edge
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.openapi import OPERATOR_TOKEN, TENANT_TOKEN, finish
from tenantry.kernel.schema import (
    UNSET,
    BaseStruct,
    LongText,
    Page,
    ShortText,
    Slug,
    UnsetType,
    Update,
)

KNOWN = UUID("01a2072c-6268-705b-b530-19d945eaf526")


class MemberInput(BaseStruct):
    user_id: UUID
    level: Annotated[int, Meta(ge=0, le=9)] = 0


class TeamCreate(BaseStruct):
    name: ShortText
    slug: Slug | None = None
    description: LongText | None = None
    members: Annotated[list[MemberInput], Meta(max_length=3)] = field(default_factory=list)


class TeamUpdate(Update):
    name: ShortText | UnsetType = UNSET
    description: LongText | UnsetType | None = UNSET


class TeamRead(BaseStruct):
    id: UUID
    name: str


class Receipt(BaseStruct):
    code: int


class TeamController(Controller):
    path = "/teams"

    @get("/", operation_id="ListTeams")
    async def list_teams(
        self,
        request: Request[Any, Any, Any],
        page: Annotated[int, QueryParameter(ge=1, le=1_000_000)] = 1,
        page_size: Annotated[int, QueryParameter(name="pageSize", ge=1, le=200)] = 20,
    ) -> Page[TeamRead]:
        """Docstrings become descriptions."""
        if unknown := request.query_params.keys() - {"page", "pageSize"}:
            raise ValidationFailedException(
                errors=[FieldError(field=name, source="query", message="Unknown") for name in unknown]
            )
        return Page[TeamRead](items=[TeamRead(id=KNOWN, name="Core")], total=1, page=page, page_size=page_size)

    @post("/", operation_id="CreateTeam", responses={402: ResponseSpec(Receipt, description="Pay first.")})
    async def create_team(self, data: JSONBody[TeamCreate]) -> TeamRead:
        if data.slug == "taken":
            raise ConflictException("The slug is taken.")
        return TeamRead(id=KNOWN, name=data.name)

    @post("/join", operation_id="JoinTeam", opt={"public": True})
    async def join_team(self, data: Annotated[TeamCreate | None, Body()] = None) -> TeamRead:
        return TeamRead(id=KNOWN, name="Core" if data is None else data.name)

    @get("/{team_id:uuid}", operation_id="GetTeam")
    async def get_team(self, team_id: FromPath[UUID]) -> TeamRead:
        if team_id != KNOWN:
            raise ResourceNotFoundException("There is no such team.")
        return TeamRead(id=team_id, name="Core")

    @patch("/{team_id:uuid}", operation_id="UpdateTeam")
    async def update_team(self, team_id: FromPath[UUID], data: JSONBody[TeamUpdate]) -> TeamRead:
        return TeamRead(id=team_id, name="Core" if data.name is UNSET else data.name)

    @delete("/{team_id:uuid}", operation_id="DeleteTeam")
    async def delete_team(self, team_id: FromPath[UUID]) -> None:
        if team_id == KNOWN:
            raise ConflictException("The team still has members.")


@get("/tenants", security=[{OPERATOR_TOKEN: []}], operation_id="ListTenants")
async def tenants() -> list[str]:
    return []


@get("/login", raises=[NotAuthenticatedException], operation_id="Login")
async def login() -> str:
    raise NotAuthenticatedException


def requires_token(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    sent = connection.headers.get("Authorization")
    if sent != "Bearer good":
        raise NotAuthenticatedException(invalid_token=sent is not None)


def make_app() -> Litestar:
    guarded = Router(
        "/guarded", route_handlers=[TeamController], guards=[requires_token], security=[{TENANT_TOKEN: []}]
    )
    guarded_ids = Router("/platform", route_handlers=[tenants, login])
    plugin = HttpPlugin(title="Tenantry <test>", version="1.2.3", description="For tests.")
    return Litestar([guarded_ids, guarded], plugins=[plugin], logging_config=None)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Edge]]:
    with TestClient(edge(make_app())) as client:
        yield client


@pytest.fixture(scope="module")
def document(client: TestClient[Edge]) -> dict[str, Any]:
    answer = client.get("/schema/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"] == {"title": "Tenantry <test>", "version": "1.2.3", "description": "For tests."}
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_yaml_says_the_same(client: TestClient[Edge], document: dict[str, Any]) -> None:
    assert yaml.safe_load(client.get("/schema/openapi.yaml").text) == document
    assert client.get("/schema/openapi.yaml").content == client.get("/schema/openapi.yaml").content


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("get", "/guarded/teams", {"200", "401", "403", "422", "429", "503"}),
        (
            "post",
            "/guarded/teams",
            {"201", "400", "401", "402", "403", "408", "409", "413", "415", "422", "429", "503"},
        ),
        ("get", "/guarded/teams/{team_id}", {"200", "401", "403", "404", "422", "429", "503"}),
        ("delete", "/guarded/teams/{team_id}", {"204", "401", "403", "404", "409", "422", "429", "503"}),
        ("get", "/platform/tenants", {"200", "401", "403", "429", "503"}),
        ("get", "/platform/login", {"200", "401", "429", "503"}),
        ("get", "/problems", {"200", "429", "503"}),
    ],
)
def test_each_operation_documents_the_problems_that_fit_it(
    document: dict[str, Any], method: str, path: str, statuses: set[str]
) -> None:
    assert document["paths"][path][method]["responses"].keys() == statuses


def test_every_error_that_nobody_declared_otherwise_is_a_problem(document: dict[str, Any]) -> None:
    checked = 0
    for path, item in document["paths"].items():
        for operation in item.values():
            for status, response in operation["responses"].items():
                if int(status) < 400 or (path, status) == ("/guarded/teams", "402"):
                    continue
                name = response["$ref"].removeprefix("#/components/responses/")
                [media_type] = document["components"]["responses"][name]["content"]
                assert media_type == "application/problem+json"
                checked += 1
    assert checked > 20
    declared = document["paths"]["/guarded/teams"]["post"]["responses"]["402"]
    assert declared["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Receipt"}


def test_the_description_of_a_status_lists_its_problem_types(document: dict[str, Any]) -> None:
    unavailable = document["components"]["responses"]["Problem503"]
    assert "/problems/unavailable" in unavailable["description"]
    assert "/problems/timeout" in unavailable["description"]
    assert unavailable["headers"]["Retry-After"]["required"] is True
    assert "WWW-Authenticate" in document["components"]["responses"]["Problem401"]["headers"]


def test_both_kinds_of_tokens_are_described_and_asked_for(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert set(schemes) == {"tenantToken", "operatorToken"}
    for name, form in {"tenantToken": "JWT or API key", "operatorToken": "JWT"}.items():
        assert (schemes[name]["type"], schemes[name]["scheme"], schemes[name]["bearerFormat"]) == (
            "http",
            "bearer",
            form,
        )
    assert "POST /api/api-keys" in schemes["tenantToken"]["description"]
    assert document["paths"]["/guarded/teams"]["get"]["security"] == [{"tenantToken": []}]
    assert document["paths"]["/platform/tenants"]["get"]["security"] == [{"operatorToken": []}]
    assert document["paths"]["/problems"]["get"]["security"] == []


def test_a_public_route_asks_for_no_token_whatever_its_router_says(document: dict[str, Any]) -> None:
    operation = document["paths"]["/guarded/teams/join"]["post"]
    assert operation["security"] == []
    # It may be the one where a password is handed in.
    assert {"401", "403"} <= operation["responses"].keys()
    assert "401" not in document["paths"]["/problems"]["get"]["responses"]


def test_a_body_that_may_be_left_out_is_not_said_to_be_required(document: dict[str, Any]) -> None:
    paths = document["paths"]
    assert paths["/guarded/teams/join"]["post"]["requestBody"]["required"] is False
    assert paths["/guarded/teams"]["post"]["requestBody"]["required"] is True


def test_schemas_are_closed_and_generic_pages_have_names(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert "TeamReadPage" in schemas
    assert not [name for name in schemas if name.startswith("Page_")]
    page = document["paths"]["/guarded/teams"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert page == {"$ref": "#/components/schemas/TeamReadPage"}
    for name in ("TeamCreate", "TeamUpdate", "MemberInput", "TeamReadPage"):
        assert schemas[name]["additionalProperties"] is False


def test_bounds_of_integers_and_patterns_are_those_of_json_schema(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    level = schemas["MemberInput"]["properties"]["level"]
    assert (level["maximum"], type(level["maximum"])) == (9, int)
    assert schemas["TeamCreate"]["properties"]["slug"]["pattern"] == "^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"


def test_pages_of_two_types_with_one_name_keep_their_long_names() -> None:
    document: dict[str, Any] = {
        "components": {"schemas": {"Page_a.Team_": {}, "Page_b.Team_": {}, "Page_c.User_": {}, "UserPage": {}}}
    }
    names = finish(document)["components"]["schemas"]
    assert {"Page_a.Team_", "Page_b.Team_", "Page_c.User_", "UserPage"} <= names.keys()


def test_the_page_needs_nothing_from_elsewhere(client: TestClient[Edge]) -> None:
    page = client.get("/schema")
    assert page.headers["content-type"].startswith("text/html")
    assert "<title>Tenantry &lt;test&gt;</title>" in page.text
    assert "://" not in page.text
    assert "<script>" not in page.text
    policy = dict(part.split(maxsplit=1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"


# swagger-ui-dist 5.31.0 as its authors published it to the npm registry.
PUBLISHED = {
    "swagger-ui-bundle.js": "93b7b0862a80e2786f85b560be7693c2344354ffa7e7e224f850a54349724c31",
    "swagger-ui.css": "9e576f8322132c76949da47f9bb53c891373c303ea3a761ff548ffc9de50a98c",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_swagger_ui_is_byte_for_byte_what_its_authors_published(client: TestClient[Edge], name: str) -> None:
    answer = client.get(f"/schema/assets/{name}")
    assert hashlib.sha256(answer.content).hexdigest() == PUBLISHED[name]
    assert answer.headers["cache-control"].startswith("public")


@pytest.mark.parametrize("name", ["index.html", "swagger-ui.js.map", "..%2F__init__.py", "start.js.map"])
def test_no_other_file_is_served(client: TestClient[Edge], name: str) -> None:
    answer = client.get(f"/schema/assets/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_page_starts_under_a_prefix_of_a_proxy() -> None:
    with TestClient(edge(make_app()), root_path="/tenantry") as client:
        assert 'data-url="/tenantry/schema/openapi.json"' in client.get("/schema").text


api = schemathesis.openapi.from_asgi(
    "/schema/openapi.json",
    edge(make_app()),
    config=SchemathesisConfig.from_dict({"generation": {"allow-x00": False}}),
)


@api.include(path_regex="^/(guarded|problems)").parametrize()
@settings(
    max_examples=25, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
def test_answers_keep_to_the_document(case: Any) -> None:
    case.call_and_validate(headers={"Authorization": "Bearer good"})
