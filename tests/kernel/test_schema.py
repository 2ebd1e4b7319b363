"""What goes over the wire, tried through a real application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from litestar import Litestar, patch, post
from litestar.params import JSONBody
from litestar.testing import TestClient

from tenantry.kernel.errors import ValidationFailedException
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.schema import (
    UNSET,
    BaseStruct,
    Email,
    LongText,
    Page,
    Password,
    ShortText,
    Slug,
    UnsetType,
    Update,
    camel,
    changes,
    normalize_email,
)


class Member(BaseStruct):
    user_id: int


class TeamCreate(BaseStruct):
    is_open: bool = False
    name: ShortText
    slug: Slug | None = None
    description: LongText | None = None
    contact_email: Email | None = None
    members: list[Member] = msgspec.field(default_factory=list)


class TeamUpdate(Update):
    name: ShortText | UnsetType = UNSET
    long_description: LongText | UnsetType | None = UNSET


@post("/teams")
async def create_team(data: JSONBody[TeamCreate]) -> TeamCreate:
    return data


@patch("/teams")
async def update_team(data: JSONBody[TeamUpdate]) -> dict[str, Any]:
    return changes(data)


@pytest.fixture(scope="module")
def app() -> Litestar:
    plugin = HttpPlugin(title="Test", version="1")
    return Litestar([create_team, update_team], plugins=[plugin], logging_config=None)


@pytest.fixture(scope="module")
def client(app: Litestar) -> Iterator[TestClient[Litestar]]:
    with TestClient(app) as client:
        yield client


def errors_of(response: Any) -> list[tuple[str, str]]:
    assert response.status_code == 422, response.text
    return [(error["field"], error["message"]) for error in response.json()["errors"]]


def test_fields_are_camel_case_on_the_wire(client: TestClient[Litestar]) -> None:
    body = {"name": "Core", "isOpen": True, "members": [{"userId": 1}]}
    answer = client.post("/teams", json=body)
    assert answer.status_code == 201
    assert answer.json() == {**body, "slug": None, "description": None, "contactEmail": None}


def test_a_required_field_may_follow_one_with_a_default() -> None:
    assert TeamCreate(name="Core").is_open is False
    with pytest.raises(TypeError):
        TeamCreate("Core")  # type: ignore[arg-type, call-arg]


def test_unknown_fields_are_refused_by_name_at_any_depth(client: TestClient[Litestar]) -> None:
    found = errors_of(client.post("/teams", json={"name": "Core", "is_open": True, "owner": 1}))
    assert found == [("is_open", "Unknown field"), ("owner", "Unknown field")]
    nested = {"name": "Core", "members": [{"userId": 1}, {"userId": 2, "admin": True}]}
    assert errors_of(client.post("/teams", json=nested)) == [("members.1.admin", "Unknown field")]


def test_patch_tells_a_missing_field_from_null(client: TestClient[Litestar]) -> None:
    assert client.patch("/teams", json={}).json() == {}
    assert client.patch("/teams", json={"longDescription": None}).json() == {"long_description": None}
    assert client.patch("/teams", json={"name": "New"}).json() == {"name": "New"}
    assert errors_of(client.patch("/teams", json={"name": None})) == [("name", "Expected `str`, got `null`")]


def test_a_field_that_was_not_sent_is_not_written_out_either() -> None:
    assert msgspec.json.encode(TeamUpdate(name="New")) == b'{"name":"New"}'


def test_the_document_shows_wire_names_and_unset_fields_as_optional(app: Litestar) -> None:
    schemas = app.openapi_schema.to_schema()["components"]["schemas"]
    assert schemas["TeamCreate"]["required"] == ["name"]
    assert schemas["TeamCreate"]["additionalProperties"] is False
    assert "contactEmail" in schemas["TeamCreate"]["properties"]
    update = schemas["TeamUpdate"]
    assert update["required"] == []
    assert set(update["properties"]) == {"name", "longDescription"}
    assert {"type": "null"} in update["properties"]["longDescription"]["oneOf"]
    assert {"type": "null"} not in update["properties"]["name"].get("oneOf", [])


@pytest.mark.parametrize("name", ["", "   ", "two\nlines", "end\n", "tab\there", "x" * 101, "\x7f"])
def test_a_name_is_one_line_of_1_to_100_characters_and_not_blank(client: TestClient[Litestar], name: str) -> None:
    [(field, message)] = errors_of(client.post("/teams", json={"name": name}))
    assert field == "name"
    assert message.startswith("Expected")
    assert "regex" not in message


@pytest.mark.parametrize("name", ["x", "x" * 100, "Ünïcode 😀", " padded ", "O'Brien; DROP TABLE"])
def test_any_other_text_is_a_name(client: TestClient[Litestar], name: str) -> None:
    assert client.post("/teams", json={"name": name}).json()["name"] == name


@pytest.mark.parametrize("slug", ["a", "acme", "a-1", "0x", "a" * 63])
def test_a_slug_is_a_dns_label(slug: str) -> None:
    assert msgspec.convert(slug, Slug) == slug


@pytest.mark.parametrize("slug", ["", "-a", "a-", "A", "a_b", "a.b", "ä", "a" * 64, "a\n"])
def test_what_is_no_dns_label_is_no_slug(slug: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(slug, Slug)


def test_a_long_text_has_lines_and_a_password_is_bounded() -> None:
    assert msgspec.convert("two\nlines\t", LongText) == "two\nlines\t"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert("x" * 10_001, LongText)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert("x" * 1025, Password)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("owner@acme.example", "owner@acme.example"),
        ("Ann.Lee+Tag@Acme.EXAMPLE", "ann.lee+tag@acme.example"),
        ("U\u0308ni@example.com", "\u00fcni@example.com"),
        ("x@xn--p1ai.xn--p1ai", "x@\u0440\u0444.\u0440\u0444"),
    ],
)
def test_addresses_are_stored_in_one_form(text: str, stored: str) -> None:
    assert normalize_email(text) == stored
    assert normalize_email(stored) == stored


@pytest.mark.parametrize("text", ["", "ann", "ann@", "@acme.example", "ann@localhost", "a b@c.example", "a\x00@b.c"])
def test_what_is_no_address_names_its_field(text: str) -> None:
    with pytest.raises(ValidationFailedException) as raised:
        normalize_email(text, field="ownerEmail")
    assert [error.field for error in raised.value.errors] == ["ownerEmail"]


@pytest.mark.parametrize("name", ["id", "user_id", "two_factor_enabled_at", "page_size"])
def test_camel_spells_names_as_the_structs_do(name: str) -> None:
    struct = msgspec.defstruct("Probe", [(name, int)], rename="camel")
    assert camel(name) == struct.__struct_encode_fields__[0]


def test_a_page_is_written_as_the_contract_says() -> None:
    page = Page[Member](items=[Member(user_id=1)], total=41, page=3, page_size=20)
    assert msgspec.json.decode(msgspec.json.encode(page)) == {
        "items": [{"userId": 1}],
        "total": 41,
        "page": 3,
        "pageSize": 20,
    }
