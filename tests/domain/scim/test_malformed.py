"""What is not SCIM: told so in SCIM's form, with nothing written, and never an error of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantry.domain.scim.resources import User
from tests.domain.scim.support import PATCH, SCIM, USER, Directory, connect, error_of
from tests.world import World

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*User.model_fields, "userName", "displayName", "name.givenName", "members", "$ref", "", "x"])
PATHS = NAMES | st.builds(
    lambda name, rest: name + rest,
    NAMES,
    st.sampled_from(
        ['[value eq "x"]', '[type eq "work"].value', "[", ".x", '[value eq "x"', "[value pr].display", "]"]
    ),
)
OPERATIONS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"op": st.sampled_from(["add", "Replace", "remove", "x", 5]), "path": PATHS | JSON, "value": JSON}
    )
    | JSON,
    max_size=4,
)
FIELDS = st.dictionaries(NAMES, JSON | st.lists(st.dictionaries(NAMES, JSON, max_size=3), max_size=2), max_size=5)


@pytest.fixture(scope="module")
async def directory(world: World) -> Directory:
    return await connect(await world.create_tenant("acme"))


@pytest.fixture(scope="module")
async def ann(directory: Directory) -> dict[str, Any]:
    return await directory.user("ann", displayName="Ann", roles=[{"value": "member"}])


REFUSED_BODIES: dict[str, tuple[bytes, tuple[int, str | None]]] = {
    "nothing": (b"", (400, "invalidSyntax")),
    "no JSON": (b"{", (400, "invalidSyntax")),
    "no UTF-8": (b'{"userName": "\xff"}', (400, "invalidSyntax")),
    "a list": (b"[]", (400, "invalidValue")),
    "a NUL character": (b'{"userName": "a\\u0000@b.example"}', (400, "invalidValue")),
    "no userName": (b"{}", (400, "invalidValue")),
    "a userName that is null": (b'{"userName": null}', (400, "invalidValue")),
    "a userName that is no address": (b'{"userName": "ann"}', (400, "invalidValue")),
    "a number for a name": (b'{"userName": "a@b.example", "displayName": 5}', (400, "invalidValue")),
    "two lines": (b'{"userName": "a@b.example", "displayName": "a\\nb"}', (400, "invalidValue")),
    "too long": (b'{"userName": "a@b.example", "displayName": "%s"}' % (b"a" * 101), (400, "invalidValue")),
    "neither yes nor no": (b'{"userName": "a@b.example", "active": "perhaps"}', (400, "invalidValue")),
    "a role without a name": (b'{"userName": "a@b.example", "roles": [{}]}', (400, "invalidValue")),
    "deep": (b'{"userName": "a@b.example", "name": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, (400, "invalidSyntax")),
}


@pytest.mark.parametrize("name", REFUSED_BODIES)
async def test_a_body_that_is_no_user_makes_none(directory: Directory, name: str) -> None:
    body, expected = REFUSED_BODIES[name]
    before = (await directory.read("/Users", count=0))["totalResults"]
    assert error_of(await directory.ask("POST", "/Users", content=body)) == expected
    assert (await directory.read("/Users", count=0))["totalResults"] == before


REFUSED_PATCHES: dict[str, tuple[Any, str]] = {
    "no operations": ({"schemas": [PATCH]}, "invalidValue"),
    "none in the list": ({"schemas": [PATCH], "Operations": []}, "invalidValue"),
    "an operation that is none": ({"Operations": [{"op": "move", "path": "active", "value": True}]}, "invalidValue"),
    "nothing to remove": ({"Operations": [{"op": "remove"}]}, "noTarget"),
    "nothing to add": ({"Operations": [{"op": "add", "path": "displayName"}]}, "invalidValue"),
    "a path that is none": ({"Operations": [{"op": "remove", "path": "name["}]}, "invalidPath"),
    "an id": ({"Operations": [{"op": "replace", "path": "id", "value": "x"}]}, "mutability"),
    "groups": ({"Operations": [{"op": "add", "path": "groups", "value": [{"value": "x"}]}]}, "mutability"),
    "what has to be there": ({"Operations": [{"op": "remove", "path": "userName"}]}, "mutability"),
    "what no filter describes": (
        {"Operations": [{"op": "replace", "path": 'roles[value ne "member"].value', "value": "x"}]},
        "noTarget",
    ),
    "too long a path": ({"Operations": [{"op": "remove", "path": "a" * 1001}]}, "invalidValue"),
    "too many": ({"Operations": [{"op": "replace", "path": "active", "value": True}] * 101}, "invalidValue"),
}


@pytest.mark.parametrize("name", REFUSED_PATCHES)
async def test_a_patch_is_applied_whole_or_not_at_all(directory: Directory, ann: dict[str, Any], name: str) -> None:
    body, kind = REFUSED_PATCHES[name]
    first = {"op": "replace", "path": "displayName", "value": "Somebody else"}
    before = await directory.read(f"/Users/{ann['id']}")
    sent = [body]
    if 0 < len(body.get("Operations", [])) <= 100:
        sent.append({**body, "Operations": [first, *body["Operations"]]})
    for each in sent:
        assert error_of(await directory.ask("PATCH", f"/Users/{ann['id']}", each)) == (400, kind)
    assert await directory.read(f"/Users/{ann['id']}") == before


async def test_errors_have_scims_form_wherever_they_come_up(directory: Directory, ann: dict[str, Any]) -> None:
    text = {"Content-Type": "text/plain"}
    answers = {
        404: await directory.ask("GET", "/Nothing"),
        405: await directory.ask("PUT", "/Users", {}),
        415: await directory.machine.request("POST", f"{SCIM}/Users", content=b"x", headers=text),
        413: await directory.ask("POST", "/Users", {"userName": "a" * (1 << 20)}),
    }
    for status, answer in answers.items():
        assert error_of(answer) == (status, None)
    assert answers[405].headers["Allow"]
    for query in ("filter=a%00b", "startIndex=x", "count=x"):
        assert error_of(await directory.ask("GET", f"/Users?{query}")) == (400, "invalidValue")
    for path in ("/Users/x", f"/Users/{ann['id'].upper()}x", "/Schemas/urn:x", "/ResourceTypes/Pet", "/Me", "/Bulk"):
        assert error_of(await directory.ask("GET", path)) == (404, None)
    filtered = await directory.ask("GET", "/Schemas", params={"filter": 'id eq "x"'})
    assert error_of(filtered) == (403, None)
    # Outside, errors are what they were.
    other = await directory.machine.get("/api/scim")
    assert other.headers["Content-Type"] == "application/problem+json"


async def test_what_is_told_of_the_service_is_the_same_for_every_organization(
    world: World, directory: Directory
) -> None:
    other = await connect(await world.create_tenant("globex"))
    for path in ("/ServiceProviderConfig", "/ResourceTypes", "/Schemas", f"/Schemas/{USER}", "/ResourceTypes/User"):
        assert await directory.read(path) == await other.read(path)
    config = await directory.read("/ServiceProviderConfig")
    able = {name: config[name]["supported"] for name in ("patch", "bulk", "filter", "sort", "etag", "changePassword")}
    assert able == {"patch": True, "bulk": False, "filter": True, "sort": True, "etag": True, "changePassword": False}


def _is_answered(status: int, body: str) -> None:
    assert status in {200, 201, 204, 400, 403, 409}, body
    if status >= 400:
        assert json.loads(body)["status"] == str(status)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
async def test_any_patch_is_answered(directory: Directory, ann: dict[str, Any], operations: list[Any]) -> None:
    await directory.rest()
    body = {"schemas": [PATCH], "Operations": operations}
    answer = await directory.ask("PATCH", f"/Users/{ann['id']}", body)
    _is_answered(answer.status_code, answer.text)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=FIELDS)
async def test_any_user_is_answered(directory: Directory, ann: dict[str, Any], fields: dict[str, Any]) -> None:
    await directory.rest()
    for method, path in (("POST", "/Users"), ("PUT", f"/Users/{ann['id']}"), ("POST", "/Groups")):
        answer = await directory.ask(method, path, fields)
        _is_answered(answer.status_code, answer.text)
