"""Bodies and paths are read strictly, and hold nothing that PostgreSQL cannot store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar, get, post
from litestar.params import FromPath, JSONBody
from litestar.testing import TestClient
from msgspec import Meta, field, json

from tenantry.kernel.http import ApiRequest, Edge, edge
from tenantry.kernel.http.fields import field_error, nul_errors, unstorable
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.schema import BaseStruct


class Member(BaseStruct):
    user_id: int
    note: str = ""


class Team(BaseStruct):
    name: str
    is_open: bool = False
    size: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    share: float = 0.0
    founded: datetime | None = None
    owner: UUID | None = None
    members: list[Member] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)


@post("/teams")
async def create(data: JSONBody[Team]) -> Team:
    return data


@post("/batch")
async def batch(data: JSONBody[list[Team]]) -> list[Team]:
    return data


@post("/raw")
async def raw(request: ApiRequest) -> Any:
    return await request.json()


@post("/optional")
async def optional(data: JSONBody[Team | None] = None) -> bool:
    return data is None


@get("/teams/{name:str}")
async def by_name(name: FromPath[str]) -> str:
    return name


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Edge]]:
    plugin = HttpPlugin(title="Test", version="1")
    app = Litestar([create, batch, raw, optional, by_name], plugins=[plugin], logging_config=None)
    with TestClient(edge(app)) as client:
        yield client


def send(client: TestClient[Edge], body: bytes, path: str = "/teams") -> Any:
    return client.post(path, content=body, headers={"Content-Type": "application/json"})


def fields(answer: Any) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    assert {error["source"] for error in answer.json()["errors"]} == {"body"}
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


def test_texts_are_not_taken_for_numbers_booleans_or_null(client: TestClient[Edge]) -> None:
    body = {"name": "x", "isOpen": "true", "size": "5", "share": "0.5", "founded": "null", "members": [{"userId": "1"}]}
    assert fields(send(client, json.encode(body))) == {
        "isOpen": "Expected `bool`, got `str`",
        "size": "Expected `int`, got `str`",
        "share": "Expected `float`, got `str`",
        "founded": "Invalid RFC3339 encoded datetime",
        "members.0.userId": "Expected `int`, got `str`",
    }
    assert fields(send(client, b'{"name":5}')) == {"name": "Expected `str`, got `int`"}


def test_all_wrong_fields_are_named_at_once(client: TestClient[Edge]) -> None:
    body = b'{"size":-1,"owner":"x","members":[{"userId":1},{}],"labels":{"a":1},"extra":1}'
    assert fields(send(client, body)) == {
        "name": "Required field, but missing",
        "size": "Expected `int` >= 0",
        "owner": "Invalid UUID",
        "members.1.userId": "Required field, but missing",
        "labels.*": "Expected `str`, got `int`",
        "extra": "Unknown field",
    }


def test_items_of_a_list_are_named_by_their_index(client: TestClient[Edge]) -> None:
    assert fields(send(client, b'[{"name":"x"},{"name":1}]', "/batch")) == {"1.name": "Expected `str`, got `int`"}
    assert fields(send(client, b"{}", "/batch")) == {"": "Expected `array`, got `object`"}


def test_a_body_of_another_kind_is_named_as_a_whole(client: TestClient[Edge]) -> None:
    for body in (b"[]", b'"x"', b"1", b"null", b"true"):
        assert list(fields(send(client, body))) == [""]


@pytest.mark.parametrize("spelling", [b"5.0", b"5e0", b"0.5e1"])
def test_an_integer_may_be_spelled_as_json_schema_allows(client: TestClient[Edge], spelling: bytes) -> None:
    answer = send(client, b'{"name":"x","size":' + spelling + b',"members":[{"userId":1.0}],"share":2}')
    assert answer.status_code == 201
    assert answer.json()["size"] == 5
    assert answer.json()["members"] == [{"userId": 1, "note": ""}]


def test_a_fraction_is_no_integer_and_a_large_number_no_small_one(client: TestClient[Edge]) -> None:
    assert "size" in fields(send(client, b'{"name":"x","size":5.5}'))
    assert "size" in fields(send(client, b'{"name":"x","size":2147483648}'))
    assert "size" in fields(send(client, b'{"name":"x","size":1e300}'))


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nothing",
        b'{"name":"x"} {}',
        b'{"name":"x",}',
        b"{'name':'x'}",
        b'{"name":"\\ud800"}',
        b'{"name":"\\udc00x"}',
        b'{"name":"\xff"}',
        b'{"name":"\xed\xa0\x80"}',
        b'{"name":"\x00"}',
        b"\xef\xbb\xbf{}",
        b'{"name":NaN}',
        b"\xff\xfe{\x00}\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda body: repr(body[:24]),
)
@pytest.mark.parametrize("path", ["/teams", "/raw", "/batch"])
def test_what_is_not_json_is_malformed_and_never_a_500(client: TestClient[Edge], body: bytes, path: str) -> None:
    answer = send(client, body, path)
    assert answer.status_code == 400
    assert answer.json()["type"] == "/problems/malformed"


def test_a_number_beyond_all_floats_is_refused(client: TestClient[Edge]) -> None:
    assert send(client, b'{"name":"x","share":1e999}').status_code == 422
    assert send(client, b"[1e999]", "/raw").status_code == 422


def test_a_missing_body_is_malformed_unless_it_is_optional(client: TestClient[Edge]) -> None:
    answer = client.post("/teams")
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/malformed")
    assert client.post("/optional").json() is True


def test_nul_characters_are_refused_wherever_they_are(client: TestClient[Edge]) -> None:
    body = b'{"name":"a\\u0000b","members":[{"userId":1},{"userId":2,"note":"\\u0000"}],"labels":{"k\\u0000":"v"}}'
    assert set(fields(send(client, body))) == {"name", "members.1.note", "labels.k\N{SYMBOL FOR NULL}"}
    assert set(fields(send(client, b'{"any":{"where":["\\u0000"]}}', "/raw"))) == {"any.where.0"}


def test_what_only_looks_like_an_escaped_nul_is_text(client: TestClient[Edge]) -> None:
    assert send(client, b'{"name":"\\\\u0000"}').json()["name"] == "\\u0000"


def test_a_nul_in_the_path_is_refused_by_name(client: TestClient[Edge]) -> None:
    answer = client.get("/teams/a%00b")
    assert answer.status_code == 422
    assert [(error["field"], error["source"]) for error in answer.json()["errors"]] == [("name", "path")]
    assert client.get("/teams/%C3%A4").text == "ä"


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_nul_is_found_at_any_depth_and_nowhere_else(value: Any) -> None:
    assert bool(nul_errors(value)) == (b"\\u0000" in json.encode(value).replace(b"\\\\", b""))


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_a_text_is_storable_if_it_is_utf_8_without_nul(text: str) -> None:
    try:
        storable = b"\x00" not in text.encode()
    except UnicodeEncodeError:
        storable = False
    assert (unstorable(text) is None) == storable


@pytest.mark.parametrize(
    ("message", "field", "said"),
    [
        ("Expected `int`, got `str` - at `$.members[0].userId`", "members.0.userId", "Expected `int`, got `str`"),
        ("Expected `int`, got `str` - at `$.labels[...]`", "labels.*", "Expected `int`, got `str`"),
        ("Expected `int`, got `str` - at `key` in `$.labels`", "labels", "Expected `int`, got `str`"),
        ("Object contains unknown field `x` - at `$[2]`", "2.x", "Unknown field"),
        ("Object missing required field `x`", "x", "Required field, but missing"),
        ("Expected `object`, got `null`", "", "Expected `object`, got `null`"),
    ],
)
def test_msgspecs_messages_are_understood(message: str, field: str, said: str) -> None:
    found = field_error(message)
    assert (found.field, found.message) == (field, said)
