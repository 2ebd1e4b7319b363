from __future__ import annotations

from typing import Any

import pytest

from tests.world import PASSWORD, TenantHandle, World


@pytest.fixture(scope="module")
async def acme(world: World) -> TenantHandle:
    """One tenant for all of these requests: they are refused, and leave nothing behind."""
    return await world.create_tenant("refusing")


BODIES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"name": "Red", "colour": "red"}, "colour"),
    "missing field": ({"description": "Red"}, "name"),
    "wrong type": ({"name": 7}, "name"),
    "a number as text": ({"name": "Red", "tags": "urgent"}, "tags"),
    "wrong type inside": ({"name": "Red", "tags": ["ok", 7]}, "tags.1"),
    "null": ({"name": None}, "name"),
    "empty": ({"name": ""}, "name"),
    "blank": ({"name": "  \t "}, "name"),
    "two lines": ({"name": "Red\nBlue"}, "name"),
    "trailing line feed": ({"name": "Red\n"}, "name"),
    "too long": ({"name": "x" * 101}, "name"),
    "too long text": ({"name": "Red", "description": "x" * 501}, "description"),
    "too many": ({"name": "Red", "tags": ["t"] * 21}, "tags"),
    "NUL": ({"name": "Red\x00"}, "name"),
    "NUL in a longer text": ({"name": "Red", "description": "a\x00b"}, "description"),
    "NUL in a list": ({"name": "Red", "tags": ["a\x00"]}, "tags.0"),
    "NUL in a field's name": ({"name": "Red", "x\x00": 1}, "x\N{SYMBOL FOR NULL}"),
    "no slug": ({"name": "Red", "slug": "Not A Slug"}, "slug"),
    "snake case": ({"name": "Red", "is_active": True}, "is_active"),
}


@pytest.mark.parametrize("case", BODIES)
async def test_a_bad_value_is_a_422_that_names_the_field(acme: TenantHandle, case: str) -> None:
    body, field = BODIES[case]
    answer = await acme.post("/api/teams", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert [(error["field"], error["source"]) for error in answer.json()["errors"]] == [(field, "body")]
    assert (await acme.get("/api/teams")).json()["total"] == 0


async def test_all_that_is_wrong_is_named_at_once(acme: TenantHandle) -> None:
    answer = await acme.post("/api/teams", json={"name": "", "slug": "-", "tags": 1, "colour": "red"})
    assert {error["field"] for error in answer.json()["errors"]} == {"name", "slug", "tags", "colour"}


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b"nul", b'{"name": "Red"', b'{"name": "\xff"}', b"[" * 5000, b'{"name": "Red"} x', b"\x00"],
)
async def test_what_is_no_json_is_a_400(acme: TenantHandle, content: bytes) -> None:
    answer = await acme.post("/api/teams", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/malformed")


@pytest.mark.parametrize("content", [b"[]", b"7", b"null", b'"name"'])
async def test_json_that_is_no_object_is_refused(acme: TenantHandle, content: bytes) -> None:
    answer = await acme.post("/api/teams", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
    assert answer.json()["type"] in {"/problems/malformed", "/problems/validation"}


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_a_413(world: World, acme: TenantHandle, chunked: bool) -> None:
    body = b'{"name": "' + b"x" * world.settings.request_body_limit + b'"}'

    async def chunks() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    answer = await acme.post(
        "/api/teams", content=chunks() if chunked else body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/payload-too-large")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_a_body_in_another_form_is_a_415(acme: TenantHandle, headers: dict[str, str]) -> None:
    answer = await acme.post("/api/teams", content=b'{"name": "Red"}', headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-media-type")


@pytest.mark.parametrize(
    "bad", ["7", "not-a-uuid", "85438bd3-023b-471e-971c-f20dba239ba", "%00", "..%2f..%2fetc%2fpasswd", "x" * 5000]
)
async def test_a_path_that_holds_no_uuid_leads_nowhere(acme: TenantHandle, bad: str) -> None:
    for path in (f"/api/teams/{bad}", f"/api/teams/{bad}/members", f"/api/tags/{bad}", f"/api/users/{bad}"):
        answer = await acme.get(path)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found"), path


async def test_a_method_that_is_not_there_names_those_that_are(acme: TenantHandle) -> None:
    answer = await acme.request("PUT", "/api/teams", json={})
    assert answer.status_code == 405
    assert {method.strip() for method in answer.headers["Allow"].split(",")} >= {"GET", "POST"}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/api/auth/login", {"tenant": "Not A Slug", "email": "a@b.example", "password": "x"}, "tenant"),
        ("/api/auth/login", {"tenant": "acme", "email": "no address", "password": "x"}, "email"),
        ("/api/auth/login", {"tenant": "acme", "email": "a@b.example", "password": "x" * 1025}, "password"),
        ("/api/auth/login", {"tenant": "acme", "email": "a@b.example", "password": ["x"]}, "password"),
        ("/api/auth/login", {"tenant": "acme", "email": "a@b.example"}, "password"),
        ("/api/auth/refresh", {"refreshToken": "with spaces"}, "refreshToken"),
        ("/api/auth/refresh", {"refreshToken": "x" * 201}, "refreshToken"),
        ("/api/auth/invitations/accept", {"token": "no\ttoken", "password": PASSWORD}, "token"),
        ("/platform/auth/login", {"email": "no address", "password": "x"}, "email"),
        ("/platform/auth/login", {"email": "a@b.example", "password": "x", "otp": "1"}, "otp"),
    ],
)
async def test_the_doors_that_are_open_to_all_check_as_well(
    world: World, path: str, body: dict[str, Any], field: str
) -> None:
    answer = await world.http.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert PASSWORD not in answer.text


async def test_half_a_surrogate_pair_never_reaches_the_database(acme: TenantHandle) -> None:
    answer = await acme.post("/api/teams", content=b'{"name": "\\ud800"}', headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}


async def test_characters_beyond_the_basic_plane_come_back_as_they_went(globex: TenantHandle) -> None:
    name = "🦀 Ünïcödé \u202e txet"
    team = await globex.add_team(name)
    assert (await globex.get(f"/api/teams/{team['id']}")).json()["name"] == name
